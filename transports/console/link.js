// The connection: one WebSocket to /orchestrate, its session id, its token, its heartbeat, and when to try again.

const PING_MS = 10_000; // the server closes after 30 s without a message
const RETRY_MS = [300, 1000, 2000, 4000, 8000]; // the last one again and again
const MAX_WAITING = 20; // messages kept for the next connection; the oldest go
const CLOSED = {
  1000: "The session has ended. It goes on when you ask something.",
  1008: "The server closed the connection: it broke a rule of the protocol.",
  1009: "The server closed the connection: a message was too large.",
  1011: "The server had a fault.",
  1012: "The server restarts.",
  1013: "The server is full. Trying again.",
  4401: "The server asks for a token.",
  4403: "The server does not allow this page's address.",
  4409: "This session was opened elsewhere. Reconnect to take it back.",
  4429: "Too many connections from here. Wait a moment, then reconnect.",
};
const TRY_AGAIN = new Set([1006, 1011, 1012, 1013]);
const NEEDS_TOKEN = 4401;

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
  /** on: {status({name, text, reason, needsToken}), message(object), audio(ArrayBuffer), sent(object)} */
  constructor(on) {
    this.on = on;
    this.id = sessionId();
    this.token = sessionStorage.getItem("leibniz.token") ?? new URLSearchParams(location.search).get("token");
    this.socket = null;
    this.retries = 0;
    this.timer = null; // the next attempt
    this.waiting = []; // text messages for the moment after `hello`
    this.mayRetry = true; // false where only people can help
    setInterval(() => this.isOpen && this.send({ type: "ping" }), PING_MS);
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Somebody looks again: do not wait for the next attempt. */
  hurry() {
    if (this.mayRetry && this.socket?.readyState === WebSocket.CLOSED) this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    if (this.socket) {
      this.socket.onopen = this.socket.onclose = this.socket.onmessage = null;
      this.socket.close(1000);
    }
    const url = new URL("orchestrate", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({ session_id: this.id });
    this.on.status({ name: "opening", text: "Connecting" });
    const socket = (this.socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.greet();
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = ({ code, reason }) => this.closed(code, reason);
  }

  /** A token that somebody gave. */
  connectWith(token) {
    this.keep(token);
    this.retries = 0;
    this.connect();
  }

  keep(token) {
    this.token = token;
    if (token) sessionStorage.setItem("leibniz.token", token);
    else sessionStorage.removeItem("leibniz.token");
  }

  greet() {
    this.send({ type: "hello", v: 1, sample_rate: 16000, out_sample_rate: 16000, ...(this.token && { token: this.token }) });
  }

  receive(data) {
    if (typeof data !== "string") {
      this.on.audio(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "ready") {
      this.retries = 0;
      this.mayRetry = true;
      if (message.token) this.keep(message.token); // good once, for the next connection
      this.on.status({ name: "open", text: "Connected" });
    }
    this.on.message(message);
    if (message.type === "ready") for (const waiting of this.waiting.splice(0)) this.send(waiting);
  }

  async closed(code, said) {
    const isLost = code === 1006;
    const again = TRY_AGAIN.has(code);
    this.mayRetry = again || code === 1000;
    const needsToken = code === NEEDS_TOKEN;
    if (again) this.timer = setTimeout(() => this.connect(), RETRY_MS[Math.min(this.retries++, RETRY_MS.length - 1)]);
    const reason = needsToken && this.token && said ? `${CLOSED[code]} ${said}` : (CLOSED[code] ?? (isLost ? "No connection to the server." : `Closed (${code}). ${said}`));
    if (needsToken) this.keep(null);
    const told = code === 1000 ? { name: "closed", text: "Ended" } : { name: "failed", text: again ? "Reconnecting" : "Disconnected" };
    this.on.status({ ...told, reason, needsToken });
    if (isLost) this.explain(this.socket);
  }

  /** A browser does not say why a WebSocket was refused; plain HTTP does. */
  async explain(socket) {
    const reason = await fetch(new URL("ready", location.href), { cache: "no-store" }).then(
      async (response) =>
        response.ok ? "The server is there, but ended the connection without a word." : `The server takes no new connection: ${(await response.text()).trim()}.`,
      () => "The server cannot be reached. Is it running?",
    );
    if (socket === this.socket && !this.isOpen) this.on.status({ name: "failed", text: "Reconnecting", reason, isDetail: true });
  }

  /** Send now, or, with `patient`, connect first if need be. */
  send(message, { patient = false } = {}) {
    if (this.isOpen) {
      this.socket.send(JSON.stringify(message));
      this.on.sent(message);
    } else if (patient) {
      this.waiting = [...this.waiting, message].slice(-MAX_WAITING);
      if (this.socket?.readyState !== WebSocket.CONNECTING) {
        this.retries = 0;
        this.connect();
      }
    }
  }

  /** False where it was not sent. */
  sendAudio(pcm) {
    // A connection that does not keep up must not store old speech: past half a second, the newest is dropped.
    if (!this.isOpen || this.socket.bufferedAmount >= 16_000) return false;
    this.socket.send(pcm);
    return true;
  }
}
