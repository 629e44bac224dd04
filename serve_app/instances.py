"""Orchestrator instances and plans: `serve_app.ports.Instances` over the journal, the actors and the plan files.

    start      one journal step: a run of `@plan/<name>`, refused while another one of that plan goes on
    status     the fold of the run's own events (`orchestrator/instance_events.py`); nothing is stored for it
    commands   to the instance's actor, `orchestrator:<id>`; once it has ended, skip and retry go to any RunActor
    plans      files, read in a thread; written by one keeper (`actors/plan_keeper.py`)

One running instance per plan: the creation names the plan's run (`NewRun.alone`), and the same atomic step refuses
while the run that was named before goes on. A window would not do: it stands for its run for ever, whereas this claim
ends with the run, and nobody has to release it.

Whoever is told that an instance has stopped finds the files up to date: the answer waits for the keeper, for
KEEPER_S at most. The folder of plans belongs to tenant `default`; other tenants have no plans.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from actors.clock import Clock
from actors.hosted import instant, milliseconds
from actors.names import own_actor_name
from actors.plan_store import PlanStore
from actors.settings import Settings
from orchestrator import codec
from orchestrator import events as e
from orchestrator.command import Command
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, InstanceDead, JournalUnavailable, NotFound, NotInCharge, Unavailable
from orchestrator.instance_events import InstanceFold
from orchestrator.instance_views import (
    Acknowledged,
    FindingView,
    InstanceStatus,
    InstanceView,
    InstanceWanted,
    PlanView,
)
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import TERMINAL, Beat, RunFilter, RunRow
from orchestrator.steps import Creation, CreationResult, NewRun
from orchestrator.views import Frame
from serve_app.asking import ask
from serve_app.creations import Creations
from serve_app.dag_book import DagBook
from serve_app.deadlines import DEADLINE_S, within
from serve_app.hub import Hub
from serve_app.instance_book import InstanceBook
from serve_app.instance_stream import instance_frames
from serve_app.plan_starts import KIND, dag_of, prepared

T = TypeVar("T")

#: how often a creation is tried again when the plan changed in between
TRIES = 8
#: seconds a caller waits for a new instance's actor, for an actor's answer, and for the files of an ended instance
STARTS_S = 4.0
ANSWERS_S = 4.5
KEEPER_S = 4.0
LOOK_S = 0.05
#: by then the files of an ended instance tell it
JUST_ENDED = timedelta(seconds=10)
#: without a sign of life for so long, an actor that does not answer has crashed
CRASHED_AFTER = timedelta(seconds=60)
#: whose plans the files are
OWNER_TENANT = "default"

_INSTANCE_ID = re.compile(r"orch-[0-9a-z-]{1,64}", re.ASCII)


class Instances:
    """Starts, reads and steers; streams come from `hub`."""

    def __init__(
        self,
        journal: Journal,
        control: ControlPlane,
        book: DagBook,
        creations: Creations,
        hub: Hub,
        store: PlanStore,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._journal = journal
        self._control = control
        self._book = book
        self._creations = creations
        self._hub = hub
        self._store = store
        self._clock = clock
        self._settings = settings
        self._folds = InstanceBook(journal)
        self._retention = timedelta(seconds=settings.instance_retention_s)

    # ── starting ──────────────────────────────────────────────────────────────────────────────────

    @within(2 * DEADLINE_S)  # a new process, on a machine that has other things to do
    async def start(self, tenant: str, wanted: InstanceWanted) -> InstanceView:
        """An instance works on the plan. Raises NotFound (plan), Conflict (one does already), Invalid."""
        self._check_plans(tenant, wanted.plan)
        definition, plan = await asyncio.to_thread(prepared, self._store, self._settings, wanted, self._clock.now())
        instance_id = self._clock.new_instance_id()
        for _ in range(TRIES):
            version = await self._store_definition(tenant, definition)
            if version is None:
                continue
            created = self._new_run(tenant, instance_id, definition.dag_id, version, plan, wanted.traceparent)
            result = await self._creations.create(Creation((created,)))
            if result.status == "ok":
                await self._journal.beat(instance_id, 0, milliseconds(self._clock.now()))
                await self._begun(instance_id)
                view = await self._view(await self._row(tenant, instance_id), await self._beats())
                # a short plan may be done by now; the answer tells what was created
                return msgspec.structs.replace(view, status="running", alive=True, exit_reason=None)
            if result.status == "busy":
                raise _busy(wanted.plan, result)
        raise Unavailable(f"plan {wanted.plan} changes too fast")

    async def _store_definition(self, tenant: str, definition: Definition) -> int | None:
        """Its version; None when somebody else stored another one in this moment."""
        try:
            known = await self._book.fresh(tenant, definition.dag_id)
        except NotFound:
            base = 0
        else:
            if known.definition == definition:
                return known.version
            base = known.version
        written = await self._book.store(tenant, definition, base, self._clock.now())
        return written.version if written.status == "ok" else None

    def _new_run(
        self, tenant: str, instance_id: str, dag_id: str, version: int, plan: e.Plan, traceparent: str
    ) -> NewRun:
        now = self._clock.now()
        created = e.RunCreated(now, instance_id, tenant, dag_id, version, "manual", plan=plan, traceparent=traceparent)
        return NewRun(
            run_id=instance_id,
            tenant=tenant,
            dag_id=dag_id,
            dag_version=version,
            run_type="manual",
            created_ms=milliseconds(now),
            event=codec.encode_events([created]),
            alone=True,
        )

    async def _begun(self, instance_id: str) -> None:
        """Its actor has started, or has had the time for it."""

        async def lives() -> bool:
            return any(beat.run_id == instance_id and beat.pid for beat in await self._journal.beats())

        await self._until(lives, STARTS_S)

    async def _until(self, holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Returns when it holds, or after `seconds`."""
        deadline_s = self._clock.monotonic() + seconds
        while not await holds() and self._clock.monotonic() < deadline_s:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(LOOK_S)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def instances(self, tenant: str) -> list[InstanceView]:
        """Instances that live, or ended a short while ago; oldest first."""
        beats = await self._beats()
        rows = await asyncio.gather(*(self._journal.summary(run_id) for run_id in sorted(beats)))
        mine = [row for row in rows if row is not None and row.tenant == tenant and self._is_shown(row)]
        return list(await asyncio.gather(*(self._view(row, beats) for row in mine)))

    @within(DEADLINE_S)
    async def instance(self, tenant: str, instance_id: str) -> InstanceView:
        """One of them. Raises NotFound."""
        return await self._view(await self._row(tenant, instance_id), await self._beats())

    @within(DEADLINE_S)
    async def status(self, tenant: str, instance_id: str) -> InstanceStatus:
        """How far it is. Raises NotFound."""
        row = await self._row(tenant, instance_id)
        await self._kept(row)
        status = (await self._folds.read(instance_id)).status()
        if status.status == "stopped" and row.state not in TERMINAL:  # it ended in between
            row = await self._row(tenant, instance_id)
            await self._kept(row)
        if row.state not in TERMINAL and await self._has_crashed(row, await self._beats()):
            return msgspec.structs.replace(status, status="stopped", exit_reason="error")
        return status

    async def running(self) -> int:
        """Instances of any tenant with registry status `running`."""
        rows = [await self._journal.summary(run_id) for run_id in await self._beats()]
        return sum(row is not None and row.state in ("queued", "running", "paused") for row in rows)

    async def _view(self, row: RunRow, beats: Mapping[str, Beat]) -> InstanceView:
        fold = await self._folds.read(row.run_id)
        beat = beats.get(row.run_id)
        plan, started_at, reason, word = fold.plan, fold.started_at, fold.exit_reason, _registry_word(fold)
        alive = word != "stopped" and await self._answers(row)
        last = started_at if beat is None else instant(beat.at_ms)
        if word != "stopped" and not alive and self._clock.now() - last > CRASHED_AFTER:
            word, reason = "crashed", "error"
        return InstanceView(
            instance_id=row.run_id,
            pid=beat.pid if beat else 0,
            plan_path=plan.path,
            plan_name=plan.name,
            started_at=started_at,
            last_heartbeat=max(started_at, last),
            status=word,
            alive=alive,
            exit_reason=reason,
            executor=plan.executor,
        )

    async def _has_crashed(self, row: RunRow, beats: Mapping[str, Beat]) -> bool:
        beat = beats.get(row.run_id)
        last: datetime = instant(row.created_ms if beat is None else beat.at_ms)
        return self._clock.now() - last > CRASHED_AFTER and not await self._answers(row)

    async def _answers(self, row: RunRow) -> bool:
        return await self._control.answers(row.owner or own_actor_name(row.run_id))

    async def _beats(self) -> dict[str, Beat]:
        return {beat.run_id: beat for beat in await self._journal.beats()}

    async def _kept(self, row: RunRow) -> None:
        """The files tell all there is about an instance that has just ended, or have had the time for it."""
        ended = instant(row.finished_ms) if row.state in TERMINAL and row.finished_ms is not None else None
        if ended is None or self._clock.now() - ended > JUST_ENDED:
            return

        async def written() -> bool:
            beat = (await self._beats()).get(row.run_id)
            return beat is None or beat.kept >= row.version

        await self._until(written, KEEPER_S)

    async def _row(self, tenant: str, instance_id: str) -> RunRow:
        row = await self._journal.summary(instance_id) if _INSTANCE_ID.fullmatch(instance_id) else None
        if row is None or row.tenant != tenant or not self._is_shown(row):
            raise NotFound("instance", instance_id)
        return row

    def _is_shown(self, row: RunRow) -> bool:
        ended = row.finished_ms is not None and row.state in TERMINAL
        return not ended or self._clock.now() - instant(row.finished_ms or 0) < self._retention

    # ── commands ──────────────────────────────────────────────────────────────────────────────────

    async def pause(self, tenant: str, instance_id: str) -> Acknowledged:
        """It starts no further task. Raises NotFound, InstanceDead."""
        return await self._steer(tenant, instance_id, "pause", "Pause")

    async def resume(self, tenant: str, instance_id: str) -> Acknowledged:
        """It starts tasks again. Raises NotFound, InstanceDead."""
        return await self._steer(tenant, instance_id, "resume", "Resume")

    async def shut_down(self, tenant: str, instance_id: str, force: bool) -> Acknowledged:
        """It ends after the current batch, or with `force` now. Raises NotFound, InstanceDead."""
        return await self._steer(tenant, instance_id, "cancel" if force else "shut_down", "Shutdown")

    async def _steer(self, tenant: str, instance_id: str, kind: str, name: str) -> Acknowledged:
        deadline_s = self._clock.monotonic() + ANSWERS_S
        row = await _in_time(self._admitted(tenant, instance_id), ANSWERS_S, instance_id)
        if row.state in TERMINAL:
            raise InstanceDead(instance_id)
        left_s = max(0.1, deadline_s - self._clock.monotonic())
        asked = ask(
            self._journal,
            self._control,
            row.owner or own_actor_name(instance_id),
            Command(kind=kind, run_id=instance_id),
        )
        try:
            await _in_time(asked, left_s, instance_id)
        except Conflict:
            if (await self._row(tenant, instance_id)).state in TERMINAL:
                raise InstanceDead(instance_id) from None
            return Acknowledged(False, f"{name} not acknowledged")
        verb = {"Pause": "pause", "Resume": "resume", "Shutdown": "shutdown"}[name]
        return Acknowledged(True, f"Orchestrator '{instance_id}' {verb} requested")

    async def _admitted(self, tenant: str, instance_id: str) -> RunRow:
        """The instance, once it has begun: until then nobody hosts it."""
        while (row := await self._row(tenant, instance_id)).state == "queued":  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(LOOK_S)
        return row

    async def skip_task(self, tenant: str, instance_id: str, task_id: str, reason: str | None) -> Acknowledged:
        """The task counts as done; also on an instance that has ended. Raises NotFound about the instance."""
        try:
            await self._change(tenant, instance_id, "skip_task", task_id, reason)
        except NotFound as unknown:
            if unknown.kind != "task":
                raise
            why = f"Failed to mark task {task_id} as skipped. Task may not exist."
            return Acknowledged(False, "Skip failed", why)
        except Conflict as why:
            return Acknowledged(False, "Skip failed", str(why))
        return Acknowledged(True, f"Task '{task_id}' skipped")

    async def retry_task(self, tenant: str, instance_id: str, task_id: str) -> Acknowledged:
        """A failed or skipped task is pending again. Raises NotFound about the task, or the instance."""
        try:
            await self._change(tenant, instance_id, "retry_task", task_id, None)
        except Conflict as why:
            return Acknowledged(False, "Task is not in a retriable state", str(why))
        return Acknowledged(True, f"Task '{task_id}' reset for retry")

    async def _change(self, tenant: str, instance_id: str, kind: str, task_id: str, reason: str | None) -> None:
        command = Command(kind=kind, run_id=instance_id, task=task_id, reason=reason)
        row = await _in_time(self._admitted(tenant, instance_id), ANSWERS_S, instance_id)
        await _in_time(ask(self._journal, self._control, row.owner, command), ANSWERS_S, instance_id)

    # ── events ────────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def open_events(
        self, tenant: str, instance_id: str, since: int | None
    ) -> tuple[InstanceStatus, int, AsyncIterator[Sequence[Frame]]]:
        """A snapshot, the seq it stands at, and the frames after `since`, or after the snapshot. Raises NotFound."""
        await self._row(tenant, instance_id)
        fold = await self._folds.read(instance_id)
        snapshot, seq = fold.status(), fold.seq
        after = seq if since is None or since > seq else since
        return snapshot, seq, instance_frames(self._hub, instance_id, after)

    # ── plans ─────────────────────────────────────────────────────────────────────────────────────

    @within(DEADLINE_S)
    async def plans(self, tenant: str) -> list[PlanView]:
        """Plan files by name."""
        return await asyncio.to_thread(self._store.plans) if tenant == OWNER_TENANT else []

    @within(DEADLINE_S)
    async def plan_status(self, tenant: str, name: str) -> InstanceStatus:
        """What is known of a plan: of the instance that works on it, else its status.json. Raises NotFound."""
        row = await self._latest(tenant, name)
        if row is not None and row.state not in TERMINAL:
            await asyncio.to_thread(self._store.plan, name)
            return (await self._folds.read(row.run_id)).status()
        return await asyncio.to_thread(self._store.status_view, name)

    @within(DEADLINE_S)
    async def findings(self, tenant: str, name: str) -> list[FindingView]:
        """Findings of a plan by task id. Raises NotFound of kind `plan`."""
        await self._latest(tenant, name)
        return await asyncio.to_thread(self._store.findings, name)

    @within(DEADLINE_S)
    async def finding(self, tenant: str, name: str, task_id: str) -> str:
        """The text of one finding. Raises NotFound of kind `plan` or `finding`."""
        await self._latest(tenant, name)
        return await asyncio.to_thread(self._store.finding, name, task_id)

    async def _latest(self, tenant: str, name: str) -> RunRow | None:
        """The plan's last instance; if that has ended, the files are up to date when this returns."""
        self._check_plans(tenant, name)
        page = await self._journal.summaries(RunFilter(tenant=tenant, kind=KIND, dag_id=dag_of(name)), None, 1)
        for row in page.rows:
            await self._kept(row)
            return row
        return None

    def _check_plans(self, tenant: str, name: str) -> None:
        if tenant != OWNER_TENANT:
            raise NotFound("plan", name)


def _registry_word(fold: InstanceFold) -> str:
    """A paused instance runs, as the registry sees it."""
    return "running" if fold.word == "paused" else fold.word


def _busy(plan: str, result: CreationResult) -> Conflict:
    return Conflict(f"Plan '{plan}' is already being run by '{result.runs[0].run_id}'")


async def _in_time(work: Awaitable[T], seconds: float, instance_id: str) -> T:
    """The answer of the instance's actor. Raises InstanceDead when there is none; JournalUnavailable, NotInCharge."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except (JournalUnavailable, NotInCharge):
        raise
    except (TimeoutError, Unavailable) as silent:
        raise InstanceDead(instance_id) from silent
