// What needs no server: streams that break off anywhere, sockets that do not come back, answers of every kind.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, type ClientOptions, createApiClient, LiveSocket, type ServerEvent } from "./lib/api-client.js";

const BASE = "http://server";
const reconnect = { baseMs: 1, capMs: 2, attempts: 3 };

type Answer = (() => Response) | Error;

/** A client of a server that gives these answers in turn, and what it was asked. */
function scripted(...answers: Answer[]): { api: ReturnType<typeof createApiClient>; asked: Request[] } {
  const asked: Request[] = [];
  const send: typeof fetch = async (input, init) => {
    asked.push(new Request(input, init));
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer instanceof Error) throw answer;
    return (answer as () => Response)();
  };
  return { api: createApiClient(`${BASE}/`, { fetch: send, token: "secret", reconnect }), asked };
}

/** An event stream that comes in these pieces; with `lost` it breaks off after them. */
function stream(pieces: (string | Uint8Array)[], lost = false): () => Response {
  return () => new Response(body(pieces, lost), { headers: { "Content-Type": "text/event-stream" } });
}

function body(pieces: (string | Uint8Array)[], lost: boolean): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const left = [...pieces];
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const piece = left.shift();
      if (piece !== undefined) controller.enqueue(typeof piece === "string" ? encoder.encode(piece) : piece);
      else if (lost) controller.error(new TypeError("terminated"));
      else controller.close();
    },
  });
}

function json(value: unknown, status = 200): () => Response {
  return () => Response.json(value, { status });
}

function text(value: string | null, status: number): () => Response {
  return () => new Response(value, { status });
}

function state(id: number): string {
  return `id: ${id}\nevent: task_state\ndata: {"seq":${id}}\n\n`;
}

const END = 'event: end\ndata: {"state":"success"}\n\n';

async function idsOf(events: AsyncIterable<ServerEvent>): Promise<(string | undefined)[]> {
  const found: (string | undefined)[] = [];
  for await (const event of events) found.push(event.id);
  return found;
}

function lastIds(asked: Request[]): (string | null)[] {
  return asked.map((request) => request.headers.get("Last-Event-ID"));
}

test("a cut stream goes on behind the last id, and what comes twice is given once", async () => {
  const { api, asked } = scripted(
    stream([state(1), state(2), "id: 3\neve"], true),
    new TypeError("fetch failed"),
    text("starting", 503),
    stream([state(2), state(3), END]),
  );
  assert.deepEqual(await idsOf(api.dagsRunEvents("r")), ["1", "2", "3", undefined]);
  assert.deepEqual(lastIds(asked), [null, "2", "2", "2"]);
  assert.equal(asked[0]?.headers.get("Authorization"), "Bearer secret");
});

test("frames do not depend on where bytes are cut or how lines end", async () => {
  for (const newline of ["\n", "\r\n", "\r"]) {
    const sent = `\uFEFFid: 7\nevent: é𝄞\ndata: [1,\ndata:2]\n\n: comment\n\nretry: 5\n\n${END}`.replaceAll("\n", newline);
    const bytes = new TextEncoder().encode(sent);
    for (let size = 1; size < 12; size += 1) {
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
      const found: ServerEvent[] = [];
      for await (const event of scripted(stream(pieces)).api.dagsRunEvents("r")) found.push(event);
      assert.deepEqual(found[0], { id: "7", event: "é𝄞", data: [1, 2] });
      assert.equal(found.length, 2);
    }
  }
});

test("204 is the end of a stream", async () => {
  const { api } = scripted(stream([state(1)]), text(null, 204));
  assert.deepEqual(await idsOf(api.dagsRunEvents("r")), ["1"]);
});

test("patience ends, with the last failure", async () => {
  const { api, asked } = scripted(stream([state(1)]), new TypeError("fetch failed"));
  await assert.rejects(idsOf(api.dagsRunEvents("r")), /fetch failed/);
  assert.equal(asked.length, 1 + reconnect.attempts);
});

test("a server that was never reached is not waited for", async () => {
  const { api, asked } = scripted(new TypeError("fetch failed"));
  await assert.rejects(idsOf(api.dagsRunEvents("r")), /fetch failed/);
  assert.equal(asked.length, 1);
});

test("a stream that cannot be understood is an error at once", async () => {
  const { api, asked } = scripted(stream(["data: {\n\n"]));
  await assert.rejects(idsOf(api.dagsRunEvents("r")), SyntaxError);
  assert.equal(asked.length, 1);
});

test("leaving the loop, or aborting, closes the connection", async () => {
  const { api, asked } = scripted(stream([state(1), state(2), END]));
  for await (const event of api.dagsRunEvents("r")) {
    assert.equal(event.id, "1");
    break;
  }
  assert(asked[0]?.signal.aborted);
  const leaving = new AbortController();
  leaving.abort();
  assert.deepEqual(await idsOf(api.dagsRunEvents("r", { signal: leaving.signal })), []);
});

