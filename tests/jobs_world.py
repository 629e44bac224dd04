"""Jobs outside the cluster, the whole of it in one thread on virtual time: one seed, one world, the same every time.

    clients ─▶ journal (in memory, with a bad road to it) ─▶ JobsHolder ◀─▶ GatewayLine ◀─ workers
                    processes killed or replaced while they live, messages lost, late, twice

Workers die, freeze beyond their TTL and report late, lose connections, report twice, and report for others. What each
report carries is marked, so that the events tell in the end whose word counted (I12):

    answered `ignored`              its mark is nowhere in the journal
    answered `accepted`             a mark of that worker for that task is there, once
    forged, or of a lapsed attempt  always `ignored`; counted as `stale`

    JOBS_WORLD_SEED=17 pytest tests/property/test_jobs_world.py -k one_seed
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from actors.blueprint_book import BlueprintBook
from actors.jobs_holder import JobsHolder
from actors.names import JOBS
from actors.settings import Settings
from orchestrator import codec, job_fold, outside_codec
from orchestrator import job_events as e
from orchestrator import remote as r
from orchestrator.blueprint import Blueprint, Outcome, Transition, Visit
from orchestrator.errors import ActorUnreachable, JournalUnavailable
from orchestrator.job import Job
from orchestrator.job_birth import Birth, new_job
from orchestrator.rows import TERMINAL
from orchestrator.steps import Creation, Mail
from serve_app.gateway_line import GatewayLine
from tests.fakes_journal import MemoryJournal
from tests.jobs_stage import blueprints_of
from tests.virtual_time import VirtualLoop, WorldClock
from tests.world_wire import Died, JournalRoad, Process, Weather, Wire, start_task

TENANT = "default"
TTL_S = 4.0
ENDS_WITHIN_S = 900.0
#: of a job's `mode`: what it may come to when nobody cancels it
RIGHT = {
    "ok": {"finished"},
    "permanent": {"quarantined"},
    "review": {"finished"},
    "flaky": {"finished", "quarantined"},
}
BLUEPRINTS = (
    """
name: single
api_endpoint: /single
api_version: v1
states:
  start:
    start: true
    dispatch_task:
      type: work
      params: {mode: "${initial_data.mode}"}
      transitions: {success: finished, needs_review: review}
  review:
    await_human_approval: {integration: mail, message: "ok?", transitions: {approved: finished}}
""",
    """
name: chain
api_endpoint: /chain
api_version: v1
states:
  start: {start: true, dispatch_task: {type: work, params: {mode: ok}, transitions: {success: code}}}
  code: {transition_to: last}
  last: {dispatch_task: {type: other, params: {mode: ok}, dispatch_strategy: round_robin, transitions: {success: done}}}
  done: {end: true}
""",
    """
name: fan
api_endpoint: /fan
api_version: v1
states:
  start:
    start: true
    dispatch_parallel:
      tasks: [{type: work, params: {mode: ok}}, {type: other, params: {mode: ok}}, {type: work, params: {mode: ok}}]
      aggregate_into: sum
  sum: {set: {parts: "${aggregation_results}"}, transition_to: finished}
""",
    """
name: parent
api_endpoint: /parent
api_version: v1
states:
  start:
    start: true
    run_blueprint: {name: single, initial_data: {mode: ok}, transitions: {success: finished, failure: failed}}
