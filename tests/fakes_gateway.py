"""A gateway in memory: the whole behaviour that the HTTP layer can see, without journal, actors or time.

Runs stay queued until a test moves them (`settle`). `broken` makes every call raise that error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric

from orchestrator import partitions, schedule, windows
from orchestrator import plan as planning
from orchestrator.archive import Sweep
from orchestrator.cluster_views import TenantShare, WorkerView
from orchestrator.definition import Definition, Window, content_hash
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError
from orchestrator.events import Counts
from orchestrator.idempotency import Idempotency
from orchestrator.limits import Limit
from orchestrator.pools import PoolSpec
from orchestrator.rows import TERMINAL, RunFilter
from orchestrator.starts import Plan, Trigger, Triggered, Widening, Wider
from orchestrator.views import (
    DagDefined,
    DagView,
    Frame,
    LogChunk,
    MapView,
    Page,
    RunChanged,
    RunView,
    Uncached,
    WindowView,
)
from serve_app import map_instances
from serve_app.ports import Expect, Observation
from tests.fakes_archive import FakeArchive
from tests.fakes_artifacts import FakeArtifacts
from tests.fakes_bundles import FakeBundles
from tests.fakes_limits import FakeLimits
from tests.fakes_planes import FakePlanes
from tests.fakes_pools import FakePools
from tests.fakes_starters import FakeStarters
from tests.fakes_waiting import FakeWaiting

T = TypeVar("T")
replace = msgspec.structs.replace

EPOCH = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
WINDOWS_MAX = 1000


class FakeClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._tokens = 0

    def now(self) -> datetime:
        return EPOCH

    def monotonic(self) -> float:
        return self.seconds

    def jitter(self) -> float:
        return 0.5

    def token(self) -> str:
        self._tokens += 1
        return f"fresh-{self._tokens}"


@dataclass
class FakeGateway:
    """`serve_app.ports.Gateway`, in memory."""

    broken: Exception | None = None
    down: str | None = None
    observed: list[Observation] = field(default_factory=list)
    #: (tenant, run id) -> frames of its stream
    frames: dict[tuple[str, str], list[Frame]] = field(default_factory=dict)
    #: (tenant, run id, task) -> output
    output: dict[tuple[str, str, str], list[LogChunk]] = field(default_factory=dict)
    #: (tenant, run id) -> letters as the journal has them, of runs with mapped tasks
    letters: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    #: set by a test to hold back every mutation
    gate: asyncio.Event | None = None
    mutations: int = 0
    _dags: dict[tuple[str, str], DagView] = field(default_factory=dict)
    _runs: dict[tuple[str, str], RunView] = field(default_factory=dict)
    _by_window: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _stored: dict[str, tuple[str, Any]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    _limits: dict[tuple[str, str], Limit] = field(default_factory=dict)
    _pools: dict[str, PoolSpec] = field(default_factory=dict)
    sweeps: list[Sweep] = field(default_factory=list)
    _workers: dict[str, WorkerView] = field(
        default_factory=lambda: {
            "worker-default-0": WorkerView("worker-default-0", "default", "idle", "n1", 42, "a1b2")
        }
    )

    @property
    def planes(self) -> FakePlanes:
        """Who is in charge."""
        return self._planes

    @property
    def archive(self) -> FakeArchive:
        """Runs that left."""
        return FakeArchive(self._check, self._runs, self.sweeps)

    @property
    def waiting(self) -> FakeWaiting:
        """Signals, approvals, queries."""
        return self._waiting

    def __post_init__(self) -> None:
        self._waiting = FakeWaiting(self)
        #: code that DAGs are deployed in
        self.bundles = FakeBundles(self._check, self.define_dag, EPOCH)
        #: large values of runs
        self.artifacts = FakeArtifacts(self._check)
        self._planes = FakePlanes(self._check)
        self._starters = FakeStarters(self._check, self._trigger, self._once, self._definitions, EPOCH)

    # -- what tests do to it

    def settle(self, tenant: str, run_id: str, **changes: Any) -> None:
        """The run is now like that."""
        self._runs[tenant, run_id] = replace(self._runs[tenant, run_id], **changes)

    def runs_of(self, tenant: str) -> list[RunView]:
        """Every run of a tenant."""
        return [run for (owner, _), run in self._runs.items() if owner == tenant]

    # -- DAGs

    async def define_dag(
        self, tenant: str, definition: Definition, *, keep_tasks: bool, expect: Expect, idem: Idempotency | None
    ) -> DagDefined:
        def define() -> DagDefined:
            found = self._dags.get((tenant, definition.dag_id))
            if (expect == "any" and found is None) or (
                isinstance(expect, int) and (not found or found.version != expect)
            ):
                raise Conflict(f"DAG {definition.dag_id}: version {expect} expected")
            wanted = replace(definition, tasks=found.definition.tasks) if found and keep_tasks else definition
            if found is None:
                view = DagView(wanted, 1, False, EPOCH, EPOCH)
            elif content_hash(found.definition) == content_hash(wanted):
                view = found
            else:
                view = replace(found, definition=wanted, version=found.version + 1)
            self._dags[tenant, definition.dag_id] = view
            return DagDefined(definition.dag_id, view.version, view.paused)

        return await self._once(idem, define)

    async def dag(self, tenant: str, dag_id: str) -> DagView:
        self._check()
        counts: dict[str, int] = {}
        for run in self.runs_of(tenant):
            if run.dag_id == dag_id and run.run_type != "backfill":
                counts[run.state] = counts.get(run.state, 0) + 1
        return replace(self._dag(tenant, dag_id), run_counts=counts)

    async def dags(
        self, tenant: str, *, paused: bool | None, owner: str | None, cursor: str | None, limit: int
    ) -> Page[DagView]:
        self._check()
        views = sorted((view for (t, _), view in self._dags.items() if t == tenant), key=lambda v: v.definition.dag_id)
        wanted = [v for v in views if paused in (None, v.paused) and owner in (None, v.definition.owner)]
        return _page(wanted, lambda v: v.definition.dag_id, cursor, limit, newest_first=False)

    async def pause_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        return await self._once(idem, lambda: self._switch(tenant, dag_id, True))

    async def resume_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        return await self._once(idem, lambda: self._switch(tenant, dag_id, False))

    def _switch(self, tenant: str, dag_id: str, paused: bool) -> DagDefined:
        view = self._dags[tenant, dag_id] = replace(self._dag(tenant, dag_id), paused=paused)
        return DagDefined(dag_id, view.version, paused)

    def _dag(self, tenant: str, dag_id: str) -> DagView:
        if (tenant, dag_id) not in self._dags:
            raise NotFound("dag", dag_id)
        return self._dags[tenant, dag_id]

    # -- runs

    async def trigger(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        return await self._once(idem, lambda: self._trigger(tenant, trigger))

    async def trigger_many(
        self, tenant: str, triggers: list[Trigger], idem: Idempotency | None
    ) -> tuple[list[Triggered | OrchestratorError], bool]:
        def trigger_all() -> tuple[list[Triggered | OrchestratorError], bool]:
            return [self._outcome(tenant, each) for each in triggers], False

        return await self._once(idem, trigger_all)

    async def plan(self, tenant: str, trigger: Trigger) -> Plan:
        self._check()
        view = self._dag(tenant, trigger.dag_id)
        return planning.plan(
            view.definition, view.version, trigger, self._windows(view, trigger), self._existing(tenant, trigger.dag_id)
        )

    async def run(self, tenant: str, run_id: str) -> RunView:
        self._check()
        return self._run(tenant, run_id)

    async def wait(self, tenant: str, run_id: str, seconds: float) -> None:
        self._check()
        self._run(tenant, run_id)

    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        self._check()
        found = [
            replace(run, tasks={}, windows=None)
            for run in self.runs_of(wanted.tenant)
            if not run.archived
            and wanted.dag_id in (None, run.dag_id)
            and wanted.state in (None, run.state)
            and wanted.run_type in (None, run.run_type)
            and wanted.parent in (None, run.parent_run_id)
        ]
        return _page(
            sorted(found, key=lambda r: r.run_id, reverse=True), lambda r: r.run_id, cursor, limit, newest_first=True
        )

    async def cancel_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        return await self._once(idem, lambda: self._change(tenant, run_id, "cancelled", TERMINAL - {"cancelled"}))

    async def pause_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        return await self._once(idem, lambda: self._change(tenant, run_id, "paused", TERMINAL))

    async def resume_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        return await self._once(idem, lambda: self._change(tenant, run_id, "running", TERMINAL))

    async def cap_run(
        self, tenant: str, run_id: str, max_active_runs: int | None, idem: Idempotency | None
    ) -> RunChanged:
        def cap() -> RunChanged:
            self.settle(tenant, self._backfill(tenant, run_id).run_id, max_active_runs=max_active_runs)
            return self._change(tenant, run_id, self._run(tenant, run_id).state, TERMINAL)

        return await self._once(idem, cap)

    async def widen_run(self, tenant: str, run_id: str, widening: Widening, idem: Idempotency | None) -> Wider:
        def widen() -> Wider:
            run = self._backfill(tenant, run_id)
            view, new = self._dag(tenant, run.dag_id), self._more(tenant, run, widening)
            more = [self._window_run(tenant, view, each, run_id) for each in new]
            listed = (*(run.windows or ()), *(WindowView(e.window or Window(), e.run_id, e.state) for e in more))
            counts = Counts(total=len(listed), queued=len(listed))
            self.settle(tenant, run_id, windows=listed, counts=counts)
            return Wider(run_id=run_id, dag_id=run.dag_id, state=run.state, counts=counts, added=len(more))

        return await self._once(idem, widen)

    async def plan_widening(self, tenant: str, run_id: str, widening: Widening) -> Plan:
        self._check()
        run = self._backfill(tenant, run_id)
        view, existing = self._dag(tenant, run.dag_id), self._existing(tenant, run.dag_id)
        trigger = Trigger(dag_id=run.dag_id, run_type="backfill")
        return planning.plan(
            view.definition, view.version, trigger, self._more(tenant, run, widening), existing, run_id
        )

    def _more(self, tenant: str, run: RunView, widening: Widening) -> list[Window]:
        whole = run.window or Window()
        start, end = widening.start or whole.start, widening.end or whole.end
        asked = Trigger(
            dag_id=run.dag_id, run_type="backfill", start=start or None, end=end, partitions=widening.partitions
        )
        known = {each.window for each in run.windows or ()}
        return [each for each in self._windows(self._dag(tenant, run.dag_id), asked) if each not in known]

    def _backfill(self, tenant: str, run_id: str) -> RunView:
        run = self._run(tenant, run_id)
        if run.run_type != "backfill":
            raise Conflict(f"run {run_id} is no backfill")
        return run

    async def retry_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        refused = frozenset({"queued", "running", "paused", "succeeded"})
        return await self._once(idem, lambda: self._change(tenant, run_id, "running", refused))

    async def retry_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        return await self._once(
            idem, lambda: self._change_task(tenant, run_id, task, "pending", {"failed", "cancelled"})
        )

    async def skip_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        return await self._once(idem, lambda: self._change_task(tenant, run_id, task, "skipped", {"failed", "pending"}))

    async def open_events(self, tenant: str, run_id: str, after: int | None) -> AsyncIterator[Sequence[Frame]] | None:
        self._check()
        run = self._run(tenant, run_id)
        frames = self.frames.get((tenant, run_id), [])
        last = max((frame.seq or 0 for frame in frames), default=0)
        if run.state in TERMINAL and after is not None and after >= last:
            return None
        return _stream([frame for frame in frames if (frame.seq or after or 0) > (after or 0) or frame.seq is None])

    async def map_instances(
        self, tenant: str, run_id: str, task: str, *, states: tuple[str, ...] | None, cursor: str | None, limit: int
    ) -> MapView:
        self._check()
        self._task_state(tenant, run_id, task)
        letters = self.letters.get((tenant, run_id), {})
        return map_instances.view(run_id, task, letters, states, int(cursor or -1), limit)

    async def logs(self, tenant: str, run_id: str, task: str, attempt: int | None) -> list[LogChunk]:
        self._check()
        self._task_state(tenant, run_id, task)
        return [each for each in self.output.get((tenant, run_id, task), []) if attempt in (None, each.attempt)]

    # -- the rest

    async def workers(self) -> list[WorkerView]:
        self._check()
        return list(self._workers.values())

    async def scale_workers(self, pool: str, n: int) -> list[WorkerView]:
        await self._pass_gate()
        kept = {name: each for name, each in self._workers.items() if each.pool != pool}
        names = [f"worker-{pool}-{number}" for number in range(n)]
        self._workers = kept | {name: WorkerView(name, pool, "idle") for name in names}
        return list(self._workers.values())

    async def drain_worker(self, worker_id: str) -> WorkerView:
        await self._pass_gate()
        if worker_id not in self._workers:
            raise NotFound("worker", worker_id)
        self._workers[worker_id] = replace(self._workers[worker_id], state="draining")
        return self._workers[worker_id]

    async def shares(self) -> list[TenantShare]:
        self._check()
        return [TenantShare(tenant, weight) for tenant, weight in sorted(self.weights.items())]

    async def set_share(self, tenant: str, weight: float) -> TenantShare:
        await self._pass_gate()
        self.weights[tenant] = weight
        return TenantShare(tenant, weight)

    @property
    def cache(self) -> FakeGateway:
        return self

    async def uncache(self, tenant: str, dag_id: str, task: str | None) -> Uncached:
        dag = await self.dag(tenant, dag_id)
        if task is not None and all(spec.id != task for spec in dag.definition.tasks):
            raise NotFound("task", task)
        self._check()
        return Uncached(dag_id, task, EPOCH)

    @property
    def starters(self) -> FakeStarters:
        return self._starters

    def _definitions(self, tenant: str) -> list[Definition]:
        return [view.definition for (owner, _), view in self._dags.items() if owner == tenant]

    @property
    def limit_book(self) -> FakeLimits:
        return FakeLimits(self._check, self._limits)

    @property
    def pool_book(self) -> FakePools:
        return FakePools(self._check, self._pools)

    async def health(self) -> Mapping[str, object]:
        self._check()
        return {"journal": self.down != "journal", "ray": self.down != "ray"}

    async def ready(self) -> str | None:
        self._check()
        return self.down

    async def metrics(self) -> Iterable[Metric]:
        self._check()
        family = CounterMetricFamily("runs", "Runs that ended", labels=("dag", "state"))
        family.add_metric(("sales_gdp", "succeeded"), 3)
        return [family]

    async def count_http(self, observations: Sequence[Observation]) -> None:
        self._check()
        self.observed.extend(observations)

    # -- inside

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def _pass_gate(self) -> None:
        self._check()
        if self.gate is not None:
            await self.gate.wait()
        self.mutations += 1

    async def _once(self, idem: Idempotency | None, change: Callable[[], T]) -> T:
        """The answer of `change`, or the one that is stored under the key."""
        await self._pass_gate()
        if idem is None:
            return change()
        fingerprint, answer = self._stored.get(idem.key, (idem.fingerprint, None))
        if fingerprint != idem.fingerprint:
            raise Conflict("this X-Request-Id came with another body before")
        if answer is None:
            answer = change()
            self._stored[idem.key] = (idem.fingerprint, answer)
            return answer
        if isinstance(answer, tuple):
            return (answer[0], True)  # type: ignore[return-value]  # T is a tuple with a flag then
        return replace(answer, replayed=True)

    def _outcome(self, tenant: str, trigger: Trigger) -> Triggered | OrchestratorError:
        try:
            return self._trigger(tenant, trigger)
        except OrchestratorError as error:
            return error

    def _trigger(self, tenant: str, trigger: Trigger) -> Triggered:
        view = self._dag(tenant, trigger.dag_id)
        chosen = self._windows(view, trigger)
        if trigger.plan_hash is not None:
            existing = self._existing(tenant, trigger.dag_id)
            if planning.plan(view.definition, view.version, trigger, chosen, existing).plan_hash != trigger.plan_hash:
                raise Conflict("the plan has changed")
        if trigger.run_type == "manual":
            window = chosen[0] if chosen else None
            if trigger.event_id:
                return self._of_event(tenant, view, trigger.event_id)
            return self._answer(self._window_run(tenant, view, window, None))
        span = Window(trigger.start, trigger.end or "") if trigger.start else None
        name = span.key() if span else partitions.set_key(chosen)
        key = (tenant, trigger.dag_id, f"backfill {name}")
        if key not in self._by_window:
            parent = self._new_run(tenant, view, "backfill", span, None)
            self._by_window[key] = parent.run_id
            children = [self._window_run(tenant, view, each, parent.run_id) for each in chosen]
            listed = tuple(WindowView(each.window or Window(), each.run_id, each.state) for each in children)
            counts = Counts(total=len(children), queued=len(children))
            self.settle(tenant, parent.run_id, windows=listed, counts=counts, progress=0.0)
        return self._answer(self._runs[tenant, self._by_window[key]])

    def _of_event(self, tenant: str, view: DagView, event_id: str) -> Triggered:
        key = (tenant, view.definition.dag_id, f"!{event_id}")
        existing = key in self._by_window
        if not existing:
            self._by_window[key] = self._new_run(tenant, view, "manual", None, None).run_id
        return replace(self._answer(self._runs[tenant, self._by_window[key]]), existing=existing)

    def _window_run(self, tenant: str, view: DagView, window: Window | None, parent: str | None) -> RunView:
        key = (tenant, view.definition.dag_id, window.key() if window else "")
        if window is None or key not in self._by_window:
            run = self._new_run(tenant, view, "manual" if parent is None else "scheduled", window, parent)
            if window is not None:
                self._by_window[key] = run.run_id
            return run
        return self._runs[tenant, self._by_window[key]]

    def _new_run(self, tenant: str, view: DagView, run_type: Any, window: Window | None, parent: str | None) -> RunView:
        run = RunView(
            run_id=f"run_{len(self._runs) + 1:06d}",
            dag_id=view.definition.dag_id,
            dag_version=view.version,
            run_type=run_type,
            state="queued",
            window=window,
            attempts=0,
            created_at=EPOCH,
            parent_run_id=parent,
            tasks={task.id: "pending" for task in view.definition.tasks},
        )
        self._runs[tenant, run.run_id] = run
        return run

    def _answer(self, run: RunView) -> Triggered:
        return Triggered(run.run_id, run.dag_id, run.run_type, run.state, run.counts)

    def _windows(self, view: DagView, trigger: Trigger) -> list[Window]:
        if trigger.run_type == "manual":
            if trigger.partition:
                return [Window(partition=trigger.partition)]
            window = windows.manual_window(trigger.start, trigger.end)
            return [] if window is None else [window]
        if trigger.start is None:
            asked = trigger.partitions or view.definition.partitions
            if not asked:
                raise Invalid("a backfill needs from and to", (("from", "required"), ("to", "required")))
            return partitions.windows(asked, WINDOWS_MAX)
        first, last = date.fromisoformat(trigger.start or ""), date.fromisoformat(trigger.end or "")
        parsed = schedule.schedule_of(view.definition)
        return windows.backfill_windows(parsed, view.definition.timezone, first, last, WINDOWS_MAX)

    def _existing(self, tenant: str, dag_id: str) -> dict[str, tuple[str, str]]:
        return {
            key: (run_id, self._runs[tenant, run_id].state)
            for (t, d, key), run_id in self._by_window.items()
            if (t, d) == (tenant, dag_id)
        }

    def _run(self, tenant: str, run_id: str) -> RunView:
        if (tenant, run_id) not in self._runs:
            raise NotFound("run", run_id)
        return self._runs[tenant, run_id]

    def _change(self, tenant: str, run_id: str, state: str, refused: frozenset[str]) -> RunChanged:
        run = self._run(tenant, run_id)
        if run.state in refused:
            raise Conflict(f"run {run_id} is already {run.state}")
        self.settle(tenant, run_id, state=state)
        return RunChanged(run_id, state, run.attempts)

    def _change_task(self, tenant: str, run_id: str, task: str, state: str, allowed: set[str]) -> RunChanged:
        found = self._task_state(tenant, run_id, task)
        if found not in allowed:
            raise Conflict(f"task {task} is {found}")
        run = self._run(tenant, run_id)
        self.settle(tenant, run_id, tasks={**run.tasks, task: state})
        return RunChanged(run_id, run.state, run.attempts, state)

    def _task_state(self, tenant: str, run_id: str, task: str) -> str:
        tasks = self._run(tenant, run_id).tasks
        if task not in tasks:
            raise NotFound("task", task)
        return tasks[task]


def _page(items: list[T], key: Callable[[T], str], cursor: str | None, limit: int, *, newest_first: bool) -> Page[T]:
    if cursor is not None:
        items = [each for each in items if (key(each) < cursor if newest_first else key(each) > cursor)]
    page = items[:limit]
    return Page(tuple(page), key(page[-1]) if len(items) > limit else None)


async def _stream(frames: list[Frame]) -> AsyncIterator[Sequence[Frame]]:
    for each in frames:
        yield [each]
