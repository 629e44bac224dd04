import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, type PipelinesJob, type PipelinesLogEntry, type PipelinesPipeline } from "./lib/api-client.js";
import { api, fresh } from "./server.js";

const script = 'return { name = "ts", stages = { { name = "build", script = function() log.info("hi") end } } }';
const runner = fresh("runner");

async function launched(): Promise<{ pipeline: PipelinesPipeline; job: PipelinesJob }> {
  const pipeline = await api.pipelinesCreatePipeline({ script, tags: ["ci", { key: "os", value: "linux" }] });
  const job = await api.pipelinesLaunchPipeline({ pipeline_id: pipeline.id, parameters: { message: "hi" } });
  return { pipeline, job };
}

function line(message: string): PipelinesLogEntry {
  return { timestamp: "2026-01-02T03:04:05.123456789Z", level: "Info", message };
}

test("a job is claimed, followed line by line, and completed", async () => {
  const { pipeline, job } = await launched();
  assert.equal(job.status, "Queued");
  await api.pipelinesRegisterRunner({ runner_id: runner, capabilities: ["log"] });
  const scheduled = await api.pipelinesListScheduledJobs({ query: { runner_id: runner } });
  assert(scheduled.some((each) => each.id === job.id));
  const info = await api.pipelinesClaimJob(job.id, { runner_id: runner });
  assert.deepEqual([info.pipeline_source, info.parameters], [script, { message: "hi" }]);
  await api.pipelinesSendLogs(job.id, { entries: [line("first")] });
  const events: [string | undefined, string][] = [];
  for await (const event of api.pipelinesFollowLogs(job.id)) {
    events.push([event.id, event.event]);
    if (event.id === "1") await api.pipelinesSendLogs(job.id, [line("second")]);
    if (event.id === "2") await api.pipelinesCompleteJob(job.id, { result: { success: true } });
  }
  assert.deepEqual(events, [["1", "log"], ["2", "log"], [undefined, "end"]]);
  assert.deepEqual((await api.pipelinesGetLogs(job.id)).map((each) => each.message), ["first", "second"]);
  assert.equal((await api.pipelinesGetJob(job.id)).status, "Succeeded");
  for await (const event of api.pipelinesFollowLogs(job.id, { after: 2 })) assert.fail(`nothing can follow, got ${event.event}`);
  await api.pipelinesDeletePipeline(pipeline.id);
  assert.deepEqual(await api.pipelinesListPipelineJobs(pipeline.id), []);
});

test("a job that was cancelled is not cancelled again", async () => {
  const { job } = await launched();
  assert.equal((await api.pipelinesCancelJob(job.id)).status, "Cancelled");
  await assert.rejects(api.pipelinesCancelJob(job.id), (error: unknown) => {
    assert(error instanceof ApiError);
    assert.equal(error.status, 400);
    assert.equal(error.message, `Job ${job.id} is already completed (current: Cancelled)`);
    return true;
  });
});

test("health and stubs", async () => {
  assert.equal(await api.pipelinesHealth(), "OK");
  assert((await api.pipelinesListStubs()).includes("log"));
  assert.match((await api.pipelinesGetStub("log")).content, /^---@meta/);
});