""",
)


class JobsWorldFailed(AssertionError):
    """What went wrong, with the seed that makes it go wrong again."""


@dataclass
class Report:
    """One result that somebody sends."""

    mark: str
    worker: str
    job_id: str
    task_id: str
    status: str
    #: nobody may accept it
    stale: bool = False
    answers: list[Any] = field(default_factory=list)


class JobsWorld:
    """Plays one seed. `play` raises JobsWorldFailed."""

    def __init__(self, seed: int, jobs: int = 16) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.calm = seed % 4 == 0
        self.weather = Weather()
        if not self.calm:
            self.weather.slow = rng.choice((0.0, 0.02))
            self.weather.lost = rng.choice((0.0, 0.02, 0.05))
            self.weather.mute = rng.choice((0.0, 0.02, 0.05))
            self.weather.journal = rng.choice((0.0, 0.01, 0.05))
            self.weather.journal_slow = rng.choice((0.0, 0.05))
        self.kills = 0 if self.calm else rng.choice((1, 3, 6))
        self.jobs_wanted = jobs
        self.loop = VirtualLoop()
        self.loop.set_task_factory(start_task)
        self.clock = WorldClock(self.loop, rng)
        self.journal = MemoryJournal()
        self.wire = Wire(self.loop, rng, self.weather)
        self.settings = Settings(
            worker_health_check_interval_s=TTL_S / 2,
            job_retry_backoff_s=0.1,
            job_max_redeliveries=1_000,
            worker_timeout_s=600.0,
            job_dispatch_timeout_s=600.0,
            job_cancel_grace_s=5.0,
            executor_max_concurrent_jobs=2,
        )
        self.replicas: dict[str, tuple[Process, GatewayLine]] = {}
        self.versions: dict[str, tuple[Blueprint, int]] = {}
        self.jobs: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.reports: list[Report] = []
        self.failures: list[str] = []
        self.over = False
        #: has there been more than one gateway at a time?
        self.replaced = False
        self._names = 0

    # ── the course of a world ─────────────────────────────────────────────────────────────────────

    def play(self) -> JobsWorld:
        """From the first job to the last check."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._course())
        except Exception as error:
            what = self.failures[0] if self.failures else f"{type(error).__name__}: {error}"
            raise JobsWorldFailed(self._story(what)) from error
        finally:
            self._sweep_up()
        if self.failures:
            raise JobsWorldFailed(self._story(self.failures[0]))
        return self

    def _story(self, what: str) -> str:
        return (
            f"{what}\n  JOBS_WORLD_SEED={self.seed} pytest tests/property/test_jobs_world.py -k one_seed\n"
            f"  at {self.loop.time():.3f} s; {self.weather}; kills {self.kills}; jobs {len(self.jobs)}"
        )

    def _sweep_up(self) -> None:
        self.loop.rounds = 0
        while left := asyncio.all_tasks(self.loop):
            for task in sorted(left, key=lambda task: task.get_name()):
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(left, timeout=1))
        asyncio.set_event_loop(None)
        self.loop.close()

    async def _course(self) -> None:
        blueprints = [_with_code(one) for one in blueprints_of(*BLUEPRINTS)]
        published = await BlueprintBook(self.journal).publish(blueprints)
        self.versions = {one.name: (one, published[one.name]) for one in blueprints}
        self.start_gateway()
        for _ in range(2):
            self.start_replica()
        lasts_s = self.rng.uniform(10.0, 30.0)
        workers = [self.loop.create_task(self._worker(n)) for n in range(self.rng.randint(2, 5))]
        visits = self._some(self._client, self.jobs_wanted, lasts_s)
        troubles = self._some(self._trouble, self.kills, lasts_s)
        troubles += self._some(self._outage, 0 if self.calm else self.rng.choice((0, 1)), lasts_s)
        await asyncio.sleep(lasts_s)
        await asyncio.gather(*troubles)
        self.weather.clear_up()
        await asyncio.gather(*visits)
        await self._let_end()
        self.over = True
        for report in [one for one in self.reports if one.status == "success"][: self.jobs_wanted]:
            await self._forge(report)
        for worker in workers:
            worker.cancel()
        self._check()

    def _some(
        self, what: Callable[[float], Coroutine[Any, Any, None]], number: int, within_s: float
    ) -> list[asyncio.Task[None]]:
        return [self.loop.create_task(what(self.rng.uniform(0.0, within_s))) for _ in range(number)]

    async def _let_end(self) -> None:
        deadline = self.loop.time() + ENDS_WITHIN_S
        while open_ := [job_id for job_id, run in self.journal.runs.items() if run.state not in TERMINAL]:
            if self.failures:
                return
            if self.loop.time() > deadline:
                views = [self.view(job_id) for job_id in open_[:3]]
                raise AssertionError(
                    f"still open: {[(v.id, v.blueprint_name, v.status, v.task_worker_id) for v in views]}"
                )
            await asyncio.sleep(1.0)

    # ── the cast ──────────────────────────────────────────────────────────────────────────────────

    def start_gateway(self) -> None:
        """A gateway lives; whoever has the name already is replaced, and may not know it."""
        process = Process(self.loop, JOBS)

        def begin() -> JobsHolder:
            road: Any = JournalRoad(self.journal, self.wire, lambda: None)
            holder = JobsHolder(road, self.clock, self.settings, self, _webhook)
            holder.on_crash = lambda: self._crashed(process)  # type: ignore[method-assign] # as spawn does
            holder.start()
            return holder

        process.object = process.context.run(begin)
        self.wire.processes[JOBS] = process

    def _crashed(self, process: Process) -> None:
        """It ends by itself: right when there are several, of whom the one that was slow to begin wins."""
        if not self.replaced:
            self.failures.append("the gateway ended by itself")
        process.end()
        if self.wire.processes.get(JOBS) is process:
            self.start_gateway()

    def start_replica(self) -> None:
        """An API replica."""
        self._names += 1
        name = f"api-{self._names}"
        process = Process(self.loop, name)
        line = process.context.run(GatewayLine, self, self.clock, asyncio.Event())
        self.replicas[name] = (process, line)

    async def gateway(self, ward: str, request: bytes, patience_s: float = 5.0) -> bytes:
        """`ControlPlane.gateway`."""
        try:
            async with asyncio.timeout(patience_s):
                call = self.wire._send(self.wire._call(JOBS, "ask", (request,), 60.0))
                answer: bytes = await call
                return answer
        except (Died, TimeoutError) as gone:
            raise ActorUnreachable(JOBS, f"{ward}: {gone!r}") from gone

    async def visit(self, visit: Visit) -> Outcome:
        """`Handlers.visit`: takes a while, and may fail as its process dies."""
        await asyncio.sleep(self.rng.uniform(0.0, 0.5))
        if not self.calm and self.rng.random() < 0.1:
            raise Died("the handlers' process")
        return Outcome(Transition("last"), visit.state_history)

    async def _trouble(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        match self.rng.choice(("gateway", "gateway", "replace", "replica")):
            case "gateway":
                if JOBS in self.wire.processes:
                    self.wire.processes.pop(JOBS).end()
                await asyncio.sleep(self.rng.choice((0.0, 0.5, 6.0)))
                if JOBS not in self.wire.processes:
                    self.start_gateway()
            case "replace":
                self.replaced = True
                self.start_gateway()
            case "replica":
                self._kill_replica(self.rng.choice(sorted(self.replicas)))
                self.start_replica()

    def _kill_replica(self, name: str) -> None:
        process, line = self.replicas.pop(name)
        process.end()
        for task in line._tasks.values():  # they have a context of their own
            task.cancel()

    async def _outage(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.weather.outage_until_s = self.loop.time() + self.rng.uniform(0.5, 6.0)
        await asyncio.sleep(6.0)

    # ── clients ───────────────────────────────────────────────────────────────────────────────────

    async def _client(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        name = self.rng.choice(("single", "single", "single", "chain", "fan", "parent"))
        mode = self.rng.choice(sorted(RIGHT)) if name == "single" else "ok"
        job_id = self.clock.uuid()
        birth = Birth(
            job_id=job_id,
            tenant=TENANT,
            initial_data={"mode": mode},
            client={"name": "c", "plan": None},
            webhook_url="http://x/",
        )
        run = new_job(birth, *self.versions[name], JOBS, self.clock.now())
        road: Any = JournalRoad(self.journal, self.wire, lambda: None)
        while True:
            try:
                await road.create_runs([Creation((run,))])
                break
            except JournalUnavailable:
                await asyncio.sleep(0.1)
        self.jobs[job_id] = mode
        if self.rng.random() < 0.2:
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            self.cancelled.add(job_id)
            answer = await self._insist(r.Cancel(TENANT, job_id))
            if answer.refused not in (None, "conflict"):
                self.failures.append(f"cancel of {job_id}: {answer}")
        if mode == "review":
            await self._approve(job_id)

    async def _approve(self, job_id: str) -> None:
        while self.journal.runs[job_id].state not in TERMINAL:
            await asyncio.sleep(1.0)
            await self._insist(r.Approve(job_id, "approved"))

    async def _insist(self, ask: r.Request) -> r.Answer:
        while True:
            try:
                return outside_codec.decode_answer(await self.gateway("jobs", outside_codec.encode_request(ask)))
            except ActorUnreachable:
                await asyncio.sleep(0.2)

    # ── workers ───────────────────────────────────────────────────────────────────────────────────

    async def _worker(self, number: int) -> None:
        """A remote worker, and whoever comes after it has died."""
        lives = 0
        while not self.over:
            lives += 1
            name, capacity = f"w{number}-{lives}", self.rng.randint(1, 3)
            body = {"supported_tasks": ["work", "other"], "max_concurrent_tasks": capacity, "cost_per_second": number}
            await self._insist(r.Register(TENANT, name, body))
            working: set[str] = set()
            beats = self.loop.create_task(self._beat(name, working))
            slots = [self.loop.create_task(self._slot(name, working)) for _ in range(capacity)]
            try:
                await asyncio.wait(slots, return_when=asyncio.FIRST_COMPLETED)  # one dies, all do
            finally:
                for task in (beats, *slots):
                    task.cancel()

    async def _beat(self, name: str, working: set[str]) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._insist(r.Heartbeat(TENANT, name, {"current_tasks": sorted(working)}))

    async def _slot(self, name: str, working: set[str]) -> None:
        """One task after the other, until the worker dies of it."""
        while not self.over:
            task = await self._poll(name)
            if task is None:
                continue
            fate = (
                "work"
                if self.calm or self.over
                else self.rng.choices(("work", "die", "freeze", "lose"), (20, 1, 2, 2))[0]
            )
            if fate == "die":
                return
            if fate == "lose":
                continue  # a thread of the worker has crashed: nobody will ever report, its heartbeats tell
            working.add(task["task_id"])
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            report = self._report_of(name, task)
            if fate == "freeze":
                self.loop.create_task(self._late(report), context=self.wire._context.copy())
                return
            if self.rng.random() < 0.3:
                await self._forge(report)
            await self._send(report)
            working.discard(task["task_id"])
            if self.rng.random() < 0.3:
                await self._send(report)
            if self.rng.random() < 0.5:
                await self._forge(report)

    async def _late(self, report: Report) -> None:
        """A zombie: frozen while it had a task, it goes on where it was."""
        await asyncio.sleep(self.rng.uniform(TTL_S, 4 * TTL_S))
        await self._send(report)

    async def _poll(self, name: str) -> dict[str, Any] | None:
        process, line = self.replicas[self.rng.choice(sorted(self.replicas))]
        wait_s = self.rng.uniform(1.0, 8.0)
        polling: Any = None

        async def hold() -> dict[str, Any] | None:
            nonlocal polling
            polling = line.poll(TENANT, name, wait_s, (), ())
            found: dict[str, Any] | None = await polling.outcome
            return found

        call = process.call(hold())
        vanish = not self.calm and self.rng.random() < 0.05
        try:
            async with asyncio.timeout(self.rng.uniform(0.0, 2.0) if vanish else wait_s + 30):
                task = await asyncio.shield(call)
        except Died:
            await asyncio.sleep(0.1)
            return None
        except TimeoutError:
            if not vanish:
                self.failures.append(f"a poll of {name} for {wait_s:.1f} s had no answer")
            if process.alive:
                process.context.run(polling.withdraw)
            return None
        if task is not None and not self.calm and self.rng.random() < 0.05 and process.alive:
            process.context.run(polling.withdraw)  # its answer could not be written
            return None
        return task

    def _report_of(self, name: str, task: dict[str, Any]) -> Report:
        mode = task["params"]["mode"]
        status = {"ok": "success", "permanent": "failure", "review": "needs_review"}.get(mode)
        if status is None:
            status = self.rng.choice(("success", "failure"))
        report = Report(f"mark-{len(self.reports)}-", name, task["job_id"], task["task_id"], status)
        self.reports.append(report)
        return report

    async def _forge(self, genuine: Report) -> None:
        """Results that must not count: of somebody else, for another job, for no task."""
        other = self.rng.choice([one.job_id for one in self.reports])
        for worker, job_id, task_id in (
            (f"{genuine.worker}-thief", genuine.job_id, genuine.task_id),
            (genuine.worker, other if other != genuine.job_id else genuine.job_id, self.clock.uuid()),
            (f"{genuine.worker}-thief", genuine.job_id, genuine.task_id),
        ):
            forged = Report(f"mark-{len(self.reports)}-", worker, job_id, task_id, "success", stale=True)
            self.reports.append(forged)
            await self._send(forged)

    async def _send(self, report: Report) -> None:
        failing = {"code": "PERMANENT_ERROR", "message": report.mark}
        error = None if report.status != "failure" else failing
        if self.jobs.get(report.job_id) == "flaky" and error is not None:
            error["code"] = "TRANSIENT"
        data = {"mark": report.mark}
        ask = r.Result(TENANT, report.worker, report.job_id, report.task_id, report.status, data, error)
        answer = await self._insist(ask)
        report.answers.append(answer.refused or answer.body)

    # ── what must be true in the end ──────────────────────────────────────────────────────────────

    def events(self, job_id: str) -> list[e.AnyJobEvent]:
        """All that happened to a job."""
        batches = self.journal.runs[job_id].events
        return [event for batch in batches for event in codec.decode_job_events(batch.events, batch.schema)]

    def view(self, job_id: str) -> Any:
        """As clients see it."""
        return job_fold.view(self.events(job_id))

    def _check(self) -> None:
        finished: dict[tuple[str, str], set[str]] = defaultdict(set)
        for job_id, run in self.journal.runs.items():
            events = self.events(job_id)
            self._check_job(job_id, run.state, events)
            for event in events:
                if isinstance(event, e.TaskFinished):
                    finished[event.worker_id, event.task_id].add(event.data["mark"])
        self._check_reports(finished)
        mails = Counter(item.split(b'"data":')[1] for _, item in self.journal.streams["in:webhooks"])
        if set(mails.values()) - {1} or len(mails) != len(self.jobs):
            self.failures.append(f"webhooks: {len(mails)} for {len(self.jobs)} jobs, {mails.most_common(1)}")

    def _check_job(self, job_id: str, state: str, events: list[e.AnyJobEvent]) -> None:
        ends = [n for n, event in enumerate(events) if isinstance(event, e.JobEnded)]
        if ends != [len(events) - 1]:
            self.failures.append(f"I1 {job_id}: it ends at {ends} of {len(events)}")
        settled = Counter(event.task_id for event in events if isinstance(event, e.TaskFinished | e.TaskGivenUp))
        if set(settled.values()) - {1}:
            self.failures.append(f"I2 {job_id}: {settled}")
        view, mode = self.view(job_id), self.jobs.get(job_id, "ok")
        asked = job_id in self.cancelled or view.parent_job_id in self.cancelled
        if view.status not in (RIGHT[mode] | ({"cancelled"} if asked else set())):
            self.failures.append(f"{job_id} ({view.blueprint_name}, {mode}) is {view.status}: {view.error_message}")
        if view.parent_job_id is not None and view.parent_job_id not in self.jobs:
            self.failures.append(f"{job_id} has no parent")

    def _check_reports(self, finished: dict[tuple[str, str], set[str]]) -> None:
        counted = {mark for marks in finished.values() for mark in marks}
        for report in self.reports:
            words = {answer["status"] if isinstance(answer, dict) else answer for answer in report.answers}
            ignored = "ignored" in words
            if (ignored or report.stale) and report.mark in counted:
                self.failures.append(f"I12 {report} had an effect")
            if report.stale and words - {"ignored"}:
                self.failures.append(f"I12 {report} was not refused")
            if words - {"ignored"} and not finished[report.worker, report.task_id]:
                self.failures.append(f"I13 {report} was accepted and is not there")

    @property
    def stale(self) -> int:
        """Results that were refused, and changed nothing."""
        return sum(
            sum(answer == "ignored" or answer["status"] == "ignored" for answer in one.answers) for one in self.reports
        )


def _with_code(blueprint: Blueprint) -> Blueprint:
    """Its state `code`, if it has one, is a handler in Python."""
    if "code" not in blueprint.states:
        return blueprint
    code = msgspec.structs.replace(blueprint.states["code"], code=True, action=None)
    return msgspec.structs.replace(blueprint, states=blueprint.states | {"code": code})


def _webhook(job: Job) -> Mail | None:
    return Mail("webhooks", codec.encode_mail(JOBS, msgspec.json.encode(job.job_id))) if job.webhook_url else None
