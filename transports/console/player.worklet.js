// The bot's voice: a ring buffer that starts, holds and drops at once. Its context runs at the voice's own rate.
// Takes ArrayBuffers of PCM16, "begin" "pause" "resume" "drop", and ms to go back. Posts {played, isSounding, isCut}, in
// samples of this reply.

const START_S = 0.04; // audio that gathers before a start, against jitter
const PATIENCE_S = 0.06; // after this long whatever there is starts: the last words of a reply may be short
const HOLD_S = 8; // what the ring holds; the server is never more than 0.1 s ahead
const REPORT_S = 0.1;
const FADE = 0.94; // per sample: a cut or a pause fades in about 5 ms and does not click
const RISE_S = 0.005; // and what comes after it rises as fast

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ring = new Float32Array(HOLD_S * sampleRate);
    this.written = 0; // samples since the start of the page
    this.played = 0;
    this.base = 0; // value of `written` when this reply began
    this.running = false; // false while too little has gathered
    this.paused = false;
    this.waited = 0; // samples since audio began to gather
    this.gain = 1; // of what sounds; 0 after a pause, and rising
    this.last = 0; // the last sample that sounded, to fade from
    this.sinceReport = 0;
    this.sounded = false; // in the last report
    this.port.onmessage = ({ data }) => {
      if (typeof data === "string") this[data]();
      else if (typeof data === "number") this.rewind(data);
      else this.write(new Int16Array(data));
    };
  }

  begin() {
    this.base = this.written;
    this.paused = false;
  }

  pause() {
    this.paused = true;
  }

  rewind(ms) {
    const earliest = Math.max(this.base, this.written - this.ring.length);
    this.played = Math.min(this.played, Math.max(earliest, this.played - Math.round((ms * sampleRate) / 1000)));
  }

  resume() {
    this.paused = false;
  }

  drop() {
    this.post(true);
    this.played = this.written;
    this.running = this.paused = false;
  }

  write(samples) {
    for (const sample of samples) this.ring[this.written++ % this.ring.length] = sample / 32768;
    this.played = Math.max(this.played, this.written - this.ring.length); // full: the oldest goes
  }

  process(_, [[out]]) {
    this.decide(out.length);
    let n = 0;
    if (this.running && !this.paused) {
      const count = Math.min(out.length, this.written - this.played);
      for (; n < count; n++) {
        this.gain = Math.min(1, this.gain + 1 / (RISE_S * sampleRate));
        out[n] = this.gain * this.ring[this.played++ % this.ring.length];
      }
      if (count) this.last = out[count - 1];
      if (count < out.length) this.running = false;
    }
    if (n < out.length) this.gain = 0;
    for (; n < out.length; n++) out[n] = this.last *= FADE;
    this.report(out.length);
    return true;
  }

  decide(quantum) {
    const waiting = this.written - this.played;
    if (this.running || this.paused || waiting === 0) {
      this.waited = 0;
      return;
    }
    this.waited += quantum;
    this.running = waiting >= START_S * sampleRate || this.waited >= PATIENCE_S * sampleRate;
  }

  report(quantum) {
    this.sinceReport += quantum;
    if (this.sinceReport < REPORT_S * sampleRate && this.sounded === this.isSounding) return;
    this.post(false);
  }

  get isSounding() {
    return this.running && !this.paused;
  }

  post(isCut) {
    this.sinceReport = 0;
    this.sounded = this.isSounding && !isCut;
    this.port.postMessage({ played: Math.max(0, this.played - this.base), isSounding: this.sounded, isCut });
  }
}

registerProcessor("player", Player);
