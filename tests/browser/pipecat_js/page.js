// A page as people write it with Pipecat's published client. It keeps a diary of what happens in `window.diary`, and of
// how loud its loudspeaker is in `window.loud`, [ms, peak of the last 20 ms], read from what reaches the sound card.
import { PipecatClient } from "@pipecat-ai/client-js";
import { ProtobufFrameSerializer, WavMediaManager, WebSocketTransport } from "@pipecat-ai/websocket-transport";

window.diary = [];
window.loud = [];

// A headset: nothing of the loudspeaker comes back, so there is no echo to cancel. Chromium's canceller, which is on
// where nobody asks, takes the beginning of what is said over the bot away.
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = ({ audio, ...rest }) =>
  open({ ...rest, audio: audio && { ...(audio === true ? {} : audio), echoCancellation: false } });

const note = (what, detail = "") => window.diary.push([performance.now(), what, detail]);

const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const ear = target.context.createAnalyser();
    ear.fftSize = 1024;
    connect.call(this, ear);
    const samples = new Float32Array(ear.fftSize);
    const listen = setInterval(() => {
      ear.getFloatTimeDomainData(samples);
      window.loud.push([performance.now(), Math.max(...samples.map(Math.abs))]);
      if (target.context.state === "closed") clearInterval(listen);
    }, 20);
  }
  return connect.call(this, target, ...rest);
};

window.client = new PipecatClient({
  transport: new WebSocketTransport({
    serializer: new ProtobufFrameSerializer(),
    mediaManager: new WavMediaManager(1024, 16000),
  }),
  enableMic: true,
  enableCam: false,
  callbacks: {
    onConnected: () => note("connected"),
    onDisconnected: () => note("disconnected"),
    onTransportStateChanged: (state) => note("transport", state),
    onBotReady: (data) => note("bot ready", data.version),
    onUserStartedSpeaking: () => note("user started"),
    onUserStoppedSpeaking: () => note("user stopped"),
    onUserTranscript: (data) => note(data.final ? "user said" : "user says", data.text),
    onBotTranscript: (data) => note("bot says", data.text),
    onBotStartedSpeaking: () => note("bot started"),
    onBotStoppedSpeaking: () => note("bot stopped"),
    onServerMessage: (data) => note("server message", data.type),
    onError: (message) => note("error", JSON.stringify(message.data)),
  },
});
