import type { components, paths } from "./api-types.js";

// ---------------------------------------------------------------- options and errors

/** How often and how fast a lost connection is tried again; every sign of progress starts it anew. */
export interface Reconnect {
  /** first wait, doubled each time, in ms [250] */
  baseMs?: number;
  /** longest wait, in ms [10,000] */
  capMs?: number;
  /** tries without progress before giving up [10] */
  attempts?: number;
}

/** What we need of a WebSocket: that of browsers, of Node, of the package `ws`. */
export interface SocketLike {
  addEventListener(type: string, listener: (event: any) => void): void;
  close(code?: number): void;
}
export type WebSocketConstructor = new (url: string) => SocketLike;

/** What we need of an EventSource: that of browsers, of the package `eventsource`. */
export interface EventSourceLike {
  readonly readyState: number;
  addEventListener(type: string, listener: (event: any) => void): void;
  removeEventListener(type: string, listener: (event: any) => void): void;
  close(): void;
}
export type EventSourceConstructor = new (url: string) => EventSourceLike;

export interface ClientOptions {
  /** sent as `Authorization: Bearer`, and as `?api_key=` where headers cannot be set */
  token?: string | undefined;
  /** more headers for every request */
  headers?: Record<string, string>;
  fetch?: typeof fetch;
  /** for runtimes without one, e.g. that of the package `ws` */
  WebSocket?: WebSocketConstructor;
  /** for runtimes without one, e.g. that of the package `eventsource` */
  EventSource?: EventSourceConstructor;
  reconnect?: Reconnect;
}

/** What goes with one request besides its path and body. */
export interface CallOptions<Query = never> {
  query?: Query;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

export interface FollowOptions<Query = never> extends CallOptions<Query> {
  /** id of the event to go on after */
  after?: string | number | undefined;
}

/** The server answered, and not with success. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  /** parsed JSON, or text */
  readonly body: unknown;

  constructor(status: number, body: unknown, asked: string) {
    super(messageOf(body) ?? `${asked}: ${status}`);
    this.status = status;
    this.body = body;
  }
}

function messageOf(body: unknown): string | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const { message, detail, error } = body as Record<string, unknown>;
  return [message, detail, error].find((each): each is string => typeof each === "string");
}

// ---------------------------------------------------------------- requests

type Verb = "get" | "post" | "put" | "patch" | "delete";

/** The query parameters of an operation. */
export /* internal */ type QueryOf<Path extends keyof paths, Method extends Verb> = paths[Path] extends {
  [method in Method]: { parameters: { query?: infer Query } };
}
  ? NonNullable<Query>
  : never;

/** A component of the API's description; `Otherwise` where this server has no such component. */
export /* internal */ type Component<Name extends string, Otherwise = unknown> = components extends {
  schemas: { [name in Name]: infer Shape };
}
  ? Shape
  : Otherwise;

export /* internal */ interface Sent extends CallOptions<unknown> {
  body?: unknown;
  /** media type of a body that is not JSON */
  media?: string;
}

export /* internal */ class Http {
  readonly options: ClientOptions;
  readonly #base: string;

  constructor(baseUrl: string, options: ClientOptions) {
    this.#base = baseUrl.replace(/\/+$/, "");
    this.options = options;
  }

  /** The parsed answer. Rejects with an ApiError for one that is no success. */
  async call<Answer>(method: string, path: string, sent: Sent = {}): Promise<Answer> {
    const response = await this.send(method, path, sent, {});
    const answer = await parsed(response);
    if (!response.ok) throw new ApiError(response.status, answer, `${method} ${path}`);
    return answer as Answer;
  }

  async send(method: string, path: string, sent: Sent, headers: Record<string, string>): Promise<Response> {
    const { token, fetch: given, headers: always } = this.options;
    const all: Record<string, string> = { ...always, ...headers, ...sent.headers };
    if (token) all["Authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method, headers: all };
    if (sent.signal) init.signal = sent.signal;
    if (sent.body !== undefined) {
      all["Content-Type"] = sent.media ?? "application/json";
      init.body = sent.media ? (sent.body as NonNullable<RequestInit["body"]>) : JSON.stringify(sent.body);
    }
    return (given ?? fetch)(this.url(path, sent.query), init);
  }

  url(path: string, query?: unknown): string {
    const text = new URLSearchParams(pairsOf(query)).toString();
    return `${this.#base}${path}${text && `?${text}`}`;
  }
}

function pairsOf(query: unknown): [string, string][] {
  const each = ([name, value]: [string, unknown]): [string, string][] =>
    (Array.isArray(value) ? value : [value])
      .filter((one) => one !== undefined && one !== null)
      .map((one) => [name, String(one)]);
  return Object.entries(query ?? {}).flatMap(each);
}

export /* internal */ async function parsed(response: Response): Promise<unknown> {
  const media = response.headers.get("Content-Type") ?? "";
  if (/[/+]json\b/.test(media)) {
    const text = await response.text();
    return text ? JSON.parse(text) : undefined;
  }
  if (response.status === 204 || response.headers.get("Content-Length") === "0") return undefined;
  return /^text\/|^$/.test(media) ? response.text() : response.blob();
}

export /* internal */ function segment(name: string): string {
  return encodeURIComponent(name);
}