test("aborting before the server has answered ends the stream without an error", async () => {
  const leaving = new AbortController();
  const pending: typeof fetch = (_, init) =>
    new Promise((_resolve, reject) => {
      init?.signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
      setTimeout(() => leaving.abort(), 1);
    });
  const api = createApiClient(BASE, { fetch: pending });
  assert.deepEqual(await idsOf(api.dagsRunEvents("r", { signal: leaving.signal })), []);
});

test("an ApiError has the words of its surface", async () => {
  const words: [unknown, string][] = [
    [{ error: "not_found", message: "run r not found" }, "run r not found"],
    [{ detail: "Plan 'x' not found" }, "Plan 'x' not found"],
    [{ detail: [{ loc: ["body"] }] }, "GET /health: 422"],
    [{ error: "run not found" }, "run not found"],
  ];
  for (const [body, message] of words) {
    const { api } = scripted(json(body, 422));
    await assert.rejects(api.healthCheck(), (error: unknown) => {
      assert(error instanceof ApiError && error instanceof Error);
      assert.deepEqual([error.name, error.status, error.body, error.message], ["ApiError", 422, body, message]);
      return true;
    });
  }
  await assert.rejects(scripted(text("<html>", 502)).api.healthCheck(), { body: "<html>" });
});

test("query parameters that are not given are not sent, and lists are repeated", async () => {
  const { api, asked } = scripted(json({ items: [], next_cursor: null }));
  await api.dagsListRuns({ query: { dag_id: "a b", limit: 5, cursor: undefined } as { dag_id: string } });
  assert.equal(asked[0]?.url, `${BASE}/api/v1/runtime/orchestrator/runs?dag_id=a+b&limit=5`);
});

// ---------------------------------------------------------------- sockets

class FakeSocket {
  static opened: FakeSocket[] = [];
  readonly listeners: Record<string, (event: object) => void> = {};
  closed = false;

  constructor(readonly since: number | undefined) {
    FakeSocket.opened.push(this);
  }

  addEventListener(type: string, listener: (event: object) => void): void {
    this.listeners[type] = listener;
  }

  close(): void {
    this.closed = true;
  }

  tell(type: string, event: object = {}): void {
    this.listeners[type]?.(event);
  }
}

function live(exists = true): { socket: LiveSocket; got: unknown[]; end: Promise<[number, boolean]> } {
  FakeSocket.opened = [];
  const socket = new LiveSocket((since) => new FakeSocket(since), async () => exists, reconnect);
  const got: unknown[] = [];
  let failed = false;
  socket.onmessage = (event) => got.push(JSON.parse(event.data));
  socket.onerror = () => {
    failed = true;
  };
  const end = new Promise<[number, boolean]>((resolve) => {
    socket.onclose = (event) => resolve([event.code, failed]);
  });
  return { socket, got, end };
}

async function nth(count: number): Promise<FakeSocket> {
  while (FakeSocket.opened.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
  return FakeSocket.opened[count - 1] as FakeSocket;
}

test("a socket comes back after the last seq", async () => {
  const { socket, got, end } = live();
  const first = await nth(1);
  assert.equal(socket.readyState, 0);
  first.tell("open");
  assert.equal(socket.readyState, 1);
  first.tell("message", { data: '{"type":"initial_status"}' });
  first.tell("message", { data: '{"seq":4}' });
  first.tell("close", { code: 1012 });
  const second = await nth(2);
  assert.equal(second.since, 4);
  first.tell("message", { data: '{"seq":99}' }); // of a connection that is gone
  second.tell("open");
  for (const seq of [4, 5]) second.tell("message", { data: JSON.stringify({ seq }) });
  assert.deepEqual(got, [{ type: "initial_status" }, { seq: 4 }, { seq: 5 }]);
  second.tell("close", { code: 1000 });
  assert.deepEqual(await end, [1000, false]);
});

test("a socket gives up after a while without progress", async () => {
  const { end } = live();
  for (let count = 1; count <= reconnect.attempts + 1; count += 1) (await nth(count)).tell("close", { code: 1006 });
  assert.deepEqual(await end, [1006, true]);
  assert.equal(FakeSocket.opened.length, reconnect.attempts + 1);
});

test("a failed handshake to nothing is the end", async () => {
  const { end } = live(false);
  (await nth(1)).tell("close", { code: 1006 });
  assert.deepEqual(await end, [4004, true]);
});

test("a socket that is closed closes its connection and opens no other", async () => {
  const { socket, end } = live();
  const first = await nth(1);
  socket.close();
  assert.deepEqual(await end, [1000, false]);
  first.tell("close", { code: 1000 });
  assert(first.closed);
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(FakeSocket.opened.length, 1);
});

test("a runtime without the constructor says what to do", () => {
  const options: ClientOptions = {};
  const without = createApiClient(BASE, options) as { connectEventsSse?: (id: string) => unknown };
  if ("EventSource" in globalThis || !without.connectEventsSse) return;
  assert.throws(() => without.connectEventsSse?.("orch-1"), /no EventSource: give one to createApiClient/);
});
