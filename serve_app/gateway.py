"""Commands in, views and streams out: the one way from a surface to the rest of the system.

    reads, creations, definitions ──▶ journal            (no actor is needed for these)
    commands on a run             ──▶ the actor that owns it, through `ports.ControlPlane`
    streams                       ──▶ `hub`, one per replica

Every method keeps a deadline of 5 s and then raises Unavailable; the work it began may still be done, so
the same request is sent again. A tenant's foreign objects are NotFound.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from prometheus_client.core import Metric

from actors.archive_store import ArchiveStore
from actors.blueprint_book import BlueprintBook
from actors.clock import Clock
from actors.lua_sandbox import LuaSandbox
from actors.plan_store import PlanStore
from actors.settings import Settings
from actors.vault import Vault
from orchestrator import actor_codec, awaited, codec, pace
from orchestrator import events as e
from orchestrator.blueprint import Blueprint
from orchestrator.cluster_views import TenantShare, WorkerView
from orchestrator.command import Command, CommandReply
from orchestrator.definition import Definition, content_hash
from orchestrator.errors import Conflict, HistoryGone, Invalid, NotFound, OrchestratorError, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import TERMINAL, ChildRow, DagRow, RunFilter, RunRow
from orchestrator.starts import Plan, Trigger, Triggered, Widening, Wider
from orchestrator.steps import DagWritten, PutDag, StoredReply
from orchestrator.views import CalledView, DagDefined, DagView, Frame, LogChunk, MapView, Page, RunChanged, RunView
from serve_app import archive_figures, call_cycles, figures, limit_figures, map_instances, pool_figures, rendering
from serve_app.archived_runs import ArchivedRuns
from serve_app.asking import KEY_REUSED, ask, shown
from serve_app.bundles import Bundles
from serve_app.cache_book import CacheBook
from serve_app.creations import Creations
from serve_app.cursors import cursor_of, name_of, run_of
from serve_app.dag_book import DagBook
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.hub import Follower, Hub
from serve_app.instances import Instances
from serve_app.jobs import Jobs
from serve_app.limit_book import LimitBook
from serve_app.live_runs import LiveRuns
from serve_app.pipelines import Pipelines
from serve_app.plane_book import PlaneBook
from serve_app.pool_book import PoolBook, define_pools
from serve_app.ports import Expect, Observation
from serve_app.run_stream import run_frames
from serve_app.shares import TenantShares
from serve_app.starters import Starters, would_start_itself
from serve_app.steps import TRIES
from serve_app.triggers import Triggers
from serve_app.waiting import Waiting
from serve_app.worker_tokens import KeptTokens

T = TypeVar("T")

#: DAGs read at once when a list is filtered
_DAGS_CHUNK = 200
#: windows a command on a backfill reaches at the same time
_WINDOWS_AT_ONCE = 64
#: letters of tasks that a command on a task can be meant for
_COMMANDED = {"retry_task": "ftuc", "skip_task": "prefustc", "retry_run": "ftuc"}
#: seconds that a scrape waits for the figures of an actor
_FIGURES_S = 2.0
_DAG_ID = re.compile(r"[A-Za-z0-9_.-]{1,250}")


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
        self._dags_max = dags_max
        self._book = DagBook(journal)
        creations = Creations(journal)
        store = ArchiveStore(settings.home)
        self.planes = planes or PlaneBook(control)
        #: runs that left the journal
        self.archive = ArchivedRuns(journal, self._book, store, clock, control, settings.archive_url)
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
        for _ in range(TRIES):
            row = await self._journal.dag(tenant, definition.dag_id)
            if expect is not None and await self._key_is_free(idem):
                _check_expected(definition.dag_id, row, expect)
            await call_cycles.check(self._book, tenant, definition)
            step = self._put(tenant, definition, row, keep_tasks, idem)
            await define_pools(self._journal, definition)
            written = await self._journal.put_dag(step)
            if written.status == "full":
                raise Conflict(f"a tenant has at most {self._dags_max} DAGs")
            if written.status == "circle":
                raise would_start_itself(written)
            if written.status != "changed":
                self._book.forget(tenant, definition.dag_id)
                return _defined(definition.dag_id, written)
        raise Unavailable(f"DAG {definition.dag_id} changes too fast")

    @within(DEADLINE_S)
    async def dag(self, tenant: str, dag_id: str) -> DagView:
        """The current version of one DAG, with what it waits for. Raises NotFound."""
        row = await self._journal.dag(tenant, dag_id)
        if row is None:
            raise NotFound("DAG", dag_id)
        view = rendering.dag_view(row)
        return msgspec.structs.replace(view, awaits=await self.starters.awaits(tenant, view.definition))

    @within(DEADLINE_S)
    async def dags(
        self, tenant: str, *, paused: bool | None, owner: str | None, cursor: str | None, limit: int
    ) -> Page[DagView]:
        """DAGs by id. Raises Invalid about the cursor."""
        after = name_of(cursor, _DAG_ID)
        found: list[DagView] = []
        while True:
            rows = await self._journal.dags(tenant, after, _DAGS_CHUNK)
            for row in rows:
                view = rendering.dag_view(row)
                if paused in (None, view.paused) and owner in (None, view.definition.owner):
                    if len(found) == limit:
                        return Page(tuple(found), cursor_of(found[-1].definition.dag_id))
                    found.append(view)
            if len(rows) < _DAGS_CHUNK:
                return Page(tuple(found))
            after = rows[-1].dag_id

    async def pause_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        """Nothing of the DAG starts any more. Raises NotFound."""
        return await self._switch(tenant, dag_id, True, idem)

    async def resume_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        """Runs of the DAG start again. Raises NotFound."""
        return await self._switch(tenant, dag_id, False, idem)

    @within(DEADLINE_S)
    async def _switch(self, tenant: str, dag_id: str, paused: bool, idem: Idempotency | None) -> DagDefined:
        written = await self._journal.set_paused(tenant, dag_id, paused, self._now_ms(), _stored(idem))
        if written.status == "missing":
            raise NotFound("DAG", dag_id)
        return _defined(dag_id, written)

    def _put(
        self, tenant: str, definition: Definition, row: DagRow | None, keep_tasks: bool, idem: Idempotency | None
    ) -> PutDag:
        before = codec.decode_definition(row.definition) if row else None
        next_fire_ms, next_due_ms = self._next_fire(tenant, definition, before)
        if keep_tasks and before:
            definition = msgspec.structs.replace(definition, tasks=before.tasks, bundle=before.bundle)
        return PutDag(
            tenant=tenant,
            dag_id=definition.dag_id,
            definition=codec.encode_definition(definition),
            content_hash=content_hash(definition),
            owner=definition.owner,
            now_ms=self._now_ms(),
            base_version=row.version if row else 0,
            next_fire_ms=next_fire_ms,
            next_due_ms=next_due_ms,
            max_dags=self._dags_max,
            idem=_stored(idem),
            follows=awaited.follows(definition),
            makes=awaited.makes(definition),
        )

    def _next_fire(self, tenant: str, definition: Definition, before: Definition | None) -> tuple[int | None, int]:
        """The fire at which the schedule stands, and when it happens; None when it stays where it is.

        A new or changed schedule starts now: nothing in the past is missed.
        """
        from orchestrator import fires

        if before and fires.same_times(definition, before):
            return None, 0
        timetable = fires.timetable_of(definition, tenant)
        fire = timetable.next(self._clock.now()) if timetable else None
        if timetable is None or fire is None:
            return 0, 0
        return _epoch_ms(fire), _epoch_ms(timetable.due(fire))

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
        found = await self._journal.look(run_id)
        if found is None:
            return await self.archive.run(tenant, run_id)
        row = shown(found[0], tenant, run_id)
        view = await self._run_here(tenant, run_id, row, found[1])
        if row.state in TERMINAL and await self.archive.has_left(run_id):  # in between, and with it what it is shown by
            return await self.archive.run(tenant, run_id)
        return view

    async def _run_here(self, tenant: str, run_id: str, row: RunRow, letters: Mapping[str, str]) -> RunView:
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        names = [task.id for task in definition.tasks]
        view = rendering.run_view(row)
        if row.run_type != "backfill":
            waits = await self.waiting.waits(run_id) if rendering.waits(letters) else {}
            children: dict[str, CalledView] = {}
            if rendering.calls(definition):
                children = rendering.called_views(await self._journal.called(run_id))
                children = await self.archive.with_children(run_id, definition, children)
            states, cached = rendering.task_states(names, letters), rendering.cached(names, letters)
            return msgspec.structs.replace(view, tasks=states, waiting_for=waits, children=children, cached=cached)
        windows, counted, letters_by_task, recent = await asyncio.gather(
            self._journal.children(row.run_id, rendering.WINDOWS_SHOWN + 1),
            self._journal.child_counts(row.run_id),
            self._journal.child_tasks(row.run_id),
            self._recent(row),
        )
        counts = rendering.counts_view(counted)
        if row.state == "queued":  # its windows may have begun in between, and it with them
            row = await self._row(tenant, run_id)
            view = rendering.run_view(row)
        speed = pace.pace(recent, counts, view.started_at, row.state)
        return msgspec.structs.replace(
            view,
            tasks=rendering.backfill_tasks(names, letters_by_task, counts, row.state),
            windows=rendering.window_views(windows),
            windows_truncated=len(windows) > rendering.WINDOWS_SHOWN,
            counts=counts,
            progress=speed.progress,
            eta=speed.eta,
            windows_per_s=speed.windows_per_s,
        )

    async def _recent(self, row: RunRow) -> list[e.Event]:
        """The latest events of a backfill, as many as its pace is read from."""
        batches = await self._journal.events(row.run_id, max(0, row.version - pace.SAMPLE), pace.SAMPLE)
        return [event for batch in batches for event in codec.decode_events(batch.events, batch.schema)]

    async def wait(self, tenant: str, run_id: str, seconds: float) -> None:
        """Returns when the run has ended, or after `seconds`. Raises NotFound."""
        follower = await self._hub.follow(run_id)
        try:
            async with asyncio.timeout(seconds):
                while (await self._row(tenant, run_id)).state not in TERMINAL:
                    await _ended_or_unknown(follower)
        except TimeoutError:
            return
        finally:
            self._hub.leave(follower)

    @within(DEADLINE_S)
    async def runs(
        self,
        tenant: str,
        *,
        dag_id: str | None,
        state: str | None,
        run_type: str | None,
        parent_run_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> Page[RunView]:
        """Runs, newest first; `state` is a core word. Raises Invalid about the cursor."""
        wanted = RunFilter(tenant=tenant, dag_id=dag_id, state=state, run_type=run_type, parent=parent_run_id)
        page = await self._journal.summaries(wanted, run_of(cursor), limit)
        return Page(tuple(rendering.run_view(row) for row in page.rows), page.next_cursor)

    async def cancel_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """The run ends as cancelled; of a backfill, every window that has not ended. Raises NotFound, Conflict."""
        return await self._command(tenant, Command(kind="cancel", run_id=run_id, idem=idem))

    async def pause_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """No further task of the run starts. Raises NotFound, Conflict."""
        return await self._command(tenant, Command(kind="pause", run_id=run_id, idem=idem))

    async def resume_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """Tasks of the run start again. Raises NotFound, Conflict."""
        return await self._command(tenant, Command(kind="resume", run_id=run_id, idem=idem))

    async def cap_run(
        self, tenant: str, run_id: str, max_active_runs: int | None, idem: Idempotency | None
    ) -> RunChanged:
        """So many windows of the backfill run at a time. Raises NotFound, Conflict."""
        wanted = Command(kind="cap", run_id=run_id, max_active_runs=max_active_runs, idem=idem)
        return await self._command(tenant, wanted)

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
        return await self._command(tenant, Command(kind="retry_run", run_id=run_id, idem=idem))

    async def retry_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        """The task is pending again. Raises NotFound, Conflict."""
        return await self._command(tenant, Command(kind="retry_task", run_id=run_id, task=task, idem=idem))

    async def skip_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        """Dependents proceed as if the task were done. Raises NotFound, Conflict."""
        return await self._command(tenant, Command(kind="skip_task", run_id=run_id, task=task, idem=idem))

    # commands

    @within(DEADLINE_S)
    async def _command(self, tenant: str, command: Command) -> RunChanged:
        kind, run_id, task, idem = command.kind, command.run_id, command.task, command.idem
        row = await self._row_here(tenant, run_id)
        if idem is not None and (kept := await self._journal.stored_reply(idem.key)) is not None:
            if kept.fingerprint != idem.fingerprint:
                raise Conflict(KEY_REUSED)
            reply = actor_codec.decode_command_reply(kept.reply)
            return _changed(run_id, msgspec.structs.replace(reply, replayed=True))
        if task is not None:
            await self._check_task(row, task)
        if kind == "cap" and row.run_type != "backfill":
            raise Conflict(f"run {run_id} is no backfill")
        if row.run_type == "backfill" and kind in _COMMANDED:
            reply = await self._command_windows(row, kind, task)
            if idem is not None:
                await self._journal.store_reply(
                    StoredReply(idem.key, idem.fingerprint, actor_codec.encode_command_reply(reply))
                )
            return _changed(run_id, reply)
        return _changed(
            run_id,
            await ask(self._journal, self._control, row.owner, command),
        )

    async def _command_windows(self, row: RunRow, kind: str, task: str | None) -> CommandReply:
        """To every window where it is allowed. Raises Conflict when there is none."""
        gate = asyncio.Semaphore(_WINDOWS_AT_ONCE)

        async def command(child: ChildRow) -> CommandReply | None:
            async with gate:
                letters = await self._journal.tasks(child.run_id)
                meant = letters.values() if task is None else [letters.get(task, "p")]
                if not any(letter in _COMMANDED[kind] for letter in meant):
                    return None
                current = await self._journal.summary(child.run_id)
                wanted = Command(kind=kind, run_id=child.run_id, task=task)
                try:
                    return await ask(self._journal, self._control, current.owner if current else "", wanted)
                except (Conflict, NotFound):
                    return None

        children = await self._journal.children(row.run_id)
        replies = [reply for reply in await asyncio.gather(*map(command, children)) if reply is not None]
        if not replies:
            raise Conflict(f"no window of backfill {row.run_id} allows it")
        return CommandReply(state=row.state, attempts=row.attempts, task_state=replies[0].task_state)

    async def _check_task(self, row: RunRow, task: str) -> None:
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        map_instances.check_task(definition, task)

    @within(DEADLINE_S)
    async def map_instances(
        self, tenant: str, run_id: str, task: str, *, states: tuple[str, ...] | None, cursor: str | None, limit: int
    ) -> MapView:
        """A mapped task and a page of its instances. Raises NotFound; Invalid when it is not mapped."""
        found = await self._journal.look(run_id)
        if found is None:
            return await self.archive.instances(tenant, run_id, task, states, int(cursor or -1), limit)
        row = shown(found[0], tenant, run_id)
        await self._check_task(row, task)
        map_instances.check_mapped(await self._book.version(row.tenant, row.dag_id, row.dag_version), task)
        if row.run_type == "backfill":
            raise Invalid("the instances of a backfill are those of its windows", (("run_id", "is a backfill"),))
        return map_instances.view(run_id, task, found[1], states, int(cursor or -1), limit)

    # streams and logs

    @within(DEADLINE_S)
    async def open_events(self, tenant: str, run_id: str, after: int | None) -> AsyncIterator[Sequence[Frame]] | None:
        """Events after `after` (None = all), then live; None when nothing will ever follow.

        Raises NotFound, and HistoryGone when some are no longer kept; who has had none yet begins with what there is.
        """
        found = await self._journal.summary(run_id)
        row = shown(found, tenant, run_id) if found else (await self.archive.found(tenant, run_id)).row
        through = max(0, row.removed - 1)
        if (after or 0) < through and (after or row.version == row.removed):
            raise HistoryGone(run_id, through)
        if found is None:
            return await self.archive.frames(tenant, run_id, after)
        begin = max(row.removed, min(after or 0, row.version))
        if after is not None and begin == row.version and row.state in TERMINAL:
            return None
        return run_frames(self._hub, run_id, begin, self.archive.rest_of(tenant, run_id))

    @within(DEADLINE_S)
    async def logs(self, tenant: str, run_id: str, task: str, attempt: int | None) -> list[LogChunk]:
        """Captured output, oldest attempt first. Raises NotFound."""
        found = await self._journal.summary(run_id)
        if found is None:
            return await self.archive.logs(tenant, run_id, task, attempt)
        await self._check_task(shown(found, tenant, run_id), task)
        attempts = [attempt] if attempt is not None else await self._attempts(run_id, task)
        outputs = await asyncio.gather(*(self._journal.log(run_id, task, n) for n in attempts))
        chunks = [_log(task, n, chunks) for n, chunks in zip(attempts, outputs, strict=True) if chunks]
        if await self.archive.has_left(run_id):  # in between
            return await self.archive.logs(tenant, run_id, task, attempt)
        return await self.archive.with_former(tenant, run_id, task, attempts, chunks)

    async def _attempts(self, run_id: str, task: str) -> list[int]:
        found: set[int] = set()
        seen = 0
        while batches := await self._journal.events(run_id, seen, 256):
            for batch in batches:
                for event in codec.decode_events(batch.events, batch.schema):
                    if getattr(event, "task", None) == task and hasattr(event, "attempt"):
                        found.add(event.attempt)
                    elif isinstance(event, e.HistoryRemoved):
                        found.update(range(1, event.task_attempts.get(task, 0) + 1))
            seen = batches[-1].last_version
        return sorted(found)

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
        load, outside, workers, usage, pools = await asyncio.gather(
            _or_none(self._control.load()),
            _or_none(self.jobs.figures()),
            _or_none(self.workers()),
            self.limit_book.usage(),
            _or_none(self.pool_book.pools()),
        )
        swept, kept = await asyncio.gather(self.archive.sweeps(), self.bundles.families())
        counters = await self._journal.metrics()
        now_ms = _epoch_ms(self._clock.now())

        def families() -> Iterator[Metric]:
            yield from figures.families(counters, load, outside, workers)
            yield from limit_figures.families(usage, load)
            yield from pool_figures.families(counters, pools or ())
            yield from archive_figures.families(counters, swept, now_ms)
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

    async def _row(self, tenant: str, run_id: str) -> RunRow:
        found = await self._journal.summary(run_id)
        return shown(found, tenant, run_id) if found else (await self.archive.found(tenant, run_id)).row

    async def _row_here(self, tenant: str, run_id: str) -> RunRow:
        """The row of a run that a command is about: one that left comes back."""
        found = await self._journal.summary(run_id)
        return shown(found, tenant, run_id) if found else await self.archive.bring_back(tenant, run_id)

    async def _key_is_free(self, idem: Idempotency | None) -> bool:
        """A repetition meets the version it made itself; the journal answers it whatever it expects."""
        return idem is None or await self._journal.stored_reply(idem.key) is None

    def _now_ms(self) -> int:
        return _epoch_ms(self._clock.now())


async def open_gateway(settings: Settings, worker_tokens: KeptTokens) -> Gateway:
    """A replica's gateway, connected to the journal and to the actors of this Ray cluster.

    Blueprints were published before any replica started. Raises JournalUnavailable: Serve tries again.
    """
    from actors.directory import this_plane
    from actors.plane_journal import PlaneJournal
    from actors.spawn import RayControlPlane

    plane, control = this_plane(), RayControlPlane(settings)
    journal = PlaneJournal(settings.journal_url, plane)
    deployed = await BlueprintBook(journal).deployed()
    return Gateway(
        journal,
        control,
        Clock(),
        windows_max=settings.dags_backfill_max_windows,
        dags_max=settings.dags_max_dags_per_tenant,
        driven_ttl_s=settings.taskless_run_ttl_s,
        settings=settings,
        blueprints=[(each.blueprint, each.version) for each in deployed.values()],
        worker_tokens=worker_tokens,
        planes=PlaneBook(control, None if settings.embedded else journal, plane),
    )


async def _or_none(figures: Awaitable[T]) -> T | None:
    """What somebody says of now; None when that takes longer than a scrape should."""
    try:
        async with asyncio.timeout(_FIGURES_S):
            return await figures
    except (OrchestratorError, TimeoutError):
        return None


def _epoch_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _check_expected(dag_id: str, row: DagRow | None, expect: Expect) -> None:
    if row is None:
        raise Conflict(f"DAG {dag_id} does not exist")
    if expect not in ("any", row.version):
        raise Conflict(f"DAG {dag_id} has version {row.version}, not {expect}")


def _defined(dag_id: str, written: DagWritten) -> DagDefined:
    if written.status == "conflict":
        raise Conflict(KEY_REUSED)
    return DagDefined(dag_id, written.version, written.paused, replayed=written.status == "replayed")


def _changed(run_id: str, reply: CommandReply) -> RunChanged:
    return RunChanged(run_id, reply.state, reply.attempts, reply.task_state, reply.replayed)


def _stored(idem: Idempotency | None) -> StoredReply | None:
    return None if idem is None else StoredReply(idem.key, idem.fingerprint)


def _log(task: str, attempt: int, chunks: list[bytes]) -> LogChunk:
    from actors.attempt_log import TRUNCATION_MARK

    text = b"".join(chunks).decode("utf-8", "replace")
    return LogChunk(task, attempt, text.removesuffix(TRUNCATION_MARK), truncated=text.endswith(TRUNCATION_MARK))


async def _ended_or_unknown(follower: Follower) -> None:
    """The feed told that the run has ended, or that it cannot tell."""
    while True:
        await follower.changed.wait()
        follower.changed.clear()
        if follower.state == "" or follower.state in TERMINAL:
            return
