// A record of a turn as rows of spans on one axis. The picture and the table are both drawn from this. Pure.

import { ms } from "./dom.js";

const EDGE_MS = 100; // left of the first span
const STATES = { listening: "listening", thinking: "thinking", speaking: "speaking" };
export const ROWS = [
  ["state", "State"],
  ["you", "You"],
  ["words", "Words"],
  ["intent", "Intent"],
  ["retrieval", "Retrieval"],
  ["llm", "LLM"],
  ["tts", "TTS"],
  ["playback", "Playback"],
  ["heard", "Heard"],
];

/** {from, to, items: [{row, kind, from, to, label, text?}], marks: [{at, kind, label}], loud}, in ms of the page's clock. */
export function spansOf(record, now) {
  const end = record.ended ?? now;
  const at = (name) => (record.instants?.[name] === undefined || record.zero === null ? null : record.zero + record.instants[name]);
  const items = [];
  const add = (row, kind, from, to, label, more = {}) => {
    if (from !== null && to !== null && to >= from) items.push({ row, kind, from, to, label, ...more });
  };
  record.states.forEach(({ state, at: from, trigger }, n) => {
    const to = record.states[n + 1]?.at ?? end;
    if (STATES[state]) add("state", state, from, to, `${state}, by ${trigger}`);
  });
  add("you", "speech", at("voice") ?? (at("user_silent") && record.began), at("user_silent"), "Speech, as the detector heard it");
  if (record.typedAt !== null) add("you", "typed", record.typedAt, record.typedAt, "Typed", { text: "typed" });
  record.words.forEach(({ at: to, text }, n) => {
    const before = record.words[n - 1];
    const grown = before && text.startsWith(before.text) ? text.slice(before.text.length).trim() : text;
    const from = before?.at ?? (record.typedAt === null ? record.began : to);
    add("words", "words", from, to, record.typedAt === null ? `“${text}”, known at the end of this` : `“${text}”`, { text: grown });
  });
  branch(add, at, "intent", describeIntent(record.intent));
  branch(add, at, "retrieval", record.results === undefined ? "" : `${record.results} found`);
  answer(add, at, record, end);
  const soundsAt = record.plays[0]?.from ?? null;
  for (const { from, to } of record.plays) add("playback", "played", from, to ?? end, "Played");
  for (const { from, to } of record.pauses) add("playback", "paused", from, to ?? end, "Paused: the user may be interrupting");
  if (record.heard) add("heard", "heard", soundsAt ?? record.answeredAt ?? null, end, record.heard, { text: record.heard });
  for (const row of ["you", "words", "intent", "retrieval", "heard"]) Object.assign(items.findLast((item) => item.row === row) ?? {}, { isLast: true });
  const marks = [];
  if (record.zero !== null && record.states.some(({ state }) => state === "thinking")) {
    marks.push({ at: record.zero, kind: "end-of-turn", label: "end of turn" });
  }
  if (record.cutAt !== null) marks.push({ at: record.cutAt, kind: "cut", label: "interrupted" });
  const from = Math.min(record.shownFrom, ...items.map((item) => item.from - EDGE_MS));
  return { from, to: end, items, marks, loud: record.loud, isOver: record.ended !== null };
}

function branch(add, at, name, found) {
  const [asked, answered] = [at("committed"), at(name)];
  if (answered === null || asked === null) return;
  if (answered < asked) add(name, "branch", answered, answered, `Answered ${ms(asked - answered)} before the end of the turn. ${found}`, { text: found });
  else add(name, "branch", asked, answered, found || "Answered", { text: found });
}

function answer(add, at, record, end) {
  const [joined, first, last, audible] = ["joined", "first_text", "last_text", "first_audio"].map(at);
  if (record.instants) {
    add("llm", "wait", joined ?? at("committed"), first, "Wait for the first words of the answer");
    add("llm", "stream", first, last, "Words of the answer come");
    add("tts", "wait", first, audible, "Wait for the first audio");
  } else {
    const thinking = record.states.find(({ state }) => state === "thinking");
    const until = record.states.find(({ state, at: from }) => thinking && from > thinking.at && state !== "thinking");
    if (thinking) add("llm", "wait", thinking.at, until?.at ?? end, "Branches, LLM and TTS; apart when the turn is over");
  }
  add("tts", "audio", record.firstChunkAt, record.lastChunkAt, `${ms(record.arrivedMs)} of audio came`);
}

function describeIntent(intent) {
  if (!intent?.intent) return "";
  return `${intent.intent} ${Math.round((intent.confidence ?? 0) * 100)} %`;
}

/** One sentence for a span: what, from when to when, how long. Times count from the start of the axis. */
export function tell(item, from) {
  const [start, end] = [item.from - from, item.to - from].map((value) => (value / 1000).toFixed(3));
  return item.to > item.from ? `${start}–${end} s, ${ms(item.to - item.from)}` : `${start} s`;
}
