import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, type DagsDag, type DagsRun, type DagsTriggered, type ServerEvent } from "./lib/api-client.js";
import { api, fresh } from "./server.js";

async function started(): Promise<DagsTriggered> {
  const dag: DagsDag = { dag_id: fresh("ts"), owner: "tests", tasks: [{ id: "a" }, { id: "b", depends_on: ["a"] }] };
  await api.dagsDefineDag(dag);
  const run = await api.dagsTrigger({ dag_id: dag.dag_id });
  assert("run_id" in run && "state" in run);
  return run as DagsTriggered;
}

async function all(events: AsyncIterable<ServerEvent>): Promise<ServerEvent[]> {
  const found: ServerEvent[] = [];
  for await (const event of events) found.push(event);
  return found;
}

test("the server is healthy", async () => {
  const health = await api.healthCheck();
  assert.equal(health.ok, true);
  assert.match(health.version, /^\d+\.\d+\.\d+$/);
});

test("a definition has a version, and may leave out what has a default", async () => {
  const dag: DagsDag = { dag_id: fresh("ts"), owner: "tests" };
  assert.equal((await api.dagsDefineDag(dag)).version, 1);
  assert.equal((await api.dagsDefineDag({ ...dag, sla_s: 60 })).version, 2);
  const found = await api.dagsGetDag(dag.dag_id);
  assert.deepEqual([found.owner, found.sla_s, found.tags], ["tests", 60, []]);
});

test("a run is followed to its end, and resumed after an event", async () => {
  const { run_id } = await started();
  const events = await all(api.dagsRunEvents(run_id));
  const ids = events.slice(0, -1).map((event) => Number(event.id));
  assert.deepEqual(ids, ids.map((_, place) => place + 1));
  assert.deepEqual(events.at(-1), { id: undefined, event: "end", data: { run_id, state: "success" } });
  const run: DagsRun = await api.dagsGetRun(run_id, { query: { wait_s: 5 } });
  assert.equal(run.state, "success");
  assert.deepEqual(run.tasks, { a: "done", b: "done" });
  const rest = await all(api.dagsRunEvents(run_id, { after: 1 }));
  assert.deepEqual(rest, events.slice(1));
  assert.deepEqual(await all(api.dagsRunEvents(run_id, { after: ids.length })), []);
});

test("lists take query parameters", async () => {
  const { dag_id, run_id } = await started();
  const page = await api.dagsListRuns({ query: { dag_id, limit: 5 } });
  assert.deepEqual(page.items.map((run) => run.run_id), [run_id]);
  assert.equal(page.next_cursor, null);
});

test("a header is an idempotency key", async () => {
  const { dag_id } = await started();
  const headers = { "X-Request-Id": fresh("key") };
  const [first, second] = [await api.dagsTrigger({ dag_id }, { headers }), await api.dagsTrigger({ dag_id }, { headers })];
  assert.deepEqual(first, second);
});

test("text is text", async () => {
  assert.match(await api.metrics(), /^# HELP /m);
});

test("a refusal is an ApiError with status and body", async () => {
  await assert.rejects(api.dagsGetRun("run_0"), (error: unknown) => {
    assert(error instanceof ApiError);
    assert.equal(error.status, 404);
    assert.equal((error.body as { error: string }).error, "not_found");
    assert.match(error.message, /run_0 not found/);
    return true;
  });
  await assert.rejects(all(api.dagsRunEvents("run_0")), ApiError);
});

test("names are escaped in paths", async () => {
  await assert.rejects(api.dagsGetDag("no/such dag"), (error: unknown) => error instanceof ApiError && error.status === 404);
});
