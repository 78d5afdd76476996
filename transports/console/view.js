// What stands on the page: transcript, events, latency. Text is set as text, never as markup.

const MAX_ENTRIES = 200;
const MAX_EVENTS = 100;
const QUIET = new Set(["pong"]); // heartbeats say nothing
const BREAKDOWN = ["STT Wait", "End-of-Turn", "LLM Wait", "TTS Complete"]; // the parts of a turn, in order

const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

const ms = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`);

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
    if (this.replies.size > 20) this.replies.delete(this.replies.keys().next().value);
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

  /** Nothing plays any more. */
  settle() {
    for (const { entry } of this.replies.values()) entry.classList.remove("playing", "paused");
  }

  add(kind, who) {
    this.empty.hidden = true;
    const entry = make("div", `entry ${kind}`);
    const head = make("p", "who");
    head.append(make("b", "", who));
    const said = make("p", "said");
    entry.append(head, said);
    this.root.append(entry);
    while (this.root.children.length > MAX_ENTRIES) this.root.children[1].remove(); // [0] is the empty hint
    return { entry, said, head, notes: new Map(), heardMs: 0 };
  }

  note(item, key, text) {
    if (!item) return;
    if (!item.notes.has(key)) {
      if (!text) return;
      item.notes.set(key, item.head.appendChild(make("span", "")));
    }
    item.notes.get(key).textContent = text;
  }

  follow() {
    this.root.scrollTop = this.root.scrollHeight;
  }
}

const SUMMARY = {
  ready: (m) => `${m.resumed ? "resumed" : "new"}, ${m.sample_rate}/${m.out_sample_rate} Hz`,
  state_update: (m) => [m.state, m.trigger, m.text_buffer.length ? `“${m.text_buffer.join(" ")}”` : ""].filter(Boolean).join(" · "),
  response_ready: (m) => `turn ${m.turn} · ${m.text}`,
  response_text: (m) => `turn ${m.turn} · ${m.text}`,
  error: (m) => `${m.code} · ${m.message}`,
  closed: (m) => m.reason,
  stt_fragment: (m) => `“${m.text}”`,
  user_speaking: (m) => `confidence ${m.confidence}`,
  hello: (m) => `${m.sample_rate}/${m.out_sample_rate} Hz`,
};

export function showEvent(way, message) {
  if (QUIET.has(message.type)) return;
  const list = document.getElementById("events");
  const now = new Date();
  const time = now.toTimeString().slice(3, 8) + "." + String(now.getMilliseconds()).padStart(3, "0");
  const row = make("li", "");
  const arrow = make("span", "way", { in: "↓", out: "↑", note: "·" }[way]);
  arrow.setAttribute("aria-label", { in: "received", out: "sent", note: "note" }[way]);
  arrow.setAttribute("role", "img");
  const what = make("span", message.type === "error" || message.type === "closed" ? "what wrong" : "what", message.type);
  const summary = SUMMARY[message.type]?.(message) ?? (message.turn === undefined ? "" : `turn ${message.turn}`);
  if (summary) what.append(" ", make("i", "", summary));
  row.append(make("time", "", time), arrow, what);
  list.prepend(row);
  while (list.children.length > MAX_EVENTS) list.lastChild.remove();
}

/** Every number of a `turn` message, whatever groups it comes in; the four parts of the breakdown first. */
function* numbers(value, name = "") {
  if (typeof value === "number") yield [name, value];
  else if (value && typeof value === "object") for (const [key, inner] of Object.entries(value)) yield* numbers(inner, key);
}

export function showLatency({ type, turn, ...waterfall }) {
  const rank = ([name]) => (BREAKDOWN.indexOf(name) + BREAKDOWN.length + 1) % (BREAKDOWN.length + 1);
  const parts = [...numbers(waterfall.latency_ms ?? waterfall)].sort((a, b) => rank(a) - rank(b));
  const longest = Math.max(1, ...parts.map(([, value]) => value));
  const list = document.getElementById("latency");
  list.replaceChildren(...parts.slice(0, 16).map(([name, value]) => part(name, value, value / longest)));
  document.getElementById("latency-none").hidden = parts.length > 0;
  document.getElementById("latency-turn").textContent = `turn ${turn}`;
}

function part(name, value, share) {
  const row = make("div", "");
  const rule = make("dd", "rule");
  const bar = make("span", "");
  bar.style.width = `${share * 100}%`;
  rule.setAttribute("aria-hidden", "true");
  rule.append(bar);
  row.append(make("dt", "", name.replaceAll("_", " ")), make("dd", "", ms(value)), rule);
  return row;
}
