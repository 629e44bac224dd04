"""Runs of the runs surface: `serve_app.ports.LiveRuns` over the journal and the actors.

    create            one journal step; the definition is a DAG, or one of ours that is nobody's DAG:
                      `@run` (no tasks, driven by its caller), `@flow/<content hash>` (an inline plan)
    ask_leave         the rate limit: a sliding window per caller in the journal's server, exact over replicas
    checkpoints       the fold of the run's own events (`orchestrator/checkpoints.py`); nothing is stored for it
    post, cancel      commands on the run's owner

An inline plan is stored under its content hash, so that equal plans are one definition, and a run is pinned to it as to
any other. A run is of this surface when its id says so: the digits alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import msgspec

from actors.clock import Clock
from actors.hosted import instant, milliseconds
from orchestrator import codec
from orchestrator import events as e
from orchestrator.checkpoints import About, Checkpoints, checkpoint_id
from orchestrator.command import Command, Posted
from orchestrator.definition import HIDDEN, Definition, content_hash
from orchestrator.errors import (
    AlreadyEnded,
    Broken,
    Conflict,
    HistoryGone,
    Invalid,
    JournalUnavailable,
    NotFound,
    Unavailable,
)
from orchestrator.idempotency import Idempotency
from orchestrator.live_run_views import CheckpointView, LiveRunCreated, LiveRunView, LiveRunWanted
from orchestrator.messages import NO_JSON
from orchestrator.narration import instant_text
from orchestrator.needs import is_bound
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.steps import Creation, NewRun, StoredReply
from orchestrator.views import Frame, RunChanged
from serve_app.asking import ask
from serve_app.creations import Creations
from serve_app.dag_book import CurrentDag, DagBook
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.hub import Hub
from serve_app.live_stream import live_frames

DRIVEN, FLOW = f"{HIDDEN}run", f"{HIDDEN}flow"
#: runs of these definitions never wait for one another
ACTIVE_MAX = 1_000_000_000
#: how often a creation is tried again when the DAG changed in between
TRIES = 8
#: event batches per read
BATCHES = 64

#: for who cancels it, a run that is being cancelled is so already
_OVER = TERMINAL | {"cancelling"}
_RUN_ID = re.compile(r"[0-9A-Za-z]{10,32}", re.ASCII)


class LiveRuns:
    """Creates, reads and steers; streams come from `hub`."""

    def __init__(
        self,
        journal: Journal,
        control: ControlPlane,
        book: DagBook,
        creations: Creations,
        hub: Hub,
        clock: Clock,
        driven_ttl_s: float,
        retention_s: float,
    ) -> None:
        self._journal = journal
        self._control = control
        self._book = book
        self._creations = creations
        self._hub = hub
        self._clock = clock
        self._driven_ttl_s = driven_ttl_s
        self._retention = timedelta(seconds=retention_s)

    async def ask_leave(self, caller: str, most: int, window_s: float) -> int:
        """Whole seconds until `caller` may ask again; 0 = this request may pass, and counts.

        When the journal does not answer it passes: it fails of itself, with what there is to say about that.
        """
        try:
            wait_ms = await self._journal.ask_leave(f"runs:{caller}", most, round(window_s * 1000))
        except JournalUnavailable:
            return 0
        return math.ceil(wait_ms / 1000)

    # ── creation ──────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def create(self, tenant: str, wanted: LiveRunWanted, idem: Idempotency | None) -> LiveRunCreated:
        """A run exists, durably. Raises NotFound for an unknown DAG, Conflict for a reused key."""
        stored = None if idem is None else StoredReply(idem.key, idem.fingerprint)
        for _ in range(TRIES):
            dag_id, version = await self._definition(tenant, wanted)
            creation = Creation((self._new_run(tenant, wanted, dag_id, version),), stored)
            result = await self._creations.create(creation)
            if result.status == "conflict":
                raise Conflict("idempotency key reused")
            if result.status != "changed":
                return LiveRunCreated(result.runs[0].run_id, replayed=result.status == "replayed")
            self._book.forget(tenant, dag_id)
        raise Unavailable(f"DAG {wanted.dag_id} changes too fast")

    async def _definition(self, tenant: str, wanted: LiveRunWanted) -> tuple[str, int]:
        """Id and version of the definition that the run is of; one of ours is stored when it is new."""
        if wanted.dag_id is not None:
            dag = await self._dag(tenant, wanted.dag_id)
            if wanted.mode == "k8s" and is_bound(dag.definition):
                raise Invalid(f"DAG {wanted.dag_id} has pools or limits, which do not hold in Kubernetes")
            return wanted.dag_id, dag.version
        definition = self._made(wanted)
        try:
            known = await self._book.current(tenant, definition.dag_id)
        except NotFound:
            return definition.dag_id, await self._store(tenant, definition, 0)
        if known.definition == definition:
            return definition.dag_id, known.version
        return definition.dag_id, await self._store(tenant, definition, known.version)

    async def _dag(self, tenant: str, dag_id: str) -> CurrentDag:
        if dag_id.startswith(HIDDEN):
            raise NotFound("DAG", dag_id)
        return await self._book.current(tenant, dag_id)

    def _made(self, wanted: LiveRunWanted) -> Definition:
        if wanted.tasks is None:
            ttl_s = self._driven_ttl_s
            return Definition(dag_id=DRIVEN, owner="", max_active_runs=ACTIVE_MAX, driven_ttl_s=ttl_s)
        plan = Definition(dag_id=FLOW, owner="", max_active_runs=ACTIVE_MAX, tasks=wanted.tasks)
        return msgspec.structs.replace(plan, dag_id=f"{FLOW}/{content_hash(plan)[:32]}")

    async def _store(self, tenant: str, definition: Definition, base_version: int) -> int:
        """Its version; whoever else stores the same at this moment gets the same."""
        return (await self._book.store(tenant, definition, base_version, self._clock.now())).version

    def _new_run(self, tenant: str, wanted: LiveRunWanted, dag_id: str, version: int) -> NewRun:
        now = self._clock.now()
        run_id = self._clock.new_run_id().removeprefix("run_")
        origin = e.Origin(wanted.mode, wanted.owner, wanted.metadata or NO_JSON)
        created = e.RunCreated(
            now, run_id, tenant, dag_id, version, "manual", origin=origin, traceparent=wanted.traceparent
        )
        return NewRun(
            run_id=run_id,
            tenant=tenant,
            dag_id=dag_id,
            dag_version=version,
            run_type="manual",
            created_ms=milliseconds(now),
            event=codec.encode_events([created]),
        )

    # ── reading ───────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def run(self, tenant: str, run_id: str) -> LiveRunView:
        """One run of this surface. Raises NotFound."""
        row = await self._row(tenant, run_id)
        [first] = await self._journal.events(run_id, 0, 1)
        created = codec.decode_events(first.events, first.schema)[0]
        if not isinstance(created, e.RunCreated) or created.origin is None:
            raise Broken(f"run {run_id} does not begin with where it came from")
        origin = created.origin
        return LiveRunView(run_id, origin.mode, created.at, row.state, origin.owner, origin.metadata)

    @within(LONG_DEADLINE_S)
    async def checkpoints(
        self, tenant: str, run_id: str, after: datetime | None, limit: int | None
    ) -> list[CheckpointView]:
        """Checkpoints strictly later than `after`, oldest first. Raises NotFound."""
        row = await self._row(tenant, run_id)
        fold = Checkpoints(run_id, await self._about(row))
        found: list[CheckpointView] = []
        while batches := await self._journal.events(run_id, fold.version, BATCHES):
            told = [
                each
                for batch in batches
                for event in codec.decode_events(batch.events, batch.schema)
                for each in fold.tell(event)
            ]
            found += [each for each in told if isinstance(each, CheckpointView) and (after is None or each.at > after)]
            if limit is not None and len(found) >= limit:
                break
        return found[:limit]

    @within(DEADLINE_S)
    async def open_events(
        self, tenant: str, run_id: str, after: datetime | None, replay: int
    ) -> AsyncIterator[Sequence[Frame]]:
        """Checkpoints later than `after`, or the last `replay` ones when it is None; then live, for ever.

        Raises NotFound, and HistoryGone when later ones are no longer kept.
        """
        row = await self._row(tenant, run_id)
        if row.removed and after is not None:
            await self._check_kept(row, after)
        return live_frames(self._hub, run_id, await self._about(row), row.version, after, replay)

    async def _check_kept(self, row: RunRow, after: datetime) -> None:
        for batch in await self._journal.events(row.run_id, 1, 1):
            [removed] = codec.decode_events(batch.events, batch.schema)
            if isinstance(removed, e.HistoryRemoved) and instant_text(after) < instant_text(removed.until):
                raise HistoryGone(row.run_id, removed.through)

    async def _about(self, row: RunRow) -> About:
        """What `started` tells of the definition."""
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        if definition.driven_ttl_s is not None:
            return lambda _: None
        named = None if row.dag_id.startswith(HIDDEN) else row.dag_id
        tasks = [task.id for task in definition.tasks]
        return lambda version: {"definition": named, "version": version if named else None, "tasks": tasks}

    async def _row(self, tenant: str, run_id: str) -> RunRow:
        row = await self._journal.summary(run_id) if _RUN_ID.fullmatch(run_id) else None
        if row is None or row.tenant != tenant or self._is_past(row):
            raise NotFound("run", run_id)
        return row

    def _is_past(self, row: RunRow) -> bool:
        """Has it ended too long ago to be shown here? The dags surface still has it."""
        if not self._retention or row.finished_ms is None:
            return False
        return self._clock.now() - instant(row.finished_ms) > self._retention

    # ── commands ──────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def post_checkpoint(self, tenant: str, run_id: str, kind: str, data: msgspec.Raw) -> CheckpointView:
        """The caller's checkpoint is in the run's log, whatever state the run is in. Raises NotFound."""
        row = await self._row(tenant, run_id)
        reply = await ask(
            self._journal,
            self._control,
            row.owner,
            Command(kind="post", run_id=run_id, checkpoint=Posted(kind, data or NO_JSON)),
        )
        return CheckpointView(checkpoint_id(reply.version), run_id, self._clock.now(), kind, data)

    @within(DEADLINE_S)
    async def cancel(self, tenant: str, run_id: str) -> RunChanged:
        """The run ends as cancelled. Raises NotFound, AlreadyEnded."""
        row = await self._row(tenant, run_id)
        if row.state in _OVER:
            raise AlreadyEnded(run_id, row.state)
        try:
            reply = await ask(self._journal, self._control, row.owner, Command(kind="cancel", run_id=run_id))
        except Conflict:
            ended = await self._row(tenant, run_id)
            raise AlreadyEnded(run_id, ended.state) from None
        if reply.before in _OVER:
            raise AlreadyEnded(run_id, reply.before)
        return RunChanged(run_id, reply.state, reply.attempts)
