// The log of protocol messages: bounded, filtered by type or text, each opens to its JSON.

import { $, make, roving, set, setText } from "./dom.js";

const KEPT = 500;
const FREQUENT = new Set(["ack", "ping", "pong"]); // shown only when asked for, kept only then too

const SUMMARY = {
  ready: (m) => `${m.resumed ? "resumed" : "new"}, ${m.sample_rate}/${m.out_sample_rate} Hz`,
  state_update: (m) => [m.state, m.trigger, m.text_buffer.length ? `“${m.text_buffer.join(" ")}”` : ""].filter(Boolean).join(" · "),
  response_ready: (m) => `turn ${m.turn} · ${m.text}`,
  response_text: (m) => `turn ${m.turn} · ${m.text}`,
  turn: (m) => `turn ${m.turn}${m.interrupted ? " · interrupted" : ""}`,
  error: (m) => `${m.code} · ${m.message}`,
  closed: (m) => m.reason,
  stt_fragment: (m) => `“${m.text}”`,
  user_speaking: (m) => `confidence ${m.confidence}`,
  hello: (m) => `${m.sample_rate}/${m.out_sample_rate} Hz`,
  ack: (m) => `turn ${m.turn} · ${m.played_ms} ms`,
};
const WAYS = { in: ["↓", "received"], out: ["↑", "sent"], note: ["·", "note"] };

export class Events {
  constructor() {
    this.list = $("events");
    this.rows = []; // {row, way, haystack}, newest first
    this.seen = 0; // of them, that pass the filter
    roving(this.list, () => [...this.list.children].filter((row) => !row.hidden));
    this.list.addEventListener("click", ({ target }) => this.toggle(target.closest(".event"), target));
    this.list.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.toggle(event.target.closest(".event"), event.target);
    });
    for (const id of ["filter", "filter-way"]) $(id).addEventListener("input", () => this.filter());
    $("events-clear").addEventListener("click", () => this.clear());
    this.count();
  }

  add(way, message) {
    if (FREQUENT.has(message.type) && !$("filter-frequent").checked) return;
    const isWrong = message.type === "error" || message.type === "closed";
    const summary = SUMMARY[message.type]?.(message) ?? (message.turn === undefined ? "" : `turn ${message.turn}`);
    const [arrow, word] = WAYS[way];
    const json = JSON.stringify({ ...message, ...(message.token && { token: "…" }) }, null, 2);
    const row = make("li", { class: `event${isWrong ? " wrong" : ""}`, tabindex: this.rows.length ? "-1" : "0", "aria-expanded": "false", role: "treeitem" },
      make("time", {}, clock(new Date())), make("span", { class: "way", "aria-label": word, role: "img" }, arrow),
      make("span", { class: "what" }, make("b", {}, message.type), " ", make("span", { class: "quiet" }, summary)));
    row.json = json;
    const entry = { row, way, haystack: `${message.type} ${json}`.toLowerCase() };
    this.rows.unshift(entry);
    row.hidden = !this.passes(entry);
    this.seen += !row.hidden;
    this.list.prepend(row);
    while (this.rows.length > KEPT) this.forget(this.rows.pop().row);
    this.count();
  }

  forget(row) {
    this.seen -= !row.hidden;
    row.remove();
    if (row.getAttribute("tabindex") === "0") this.stop();
  }

  toggle(row, target) {
    if (!row || target.closest("pre")) return;
    const isOpen = row.getAttribute("aria-expanded") !== "true";
    set(row, { "aria-expanded": String(isOpen) });
    if (isOpen) row.append(make("pre", {}, row.json));
    else row.querySelector("pre")?.remove();
  }

  passes({ way, haystack }) {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = $("filter-way").value;
    return (wanted === "all" || wanted === way) && words.every((word) => haystack.includes(word));
  }

  filter() {
    for (const entry of this.rows) entry.row.hidden = !this.passes(entry);
    this.seen = this.rows.filter(({ row }) => !row.hidden).length;
    this.stop();
    this.count();
  }

  /** One row, the first to be seen, is where Tab stops. */
  stop() {
    const first = this.rows.find(({ row }) => !row.hidden);
    for (const entry of this.rows) set(entry.row, { tabindex: entry === first ? "0" : "-1" });
  }

  count() {
    const { seen } = this;
    const all = this.rows.length;
    setText($("events-count"), seen === all ? `${all}${all === KEPT ? " (the last)" : ""}` : `${seen} of ${all}`);
    setText($("events-none"), all === 0 ? "Messages appear here." : seen === 0 ? "No message passes the filter." : "");
  }

  clear() {
    this.rows = [];
    this.seen = 0;
    this.list.replaceChildren();
    this.count();
  }
}

function clock(now) {
  return `${now.toTimeString().slice(0, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`;
}
