// The page: what the server says becomes what people see, and what people do becomes messages.

import { Microphone, Player } from "./audio.js";
import { Link } from "./link.js";
import { Transcript, showEvent, showLatency } from "./view.js";

const ACK_MS = 200;
const $ = (id) => document.getElementById(id);

const transcript = new Transcript($("transcript"), $("empty"));
const call = {
  state: "idle",
  turn: 0, // the turn whose reply may be heard; 0 before the first
  isOpenForAudio: false, // between `response_ready` and `interrupted`
  thoughtAt: 0, // when thinking began, performance.now(); 0 when its reply is audible already
  acked: -1, // the last position that was acknowledged, ms
  ackedAt: 0,
};

// ------------------------------------------------------------------------------------------------ from the server

const handlers = {
  ready(message) {
    $("replies").textContent = message.turn_number;
    setState("idle");
    player.open(message.out_sample_rate).then(hintIfLocked, (error) => notice(`No sound: ${error.message}`));
  },
  state_update(message) {
    const before = call.state;
    transcript.words(message, before);
    setState(message.state);
    if (message.state === "thinking" && before !== "thinking") call.thoughtAt = performance.now();
    if (message.state === "idle") transcript.settle();
    if (message.trigger === "tts_complete") $("replies").textContent = Number($("replies").textContent) + 1;
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
    player.resume();
    setPaused(false, message.turn);
  },
  interrupted(message) {
    player.drop();
    call.isOpenForAudio = false;
    setPaused(false, message.turn);
    flash("interrupt");
    transcript.cut(message.turn);
  },
  turn: (message) => showLatency(message),
  pong() {},
  error: (message) => notice(`The server refused a message: ${message.message}`),
};

function onMessage(message) {
  showEvent("in", message);
  handlers[message.type]?.(message);
}

function onAudio(pcm) {
  if (!call.isOpenForAudio) return; // what was on its way when the reply was cut
  if (call.thoughtAt) {
    transcript.firstAudio(call.turn, performance.now() - call.thoughtAt);
    call.thoughtAt = 0;
  }
  player.push(pcm);
}

function onPosition(playedMs, isCut) {
  transcript.heard(call.turn, playedMs);
  const now = performance.now();
  if (playedMs <= call.acked || (!isCut && (!call.isOpenForAudio || now - call.ackedAt < ACK_MS * 0.9))) return;
  call.acked = playedMs;
  call.ackedAt = now;
  link.send({ type: "ack", turn: call.turn, played_ms: Math.round(playedMs) });
}

// ------------------------------------------------------------------------------------------------ what is shown

function setState(state) {
  if (state === "interrupt") flash(state);
  else call.state = state;
  for (const chip of $("states").children) {
    const isOn = chip.dataset.state === call.state;
    chip.classList.toggle("on", isOn || chip.classList.contains("flash"));
    if (isOn) chip.setAttribute("aria-current", "step");
    else chip.removeAttribute("aria-current");
  }
  document.body.dataset.state = call.state;
  $("stop").disabled = call.state !== "thinking" && call.state !== "speaking";
}

// `interrupt` lasts for one step; people need a moment longer to see it.
function flash(state) {
  const chip = $("states").querySelector(`[data-state="${state}"]`);
  chip.classList.add("flash", "on");
  clearTimeout(flash.timer);
  flash.timer = setTimeout(() => chip.classList.remove("flash", "on"), 1200);
}

function setPaused(isPaused, turn) {
  $("states").classList.toggle("paused", isPaused);
  transcript.paused(turn, isPaused);
}

function notice(text) {
  $("notice-text").textContent = text;
  $("notice").hidden = !text;
}

function hintIfLocked() {
  if (player.isLocked) notice("The browser keeps this page silent until you click or press a key.");
  else if ($("notice-text").textContent.startsWith("The browser keeps")) notice("");
}

function onStatus(name, text, reason = "") {
  $("connection").dataset.status = name;
  $("connection").textContent = text;
  if (name === "open") notice("");
  if (name === "failed" || name === "closed") {
    player.drop();
    call.isOpenForAudio = false;
    setPaused(false, call.turn);
    setState("idle");
    notice(reason);
    showEvent("note", { type: "closed", reason });
  }
}

// ------------------------------------------------------------------------------------------------ from the people

async function toggleMicrophone() {
  if (microphone.isOn) microphone.stop();
  else {
    try {
      await microphone.start();
      notice("");
      if (!link.isOpen) link.connect();
    } catch (error) {
      notice(error.message);
    }
  }
  showMicrophone();
}

function showMicrophone() {
  $("mic").setAttribute("aria-pressed", String(microphone.isOn));
  $("mic-label").textContent = microphone.isOn ? "Microphone on" : "Microphone";
  if (!microphone.isOn) $("level").style.height = "0";
}

function onChunk(pcm, level) {
  link.sendAudio(pcm);
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
  link.send({ type: "stt_fragment", text, is_final: true }, { patient: true });
  link.send({ type: "vad_end" }, { patient: true });
}

const link = new Link({
  status: onStatus,
  message: onMessage,
  audio: onAudio,
  sent: (message) => message.type !== "ack" && message.type !== "ping" && showEvent("out", message),
});
const player = new Player(onPosition);
const microphone = new Microphone(onChunk);
microphone.onEnded = () => {
  showMicrophone();
  notice("The microphone was disconnected.");
};

$("session").textContent = link.id;
$("mic").addEventListener("click", toggleMicrophone);
$("ask").addEventListener("submit", ask);
$("stop").addEventListener("click", interrupt);
$("reconnect").addEventListener("click", () => link.connect());
$("notice-close").addEventListener("click", () => notice(""));
document.addEventListener("keydown", (event) => event.key === "Escape" && interrupt());
for (const kind of ["pointerdown", "keydown"]) {
  document.addEventListener(kind, () => {
    player.unlock();
    setTimeout(hintIfLocked, 100);
  });
}
setState("idle");
link.connect();
