// The page: what the server says becomes what people see, and what people do becomes messages.

import { INSECURE, Microphone, Player } from "./audio.js";
import { $, set, setText } from "./dom.js";
import { Events } from "./events.js";
import { Latency } from "./latency.js";
import { Link } from "./link.js";
import { Machine } from "./machine.js";
import { Recording, download } from "./recording.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

const ACK_MS = 200;
const RATE = 16000; // both ways, as `hello` asks for
const SILENT = "The browser keeps this page silent until you click or press a key.";
const now = () => performance.now();

const transcript = new Transcript($("transcript"), $("empty"));
const machine = new Machine($("machine"), $("move"));
const events = new Events();
const latency = new Latency();
const recording = new Recording(now);
const turns = new Turns(() => timeline.changed());
const timeline = new Timeline(turns);
const call = {
  state: "idle",
  turn: 0, // the turn whose reply may be heard; 0 before the first
  isOpenForAudio: false, // between `response_ready` and `interrupted`
  thoughtAt: 0, // when thinking began; 0 when its reply is audible already
  acked: -1, // the last position that was acknowledged, ms
  ackedAt: 0,
};

// ------------------------------------------------------------------------------------------------ from the server

const handlers = {
  ready(message) {
    setText($("replies"), String(message.turn_number));
    stand("idle", message.resumed ? "resumed" : "connected");
    player.open(message.out_sample_rate).then(hintIfLocked, (error) => notice(error.message));
  },
  state_update(message) {
    const before = call.state;
    transcript.words(message, before);
    if (message.state !== before) machine.move(message.state, message.trigger);
    enter(message.state);
    if (message.state === "thinking" && before !== "thinking") call.thoughtAt = now();
    if (message.state === "idle") transcript.settle();
    if (message.trigger === "tts_complete") setText($("replies"), String(Number($("replies").textContent) + 1));
  },
  response_ready(message) {
    Object.assign(call, { turn: message.turn, isOpenForAudio: true, acked: -1 });
    player.begin();
    transcript.reply(message);
    hintIfLocked();
  },
  response_text: (message) => transcript.more(message),
  pause(message) {
    player.pause();
    setPaused(true, message.turn);
  },
  resume(message) {
    player.resume(message.back_ms ?? 0);
    setPaused(false, message.turn);
  },
  interrupted(message) {
    player.drop();
    call.isOpenForAudio = false;
    setPaused(false, message.turn);
    transcript.cut(message.turn);
  },
  turn(message) {
    latency.add(message);
    transcript.measured(message);
  },
  pong() {},
  error: (message) => notice(`The server refused a message: ${message.message}`),
};

function onMessage(message) {
  recording.message("to_user", message);
  events.add("in", message);
  turns.message(message, now());
  handlers[message.type]?.(message);
}

function onAudio(pcm) {
  recording.audio("to_user", pcm, RATE);
  if (!call.isOpenForAudio) return; // what was on its way when the reply was cut
  turns.chunk(call.turn, now(), pcm.byteLength / 2 / (RATE / 1000));
  if (call.thoughtAt) {
    transcript.firstAudio(call.turn, now() - call.thoughtAt);
    call.thoughtAt = 0;
  }
  player.push(pcm);
}

function onPosition({ playedMs, isSounding, isCut }) {
  transcript.heard(call.turn, playedMs);
  turns.played(call.turn, { playedMs, isSounding, at: now() });
  if (playedMs <= call.acked || (!isCut && (!call.isOpenForAudio || now() - call.ackedAt < ACK_MS * 0.9))) return;
  call.acked = playedMs;
  call.ackedAt = now();
  link.send({ type: "ack", turn: call.turn, played_ms: Math.round(playedMs) });
}

// ------------------------------------------------------------------------------------------------ what is shown

function enter(state) {
  call.state = state;
  document.body.dataset.state = state;
  $("stop").disabled = state !== "thinking" && state !== "speaking";
}

function stand(state, why) {
  enter(state ?? "idle");
  machine.stand(state, why);
}

