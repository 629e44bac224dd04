import {
  ApiError,
  type CallOptions,
  type FollowOptions,
  Http,
  parsed,
  type Reconnect,
  segment,
  type Sent,
} from "./requests.js";

// ---------------------------------------------------------------- streams of events

/** One event of a stream. */
export interface ServerEvent<Data = unknown, Kind extends string = string> {
  /** to go on after it; undefined for an event that is not replayed */
  id: string | undefined;
  event: Kind;
  data: Data;
}

/** What is particular to a stream. */
export /* internal */ interface Rules {
  /** What to give the caller for an event that came, and whether nothing will follow. */
  take(event: ServerEvent, last: string | undefined): Promise<{ give: ServerEvent[]; over: boolean }>;
  /** Was it the end when the server closed the stream in good order? */
  ended?(): boolean;
}

/** Streams send something at least every 15 s; what is silent for so long is dead. */
const SILENCE_MS = 45_000;
const AGAIN = new Set([429, 502, 503, 504]);

/**
 * Each event once, over cut connections and restarts, until the stream is over or the caller has aborted it.
 * Throws an ApiError for what will be refused again, and the last failure when there is no progress any more.
 */
export /* internal */ async function* follow(http: Http, path: string, options: FollowOptions<unknown>, rules: Rules = UNTIL_END) {
  const patience = new Patience(http.options.reconnect);
  let last = options.after === undefined ? undefined : String(options.after);
  let reached = false;
  while (!options.signal?.aborted) {
    let failure: unknown = new Error(`${path}: the stream was cut`);
    const connection = new Connection(http, path, options, last);
    try {
      for await (const event of connection.events()) {
        if (event === KEEP_ALIVE) {
          patience.renew();
          continue;
        }
        const { give, over } = await rules.take(event, last);
        for (const each of give) {
          if (each.id !== undefined) {
            last = each.id;
            patience.renew();
          }
          yield each;
        }
        if (over) return;
      }
      if (connection.status === 204 || rules.ended?.()) return;
    } catch (error) {
      if (options.signal?.aborted) return;
      reached ||= connection.status > 0;
      const refused = error instanceof ApiError && !AGAIN.has(error.status);
      if (refused || error instanceof SyntaxError || !reached) throw error;
      failure = error;
    } finally {
      connection.close();
    }
    reached = true;
    await patience.wait(failure, connection.retryAfterMs, options.signal);
  }
}

const KEEP_ALIVE: ServerEvent = { id: undefined, event: "", data: undefined };

/** One attempt to read a stream. */
class Connection {
  status = 0;
  retryAfterMs: number | undefined;
  readonly #abort = new AbortController();
  readonly #open: () => Promise<Response>;
  readonly #caller: AbortSignal | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;

  constructor(http: Http, path: string, options: FollowOptions<unknown>, last: string | undefined) {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (last !== undefined) headers["Last-Event-ID"] = last;
    this.#caller = options.signal;
    this.#caller?.addEventListener("abort", this.close);
    this.#open = () => http.send("GET", path, { ...options, signal: this.#abort.signal }, headers);
  }

  async *events(): AsyncGenerator<ServerEvent> {
    this.#alive();
    const response = await this.#open();
    this.status = response.status;
    if (response.status === 204) return;
    if (!response.ok || response.body === null) {
      const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
      this.retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : undefined;
      throw new ApiError(response.status, await parsed(response), response.url);
    }
    const reader = response.body.getReader();
    const decoder = new SseDecoder();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      this.#alive();
      yield* decoder.feed(part.value);
    }
  }

  /** Nothing more comes, and nothing is left open. */
  readonly close = (): void => {
    clearTimeout(this.#watch);
    this.#caller?.removeEventListener("abort", this.close);
    this.#abort.abort();
  };

  #alive(): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(this.close, SILENCE_MS);
  }
}

/** Bytes to events (WHATWG HTML, "Interpreting an event stream"); a comment becomes KEEP_ALIVE. */
class SseDecoder {
  readonly #text = new TextDecoder();
  #line = "";
  #afterCr = false;
  #id: string | undefined;
  #event = "";
  #data: string[] = [];

