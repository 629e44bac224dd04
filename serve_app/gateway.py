"""Commands in, views and streams out: the one way from a surface to the rest of the system.

    reads, creations, definitions ──▶ journal            (no actor is needed for these)
    commands on a run             ──▶ the actor that owns it, through `ports.ControlPlane`
    streams                       ──▶ `hub`, one per replica

Every method keeps a deadline of 5 s and then raises Unavailable; the work it began may still be done, so
the same request is sent again. A tenant's foreign objects are NotFound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from prometheus_client.core import Metric

from actors.archive_store import ArchiveStore
from actors.blueprint_book import BlueprintBook
from actors.clock import Clock
from actors.hosted import milliseconds
from actors.lua_sandbox import LuaSandbox
from actors.plan_store import PlanStore
from actors.settings import Settings
from actors.vault import Vault
from orchestrator import actor_codec
from orchestrator.blueprint import Blueprint
from orchestrator.cluster_views import TenantShare, WorkerView
from orchestrator.command import Command
from orchestrator.definition import Definition
from orchestrator.errors import NotFound, OrchestratorError
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import RunFilter
from orchestrator.starts import Plan, Trigger, Triggered, Widening, Wider
from orchestrator.views import DagDefined, DagView, Frame, LogChunk, MapView, Page, RunChanged, RunView
from serve_app import archive_figures, artifact_figures, figures, limit_figures, plane_figures, pool_figures
from serve_app.archived_runs import ArchivedRuns
from serve_app.artifact_book import ArtifactBook
from serve_app.bundles import Bundles
from serve_app.cache_book import CacheBook
from serve_app.creations import Creations
from serve_app.dag_book import DagBook
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.definitions import Definitions
from serve_app.hub import Hub
from serve_app.instances import Instances
from serve_app.jobs import Jobs
from serve_app.limit_book import LimitBook
from serve_app.live_runs import LiveRuns
from serve_app.pipelines import Pipelines
from serve_app.plane_book import PlaneBook, told_by
from serve_app.pool_book import PoolBook
from serve_app.ports import Expect, Observation
from serve_app.run_orders import RunOrders
from serve_app.run_reads import RunReads
from serve_app.shares import TenantShares
from serve_app.starters import Starters
from serve_app.triggers import Triggers
from serve_app.waiting import Waiting
from serve_app.worker_tokens import KeptTokens

T = TypeVar("T")

#: seconds that a scrape waits for the figures of an actor
_FIGURES_S = 2.0


class Gateway:
    """`serve_app.ports.Gateway` over a journal and a control plane."""

    def __init__(
        self,
        journal: Journal,
        control: ControlPlane,
        clock: Clock,
        *,
        windows_max: int = 100_000,
        dags_max: int = 10_000,
        driven_ttl_s: float = 86_400,
        settings: Settings | None = None,
        blueprints: Sequence[tuple[Blueprint, int]] = (),
        worker_tokens: KeptTokens | None = None,
        planes: PlaneBook | None = None,
    ) -> None:
        settings = settings or Settings()
        self._journal = journal
        self._control = control
        self._clock = clock
        self._book = DagBook(journal)
        creations = Creations(journal)
        store = ArchiveStore(settings.home)
        self.planes = planes or PlaneBook(control)
        #: runs that left the journal
        self.archive = ArchivedRuns(journal, self._book, store, clock, control, settings.archive_url)
        #: large values of runs
        self.artifacts = ArtifactBook(journal, clock, control)
        #: code that DAGs are deployed in
        self.bundles = Bundles(journal, self.define_dag, clock, settings)
        self._triggers = Triggers(journal, self._book, creations, clock, windows_max, self.archive)
        self._hub = Hub(journal)
        #: set once this server is about to go away
        self.draining = self._hub.draining
        #: the runs surface's part
        self.live_runs = LiveRuns(
            journal, control, self._book, creations, self._hub, clock, driven_ttl_s, settings.run_retention_s
        )
        #: signals, approvals, queries
        self.waiting = Waiting(journal, control, self._book, clock)
        self.limit_book = LimitBook(journal, control)
        self.pool_book = PoolBook(control)
        #: results that are used again
        self.cache = CacheBook(journal, self._book, clock)
        #: what starts runs of several DAGs: events and assets
        self.starters = Starters(journal, self._triggers, creations, self.archive)
        self._definitions = Definitions(journal, self._book, self.starters, clock, dags_max)
        self._reads = RunReads(journal, self._book, self.archive, self._hub, self.waiting)
        self._orders = RunOrders(journal, control, self._book, self.archive)
        plans = PlanStore(Path(settings.plans_root))
        #: the instances surface's part
        self.instances = Instances(journal, control, self._book, creations, self._hub, plans, clock, settings)
        #: the pipelines surface's part
        self.pipelines = (
            Pipelines(
                journal, control, creations, self._hub, clock, Vault(settings.secret_key, clock), LuaSandbox().validate
            )
            if settings.secret_key
            else None
        )
        self._shares = TenantShares(journal, control)
        #: the jobs surface's part
        self.jobs = Jobs(
            journal,
            control,
            creations,
            clock,
            self.draining,
            blueprints,
            worker_tokens or KeptTokens(),
            settings.workers_config_path,
        )

    # DAGs

    @within(DEADLINE_S)
    async def define_dag(
        self, tenant: str, definition: Definition, *, keep_tasks: bool, expect: Expect, idem: Idempotency | None
    ) -> DagDefined:
        """Store a definition; with `keep_tasks` an existing DAG keeps its tasks. Raises Invalid, Conflict."""
        return await self._definitions.define(tenant, definition, keep_tasks=keep_tasks, expect=expect, idem=idem)

    @within(DEADLINE_S)
    async def dag(self, tenant: str, dag_id: str) -> DagView:
        """The current version of one DAG, with what it waits for. Raises NotFound."""
        return await self._definitions.dag(tenant, dag_id)

    @within(DEADLINE_S)
    async def dags(
        self, tenant: str, *, paused: bool | None, owner: str | None, cursor: str | None, limit: int
    ) -> Page[DagView]:
        """DAGs by id. Raises Invalid about the cursor."""
        return await self._definitions.dags(tenant, paused=paused, owner=owner, cursor=cursor, limit=limit)

    async def pause_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        """Nothing of the DAG starts any more. Raises NotFound."""
        return await self._switch(tenant, dag_id, True, idem)

    async def resume_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        """Runs of the DAG start again. Raises NotFound."""
        return await self._switch(tenant, dag_id, False, idem)

    @within(DEADLINE_S)
    async def _switch(self, tenant: str, dag_id: str, paused: bool, idem: Idempotency | None) -> DagDefined:
        return await self._definitions.switch(tenant, dag_id, paused, idem)

    # runs

    async def trigger(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        """A manual run or a backfill exists, durably. Raises Invalid, NotFound, Conflict."""
        limited = within(LONG_DEADLINE_S if trigger.run_type == "backfill" else DEADLINE_S)
        return await limited(self._triggers.trigger)(tenant, trigger, idem)

    @within(DEADLINE_S)
    async def trigger_many(
        self, tenant: str, triggers: list[Trigger], idem: Idempotency | None
    ) -> tuple[list[Triggered | OrchestratorError], bool]:
        """Many manual runs in one durable step; the flag says that the answer was stored before."""
        return await self._triggers.trigger_many(tenant, triggers, idem)

    @within(LONG_DEADLINE_S)
    async def plan(self, tenant: str, trigger: Trigger) -> Plan:
        """What the trigger would do; nothing is stored. Raises Invalid, NotFound."""
        return await self._triggers.plan(tenant, trigger)

    @within(DEADLINE_S)
    async def run(self, tenant: str, run_id: str) -> RunView:
        """One run with its tasks and windows. Raises NotFound."""
        return await self._reads.run(tenant, run_id)

    async def wait(self, tenant: str, run_id: str, seconds: float) -> None:
        """Returns when the run has ended, or after `seconds`. Raises NotFound."""
        await self._reads.wait(tenant, run_id, seconds)

    @within(DEADLINE_S)
    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        """Runs, newest first; `state` is a core word. Raises Invalid about the cursor."""
        return await self._reads.runs(wanted, cursor, limit)

    async def cancel_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """The run ends as cancelled; of a backfill, every window that has not ended. Raises NotFound, Conflict."""
        return await self._order(tenant, Command(kind="cancel", run_id=run_id, idem=idem))

    async def pause_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """No further task of the run starts. Raises NotFound, Conflict."""
        return await self._order(tenant, Command(kind="pause", run_id=run_id, idem=idem))

    async def resume_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """Tasks of the run start again. Raises NotFound, Conflict."""
        return await self._order(tenant, Command(kind="resume", run_id=run_id, idem=idem))

    async def cap_run(
        self, tenant: str, run_id: str, max_active_runs: int | None, idem: Idempotency | None
    ) -> RunChanged:
        """So many windows of the backfill run at a time. Raises NotFound, Conflict."""
        wanted = Command(kind="cap", run_id=run_id, max_active_runs=max_active_runs, idem=idem)
        return await self._order(tenant, wanted)

    @within(LONG_DEADLINE_S)
    async def widen_run(self, tenant: str, run_id: str, widening: Widening, idem: Idempotency | None) -> Wider:
        """The backfill has these windows too, durably. Raises Invalid, NotFound, Conflict."""
        return await self._triggers.backfills.widen(tenant, run_id, widening, idem)

    @within(LONG_DEADLINE_S)
    async def plan_widening(self, tenant: str, run_id: str, widening: Widening) -> Plan:
        """What `widen_run` would do; nothing is stored. Raises Invalid, NotFound, Conflict."""
        return await self._triggers.backfills.plan_widening(tenant, run_id, widening)

    async def retry_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """Every failed task of the run is pending again. Raises NotFound, Conflict."""
        return await self._order(tenant, Command(kind="retry_run", run_id=run_id, idem=idem))

    async def retry_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        """The task is pending again. Raises NotFound, Conflict."""
        return await self._order(tenant, Command(kind="retry_task", run_id=run_id, task=task, idem=idem))

    async def skip_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        """Dependents proceed as if the task were done. Raises NotFound, Conflict."""
        return await self._order(tenant, Command(kind="skip_task", run_id=run_id, task=task, idem=idem))

    @within(DEADLINE_S)
    async def map_instances(
        self, tenant: str, run_id: str, task: str, *, states: tuple[str, ...] | None, cursor: str | None, limit: int
    ) -> MapView:
        """A mapped task and a page of its instances. Raises NotFound; Invalid when it is not mapped."""
        return await self._reads.map_instances(tenant, run_id, task, states=states, cursor=cursor, limit=limit)

    @within(DEADLINE_S)
    async def _order(self, tenant: str, command: Command) -> RunChanged:
        return await self._orders.command(tenant, command)

    # streams and logs

    @within(DEADLINE_S)
    async def open_events(self, tenant: str, run_id: str, after: int | None) -> AsyncIterator[Sequence[Frame]] | None:
        """Events after `after` (None = all), then live; None when nothing will ever follow.

        Raises NotFound, and HistoryGone when some are no longer kept; who has had none yet begins with what there is.
        """
        return await self._reads.open_events(tenant, run_id, after)

    @within(DEADLINE_S)
    async def logs(self, tenant: str, run_id: str, task: str, attempt: int | None) -> list[LogChunk]:
        """Captured output, oldest attempt first. Raises NotFound."""
        return await self._reads.logs(tenant, run_id, task, attempt)

    # the rest

    @within(DEADLINE_S)
    async def workers(self) -> list[WorkerView]:
        """Every worker slot."""
        return actor_codec.decode_workers(await self._control.workers())

    @within(LONG_DEADLINE_S)
    async def scale_workers(self, pool: str, n: int) -> list[WorkerView]:
        """The pool's slots, on their way to `n`. Raises Invalid."""
        return actor_codec.decode_workers(await self._control.scale_workers(pool, n))

    @within(DEADLINE_S)
    async def drain_worker(self, worker_id: str) -> WorkerView:
        """The worker finishes what it has and gets nothing more. Raises NotFound."""
        found = actor_codec.decode_workers(await self._control.drain_worker(worker_id))
        if not found:
            raise NotFound("worker", worker_id)
        return found[0]

    @within(DEADLINE_S)
    async def shares(self) -> list[TenantShare]:
        """Weights of tenants that were given one."""
        return await self._shares.all()

    @within(DEADLINE_S)
    async def set_share(self, tenant: str, weight: float) -> TenantShare:
        """The tenant weighs that much, durably."""
        return await self._shares.put(tenant, weight)

    async def health(self) -> Mapping[str, object]:
        """What answers."""
        journal, ray, standby = await asyncio.gather(self._journal.ping(), self._alive(), self.planes.standby())
        ray = ray or standby is not None  # its cast is the other one's
        return {"journal": journal, "ray": ray, "orchestrators_running": await self._orchestrators() if journal else 0}

    async def _orchestrators(self) -> int:
        """Instances that run; 0 when that cannot be known now."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self.instances.running()
        except (OrchestratorError, TimeoutError):
            return 0

    async def ready(self) -> str | None:
        """Why no work can be accepted, or None."""
        found = await self.health()
        return next((name for name in ("journal", "ray") if not found[name]), None)

    @within(DEADLINE_S)
    async def metrics(self) -> Iterable[Metric]:
        """Metric families of the whole system, made only as they are asked for: with many DAGs that takes a while."""
        load, outside, workers, usage, pools, plane = await asyncio.gather(
            _or_none(self._control.load()),
            _or_none(self.jobs.figures()),
            _or_none(self.workers()),
            self.limit_book.usage(),
            _or_none(self.pool_book.pools()),
            _or_none(self.planes.view()),
        )
        swept, values = await asyncio.gather(self.archive.sweeps(), self.artifacts.sweeps())
        kept = await self.bundles.families()
        counters = await self._journal.metrics()
        now_ms = milliseconds(self._clock.now())

        def families() -> Iterator[Metric]:
            yield from figures.families(counters, load, outside, workers)
            yield from limit_figures.families(usage, load)
            yield from pool_figures.families(counters, pools or ())
            yield from archive_figures.families(counters, swept, now_ms)
            yield from plane_figures.families(plane)
            yield from artifact_figures.families(counters, values)
            yield from kept

        return families()

    @within(DEADLINE_S)
    async def count_http(self, observations: Sequence[Observation]) -> None:
        """Add this replica's requests to the whole system's histogram."""
        await self._journal.count(figures.http_counts(observations))

    async def close(self) -> None:
        """Nothing is held open any more."""
        self._hub.close()
        await self._journal.close()

    async def _alive(self) -> bool:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._control.alive()
        except (OrchestratorError, TimeoutError):
            return False


async def open_gateway(settings: Settings, worker_tokens: KeptTokens) -> Gateway:
    """A replica's gateway, connected to the journal and to the actors of this Ray cluster.

    Blueprints were published before any replica started. Raises JournalUnavailable: Serve tries again.
    """
    from actors.directory import this_plane
    from actors.plane_journal import PlaneJournal
    from actors.spawn import RayControlPlane

    plane, actors = this_plane(), RayControlPlane(settings)
    journal = PlaneJournal(settings.journal_url, plane)
    planes = PlaneBook(actors, None if settings.embedded else journal, plane)
    deployed = await BlueprintBook(journal).deployed()
    return Gateway(
        journal,
        actors if settings.embedded else told_by(actors, planes),
        Clock(),
        windows_max=settings.dags_backfill_max_windows,
        dags_max=settings.dags_max_dags_per_tenant,
        driven_ttl_s=settings.taskless_run_ttl_s,
        settings=settings,
        blueprints=[(each.blueprint, each.version) for each in deployed.values()],
        worker_tokens=worker_tokens,
        planes=planes,
    )


async def _or_none(figures: Awaitable[T]) -> T | None:
    """What somebody says of now; None when that takes longer than a scrape should."""
    try:
        async with asyncio.timeout(_FIGURES_S):
            return await figures
    except (OrchestratorError, TimeoutError):
        return None
