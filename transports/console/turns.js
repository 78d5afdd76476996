// What happened in each turn, and when: from messages, chunks and playback reports to records. Knows no page.
// All times are this page's clock, in ms. The server's instants come with its `turn` message, counted from the end of
// the user's turn; they are placed where that `state_update` arrived, so they are late by the network's delay.

const KEPT = 12; // turns
const LEVELS = 3000; // one per 20 ms of microphone: the last minute
const MAX_WORDS = 60; // changes of the user's words in one turn; the oldest go
const MAX_SPANS = 200; // of playback and of pauses in one turn
const CHUNK_MS = 20;
const LEAD_MS = 400; // shown before the user is heard
const MAX_LEAD_MS = 2500;

export class Turns {
  constructor(changed) {
    this.changed = changed; // called with the record that grew; null: with none in particular
    this.records = []; // oldest first
    this.open = null; // the one going on
    this.levels = new Float32Array(LEVELS); // loudness 0..1, a ring
    this.levelCount = 0; // ever
    this.levelAt = 0; // when the newest came
  }

  // ---------------------------------------------------------------------------------------------- from the server

  message(message, at) {
    const on = { state_update: "moved", response_ready: "answered", response_text: "more", pause: "paused", resume: "resumed",
      interrupted: "interrupted", turn: "measured" }[message.type];
    if (on) this[on](message, at);
  }

  moved({ state, trigger, turn, text_buffer: words }, at) {
    const before = this.open?.states.at(-1)?.state ?? "idle";
    if (trigger === "utterance_discarded") return this.drop();
    const begins = state === "listening" ? before === "idle" || before === "interrupt" : state !== "idle" && !this.open;
    if (begins) this.begin(at, trigger);
    const record = this.open;
    if (!record) return;
    if (state !== before || begins) {
      record.states.push({ state, trigger, at });
      if (state === "thinking") Object.assign(record, { id: turn, zero: at });
      if (state === "speaking") Object.assign(record, { id: turn, zero: record.zero ?? at });
    }
    const text = words.join(" ").trim();
    if ((state === "listening" || state === "thinking") && text && text !== record.words.at(-1)?.text) {
      bounded(record.words, { at, text }, MAX_WORDS);
    }
    if (state === "idle" || state === "interrupt") this.end(at);
    this.changed(record);
  }

  answered({ turn, text, thinking_ms: thinkingMs }, at) {
    const record = this.of(turn);
    if (record) Object.assign(record, { reply: text, thinkingMs, answeredAt: at });
    this.changed(record);
  }

  more({ turn, text }) {
    const record = this.of(turn);
    if (record) record.reply = `${record.reply} ${text}`.trim();
  }

  paused({ turn }, at) {
    const record = this.of(turn);
    if (!record) return;
    this.silent(record, at);
    bounded(record.pauses, { from: at, to: null }, MAX_SPANS);
    this.changed(record);
  }

  resumed({ turn }, at) {
    const pause = this.of(turn)?.pauses.at(-1);
    if (pause && pause.to === null) pause.to = at;
    this.changed(this.of(turn));
  }

  interrupted({ turn }, at) {
    const record = this.of(turn);
    if (!record) return;
    record.cutAt = at;
    this.silent(record, at);
    this.resumed({ turn }, at);
  }

  measured({ turn, instants_ms: instants, latency_ms: latency, interrupted, heard, intent, results }) {
    const record = this.of(turn);
    if (!record) return;
    Object.assign(record, { instants: instants ?? null, latency: latency ?? {}, heard: heard ?? "", intent, results });
    record.isCut = Boolean(interrupted);
    this.changed(record);
  }

  // ------------------------------------------------------------------------------------------ from this page's ears

  /** The user typed instead of speaking. */
  typed(at) {
    this.typedAt = at; // the turn begins when the server says so
  }

  /** 20 ms of microphone. */
  level(level, at) {
    this.levels[this.levelCount++ % LEVELS] = level;
    this.levelAt = at;
  }

  /** A chunk of the bot's voice came. */
  chunk(turn, at, lengthMs) {
    const record = this.of(turn);
    if (!record) return;
    record.firstChunkAt ??= at;
    record.lastChunkAt = at;
    record.arrivedMs += lengthMs;
  }

  /** The loudspeaker began, or stopped, to sound, or has got on: `playedMs` of this reply were audible. */
  played(turn, { playedMs, isSounding, at }) {
    const record = this.of(turn);
    if (!record) return;
    record.playedMs = Math.max(record.playedMs, playedMs);
    const last = record.plays.at(-1);
    if (isSounding && (!last || last.to !== null)) bounded(record.plays, { from: at, to: null }, MAX_SPANS);
    else if (!isSounding) this.silent(record, at);
    this.changed(record);
  }

  silent(record, at) {
    const last = record.plays.at(-1);
    if (last && last.to === null) last.to = Math.max(last.from, at);
  }

  /** The connection is gone: so is what was open. */
  lost(at) {
    if (this.open) this.end(at);
    this.changed(null);
  }

  // ------------------------------------------------------------------------------------------------------- records

  of(turn) {
    return this.records.findLast((record) => record.id === turn) ?? null;
  }

  begin(at, trigger) {
    if (this.open) this.end(at);
    const onset = trigger === "resume_listening" ? this.records.at(-1)?.pauses.at(-1)?.from : undefined;
    this.open = {
      key: (this.records.at(-1)?.key ?? 0) + 1,
      id: null, // the turn's number; known from the end of the user's turn on
      began: at,
      ended: null, // null while it goes on
      shownFrom: Math.max(at - MAX_LEAD_MS, onset ?? at) - LEAD_MS, // words that interrupt are spoken before the cut
      typedAt: this.typedAt > at - 1000 ? this.typedAt : null,
      zero: null, // when the user's turn ended: where the server's instants are counted from
      states: [],
      words: [],
      reply: "",
      plays: [], // {from, to}: the loudspeaker sounded
      pauses: [],
      playedMs: 0,
      arrivedMs: 0,
      firstChunkAt: null,
      lastChunkAt: null,
      cutAt: null,
      isCut: false,
      instants: null, // the server's, once the turn is over
      latency: {},
      heard: "",
      loud: null, // the microphone's levels, once it is over
    };
    this.typedAt = null;
    this.records.push(this.open);
    while (this.records.length > KEPT) this.records.shift();
  }

  end(at) {
    const record = this.open;
    this.open = null;
    this.silent(record, at);
    record.ended = at;
    record.loud = this.loudness(record.shownFrom, at);
  }

  drop() {
    this.records = this.records.filter((record) => record !== this.open);
    this.open = null;
    this.changed(null);
  }

  /** The microphone between two moments: {from, values: one loudness per 20 ms}. Values are missing before the mic was on. */
  loudness(from, to) {
    const count = Math.min(this.levelCount, LEVELS);
    const oldest = this.levelAt - count * CHUNK_MS;
    const first = Math.max(0, Math.ceil((from - oldest) / CHUNK_MS));
    const last = Math.min(count, Math.floor((to - oldest) / CHUNK_MS));
    const values = [];
    for (let n = first; n < last; n++) values.push(this.levels[(this.levelCount - count + n) % LEVELS]);
    return { from: oldest + first * CHUNK_MS, values };
  }
}

function bounded(list, item, limit) {
  list.push(item);
  if (list.length > limit) list.shift();
}
