// What this page saw of the conversation, in the format of docs/recording.md, so that `leibniz show FILE` opens it.
// Bounded: the last minutes are kept; what is older goes, and is counted.

const KEPT_MS = 10 * 60_000;
const MAX_EVENTS = 120_000; // ten minutes of both voices are 60,000
const COMPACT = 4096; // forgotten events before the list is cut
const BLOCK = 2000; // lines written before the page may breathe

export class Recording {
  constructor(now) {
    this.now = now; // ms of the page's clock
    this.clear();
  }

  clear() {
    this.events = []; // {at, direction, kind, fields} or {at, direction, pcm, rate}
    this.first = 0; // where those begin that are still kept
    this.lost = 0;
  }

  /** `direction`: to_bot or to_user. */
  message(direction, { type, ...fields }) {
    if ("token" in fields) fields.token = "…"; // it opens the session, and recordings are passed on
    this.keep({ at: this.now(), direction, kind: type, fields });
  }

  audio(direction, pcm, rate) {
    this.keep({ at: this.now(), direction, kind: "audio", pcm, rate });
  }

  keep(event) {
    this.events.push(event);
    const oldest = event.at - KEPT_MS;
    while (this.events[this.first].at < oldest || this.events.length - this.first > MAX_EVENTS) {
      this.events[this.first++] = null;
      this.lost++;
    }
    if (this.first > COMPACT) this.events.splice(0, this.first), (this.first = 0);
  }

  get lengthMs() {
    return this.events.length ? this.events.at(-1).at - this.events[this.first].at : 0;
  }

  /** {name, blob}; packed where the browser can. */
  async file(sessionId) {
    const kept = this.events.slice(this.first);
    const zero = kept[0]?.at ?? this.now();
    const began = (Date.now() - (this.now() - zero)) / 1000;
    const parts = [line({ leibniz: "recording", v: 1, side: "client", session_id: sessionId, began, versions: { browser: navigator.userAgent.slice(0, 120) } })];
    for (let n = 0; n < kept.length; n += BLOCK) {
      parts.push(kept.slice(n, n + BLOCK).map((event) => line(row(event, zero))).join(""));
      await new Promise((resolve) => setTimeout(resolve));
    }
    parts.push(line({ end: "over", lost: this.lost }));
    const stamp = new Date(began * 1000).toISOString().slice(0, 19).replace(/[-:]/g, "");
    const name = `${sessionId}-${stamp}.leibniz`;
    const blob = new Blob(parts, { type: "application/x-ndjson" });
    if (!globalThis.CompressionStream) return { name, blob };
    return { name: `${name}.gz`, blob: await new Response(blob.stream().pipeThrough(new CompressionStream("gzip"))).blob() };
  }
}

const line = (value) => `${JSON.stringify(value)}\n`;

function row({ at, direction, kind, fields, pcm, rate }, zero) {
  const seconds = Math.round((at - zero) * 1000) / 1e6;
  return [seconds, "client", direction, kind, pcm ? { rate, samples: pcm.byteLength >> 1, pcm: base64(pcm) } : fields];
}

const base64 = (pcm) => btoa(String.fromCharCode(...new Uint8Array(pcm)));

/** Hands a file to whoever sits there. */
export function download({ name, blob }) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  Object.assign(link, { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
