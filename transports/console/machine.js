// The state machine as a picture: docs/states.md, drawn. A test compares its transitions with the server's table.

import { draw, make, set, setText } from "./dom.js";

const NODES = {
  idle: [68, 158, "Idle"],
  listening: [68, 30, "Listening"],
  thinking: [280, 30, "Thinking"],
  speaking: [280, 158, "Speaking"],
  interrupt: [172, 94, "Interrupt"],
};
const WIDTH = 96;
const HEIGHT = 30;

// from, to, trigger, path, where its name stands (x, y, and "middle" or "up" for one that is turned; else it starts there)
const EDGES = [
  ["idle", "listening", "stt_start", "M38 143V46", 31, 94, "up"],
  ["listening", "idle", "utterance_discarded", "M60 45V142", 66, 132],
  ["listening", "thinking", "vad_end", "M116 30H231", 174, 24, "middle"],
  ["thinking", "speaking", "response_ready", "M310 45V142", 322, 94, "up"],
  ["speaking", "idle", "tts_complete", "M232 152H118", 174, 148, "middle"],
  ["idle", "speaking", "greeting", "M116 165H231", 174, 178, "middle"],
  ["thinking", "idle", "reply_abandoned", "M328 30H334Q342 30 342 38V192Q342 200 334 200H76Q68 200 68 192V174", 174, 213, "middle"],
  ["speaking", "idle", "reply_abandoned", "M280 173V192Q280 200 272 200H76Q68 200 68 192V174", 174, 213, "middle"],
  ["thinking", "interrupt", "barge_in", "M246 45V80Q246 88 238 88H222", 253, 98],
  ["speaking", "interrupt", "barge_in", "M246 143V108Q246 100 238 100H222", 253, 98],
  ["interrupt", "listening", "resume_listening", "M124 94H98Q90 94 90 86V46", 97, 68],
];
const LIT_MS = 1200; // how long `interrupt`, where nobody stays, is lit

export class Machine {
  /** Draws into `root`; `caption` tells the last move in words. */
  constructor(root, caption) {
    this.caption = caption;
    this.nodes = {}; // state -> its group
    this.edges = EDGES.map((edge) => this.edge(edge));
    this.labels = new Map(); // trigger and place -> text
    this.state = null; // null while it is not known
    this.timer = null; // puts `interrupt` out
    const arrow = (id) =>
      draw("marker", { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto", markerUnits: "userSpaceOnUse" },
        draw("path", { d: "M0 .5 7 4 0 7.5Z" }));
    root.append(draw("defs", {}, arrow("arrow"), arrow("arrow-last")), draw("circle", { class: "start", cx: 6, cy: 158, r: 3.5 }),
      draw("path", { class: "edge", d: "M9 158H19", "marker-end": "url(#arrow)" }));
    root.append(...this.edges.map(({ line }) => line));
    for (const { from, to, trigger, line } of this.edges) root.append(this.label(line, from, to, trigger));
    for (const [name, [x, y, title]] of Object.entries(NODES)) root.append((this.nodes[name] = this.node(name, x, y, title)));
    this.light();
  }

  edge([from, to, trigger, d, x, y, place]) {
    const line = draw("path", { class: "edge", d, "marker-end": "url(#arrow)", "data-from": from, "data-to": to, "data-trigger": trigger });
    return { from, to, trigger, line, at: { x, y, place } };
  }

  label(line, from, to, trigger) {
    const edge = this.edges.find((other) => other.line === line);
    const { x, y, place } = edge.at;
    const key = `${trigger} ${x} ${y}`;
    const known = this.labels.get(key);
    edge.label = known ?? draw("text", {
      class: "trigger", x, y, "text-anchor": place ? "middle" : "start", transform: place === "up" ? `rotate(-90 ${x} ${y})` : null,
    }, trigger);
    this.labels.set(key, edge.label);
    return edge.label;
  }

  node(name, x, y, title) {
    return draw("g", { class: "node", "data-state": name },
      draw("rect", { x: x - WIDTH / 2, y: y - HEIGHT / 2, width: WIDTH, height: HEIGHT, rx: 9 }),
      name === "interrupt"
        ? draw("path", { class: "bolt", d: `M${x - 30} ${y - 7}l-6 8h3.5l-1.5 6 6.5-8h-3.6z` })
        : draw("circle", { class: "dot", cx: x - 33, cy: y, r: 4 }),
      draw("path", { class: "pause", d: `M${x - 35} ${y - 4}v8m4-8v8` }),
      draw("text", { class: "name", x: x - 23, y: y + 4 }, title));
  }

  /** A move, as a `state_update` tells it. One that starts where we do not stand (a resumed conversation) marks nothing. */
  move(state, trigger) {
    const edge = this.edges.find((e) => e.from === this.state && e.to === state && e.trigger === trigger);
    const from = this.state;
    // `interrupt` is left in the step that entered it: the move that cut the bot stays marked beside the one out of it.
    if (from !== "interrupt") for (const { line, label } of this.edges) mark(line, label, false);
    if (edge) mark(edge.line, edge.label, true);
    this.state = state;
    setText(this.caption, edge ? `${from} → ${state}` : state);
    this.caption.append(" ", make("span", { class: "quiet" }, trigger));
    if (state === "interrupt") this.flash();
    this.light();
  }

  /** No move: a connection begins, or is lost; then the state is not known, null, and nothing is lit. */
  stand(state, why) {
    this.state = state;
    for (const { line, label } of this.edges) mark(line, label, false);
    setText(this.caption, state ?? "");
    this.caption.append(" ", make("span", { class: "quiet" }, why));
    this.light();
  }

  paused(isPaused) {
    this.nodes.speaking.classList.toggle("paused", isPaused);
  }

  flash() {
    this.nodes.interrupt.classList.add("flash");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.nodes.interrupt.classList.remove("flash"), LIT_MS);
  }

  light() {
    for (const [name, node] of Object.entries(this.nodes)) {
      node.classList.toggle("on", name === this.state);
      set(node, { "aria-current": name === this.state ? "step" : null });
    }
  }
}

function mark(line, label, isLast) {
  line.classList.toggle("last", isLast);
  label.classList.toggle("last", isLast);
  set(line, { "marker-end": isLast ? "url(#arrow-last)" : "url(#arrow)" });
  if (isLast) line.parentNode?.insertBefore(line, line.parentNode.querySelector("text")); // above the other lines
}
