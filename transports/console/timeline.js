// The timeline of a turn, to scale: SVG while one looks, a table for who cannot. Redrawn while a turn goes on, else never.

import { $, draw, make, roving, set, setText } from "./dom.js";
import { ROWS, spansOf, tell } from "./spans.js";

const ROW = 24; // height of a row, px
const TOP = 6;
const AXIS = 22;
const LEFT = { wide: 78, narrow: 68 };
const RIGHT = 14;
const LEAST_PX = 2; // a span is never thinner: it could not be seen
const DOMAINS_S = [3, 5, 8, 12, 16, 24, 36, 60, 90, 120]; // what the axis spans while it grows
const STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60];
const LABEL_PX = 64; // room that a tick's label wants
const LETTER_PX = 6.6; // of 12 px text, on average
const REDRAW_MS = 80;
const ZOOM_BEFORE_MS = 250;
const ZOOM_AFTER_MS = 300;
const HINT = "Point at a bar, or move among them with the arrow keys, to read its times.";

export class Timeline {
  constructor(turns) {
    this.turns = turns;
    this.svg = $("timeline");
    this.chosen = null; // key of the turn that somebody asked for; null: the newest
    this.zoom = "turn"; // or "response": from the end of the user's turn to the first audio
    this.drawn = new Map(); // key -> element of the last picture
    this.focused = null; // key of the item whose values are read out
    this.shown = null; // {record, spans, scale} of the last picture
    this.drawnAt = 0;
    this.timer = null;
    this.height = TOP + ROWS.length * ROW + AXIS;
    this.frame();
    new ResizeObserver(() => this.draw()).observe(this.svg);
    roving(this.svg, () => [...this.svg.querySelectorAll(".span")], (item) => this.read(item));
    this.svg.addEventListener("pointerover", ({ target }) => this.read(target.closest(".span")));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("focusin", ({ target }) => this.read(target.closest(".span")));
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.setZoom(button.dataset.zoom));
    }
    $("timeline-table").addEventListener("toggle", () => this.draw());
    this.read(null);
    this.draw();
  }

  frame() {
    set(this.svg, { height: this.height });
    const hatch = (id) => draw("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      draw("rect", { class: `${id}-ground`, width: 6, height: 6 }), draw("rect", { class: `${id}-line`, width: 2.5, height: 6 }));
    this.grid = draw("g", { class: "grid" });
    this.body = draw("g", { class: "spans" });
    this.over = draw("g", { class: "over" });
    this.clip = draw("rect", { y: 0, height: this.height });
    this.svg.append(draw("defs", {}, hatch("hatch"), draw("clipPath", { id: "plot" }, this.clip)), this.grid,
      draw("g", { "clip-path": "url(#plot)" }, this.body), this.over);
  }

  setZoom(zoom) {
    this.zoom = zoom;
    for (const button of document.querySelectorAll("[data-zoom]")) set(button, { "aria-pressed": String(button.dataset.zoom === zoom) });
    this.draw();
  }

  /** Something happened to a record, or to the list of them. */
  changed() {
    this.choices();
    this.soon();
  }

  soon() {
    if (this.timer !== null || document.hidden) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.draw();
      if (this.shown && !this.shown.spans.isOver) this.soon();
    }, Math.max(0, this.drawnAt + REDRAW_MS - performance.now()));
  }

  get record() {
    const { records } = this.turns;
    return records.find(({ key }) => key === this.chosen) ?? records.at(-1) ?? null;
  }

  choices() {
    const { records } = this.turns;
    const root = $("turns");
    const keep = new Set(records.map(({ key }) => `turn-${key}`));
    for (const button of [...root.children]) if (!keep.has(button.id)) button.remove();
    for (const record of records) {
      const button = $(`turn-${record.key}`) ?? root.appendChild(this.choice(record.key));
      const name = record.id === null ? "now" : String(record.id);
      setText(button.firstChild, name);
      button.lastChild.hidden = record.cutAt === null;
      set(button, {
        "aria-pressed": String(record === this.record),
        "aria-label": `${record.id === null ? "The turn going on" : `Turn ${name}`}${record.cutAt === null ? "" : ", interrupted"}`,
      });
    }
    $("turns-none").hidden = records.length > 0;
  }

  choice(key) {
    const button = make("button", { id: `turn-${key}`, type: "button", class: "chip" }, make("span"), make("span", { class: "bolt" }, "ϟ"));
    button.addEventListener("click", () => {
      this.chosen = key === this.turns.records.at(-1)?.key ? null : key;
      this.choices();
      this.draw();
    });
    return button;
  }

  draw() {
    this.drawnAt = performance.now();
    const width = this.svg.clientWidth || 600;
    const left = width < 480 ? LEFT.narrow : LEFT.wide;
    const record = this.record;
    const spans = record ? spansOf(record, this.drawnAt) : { from: 0, to: 0, items: [], marks: [], loud: null, isOver: true };
    const scale = this.scale(record, spans, left, width - left - RIGHT);
    this.shown = { record, spans, scale };
    set(this.svg, { viewBox: `0 0 ${width} ${this.height}` });
    set(this.clip, { x: left, width: width - left - RIGHT });
    this.gridLines(scale, left, width);
    const alive = new Map();
    const use = (key, tag, parent) => {
      const element = this.drawn.get(key) ?? parent.appendChild(draw(tag));
      alive.set(key, element);
      return element;
    };
    this.drawLoud(use, record, spans, scale);
    const counts = {};
    for (const item of spans.items) {
      const key = `${item.row}.${item.kind}.${(counts[item.row + item.kind] = (counts[item.row + item.kind] ?? -1) + 1)}`;
      this.drawItem(use(key, "g", this.body), item, key, scale, spans);
    }
    for (const mark of spans.marks) this.drawMark(use(`mark.${mark.kind}`, "g", this.over), mark, scale);
    for (const [key, element] of this.drawn) if (!alive.has(key)) element.remove();
    this.drawn = alive;
    const items = [...this.svg.querySelectorAll(".span")];
    if (items.length && !items.some((item) => item.getAttribute("tabindex") === "0")) items[0].setAttribute("tabindex", "0");
    setText($("timeline-none"), record ? "" : "Ask something: the turn is drawn here, to scale, while it happens.");
    if ($("timeline-table").open) this.table();
    if (this.focused && alive.has(this.focused)) this.read(alive.get(this.focused), false);
    else if (this.focused) this.read(null);
  }

  scale(record, spans, left, width) {
    let [from, to] = [spans.from, spans.to];
    const zoomed = this.zoom === "response" && record && record.zero !== null;
    if (zoomed) {
      const audible = record.plays[0]?.from ?? (record.firstChunkAt || Math.min(to, record.zero + 1000));
      [from, to] = [record.zero - ZOOM_BEFORE_MS, audible + ZOOM_AFTER_MS];
    } else if (!spans.isOver || !record) {
      const least = (to - from) / 1000;
      to = from + 1000 * (DOMAINS_S.find((s) => s >= least) ?? Math.ceil(least / 60) * 60);
    } else to += (to - from) * 0.02;
    return { from, to, origin: spans.from, x: (at) => left + ((at - from) / (to - from)) * width };
  }

  gridLines({ from, to, origin, x }, left, width) {
    const parts = [];
    ROWS.forEach(([key, title], n) => {
      const y = TOP + n * ROW;
      parts.push(draw("line", { class: "row", x1: 0, x2: width, y1: y + ROW, y2: y + ROW }));
      parts.push(draw("text", { class: "row-name", x: 0, y: y + ROW / 2 + 4, "data-row": key }, title));
    });
    const room = width - left - RIGHT;
    const step = 1000 * (STEPS_S.find((s) => (room / (to - from)) * s * 1000 >= LABEL_PX) ?? 60);
    for (let at = Math.ceil((from - origin) / step) * step; at <= to - origin; at += step) {
      const px = x(at + origin);
      parts.push(draw("line", { class: "tick", x1: px, x2: px, y1: TOP, y2: this.height - AXIS }));
      const digits = step >= 1000 ? 0 : step >= 100 ? 1 : 2;
      if (px < width - 30) parts.push(draw("text", { class: "tick-name", x: px, y: this.height - 7, "text-anchor": "middle" }, `${(at / 1000).toFixed(digits)} s`));
    }
    this.grid.replaceChildren(...parts);
  }

  drawLoud(use, record, spans, { x, from, to }) {
    if (!record) return;
    const loud = record.loud ?? this.turns.loudness(spans.from, spans.to);
    const y = TOP + ROW * 1.5;
    const points = [];
    loud.values.forEach((value, n) => {
      const at = loud.from + n * 20;
      if (at < from - 20 || at > to + 20) return;
      points.push([x(at).toFixed(1), Math.max(0.5, Math.min(9, ((20 * Math.log10(value + 1e-6) + 60) / 54) * 9))]); // -60 dB flat, -6 dB full
    });
    const edge = (sign) => points.map(([px, half]) => `${px} ${(y + sign * half).toFixed(1)}`);
    set(use("loud", "path", this.body), { class: "loud", d: points.length ? `M${[...edge(-1), ...edge(1).reverse()].join("L")}Z` : "" });
  }

  drawItem(group, item, key, scale, spans) {
    const y = TOP + ROWS.findIndex(([row]) => row === item.row) * ROW;
    const x = scale.x(item.from);
    const width = Math.max(LEAST_PX, scale.x(item.to) - x);
    const said = `${ROWS.find(([row]) => row === item.row)[1]}: ${item.label}, ${tell(item, spans.from)}`;
    set(group, { class: `span ${item.kind} ${item.row}`, "data-key": key, role: "img", "aria-label": said });
    if (!group.hasAttribute("tabindex")) set(group, { tabindex: -1 });
    if (!group.firstChild) group.append(draw("rect", { class: "hit" }), draw("rect", { class: "bar" }));
    const [hit, bar] = group.children;
    const tall = item.row === "state" || item.row === "you" ? 6 : 12;
    set(hit, { x: x - 3, y, width: width + 6, height: ROW });
    set(bar, { x, y: item.row === "you" ? y + ROW - 5 : y + (ROW - tall) / 2, width, height: item.row === "you" ? 3 : tall, rx: Math.min(3, width / 2) });
    this.drawText(group, item, x, y, width, scale);
  }

  drawText(group, item, x, y, width, scale) {
    let text = group.children[2];
    if (!item.text) return text?.remove();
    text ??= group.appendChild(draw("text", { class: "said" }));
    const right = scale.x(scale.to);
    const start = Math.max(x, scale.x(scale.from)); // a bar that began before the picture is named where it is seen
    const isDark = item.kind === "branch"; // nothing can be read on it
    const inside = isDark ? 0 : Math.floor((Math.min(right, x + width) - start - 10) / LETTER_PX);
    const isBeside = inside < Math.min(item.text.length, 3) && item.isLast; // a thin bar: the words stand after it
    const most = isBeside ? Math.floor((right - x - width - 8) / LETTER_PX) : inside;
    setText(text, item.text.length > most ? (most > 2 ? `${item.text.slice(0, most - 1)}…` : "") : item.text);
    set(text, { x: isBeside ? x + width + 6 : start + 5, y: y + ROW / 2 + 4 });
  }

  drawMark(group, { at, kind, label }, { x }) {
    const px = x(at);
    if (!group.firstChild) group.append(draw("line"), draw("title"));
    const isSeen = px >= x(this.shown.scale.from) - 1 && px <= x(this.shown.scale.to) + 1;
    set(group, { class: `mark ${kind}`, visibility: isSeen ? null : "hidden" });
    set(group.firstChild, { x1: px, x2: px, y1: TOP - 4, y2: this.height - AXIS });
    setText(group.lastChild, label);
  }

  /** Show the values of an item; null: none. */
  read(element, isNew = true) {
    if (isNew) {
      this.svg.querySelector(".span.read")?.classList.remove("read");
      this.focused = element?.dataset.key ?? null;
    }
    element?.classList.add("read");
    setText($("readout"), element ? element.getAttribute("aria-label") : HINT);
  }

  table() {
    const { spans, record } = this.shown;
    if (!record) return;
    const cell = (value) => make("td", {}, value);
    const rows = [...spans.items, ...spans.marks.map(({ at, label }) => ({ row: "state", from: at, to: at, label }))]
      .sort((a, b) => a.from - b.from)
      .map((item) => make("tr", {}, make("th", { scope: "row" }, ROWS.find(([row]) => row === item.row)[1]), cell(item.label),
        cell(((item.from - spans.from) / 1000).toFixed(3)), cell(((item.to - spans.from) / 1000).toFixed(3)), cell(String(Math.round(item.to - item.from)))));
    $("timeline-rows").replaceChildren(...rows);
  }
}