function setPaused(isPaused, turn) {
  machine.paused(isPaused);
  transcript.paused(turn, isPaused);
}

function notice(text, { needsToken = false } = {}) {
  setText($("notice-text"), text);
  $("notice").hidden = !text;
  $("token-form").hidden = !needsToken;
  $("notice-close").hidden = needsToken;
}

function hintIfLocked() {
  if (player.isLocked) notice(SILENT);
  else if ($("notice-text").textContent === SILENT) notice("");
}

function onStatus({ name, text, reason = "", needsToken = false, isDetail = false }) {
  set($("connection"), { "data-status": name });
  setText($("connection"), text);
  if (name === "open") notice("");
  if (name !== "failed" && name !== "closed") return;
  notice(reason, { needsToken });
  if (needsToken) $("token").focus();
  if (isDetail) return;
  events.add("note", { type: "closed", reason });
  player.drop();
  call.isOpenForAudio = false;
  setPaused(false, call.turn);
  turns.lost(now());
  stand(null, "not connected");
}

function showRecorded() {
  const whole = Math.floor(recording.lengthMs / 1000);
  setText($("recorded"), `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`);
}

// ------------------------------------------------------------------------------------------------ from the people

async function toggleMicrophone() {
  if (microphone.isOn) microphone.stop();
  else {
    try {
      await microphone.start({ cancelsEcho: !$("headphones").checked });
      notice("");
      if (!link.isOpen) link.connect();
    } catch (error) {
      notice(error.message);
    }
  }
  showMicrophone();
}

function showMicrophone() {
  set($("mic"), { "aria-pressed": String(microphone.isOn) });
  if (!microphone.isOn) $("level").style.height = "0";
}

function onChunk(pcm, level) {
  if (link.sendAudio(pcm)) recording.audio("to_bot", pcm, RATE);
  turns.level(level, now());
  // -60 dB is an empty bar, -6 dB a full one.
  $("level").style.height = `${Math.max(0, Math.min(100, (20 * Math.log10(level + 1e-6) + 60) / 0.54))}%`;
}

function interrupt() {
  if (!$("stop").disabled) link.send({ type: "user_speaking", confidence: 1 });
}

function ask(event) {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text) return;
  $("question").value = "";
  interrupt(); // a typed question while the bot talks is a barge-in too
  turns.typed(now());
  link.send({ type: "stt_fragment", text, is_final: true }, { patient: true });
  link.send({ type: "vad_end" }, { patient: true });
}

function giveToken(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  if (!token) return;
  $("token").value = "";
  link.connectWith(token);
}

function onSent(message) {
  recording.message("to_bot", message);
  events.add("out", message);
}

const link = new Link({ status: onStatus, message: onMessage, audio: onAudio, sent: onSent });
const player = new Player(onPosition);
const microphone = new Microphone(onChunk);
microphone.onEnded = () => {
  showMicrophone();
  notice("The microphone was disconnected.");
};

setText($("session"), link.id);
setText($("token-session"), link.id);
$("mic").addEventListener("click", toggleMicrophone);
$("headphones").addEventListener("change", async () => {
  if (!microphone.isOn) return;
  microphone.stop();
  await toggleMicrophone();
});
$("ask").addEventListener("submit", ask);
$("token-form").addEventListener("submit", giveToken);
$("stop").addEventListener("click", interrupt);
$("reconnect").addEventListener("click", () => link.connect());
$("download").addEventListener("click", async () => download(await recording.file(link.id)));
$("notice-close").addEventListener("click", () => notice(""));
document.addEventListener("keydown", (event) => event.key === "Escape" && interrupt());
for (const kind of ["pointerdown", "keydown"]) {
  document.addEventListener(kind, () => {
    player.unlock();
    setTimeout(hintIfLocked, 100);
  });
}
setInterval(showRecorded, 1000);
stand(null, "not connected");
if (!window.isSecureContext) set($("mic"), { title: INSECURE });
link.connect();
