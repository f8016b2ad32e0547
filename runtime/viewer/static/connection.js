// The connection to the viewer: opens it, notices when it is dead, and opens it again.

// The server speaks four times a second to a visible page, every two seconds to a hidden one.
const SILENCE_MS = 8000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;
const GOING_AWAY = 1001;

export class Connection {
  #socket = null;
  #timer = 0;
  #watchdog = 0;
  #retryMs = FIRST_RETRY_MS;
  #handlers;
  #wasOpen = false;

  /**
   * @param handlers `hello(message)`, `status(message)`, `picture(header, jpeg)` which may return a promise, and
   *   `state(name, retryMs)` with one of connecting, open, lost, ended, refused, busy, blocked.
   */
  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.#socket || this.open());
    document.addEventListener("visibilitychange", () => document.hidden || this.#socket || this.open());
  }

  /** Open it now, whatever was planned. */
  open() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#handlers.state("connecting", 0);
    const address = new URL("stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    address.search = address.hash = "";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.#hear(socket, event.data);
    socket.onclose = (event) => this.#lost(socket, event.code);
    this.#socket = socket;
    this.#watch(socket);
  }

  /** Send a message; without a connection it is lost, and the next connection begins with the view that the page wants anyway. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  async #hear(socket, data) {
    this.#watch(socket);
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "hello") {
        this.#retryMs = FIRST_RETRY_MS;
        this.#wasOpen = true;
        this.#handlers.state("open", 0);
      }
      this.#handlers[message.type]?.(message);
      return;
    }
    const { header, jpeg } = unpacked(data);
    try {
      await this.#handlers.picture(header, jpeg);
    } finally {
      // Only now: the next picture comes when this one has been shown, and so none ever queues up.
      if (socket === this.#socket) this.send({ type: "shown" });
    }
  }

  #watch(socket) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lost(socket, 0), SILENCE_MS);
  }

  #drop() {
    clearTimeout(this.#watchdog);
    if (this.#socket) this.#socket.onclose = this.#socket.onmessage = null;
    this.#socket?.close();
    this.#socket = null;
  }

  async #lost(socket, code) {
    if (socket !== this.#socket) return;
    this.#drop();
    const waitMs = this.#retryMs * (0.75 + 0.5 * Math.random());
    this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
    this.#timer = setTimeout(() => this.open(), waitMs);
    this.#handlers.state(code === GOING_AWAY ? "ended" : "lost", waitMs);
    const reason = code === GOING_AWAY ? null : await refusal();
    // An address that answers but never to a WebSocket is behind something that changes requests.
    if (reason === "blocked" && this.#wasOpen) return;
    if (reason && !this.#socket) this.#handlers.state(reason, waitMs);
  }
}

/** A picture's header and its JPEG, out of one message. */
function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { header, jpeg: new Uint8Array(buffer, 4 + length) };
}

/** Why a WebSocket cannot be opened, which the browser does not tell: ask for the same address without one. */
async function refusal() {
  try {
    const { status } = await fetch("stream", { cache: "no-store" });
    return { 400: "blocked", 401: "refused", 503: "busy" }[status] ?? null;
  } catch {
    return null;
  }
}