  *feed(chunk: Uint8Array): Generator<ServerEvent> {
    let text = this.#text.decode(chunk, { stream: true });
    if (!text) return;
    if (this.#afterCr && text.startsWith("\n")) text = text.slice(1);
    this.#afterCr = text.endsWith("\r");
    const lines = (this.#line + text).split(/\r\n|\r|\n/);
    this.#line = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.#take(line);
      if (event) yield event;
    }
  }

  #take(line: string): ServerEvent | undefined {
    if (line === "") return this.#complete();
    const colon = line.indexOf(":");
    if (colon === 0) return KEEP_ALIVE;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    return undefined;
  }

  #complete(): ServerEvent | undefined {
    const [id, event, data] = [this.#id, this.#event || "message", this.#data];
    [this.#id, this.#event, this.#data] = [undefined, "", []];
    return data.length ? { id, event, data: JSON.parse(data.join("\n")) as unknown } : undefined;
  }
}

/** How long to wait before the next try, and when to give up. */
export /* internal */ class Patience {
  readonly #reconnect: Required<Reconnect>;
  #tries = 0;

  constructor(reconnect: Reconnect | undefined) {
    this.#reconnect = { baseMs: 250, capMs: 10_000, attempts: 10, ...reconnect };
  }

  renew(): void {
    this.#tries = 0;
  }

  /** Milliseconds, between half of the present wait and the whole; undefined when it is time to give up. */
  next(): number | undefined {
    const { baseMs, capMs, attempts } = this.#reconnect;
    if (this.#tries >= attempts) return undefined;
    const whole = Math.min(capMs, baseMs * 2 ** this.#tries);
    this.#tries += 1;
    return whole * (0.5 + Math.random() / 2);
  }

  async wait(failure: unknown, askedMs: number | undefined, signal: AbortSignal | undefined): Promise<void> {
    const own = this.next();
    if (own === undefined) throw failure;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, Math.max(own, askedMs ?? 0));
      signal?.addEventListener("abort", done, { once: true });
      function done(): void {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      }
    });
  }
}

/** The rule for streams that say themselves when they are over: `event: end`, or 204. */
const UNTIL_END: Rules = {
  take: async (event, last) => ({ give: isNew(event.id, last) ? [event] : [], over: event.event === "end" }),
};

export /* internal */ function isNew(id: string | undefined, last: string | undefined): boolean {
  if (id === undefined || last === undefined) return true;
  return /^\d+$/.test(id) && /^\d+$/.test(last) ? Number(id) > Number(last) : id !== last;
}

// ---------------------------------------------------------------- following a run

export interface RunCheckpoint {
  id: string;
  runId: string;
  ts: string;
  type: string;
  data?: unknown;
}

export type RunEvent =
  | ServerEvent<RunCheckpoint, "checkpoint">
  | ServerEvent<{ runId: string; status: string }, "status">;

const ENDED = new Set(["completed", "failed", "canceled"]);
const BEFORE_ALL = "1970-01-01T00:00:00.000Z";

/**
 * The server's stream goes on when the run has ended and tells a status only when it changes. So the end is told by a
 * terminal `status`, after which comes one checkpoint of that name; or, on each connection, by the run itself, of
 * which the rest is then read as a list.
 */
export /* internal */ function followRun(http: Http, runId: string, options: FollowOptions = {}): AsyncGenerator<RunEvent> {
  const path = `/runs/${segment(runId)}`;
  let status = "";
  const fresh = (each: ServerEvent, last: string | undefined): ServerEvent[] =>
    last === undefined || (each.data as RunCheckpoint).ts > last ? [each] : [];

  const take: Rules["take"] = async (event, last) => {
    switch (event.event) {
      case "hello": {
        const { run } = await http.call<{ run: { status: string } }>("GET", path, pick(options));
        if (!ENDED.has(run.status)) return { give: [], over: false };
        const query = { after: last ?? BEFORE_ALL };
        const rest = await http.call<{ checkpoints: RunCheckpoint[] }>("GET", `${path}/checkpoints`, {
          ...pick(options),
          query,
        });
        return { give: rest.checkpoints.map((data) => ({ id: data.ts, event: "checkpoint", data })), over: true };
      }
      case "status":
        status = (event.data as { status: string }).status;
        return { give: [event], over: false };
      case "checkpoint":
        return { give: fresh(event, last), over: ENDED.has(status) && (event.data as RunCheckpoint).type === status };
      default:
        return { give: [], over: false };
    }
  };
  const from = { ...options, after: options.after ?? BEFORE_ALL };
  return follow(http, `${path}/events`, from, { take }) as AsyncGenerator<RunEvent>;
}

function pick({ headers, signal }: CallOptions<unknown>): Sent {
  return { ...(headers && { headers }), signal };
}
