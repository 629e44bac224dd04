import {
  ApiError,
  type Component,
  type EventSourceConstructor,
  type EventSourceLike,
  type FollowOptions,
  Http,
  type Reconnect,
  segment,
  type SocketLike,
  type WebSocketConstructor,
} from "./requests.js";
import { follow, isNew, Patience, type Rules, type ServerEvent } from "./streams.js";

// ---------------------------------------------------------------- live events of an orchestrator

interface Told<Kind extends string, Data> {
  type: Kind;
  timestamp: string;
  instance_id: string;
  /** strictly increasing per instance; `initial_status` has none */
  seq?: number;
  data: Data;
}

/** What `connectEvents` and `connectEventsSse` bring, as JSON in `event.data`. */
export type OrchestratorEvent =
  | Told<"initial_status", Component<"StatusResponse">>
  | Told<"status_updated", Record<string, unknown>>
  | Told<
      "task_changed",
      { task_id: string; old_status: string; new_status: string; description: string; phase: string | null }
    >
  | Told<"phase_changed", { old_phase: string | null; new_phase: string | null }>
  | Told<"tool_started", { tool_id: string; tool_name: string; input_summary: Record<string, unknown> }>
  | Told<
      "tool_completed",
      { tool_id: string; tool_name: string; duration: number; duration_ms: number; success: boolean }
    >
  | Told<"orchestrator_state", { old_state: string; new_state: string }>
  | { type: "ping"; timestamp: string };

const OVER = new Set(["stopped", "crashed"]);

/** The same events, one after the other, until the instance has stopped. */
export /* internal */ function followOrchestrator(
  http: Http,
  instanceId: string,
  options: FollowOptions = {},
): AsyncGenerator<ServerEvent<OrchestratorEvent>> {
  let stopped = false;
  const take: Rules["take"] = async (event, last) => {
    const told = event.data as OrchestratorEvent;
    if (told.type === "ping") return { give: [], over: false };
    if (told.type === "initial_status") {
      // with an id nothing is left to be told; without, what we missed comes after it
      stopped = OVER.has(String((told.data as { status?: string }).status));
      return { give: [event], over: stopped && event.id !== undefined };
    }
    const gone = told.type === "orchestrator_state" && OVER.has(told.data.new_state);
    return { give: isNew(event.id, last) ? [event] : [], over: gone };
  };
  const path = `/api/orchestrators/${segment(instanceId)}/events-sse`;
  return follow(http, path, options, { take, ended: () => stopped }) as AsyncGenerator<ServerEvent<OrchestratorEvent>>;
}

/** Servers send a `ping` every 30 s. */
const SOCKET_SILENCE_MS = 75_000;
const GONE = new Set([1000, 4004]);

export class SocketClosed extends Event {
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason: string) {
    super("close");
    this.code = code;
    this.reason = reason;
  }
}

/**
 * Used like a WebSocket, and outlives its connections: it comes back after the last `seq` it has seen, so nothing is
 * lost and nothing comes twice. `close` comes once, when it was asked for, when the orchestrator is gone, or when
 * there was no progress for too long (then after an `error`).
 */
