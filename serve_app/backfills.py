"""Backfills: from a request to one journal step with all their windows, and later to more of them.

    Trigger  ─▶ span (dates, or partitions) ─▶ windows ─▶ plan (dry run ends here) ─▶ step, which checks the plan
    Widening ─▶ windows that it does not have ─▶ plan of those                     ─▶ step

A terminal backfill that is posted again with `reprocess` is restarted with the windows it has; any other existing one
is answered as it is. A plan hash is checked against the plan made now, or against the one that made the existing
backfill, so a POST whose answer was lost may be repeated.

Making a backfill wider leaves that hash as it is: it pins what the POST did. A widening has a plan, and a hash, of its
own, over the windows that come new; when all are there already nothing is left to do, and no hash is asked for.
Afterwards the backfill is found by what it was over and by what it is over now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from orchestrator import codec, dates, partitions, schedule, windows
from orchestrator import events as e
from orchestrator import plan as planning
from orchestrator.deadlines import wake_ms
from orchestrator.definition import Definition, Window
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.starts import Plan, PlannedWindow, Trigger, Triggered, Widening, Wider
from orchestrator.steps import BackfillResult, NewBackfill, NewWindow
from serve_app.archived_runs import ArchivedRuns
from serve_app.asking import KEY_REUSED
from serve_app.dag_book import CurrentDag, DagBook
from serve_app.rendering import counts_view
from serve_app.steps import TRIES, deadline_ms, existing_runs, plan_changed, stored


@dataclass(frozen=True, slots=True)
class _Span:
    """What a backfill is over."""

    #: identity among the backfills of its DAG
    key: str
    #: None = partitions
    window: Window | None = None
    #: of partitions; those of dates follow from the schedule
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class _More:
    """The windows that make a backfill wider, and what it is over then."""

    span: _Span
    #: before those that it has, and after them
    front: tuple[Window, ...] = ()
    back: tuple[Window, ...] = ()


class Backfills:
    """Plans, creates and widens."""

    def __init__(self, journal: Journal, book: DagBook, clock: Clock, windows_max: int, archive: ArchivedRuns) -> None:
        self._archive = archive
        self._journal = journal
        self._book = book
        self._clock = clock
        self._windows_max = windows_max

    async def create(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        """A backfill exists, durably. Raises Invalid, NotFound, Conflict."""
        for _ in range(TRIES):
            dag = await self._book.fresh(tenant, trigger.dag_id)
            span = await self._span(dag.definition, trigger)
            existing = await self._journal.backfill_by_window(tenant, trigger.dag_id, span.key)
            if existing is None and (former := await self._archived(tenant, dag, trigger, span)):
                return former
            step = await self._backfill_step(tenant, dag, trigger, span, existing, idem)
            await self._bring_windows(step)
            result = await self._journal.create_backfill(step)
            if result.status == "conflict":
                raise Conflict(KEY_REUSED)
            if result.status not in ("changed", "hash"):
                return _triggered_backfill(trigger, result)
        raise Unavailable(f"windows of DAG {trigger.dag_id} change too fast")

    async def plan(self, tenant: str, trigger: Trigger) -> Plan:
        """What `create` would do now. Raises Invalid, NotFound."""
        dag = await self._book.fresh(tenant, trigger.dag_id)
        span = await self._span(dag.definition, trigger)
        existing = await self._journal.backfill_by_window(tenant, trigger.dag_id, span.key)
        return (await self._planned(tenant, dag, trigger, span, existing))[0]

    async def widen(self, tenant: str, run_id: str, widening: Widening, idem: Idempotency | None) -> Wider:
        """The backfill has these windows too, durably. Raises Invalid, NotFound, Conflict."""
        for _ in range(TRIES):
            row, dag, trigger, more = await self._wanted(tenant, run_id, widening)
            chosen = [*more.front, *more.back]
            plan, rows = await self._plan_of(tenant, dag, trigger, chosen, run_id)
            if chosen:
                _check_plan(trigger, plan)
            made = await asyncio.to_thread(self._new_windows, tenant, dag, trigger, plan.windows, rows, run_id)
            step = await self._widening_step(row, dag, more, plan, made, widening.reprocess, idem)
            await self._bring_windows(step)
            result = await self._journal.create_backfill(step)
            match result.status:
                case "conflict":
                    raise Conflict(KEY_REUSED)
                case "taken":
                    raise Conflict(f"there is a backfill over just that already: {result.run_id}")
                case "over":
                    raise Conflict(f"run {run_id} is already {result.state}")
                case "widened" | "replayed":
                    return _wider(row, result, len(made))
        raise Unavailable(f"windows of DAG {trigger.dag_id} change too fast")

    async def plan_widening(self, tenant: str, run_id: str, widening: Widening) -> Plan:
        """What `widen` would do now. Raises Invalid, NotFound, Conflict."""
        row, dag, trigger, more = await self._wanted(tenant, run_id, widening)
        if row.state in TERMINAL or row.state == "cancelling":
            raise Conflict(f"run {run_id} is already {row.state}")
        return (await self._plan_of(tenant, dag, trigger, [*more.front, *more.back], run_id))[0]

    # what left for the archive

    async def _archived(self, tenant: str, dag: CurrentDag, trigger: Trigger, span: _Span) -> Triggered | None:
        """The answer to a backfill that is in the archive, and is to stay as it was. Raises Conflict about its plan."""
        former = await self._archive.backfill(tenant, trigger.dag_id, span.key) if dag.archived else None
        if former is None or trigger.reprocess != "none":
            return None
        if trigger.plan_hash not in (None, former.row.plan_hash):
            plan, _ = await self._planned(tenant, dag, trigger, span, None)
            _check_plan(trigger, plan)
        return _triggered_backfill(
            trigger, BackfillResult("existing", former.row.run_id, former.row.state, former.counts)
        )

    async def _bring_windows(self, step: NewBackfill) -> None:
        """Runs that the step needs are in the journal. What leaves after `dag.archived` was read refuses the step."""
        keys = [window.window_key for window in step.windows if window.action != "create"]
        if step.archived and keys:
            await self._archive.bring_windows(step.tenant, step.dag_id, keys)

    # what it is over

    async def _span(self, definition: Definition, trigger: Trigger) -> _Span:
        if trigger.start is not None:
            window = Window(trigger.start, trigger.end or "")
            return _Span(window.key(), window)
        asked = trigger.partitions or definition.partitions
        if not asked:
            missing = (("from", "required"), ("to", "required"))
            raise Invalid("a backfill needs from and to, or partitions: the DAG declares none", missing)
        partitions.check_declared(asked, definition.partitions)
        found = await asyncio.to_thread(partitions.windows, asked, self._windows_max)
        return _Span(partitions.set_key(found), windows=tuple(found))

    async def _wanted(self, tenant: str, run_id: str, widening: Widening) -> tuple[RunRow, CurrentDag, Trigger, _More]:
        row = await self._journal.summary(run_id)
        if row is None or row.tenant != tenant:
            raise NotFound("run", run_id)
        if row.run_type != "backfill":
            raise Conflict(f"run {run_id} is no backfill")
        dag = await self._book.fresh(tenant, row.dag_id)
        more = await self._more(dag.definition, row, widening)
        trigger = Trigger(
            dag_id=row.dag_id,
            run_type="backfill",
            start=more.span.window.start if more.span.window else None,
            end=more.span.window.end if more.span.window else None,
            params=widening.params,
            plan_hash=widening.plan_hash,
            run_backwards=row.backwards,
            reprocess=widening.reprocess,
            pinned_version=widening.pinned_version,
        )
        return row, dag, trigger, more

    async def _more(self, definition: Definition, row: RunRow, widening: Widening) -> _More:
        if (row.window is None) != (widening.partitions is not None):
            kind = "partitions" if row.window is None else "dates"
            raise Invalid(f"backfill {row.run_id} is over {kind}, and is made wider by {kind}", ((kind, "expected"),))
        if row.window is None:
            return await self._more_partitions(definition, row, widening)
        return await self._more_days(definition, row, row.window, widening)

    async def _more_partitions(self, definition: Definition, row: RunRow, widening: Widening) -> _More:
        asked = widening.partitions or ()
        partitions.check_declared(asked, definition.partitions)
        had = [Window.of_key(child.window_key) for child in await self._journal.children(row.run_id)]
        known = set(had)
        found = await asyncio.to_thread(partitions.windows, asked, self._windows_max)
        new = tuple(window for window in found if window not in known)
        self._check_size(len(had) + len(new))
        return _More(_Span(partitions.set_key([*had, *new]), windows=(*had, *new)), back=new)

    async def _more_days(self, definition: Definition, row: RunRow, had: Window, widening: Widening) -> _More:
        first, last = dates.parse_date(had.start, "from"), dates.parse_date(had.end, "to")
        start = min(first, dates.parse_date(widening.start or had.start, "from"))
        end = max(last, dates.parse_date(widening.end or had.end, "to"))
        day = timedelta(days=1)
        front = await self._days(definition, start, first - day) if start < first else []
        back = await self._days(definition, last + day, end) if end > last else []
        self._check_size(sum((await self._journal.child_counts(row.run_id)).values()) + len(front) + len(back))
        over = Window(start.isoformat(), end.isoformat()) if front or back else had
        return _More(_Span(over.key(), over), tuple(front), tuple(back))

    async def _days(self, definition: Definition, start: date, end: date) -> list[Window]:
        parsed = schedule.schedule_of(definition)
        return await asyncio.to_thread(
            windows.windows_between, parsed, definition.timezone, start, end, self._windows_max
        )

    def _check_size(self, size: int) -> None:
        if size > self._windows_max:
            raise Invalid(f"a backfill has at most {self._windows_max} windows", (("to", "too many windows"),))

    # steps

    async def _widening_step(
        self,
        row: RunRow,
        dag: CurrentDag,
        more: _More,
        plan: Plan,
        made: tuple[NewWindow, ...],
        reprocess: str,
        idem: Idempotency | None,
    ) -> NewBackfill:
        now = self._clock.now()
        counts = await self._journal.child_counts(row.run_id)
        kept = sum(window.action == "skip" for window in made)
        event = e.BackfillWidened(
            at=now,
            window=more.span.window,
            added=len(made),
            total=sum(counts.values()) + len(made),
            skipped=counts.get("skipped", 0) + kept,
            plan_hash=plan.plan_hash,
        )
        return NewBackfill(
            run_id=row.run_id,
            tenant=row.tenant,
            dag_id=row.dag_id,
            dag_version=dag.version,
            archived=dag.archived,
            window_key=more.span.key,
            created_ms=milliseconds(now),
            event=codec.encode_events([event]),
            windows=made,
            reprocess=reprocess,
            widens=row.run_id,
            widens_key=row.window_key,
            in_front=len(more.front),
            idem=stored(idem, str(len(made)).encode()),
        )

    async def _backfill_step(
        self,
        tenant: str,
        dag: CurrentDag,
        trigger: Trigger,
        span: _Span,
        existing: RunRow | None,
        idem: Idempotency | None,
    ) -> NewBackfill:
        given = trigger.plan_hash
        if existing and not _restartable(existing, trigger):
            if given is not None and given != existing.plan_hash:
                plan, _ = await self._planned(tenant, dag, trigger, span, existing)
                _check_plan(trigger, plan)
            return self._step(tenant, dag, trigger, span, (), "", idem)
        plan, rows = await self._planned(tenant, dag, trigger, span, existing)
        _check_plan(trigger, plan)
        run_id = existing.run_id if existing else self._clock.new_run_id()
        made = await asyncio.to_thread(self._new_windows, tenant, dag, trigger, plan.windows, rows, run_id)
        step = self._step(tenant, dag, trigger, span, made, plan.plan_hash, idem, run_id)
        if existing is None:
            return step
        now = self._clock.now()
        events: list[e.Event] = [e.RunRestarted(now, dag.version)]
        if trigger.max_active_runs != existing.max_active_runs:
            events.append(e.BackfillCapped(now, trigger.max_active_runs))
        return msgspec.structs.replace(
            step,
            restarts=existing.run_id,
            restarts_version=existing.version,
            restart_events=codec.encode_events(events),
            restart_count=len(events),
        )

    async def _planned(
        self, tenant: str, dag: CurrentDag, trigger: Trigger, span: _Span, existing: RunRow | None
    ) -> tuple[Plan, Mapping[str, RunRow]]:
        return await self._plan_of(tenant, dag, trigger, await self._windows_of(dag.definition, span, existing))

    async def _plan_of(
        self, tenant: str, dag: CurrentDag, trigger: Trigger, chosen: Sequence[Window], widens: str = ""
    ) -> tuple[Plan, Mapping[str, RunRow]]:
        keys = [window.key() for window in chosen]
        windows_of = self._archive.windows if dag.archived else self._journal.by_window
        rows = await windows_of(tenant, trigger.dag_id, keys)
        known = existing_runs(rows)
        plan = await asyncio.to_thread(planning.plan, dag.definition, dag.version, trigger, chosen, known, widens)
        return plan, rows

    async def _windows_of(self, definition: Definition, span: _Span, existing: RunRow | None) -> Sequence[Window]:
        if existing is not None:
            children = await self._journal.children(existing.run_id)
            return [Window.of_key(child.window_key) for child in children]
        if span.window is None:
            return span.windows
        first, last = dates.parse_date(span.window.start, "from"), dates.parse_date(span.window.end, "to")
        zone = definition.timezone
        parsed = schedule.schedule_of(definition)
        return await asyncio.to_thread(windows.backfill_windows, parsed, zone, first, last, self._windows_max)

    def _step(
        self,
        tenant: str,
        dag: CurrentDag,
        trigger: Trigger,
        span: _Span,
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
            window=span.window,
            total=len(made),
            skipped=sum(window.action == "skip" for window in made),
            max_active_runs=trigger.max_active_runs,
        )
        return NewBackfill(
            run_id=run_id,
            tenant=tenant,
            dag_id=trigger.dag_id,
            dag_version=dag.version,
            archived=dag.archived,
            window_key=span.key,
            created_ms=milliseconds(now),
            event=codec.encode_events([created]),
            windows=made,
            reprocess=trigger.reprocess,
            plan_hash=plan_hash,
            require_hash=(trigger.plan_hash or "") if made else "",
            max_active_runs=trigger.max_active_runs,
            backwards=trigger.run_backwards,
            idem=stored(idem, b""),
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
        timers = deadline_ms(dag.definition, now), wake_ms(dag.definition, milliseconds(now))
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


def _wider(row: RunRow, result: BackfillResult, added: int) -> Wider:
    replayed = result.status == "replayed"
    return Wider(
        run_id=row.run_id,
        dag_id=row.dag_id,
        state=result.state,
        counts=counts_view(result.counts),
        added=int(result.reply or 0) if replayed else added,
        replayed=replayed,
    )


def _restartable(row: RunRow, trigger: Trigger) -> bool:
    return row.state in TERMINAL and trigger.reprocess != "none"


def _check_plan(trigger: Trigger, plan: Plan) -> None:
    if trigger.plan_hash is not None and trigger.plan_hash != plan.plan_hash:
        raise plan_changed(trigger)
