// Microphone and loudspeaker. Knows nothing of the protocol.

const here = (name) => new URL(name, import.meta.url).href;

export const INSECURE =
  `Browsers give microphone and sound only to a secure context, and ${location.origin} is none: ` +
  "open this page by https, or on the server's machine at 127.0.0.1. Typing works here.";

const MIC_ERRORS = {
  NotAllowedError: "The microphone is blocked. Allow it in the browser's site settings, then turn it on again.",
  NotFoundError: "No microphone was found. Plug one in, or type your question.",
  NotReadableError: "The microphone is in use by another program.",
};

/** Sends 16 kHz PCM16 chunks of 20 ms to `onChunk(ArrayBuffer, level)` while it is on. */
export class Microphone {
  constructor(onChunk) {
    this.onChunk = onChunk;
    this.stream = null; // what getUserMedia gave; null while off
    this.context = null;
    this.onEnded = () => {}; // the device went away
  }

  get isOn() {
    return this.stream !== null;
  }

  /** Throws an Error whose message is for people. Noise suppression stays off: it takes much of who interrupts the bot. */
  async start({ cancelsEcho }) {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(INSECURE);
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: cancelsEcho, noiseSuppression: false, autoGainControl: cancelsEcho, channelCount: 1 },
      });
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule(here("capture.worklet.js"));
      const node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      node.port.onmessage = ({ data }) => this.onChunk(data.pcm, data.level);
      this.context.createMediaStreamSource(this.stream).connect(node);
      await this.context.resume();
      this.stream.getAudioTracks()[0].onended = () => {
        this.stop();
        this.onEnded();
      };
    } catch (error) {
      this.stop();
      throw new Error(MIC_ERRORS[error.name] ?? `The microphone could not be opened: ${error.message}`);
    }
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.stream = this.context = null;
  }
}

/**
 * Plays PCM16 chunks. `onPosition({playedMs, isSounding, isCut})` comes every 100 ms, counted from `begin()`, when the
 * sound starts or stops, and with a `drop()`.
 */
export class Player {
  constructor(onPosition) {
    this.onPosition = onPosition;
    this.context = null;
    this.node = null;
    this.rate = 0; // of the open context, Hz
  }

  /** Be ready for audio at this rate. */
  async open(rate) {
    if (this.rate === rate) return;
    if (!window.isSecureContext) throw new Error(INSECURE);
    this.rate = rate;
    await this.context?.close();
    this.node = null;
    this.context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(here("player.worklet.js"));
    const node = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => this.onPosition({ ...data, playedMs: (data.played / rate) * 1000 });
    node.connect(this.context.destination);
    this.node = node;
  }

  /** Browsers keep a page silent until somebody touches it; call this from a click or a key. */
  unlock() {
    if (this.context?.state === "suspended") this.context.resume();
  }

  get isLocked() {
    return this.context?.state === "suspended";
  }

  push(pcm) {
    this.node?.port.postMessage(pcm); // a copy: the recording keeps this one
  }

  begin() {
    this.node?.port.postMessage("begin");
  }

  pause() {
    this.node?.port.postMessage("pause");
  }

  resume(backMs) {
    this.node?.port.postMessage(backMs);
    this.node?.port.postMessage("resume");
  }

  drop() {
    this.node?.port.postMessage("drop");
  }
}
