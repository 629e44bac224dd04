"""From a trigger to runs in the journal: manual runs, bulk runs, backfills, and the plan of each.

    Trigger ─▶ windows ─▶ plan (dry run ends here) ─▶ one journal step, which checks what the plan assumed
                 ▲                                         │
                 └──────────── plan again ◀── changed ─────┘

A terminal backfill that is posted again with `reprocess` is restarted with the windows it has; any other
existing one is answered as it is. A plan hash is checked against the plan made now, or against the one
that made the existing backfill, so a POST whose answer was lost may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from actors.clock import Clock
from orchestrator import codec, dates, schedule, windows
from orchestrator import events as e
from orchestrator import plan as planning
from orchestrator.deadlines import wake_ms
from orchestrator.definition import Definition, Window
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError, Unavailable
from orchestrator.ports import (
    TERMINAL,
    BackfillResult,
    CreatedRun,
    Creation,
    Journal,
    NewBackfill,
    NewRun,
    NewWindow,
    RunRow,
    StoredReply,
)
from orchestrator.views import Idempotency, Plan, PlannedWindow, Trigger, Triggered
from serve_app.creations import Creations
from serve_app.dag_book import CurrentDag, DagBook
from serve_app.rendering import counts_view

#: how often a step is planned again when the world changed in between
TRIES = 8
_KEY_REUSED = "this request id was used with another body"


class Triggers:
    """Plans and creates."""

    def __init__(self, journal: Journal, book: DagBook, creations: Creations, clock: Clock, windows_max: int) -> None:
        self._journal = journal
        self._book = book
        self._clock = clock
        self._windows_max = windows_max
        self._creations = creations

    async def trigger(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        """A run, or the one that stands for the window. Raises Invalid, NotFound, Conflict."""
        if trigger.run_type == "backfill":
            return await self._backfill(tenant, trigger, idem)
        if trigger.plan_hash is not None:
            await self._check_manual_plan(tenant, trigger)
        [done], replayed = await self.trigger_many(tenant, [trigger], idem)
        if isinstance(done, OrchestratorError):
            raise done
        return msgspec.structs.replace(done, replayed=replayed)

    async def trigger_many(
        self, tenant: str, triggers: Sequence[Trigger], idem: Idempotency | None
    ) -> tuple[list[Triggered | OrchestratorError], bool]:
        """Manual runs in one durable step; a bad one fails alone."""
        for _ in range(TRIES):
            made = [await self._new_run(tenant, trigger) for trigger in triggers]
            runs = tuple(run for run in made if isinstance(run, NewRun))
            errors = {n: run for n, run in enumerate(made) if isinstance(run, OrchestratorError)}
            if not runs:
                return [errors[n] for n in range(len(triggers))], False
            note = codec.encode_refusals(errors)
            result = await self._creations.create(Creation(runs, _stored(idem, note)))
            if result.status == "conflict":
                raise Conflict(_KEY_REUSED)
            if result.status != "changed":
                replayed = result.status == "replayed"
                refused = codec.decode_refusals(result.reply) if replayed else errors
                return _outcomes(triggers, result.runs, refused), replayed
            for trigger in triggers:
                self._book.forget(tenant, trigger.dag_id)
        raise Unavailable(f"DAG {triggers[0].dag_id} changes too fast")

    async def plan(self, tenant: str, trigger: Trigger) -> Plan:
        """What `trigger` would do now. Raises Invalid, NotFound."""
        dag = await self._book.fresh(tenant, trigger.dag_id)
        if trigger.run_type == "backfill":
            existing = await self._journal.backfill_by_window(tenant, trigger.dag_id, _key(trigger))
            return (await self._planned(tenant, dag, trigger, existing))[0]
        window = windows.manual_window(trigger.start, trigger.end)
        return await self._plan_of(tenant, dag, trigger, [] if window is None else [window])

    async def _plan_of(self, tenant: str, dag: CurrentDag, trigger: Trigger, chosen: list[Window]) -> Plan:
        rows = await self._journal.by_window(tenant, trigger.dag_id, [window.key() for window in chosen])
        return planning.plan(dag.definition, dag.version, trigger, chosen, _existing(rows))

    async def _check_manual_plan(self, tenant: str, trigger: Trigger) -> None:
        dag = await self._book.fresh(tenant, trigger.dag_id)
        window = windows.manual_window(trigger.start, trigger.end)
        chosen = [] if window is None else [window]
        before = planning.plan(dag.definition, dag.version, trigger, chosen, {})
        now = await self._plan_of(tenant, dag, trigger, chosen)
        if trigger.plan_hash not in (now.plan_hash, before.plan_hash):
            raise _plan_changed(trigger)

    # manual runs

    async def _new_run(self, tenant: str, trigger: Trigger) -> NewRun | OrchestratorError:
        try:
            dag = await self._book.current(tenant, trigger.dag_id)
            window = windows.manual_window(trigger.start, trigger.end)
            pinned = await self._pinned(tenant, trigger, window)
        except (Invalid, NotFound, Conflict) as error:
            return error
        now = self._clock.now()
        run_id = self._clock.new_run_id()
        created = e.RunCreated(now, run_id, tenant, trigger.dag_id, dag.version, "manual", window, trigger.params)
        again = window is not None and trigger.reprocess != "none"
        version = pinned or dag.version
        return NewRun(
            run_id=run_id,
            tenant=tenant,
            dag_id=trigger.dag_id,
            dag_version=dag.version,
            run_type="manual",
            created_ms=_ms(now),
            event=codec.encode_events([created]),
            window_key=window.key() if window else "",
            sla_ms=_deadline(dag.definition, now),
            wake_ms=wake_ms(dag.definition, _ms(now)),
            reprocess=trigger.reprocess if again else "none",
            restart_event=codec.encode_events([e.RunRestarted(now, version)]) if again else b"",
            restart_version=version if again else 0,
            pinned_version=pinned if again else 0,
        )

    async def _pinned(self, tenant: str, trigger: Trigger, window: Window | None) -> int:
        """The version a restart keeps; 0 = none, or the request does not ask for it."""
        if window is None or not trigger.pinned_version or trigger.reprocess == "none":
            return 0
        row = (await self._journal.by_window(tenant, trigger.dag_id, [window.key()])).get(window.key())
        return row.dag_version if row else 0

    # backfills

    async def _backfill(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        for _ in range(TRIES):
            dag = await self._book.fresh(tenant, trigger.dag_id)
            existing = await self._journal.backfill_by_window(tenant, trigger.dag_id, _key(trigger))
            step = await self._backfill_step(tenant, dag, trigger, existing, idem)
            result = await self._journal.create_backfill(step)
            if result.status == "conflict":
                raise Conflict(_KEY_REUSED)
            if result.status not in ("changed", "hash"):
                return _triggered_backfill(trigger, result)
        raise Unavailable(f"windows of DAG {trigger.dag_id} change too fast")

    async def _backfill_step(
        self, tenant: str, dag: CurrentDag, trigger: Trigger, existing: RunRow | None, idem: Idempotency | None
    ) -> NewBackfill:
        given = trigger.plan_hash
        if existing and not _restartable(existing, trigger):
            if given is not None and given != existing.plan_hash:
                plan, _ = await self._planned(tenant, dag, trigger, existing)
                _check_plan(trigger, plan)
            return self._step(tenant, dag, trigger, (), "", idem)
        plan, rows = await self._planned(tenant, dag, trigger, existing)
        _check_plan(trigger, plan)
        run_id = existing.run_id if existing else self._clock.new_run_id()
        made = await asyncio.to_thread(self._new_windows, tenant, dag, trigger, plan.windows, rows, run_id)
        step = self._step(tenant, dag, trigger, made, plan.plan_hash, idem, run_id)
        if existing is None:
            return step
        events = [e.RunRestarted(self._clock.now(), dag.version)]
        return msgspec.structs.replace(
            step,
            restarts=existing.run_id,
            restarts_version=existing.version,
            restart_events=codec.encode_events(events),
            restart_count=len(events),
        )

    async def _planned(
        self, tenant: str, dag: CurrentDag, trigger: Trigger, existing: RunRow | None
    ) -> tuple[Plan, Mapping[str, RunRow]]:
        chosen = await self._windows_of(dag.definition, trigger, existing)
        rows = await self._journal.by_window(tenant, trigger.dag_id, [window.key() for window in chosen])
        plan = await asyncio.to_thread(planning.plan, dag.definition, dag.version, trigger, chosen, _existing(rows))
        return plan, rows

    async def _windows_of(self, definition: Definition, trigger: Trigger, existing: RunRow | None) -> list[Window]:
        if existing is not None:
            children = await self._journal.children(existing.run_id)
            return [_window(child.window_key) for child in children]
        first, last = dates.parse_date(trigger.start or "", "from"), dates.parse_date(trigger.end or "", "to")
        zone = definition.timezone
        parsed = schedule.schedule_of(definition)
        return await asyncio.to_thread(windows.backfill_windows, parsed, zone, first, last, self._windows_max)

    def _step(
        self,
        tenant: str,
        dag: CurrentDag,
        trigger: Trigger,
        made: tuple[NewWindow, ...],
        plan_hash: str,
        idem: Idempotency | None,
        run_id: str | None = None,
    ) -> NewBackfill:
        now = self._clock.now()
        run_id = run_id or self._clock.new_run_id()
        created = e.BackfillCreated(
            at=now,
            run_id=run_id,
            tenant=tenant,
            dag_id=trigger.dag_id,
            dag_version=dag.version,
            window=Window(trigger.start or "", trigger.end or ""),
            total=len(made),
            skipped=sum(window.action == "skip" for window in made),
            max_active_runs=trigger.max_active_runs,
        )
        return NewBackfill(
            run_id=run_id,
            tenant=tenant,
            dag_id=trigger.dag_id,
            dag_version=dag.version,
            window_key=_key(trigger),
            created_ms=_ms(now),
            event=codec.encode_events([created]),
            windows=made,
            reprocess=trigger.reprocess,
            plan_hash=plan_hash,
            require_hash=(trigger.plan_hash or "") if made else "",
            max_active_runs=trigger.max_active_runs,
            backwards=trigger.run_backwards,
            idem=_stored(idem, b""),
        )

    def _new_windows(
        self,
        tenant: str,
        dag: CurrentDag,
        trigger: Trigger,
        planned: Sequence[PlannedWindow],
        rows: Mapping[str, RunRow],
        parent: str,
    ) -> tuple[NewWindow, ...]:
        now = self._clock.now()
        timers = _deadline(dag.definition, now), wake_ms(dag.definition, _ms(now))
        # queued runs start in the order of their ids
        ids = {
            each.window.key(): self._clock.new_run_id() for each in planning.start_order(planned, trigger.run_backwards)
        }
        return tuple(
            self._create_window(tenant, dag, trigger, plan.window, ids[plan.window.key()], parent, now, timers)
            if plan.action == "create"
            else _existing_window(dag, trigger, plan, rows[plan.window.key()], now, timers[1])
            for plan in planned
        )

    def _create_window(
        self,
        tenant: str,
        dag: CurrentDag,
        trigger: Trigger,
        window: Window,
        run_id: str,
        parent: str,
        now: datetime,
        timers: tuple[int | None, int | None],
    ) -> NewWindow:
        created = e.RunCreated(
            now, run_id, tenant, trigger.dag_id, dag.version, "manual", window, trigger.params, parent
        )
        return NewWindow(
            window_key=window.key(),
            run_id=run_id,
            action="create",
            event=codec.encode_events([created]),
            sla_ms=timers[0],
            wake_ms=timers[1],
        )


def _existing_window(
    dag: CurrentDag, trigger: Trigger, plan: PlannedWindow, row: RunRow, now: datetime, wake: int | None
) -> NewWindow:
    if plan.action != "restart":
        return NewWindow(window_key=plan.window.key(), run_id=row.run_id, action=plan.action)
    version = row.dag_version if trigger.pinned_version else dag.version
    return NewWindow(
        window_key=plan.window.key(),
        run_id=row.run_id,
        action="restart",
        event=codec.encode_events([e.RunRestarted(now, version)]),
        before=row.state,
        dag_version=version,
        wake_ms=wake,
    )


def _triggered_backfill(trigger: Trigger, result: BackfillResult) -> Triggered:
    return Triggered(
        run_id=result.run_id,
        dag_id=trigger.dag_id,
        run_type="backfill",
        state=result.state,
        counts=counts_view(result.counts),
        replayed=result.status == "replayed",
    )


def _outcomes(
    triggers: Sequence[Trigger], runs: Sequence[CreatedRun], errors: Mapping[int, OrchestratorError]
) -> list[Triggered | OrchestratorError]:
    made = iter(runs)
    return [errors[n] if n in errors else _triggered(trigger, next(made)) for n, trigger in enumerate(triggers)]


def _triggered(trigger: Trigger, run: CreatedRun) -> Triggered:
    return Triggered(run.run_id, trigger.dag_id, "manual", run.state)


def _restartable(row: RunRow, trigger: Trigger) -> bool:
    return row.state in TERMINAL and trigger.reprocess != "none"


def _check_plan(trigger: Trigger, plan: Plan) -> None:
    if trigger.plan_hash is not None and trigger.plan_hash != plan.plan_hash:
        raise _plan_changed(trigger)


def _plan_changed(trigger: Trigger) -> Conflict:
    return Conflict(f"the plan for DAG {trigger.dag_id} has changed since it was made: dry-run again")


def _existing(rows: Mapping[str, RunRow]) -> dict[str, tuple[str, str]]:
    return {key: (row.run_id, row.state) for key, row in rows.items()}


def _stored(idem: Idempotency | None, note: bytes) -> StoredReply | None:
    return None if idem is None else StoredReply(idem.key, idem.fingerprint, note)


def _key(trigger: Trigger) -> str:
    return Window(trigger.start or "", trigger.end or "").key()


def _window(key: str) -> Window:
    start, _, end = key.partition("/")
    return Window(start, end)


def _deadline(definition: Definition, now: datetime) -> int | None:
    return None if definition.sla_s is None else _ms(now) + definition.sla_s * 1000


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
