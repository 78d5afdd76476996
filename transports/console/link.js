// The connection: one WebSocket to /orchestrate, its session id, its heartbeat, and when to try again.

const PING_MS = 10_000; // the server closes after 30 s without a message
const RETRY_MS = [300, 1000, 2000, 4000, 8000];
const CLOSED = {
  1000: "The session has ended. It goes on when you ask something.",
  1008: "The server closed the connection: it broke a rule of the protocol.",
  1009: "The server closed the connection: a message was too large.",
  1011: "The server had a fault.",
  1012: "The server restarts.",
  1013: "The server is full. Try again later.",
  4401: "The server asks for a token: open this page with ?token=...",
  4403: "The server does not allow this page's address.",
  4409: "This session was opened elsewhere. Reconnect to take it back.",
  4429: "Too many connections from here. Wait a moment.",
};
const TRY_AGAIN = new Set([1006, 1011, 1012, 1013]);

export const sessionId = () => {
  const asked = new URLSearchParams(location.search).get("session_id");
  if (asked && /^[A-Za-z0-9_-]{1,64}$/.test(asked)) return asked;
  let id = sessionStorage.getItem("leibniz.session");
  if (!id) {
    const bytes = crypto.getRandomValues(new Uint8Array(9));
    id = "web-" + Array.from(bytes, (byte) => byte.toString(36).padStart(2, "0")).join("").slice(0, 14);
    sessionStorage.setItem("leibniz.session", id);
  }
  return id;
};

export class Link {
  /** on: {status(name, text), message(object), audio(ArrayBuffer), sent(object)} */
  constructor(on) {
    this.on = on;
    this.id = sessionId();
    this.socket = null;
    this.retries = 0;
    this.timer = null; // the next attempt
    this.waiting = []; // text messages for the moment after `hello`
    this.heartbeat = setInterval(() => this.isOpen && this.send({ type: "ping" }), PING_MS);
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    clearTimeout(this.timer);
    if (this.socket) {
      this.socket.onclose = this.socket.onmessage = null;
      this.socket.close(1000);
    }
    const url = new URL("orchestrate", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({ session_id: this.id });
    this.on.status("opening", "Connecting");
    const socket = (this.socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.greet();
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = ({ code, reason }) => this.closed(code, reason);
  }

  greet() {
    const token = sessionStorage.getItem("leibniz.token") ?? new URLSearchParams(location.search).get("token");
    this.send({ type: "hello", v: 1, sample_rate: 16000, out_sample_rate: 16000, ...(token && { token }) });
    this.on.status("open", "Connected");
    for (const message of this.waiting.splice(0)) this.send(message);
  }

  receive(data) {
    if (typeof data !== "string") {
      this.on.audio(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "ready") {
      this.retries = 0;
      if (message.token) sessionStorage.setItem("leibniz.token", message.token);
    }
    this.on.message(message);
  }

  closed(code, reason) {
    const text = CLOSED[code] ?? (code === 1006 ? "No connection to the server." : `Closed (${code}). ${reason}`);
    if (code === 4401) sessionStorage.removeItem("leibniz.token");
    const again = TRY_AGAIN.has(code) && this.retries < RETRY_MS.length;
    this.on.status(code === 1000 ? "closed" : "failed", code === 1000 ? "Ended" : again ? "Reconnecting" : "Disconnected", text);
    if (again) this.timer = setTimeout(() => this.connect(), RETRY_MS[this.retries++]);
  }

  /** Send now, or, with `patient`, connect first if need be. */
  send(message, { patient = false } = {}) {
    if (this.isOpen) {
      this.socket.send(JSON.stringify(message));
      this.on.sent(message);
    } else if (patient) {
      this.waiting.push(message);
      if (this.socket?.readyState !== WebSocket.CONNECTING) {
        this.retries = 0;
        this.connect();
      }
    }
  }

  sendAudio(pcm) {
    // A connection that does not keep up must not store old speech: past half a second, the newest is dropped.
    if (this.isOpen && this.socket.bufferedAmount < 16_000) this.socket.send(pcm);
  }
}
