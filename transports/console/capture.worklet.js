// The microphone's side of the page: whatever rate the sound card has becomes 16 kHz PCM16 in 20 ms messages.
// Posts {pcm: ArrayBuffer, level: 0..1}. Runs on the audio thread.

const RATE = 16000;
const CHUNK = 320; // 20 ms
const PHASES = 128; // positions between two input samples that have filter taps of their own
const CROSSINGS = 10; // zero crossings on each side: stop band below -60 dB

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ratio = sampleRate / RATE;
    this.half = Math.ceil(CROSSINGS * Math.max(1, this.ratio));
    this.taps = this.makeTaps();
    this.input = new Float32Array(4096); // the last input samples; `filled` of them count
    this.filled = this.half;
    this.at = this.half; // where the next output sample lies in `input`
    this.chunk = new Int16Array(CHUNK);
    this.count = 0;
    this.energy = 0;
  }

  // A windowed sinc for each phase: keeps what lies below 92 % of the lower of the two Nyquist frequencies.
  makeTaps() {
    const cutoff = 0.92 * Math.min(1, 1 / this.ratio);
    return Array.from({ length: PHASES }, (_, phase) => {
      const taps = new Float32Array(2 * this.half);
      let sum = 0;
      for (let k = 0; k < taps.length; k++) {
        const x = k - this.half + 1 - phase / PHASES;
        const window = 0.42 + 0.5 * Math.cos((Math.PI * x) / this.half) + 0.08 * Math.cos((2 * Math.PI * x) / this.half);
        taps[k] = (x === 0 ? cutoff : Math.sin(Math.PI * cutoff * x) / (Math.PI * x)) * window;
        sum += taps[k];
      }
      return taps.map((tap) => tap / sum);
    });
  }

  process([channels]) {
    if (!channels || channels.length === 0) return true; // not connected yet
    const quantum = channels[0];
    this.input.set(quantum, this.filled);
    this.filled += quantum.length;
    while (this.at + this.half + 1 < this.filled) {
      this.emit(this.sample());
      this.at += this.ratio;
    }
    const used = Math.floor(this.at) - this.half;
    this.input.copyWithin(0, used, this.filled);
    this.filled -= used;
    this.at -= used;
    return true;
  }

  sample() {
    const base = Math.floor(this.at);
    const taps = this.taps[Math.floor((this.at - base) * PHASES)];
    let sum = 0;
    for (let k = 0; k < taps.length; k++) sum += taps[k] * this.input[base - this.half + 1 + k];
    return sum;
  }

  emit(value) {
    const clipped = Math.max(-1, Math.min(1, value));
    this.chunk[this.count++] = Math.round(clipped * 32767);
    this.energy += clipped * clipped;
    if (this.count < CHUNK) return;
    const pcm = this.chunk.slice().buffer; // typed arrays are little-endian on everything a browser runs on
    this.port.postMessage({ pcm, level: Math.sqrt(this.energy / CHUNK) }, [pcm]);
    this.count = 0;
    this.energy = 0;
  }
}

registerProcessor("capture", Capture);
