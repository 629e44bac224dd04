import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, type RunEvent, type RunsRun } from "./lib/api-client.js";
import { api, cut } from "./server.js";

async function created(): Promise<string> {
  const answer = await api.createRun({ metadata: { from: "typescript" } });
  assert("runId" in answer);
  return answer.runId;
}

test("a run keeps what was given, and its checkpoints", async () => {
  const runId = await created();
  const { checkpointId } = await api.postCheckpoint(runId, { type: "step", data: { n: 1 } });
  const run: RunsRun = (await api.getRun(runId)).run;
  assert.deepEqual(run.metadata, { from: "typescript" });
  const { checkpoints } = await api.listCheckpoints(runId);
  assert.equal(checkpoints.find((each) => each.id === checkpointId)?.type, "step");
});

test("a run is followed to its end over cut connections, each checkpoint once", async () => {
  const runId = await created();
  const types: string[] = [];
  const ids: string[] = [];
  for await (const event of api.followRun(runId)) {
    if (event.event === "status") continue;
    types.push(event.data.type);
    ids.push(event.data.ts);
    const step = types.length;
    if (step === 2) await cut();
    if (step < 4) await api.postCheckpoint(runId, { type: `step ${step}` });
    if (step === 4) await api.postCheckpoint(runId, { type: "run.completed" });
  }
  assert.deepEqual(types, ["started", "step 1", "step 2", "step 3", "run.completed", "completed"]);
  assert.deepEqual(ids, [...new Set(ids)].sort());
  assert.equal((await api.getRun(runId)).run.status, "completed");
});

test("following an ended run gives its rest and ends", async () => {
  const runId = await created();
  await api.cancelRun(runId);
  const events: RunEvent[] = [];
  for await (const event of api.followRun(runId)) events.push(event);
  assert.equal(events.at(-1)?.event, "checkpoint");
  const last = events.at(-1)?.id;
  for await (const event of api.followRun(runId, { after: last })) assert.fail(`nothing can follow, got ${event.event}`);
});

test("aborting ends the stream without an error", async () => {
  const runId = await created();
  const leaving = new AbortController();
  for await (const event of api.followRun(runId, { signal: leaving.signal })) {
    if (event.event === "checkpoint") setTimeout(() => leaving.abort(), 10);
  }
  assert(leaving.signal.aborted);
});

test("an ended run is not cancelled again", async () => {
  const runId = await created();
  assert.equal((await api.cancelRun(runId)).status, "canceled");
  await assert.rejects(api.cancelRun(runId), (error: unknown) => {
    assert(error instanceof ApiError);
    assert.equal(error.status, 409);
    assert.equal(error.message, "invalid status transition");
    return true;
  });
});
