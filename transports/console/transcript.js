// What was said, by both. Bounded: the oldest entries go.

import { make, ms } from "./dom.js";

const MAX_ENTRIES = 200;
const MAX_REPLIES = 20; // that may still change

export class Transcript {
  constructor(root, empty) {
    this.root = root;
    this.empty = empty;
    this.live = null; // the entry that the user's words go into; null between turns
    this.lastUser = null;
    this.replies = new Map(); // turn -> {entry, said, head, notes, heardMs}
  }

  /** Words of the user; `before` is the state we were in. */
  words({ state, text_buffer: buffer, trigger, turn }, before) {
    if (trigger === "utterance_discarded") {
      this.live?.entry.remove();
      this.live = null;
    }
    if (trigger === "barge_in" && before === "thinking") this.live = this.lastUser; // nothing was heard: same question
    const text = buffer.join(" ").trim();
    if (text && (state === "listening" || state === "thinking")) {
      this.live ??= this.lastUser && state === "thinking" && before === "thinking" ? this.lastUser : this.add("user", "You");
      this.live.said.textContent = text;
      this.live.entry.classList.toggle("live", state === "listening");
    }
    if (state === "thinking" && this.live) {
      this.note(this.live, "turn", `turn ${turn}`);
      this.lastUser = this.live;
      this.live = null;
    }
    this.follow();
  }

  reply({ turn, text, thinking_ms: thinking }) {
    const reply = this.add("bot", "Bot");
    reply.said.textContent = text;
    reply.entry.classList.add("playing");
    if (Number.isFinite(thinking)) this.note(reply, "thinking", `thought ${ms(thinking)}`);
    this.replies.set(turn, reply);
    if (this.replies.size > MAX_REPLIES) this.replies.delete(this.replies.keys().next().value);
    this.follow();
  }

  more({ turn, text }) {
    const reply = this.replies.get(turn);
    if (reply) reply.said.textContent = `${reply.said.textContent} ${text}`.trim();
    this.follow();
  }

  firstAudio(turn, elapsed) {
    this.note(this.replies.get(turn), "audio", `audio after ${ms(elapsed)}`);
  }

  heard(turn, playedMs) {
    const reply = this.replies.get(turn);
    if (!reply || playedMs <= reply.heardMs) return; // a cut position is told after the cut, and only then
    reply.heardMs = playedMs;
    const isCut = reply.entry.classList.contains("cut");
    this.note(reply, "heard", `${isCut ? "interrupted after" : "heard"} ${ms(playedMs)}`);
  }

  paused(turn, isPaused) {
    const reply = this.replies.get(turn);
    reply?.entry.classList.toggle("paused", isPaused);
    this.note(reply, "paused", isPaused ? "paused" : "");
  }

  cut(turn) {
    const reply = this.replies.get(turn);
    if (!reply) return;
    reply.entry.classList.remove("playing", "paused");
    reply.entry.classList.add("cut");
    this.note(reply, "heard", `interrupted${reply.heardMs ? ` after ${ms(reply.heardMs)}` : ""}`);
  }

  /** The turn is over: strike out what was not heard of a cut reply. The server tells words, so words are counted. */
  measured({ turn, interrupted, heard }) {
    const reply = this.replies.get(turn);
    if (!interrupted || !reply || heard === undefined) return;
    const words = reply.said.textContent.split(/(?<=\s)/);
    const count = heard.split(/\s+/).filter(Boolean).length;
    if (count >= words.length) return;
    const unheard = make("s", { class: "unheard" }, words.slice(count).join(""));
    reply.said.replaceChildren(words.slice(0, count).join(""), make("span", { class: "hidden" }, "(not heard:) "), unheard);
  }

  /** Nothing plays any more. */
  settle() {
    for (const { entry } of this.replies.values()) entry.classList.remove("playing", "paused");
  }

  add(kind, who) {
    this.empty.hidden = true;
    const head = make("p", { class: "who" }, make("b", {}, who));
    const said = make("p", { class: "said" });
    const entry = make("div", { class: `entry ${kind}` }, head, said);
    this.root.append(entry);
    while (this.root.children.length > MAX_ENTRIES) this.root.children[1].remove(); // [0] is the empty hint
    return { entry, said, head, notes: new Map(), heardMs: 0 };
  }

  note(item, key, text) {
    if (!item) return;
    if (!item.notes.has(key)) {
      if (!text) return;
      item.notes.set(key, item.head.appendChild(make("span")));
    }
    item.notes.get(key).textContent = text;
  }

  follow() {
    this.root.scrollTop = this.root.scrollHeight;
  }
}