export class LiveSocket extends EventTarget {
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent<string>) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  onclose: ((event: SocketClosed) => void) | null = null;
  readonly #connect: (since: number | undefined) => SocketLike;
  readonly #exists: () => Promise<boolean>;
  readonly #patience: Patience;
  #socket: SocketLike | undefined;
  #state = 0;
  #since: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    connect: (since: number | undefined) => SocketLike,
    exists: () => Promise<boolean>,
    reconnect: Reconnect | undefined,
  ) {
    super();
    this.#connect = connect;
    this.#exists = exists;
    this.#patience = new Patience(reconnect);
    this.#open();
  }

  /** As of a WebSocket: 0 connecting, also again, 1 open, 3 closed for good. */
  get readyState(): number {
    return this.#state;
  }

  close(code = 1000): void {
    const socket = this.#socket;
    this.#end(code, "closed by the client");
    socket?.close(code);
  }

  #open(): void {
    const socket = this.#connect(this.#since);
    let opened = false;
    const current = (act: (event: any) => void) => (event: any) => {
      if (this.#socket === socket) act(event);
    };
    this.#socket = socket;
    this.#alive();
    socket.addEventListener("open", current(() => {
      opened = true;
      this.#state = 1;
      this.#tell("onopen", new Event("open"));
    }));
    socket.addEventListener("message", current((event) => this.#take(String(event.data))));
    socket.addEventListener("error", () => undefined); // a close follows
    socket.addEventListener("close", current((event) => void this.#lost(event.code, event.reason, opened)));
  }

  #take(data: string): void {
    this.#alive();
    const seq = seqOf(data);
    if (seq !== undefined) {
      if (this.#since !== undefined && seq <= this.#since) return;
      this.#since = seq;
    }
    this.#patience.renew();
    this.#tell("onmessage", new MessageEvent("message", { data }));
  }

  async #lost(code: number, reason: string, opened: boolean): Promise<void> {
    clearTimeout(this.#timer);
    this.#socket = undefined;
    this.#state = 0;
    if (GONE.has(code)) return this.#end(code, reason);
    if (!opened && !(await this.#exists())) return this.#fail(4004, "not found");
    const wait = this.#patience.next();
    if (wait === undefined) return this.#fail(code, reason);
    if (this.readyState !== 3) this.#timer = setTimeout(() => this.#open(), wait);
  }

  /** A peer that has gone without a word never closes. */
  #alive(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#socket?.close();
      void this.#lost(1006, "silent", true);
    }, SOCKET_SILENCE_MS);
  }

  #fail(code: number, reason: string): void {
    if (this.#state !== 3) this.#tell("onerror", new Event("error"));
    this.#end(code, reason);
  }

  #end(code: number, reason: string): void {
    clearTimeout(this.#timer);
    this.#socket = undefined;
    if (this.#state === 3) return;
    this.#state = 3;
    this.#tell("onclose", new SocketClosed(code, reason));
  }

  #tell(handler: "onopen" | "onmessage" | "onerror" | "onclose", event: Event): void {
    (this[handler] as ((event: Event) => void) | null)?.(event);
    this.dispatchEvent(event);
  }
}

function seqOf(data: string): number | undefined {
  try {
    const { seq } = JSON.parse(data) as { seq?: unknown };
    return typeof seq === "number" ? seq : undefined;
  } catch {
    return undefined;
  }
}

export /* internal */ function connectSocket(http: Http, instanceId: string, channel: "events" | "activity"): LiveSocket {
  const Socket = constructorOf<WebSocketConstructor>("WebSocket", http.options.WebSocket);
  const path = `/api/orchestrators/${segment(instanceId)}`;
  const connect = (since: number | undefined): SocketLike => {
    const url = http.url(`${path}/${channel}`, { api_key: http.options.token, since });
    return new Socket(url.replace(/^http/, "ws"));
  };
  // a browser does not tell why a handshake failed
  const exists = async (): Promise<boolean> => {
    const refused = (error: unknown): boolean => error instanceof ApiError && [401, 403, 404].includes(error.status);
    return http.call("GET", path).then(
      () => true,
      (error: unknown) => !refused(error),
    );
  };
  return new LiveSocket(connect, exists, http.options.reconnect);
}

/** An EventSource resumes by itself; this one also knows when nothing will follow. */
export /* internal */ function connectEventsSse(http: Http, instanceId: string): EventSourceLike {
  const Source = constructorOf<EventSourceConstructor>("EventSource", http.options.EventSource);
  const path = `/api/orchestrators/${segment(instanceId)}/events-sse`;
  const source = new Source(http.url(path, { api_key: http.options.token }));
  source.addEventListener("orchestrator_state", (event: { data: string }) => {
    const told = JSON.parse(event.data) as Told<"orchestrator_state", { new_state: string }>;
    if (OVER.has(told.data.new_state)) source.close();
  });
  return source;
}

function constructorOf<Kind>(name: "WebSocket" | "EventSource", given: Kind | undefined): Kind {
  const found = given ?? (globalThis as Record<string, unknown>)[name];
  if (found === undefined) throw new TypeError(`this runtime has no ${name}: give one to createApiClient`);
  return found as Kind;
}
