// Where the time of the last turns went: one column per turn, the newest first.

import { $, make, ms } from "./dom.js";

const COLUMNS = 4;
const MAIN = ["STT Wait", "End-of-Turn", "LLM Wait", "TTS Complete"]; // follow each other; the rest are parts
const FINER = ["Response", "VAD", "Transcript", "Intent", "Retrieval", "Join", "First Token", "Voice", "Send", "Play"];

export class Latency {
  constructor() {
    this.turns = []; // {turn, latency, isCut}, newest first
    this.draw();
  }

  add({ turn, latency_ms: latency, interrupted }) {
    this.turns = [{ turn, latency: latency ?? {}, isCut: Boolean(interrupted) }, ...this.turns.filter((t) => t.turn !== turn)].slice(0, COLUMNS);
    this.draw();
  }

  draw() {
    const { turns } = this;
    const known = new Set(turns.flatMap(({ latency }) => Object.keys(latency)));
    const others = [...known].filter((label) => !MAIN.includes(label) && !FINER.includes(label));
    const columns = Array.from({ length: COLUMNS }, (_, n) => turns[n] ?? null);
    const head = columns.map((turn) => make("th", { scope: "col" }, turn ? `${turn.turn}${turn.isCut ? " ϟ" : ""}` : ""));
    $("latency-head").replaceChildren(make("th", { scope: "col" }, "Turn"), ...head);
    $("latency-rows").replaceChildren(...[...MAIN, ...FINER, ...others].map((label) => row(label, columns)));
  }
}

function row(label, columns) {
  const cells = columns.map((turn) => {
    const value = turn?.latency[label];
    return make("td", {}, Number.isFinite(value) ? ms(value) : turn ? "–" : "");
  });
  return make("tr", { class: MAIN.includes(label) ? "main" : null }, make("th", { scope: "row" }, label), ...cells);
}
