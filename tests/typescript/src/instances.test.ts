import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, type LiveSocket, type OrchestratorEvent, type OrchestratorInfo, SocketClosed } from "./lib/api-client.js";
import { api, cut, executor, plan } from "./server.js";

/** An orchestrator that has begun and waits, so that a test can be there before the rest happens. */
async function paused(): Promise<OrchestratorInfo> {
  const info = await api.startOrchestrator({ plan: plan(), executor, batch_size: 1, max_iterations: 0 });
  const answer = await api.pauseOrchestrator(info.id);
  assert.deepEqual([answer.success, answer.error], [true, null]);
  return info;
}

function closed(socket: LiveSocket): Promise<SocketClosed> {
  return new Promise((resolve) => {
    socket.onclose = resolve;
  });
}

function checked(events: OrchestratorEvent[]): void {
  assert.equal(events[0]?.type, "initial_status");
  const seqs = events.flatMap((event) => ("seq" in event && event.seq !== undefined ? [event.seq] : []));
  assert(seqs.length > 3);
  assert.deepEqual(seqs, seqs.map((_, place) => (seqs[0] ?? 0) + place), "no gap, nothing twice");
  const changes = events.flatMap((event) => (event.type === "task_changed" ? [event.data.new_status] : []));
  assert(changes.includes("completed"));
  const last = events.filter((event) => event.type === "orchestrator_state").at(-1);
  assert.equal(last?.data.new_state, "stopped");
}

test("a socket outlives its connections and closes when the orchestrator has stopped", async () => {
  const { id } = await paused();
  const events: OrchestratorEvent[] = [];
  const ws = api.connectEvents(id);
  ws.onmessage = (event) => {
    const data = JSON.parse(event.data) as OrchestratorEvent;
    events.push(data);
    if (events.length === 1) void api.resumeOrchestrator(id);
    if (data.type === "task_changed") void cut();
  };
  const end = await closed(ws);
  checked(events);
  assert.deepEqual([end.code, ws.readyState], [1000, 3]);
  const status = await api.getOrchestratorStatus(id);
  assert.equal(status.status, "stopped");
  assert.equal(status.summary.completed, status.tasks.length);
});

test("events can be iterated", async () => {
  const { id } = await paused();
  const events: OrchestratorEvent[] = [];
  for await (const event of api.followOrchestrator(id)) {
    events.push(event.data);
    if (events.length === 1) await api.resumeOrchestrator(id);
    if (event.event === "task_changed") await cut();
  }
  checked(events);
});

test("an EventSource brings the same and closes by itself", async () => {
  const { id } = await paused();
  const source = api.connectEventsSse(id);
  const events: OrchestratorEvent[] = [];
  const stopped = new Promise<void>((resolve) => {
    for (const type of ["initial_status", "task_changed", "phase_changed", "status_updated", "tool_started",
      "tool_completed", "orchestrator_state"]) {
      source.addEventListener(type, (event: { data: string }) => {
        const told = JSON.parse(event.data) as OrchestratorEvent;
        events.push(told);
        if (events.length === 1) void api.resumeOrchestrator(id);
        if (told.type === "orchestrator_state" && told.data.new_state === "stopped") resolve();
      });
    }
  });
  await stopped;
  checked(events);
  assert.equal(source.readyState, 2);
});

test("activity is tool calls only", async () => {
  const { id } = await paused();
  const ws = api.connectActivity(id);
  const frames: { type: string; duration_ms?: number }[] = [];
  ws.addEventListener("message", (event) => {
    frames.push(JSON.parse((event as MessageEvent<string>).data) as { type: string });
    if (frames.length === 1) void api.resumeOrchestrator(id);
  });
  await closed(ws);
  assert.equal(frames[0]?.type, "connected");
  assert(frames.some((frame) => frame.type === "tool_started"));
  const completed = frames.filter((frame) => frame.type === "tool_completed");
  assert(completed.length > 0 && completed.every((frame) => Number.isInteger(frame.duration_ms)));
  assert(frames.slice(1).every((frame) => frame.type === "ping" || frame.type.startsWith("tool_")));
});

test("a socket to nothing fails and closes", async () => {
  const ws = api.connectEvents("orch-0");
  let failed = false;
  ws.onerror = () => {
    failed = true;
  };
  const end = await closed(ws);
  assert.deepEqual([failed, end.code], [true, 4004]);
});

test("a socket that is closed stays closed", async () => {
  const { id } = await paused();
  const ws = api.connectEvents(id);
  const end = closed(ws);
  ws.onmessage = () => ws.close();
  assert.equal((await end).code, 1000);
  await cut();
  await api.shutdownOrchestrator(id, { query: { force: true } });
  for await (const event of api.followOrchestrator(id)) assert(event);
  assert.equal(ws.readyState, 3);
});

test("commands say what came of them", async () => {
  const { id, plan_name } = await paused();
  assert((await api.listOrchestrators()).some((each) => each.id === id));
  assert.equal((await api.getOrchestrator(id)).plan_name, plan_name);
  assert.equal((await api.skipTask(id, { task_id: "2.1", reason: "later" })).success, true);
  const unknown = await api.skipTask(id, { task_id: "9.9" });
  assert.deepEqual([unknown.success, unknown.message], [false, "Skip failed"]);
  await api.resumeOrchestrator(id);
  for await (const event of api.followOrchestrator(id)) assert(event);
  await assert.rejects(api.pauseOrchestrator(id), (error: unknown) => error instanceof ApiError && error.status === 503);
});

test("plans and findings are there", async () => {
  const { id, plan_name } = await api.startOrchestrator({ plan: plan(), max_iterations: 0 });
  for await (const event of api.followOrchestrator(id)) assert(event);
  assert((await api.listPlans()).some((each) => each.name === plan_name));
  const finding = await api.getFindingContent(plan_name, "1.1");
  assert.equal(finding.task_id, "1.1");
});
