"""The clock: durable timers and cron schedules, in the scheduler's process.

    next_due (journal) ─▶ sleep, at most LOOK_S ─▶ deliver due timers to inboxes, fire due schedules

Wall time decides what is due; sleeping is by the event loop's monotonic clock, and never longer than
LOOK_S, so that neither a set clock nor a schedule deployed meanwhile is noticed late. What a due schedule comes to is
decided in `orchestrator/fires.py`; it is one atomic step in the journal (the window is a fire's identity and the DAG's
next fire moves with it): a fire happens once, however many schedulers or restarts are in between. Only this epoch's
scheduler makes runs of schedules, so what was read about those that are live holds until the step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from actors.clock import Clock
from actors.hosted import instant, milliseconds
from actors.settings import Settings
from orchestrator import codec, errors
from orchestrator import events as e
from orchestrator.deadlines import wake_ms
from orchestrator.definition import Definition
from orchestrator.ports import Journal
from orchestrator.rows import DagRow, DueCron
from orchestrator.steps import DroppedFires, Fire, NewRun

if TYPE_CHECKING:
    from orchestrator.schedule import Schedule

_log = logging.getLogger(__name__)

#: seconds between looks when nothing is known to be due
LOOK_S = 1.0
#: seconds after which a schedule may have so much to catch up with that other work goes on meanwhile
FAR_BEHIND_S = 60.0
#: seconds between two deliveries, so that a due item that cannot be delivered does not spin
_BREATH_S = 0.005


class Timekeeper:
    """Delivers what is due. `run` never returns."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        scheduler_epoch: int,
        settings: Settings,
        on_replaced: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._epoch = scheduler_epoch
        self._settings = settings
        #: called when a fire may have replaced runs
        self._on_replaced = on_replaced

    async def run(self) -> None:
        """Look, deliver what is due, sleep. Raises Fenced when a newer scheduler exists."""
        while True:
            try:
                delay_s = await self._sleep_s()
                if delay_s <= 0:
                    await self.deliver()
                    delay_s = _BREATH_S
            except errors.Unavailable as unavailable:
                _log.warning("timers: %s", unavailable)
                delay_s = LOOK_S
            await asyncio.sleep(delay_s)

    async def _sleep_s(self) -> float:
        due_ms = await self._journal.next_due()
        if due_ms is None:
            return LOOK_S
        return min(LOOK_S, (due_ms - milliseconds(self._clock.now())) / 1000)

    async def deliver(self) -> None:
        """Everything that is due now."""
        now = self._clock.now()
        await self._journal.pop_timers(self._epoch, milliseconds(now))
        for cron in await self._journal.due_crons(milliseconds(now)):
            await self._fire(cron, now)

    async def _fire(self, cron: DueCron, now: datetime) -> None:
        row = await self._journal.dag(cron.tenant, cron.dag_id)
        if row is None or row.paused or row.next_fire_ms is None or row.next_due_ms != cron.due_ms:
            return
        if now < instant(cron.due_ms):  # by less than the millisecond to which it was rounded
            return
        definition = codec.decode_definition(row.definition)
        live: Mapping[str, str] = {}
        if definition.overlap != "allow":
            live = await self._journal.live_fires(row.tenant, row.dag_id)
        turn = partial(self._step, row, row.next_fire_ms, definition, live, now)
        behind = (now - instant(cron.due_ms)).total_seconds() > FAR_BEHIND_S
        step = await asyncio.to_thread(turn) if behind else turn()
        try:
            result = await self._journal.fire(step)
        finally:  # it may have been done although the answer got lost
            if step.replaces:
                self._on_replaced()
        starts = " ".join(run.run_id for run in result.runs[:3])
        at = instant(step.expected_ms)
        _log.info("fire of %s at %s: %s, %d runs %s", cron.dag_id, at, result.status, len(result.runs), starts)
        if result.status == "fenced":
            raise errors.Fenced("scheduler", self._epoch, self._epoch + 1)

    def _step(self, row: DagRow, first_ms: int, definition: Definition, live: Mapping[str, str], now: datetime) -> Fire:
        from orchestrator import fires

        timetable = fires.timetable_of(definition, row.tenant)
        if timetable is None:
            return Fire(
                tenant=row.tenant, dag_id=row.dag_id, scheduler_epoch=self._epoch, expected_ms=first_ms, next_ms=0
            )
        most = self._settings.dags_catchup_max
        first = instant(first_ms)
        turn = fires.decide(timetable, definition.catchup, definition.overlap, first, now, live, most)
        handled = [*turn.starts, *(drop.last for drop in turn.dropped)]
        return Fire(
            tenant=row.tenant,
            dag_id=row.dag_id,
            scheduler_epoch=self._epoch,
            expected_ms=first_ms,
            next_ms=milliseconds(turn.next) if turn.next else 0,
            next_due_ms=milliseconds(timetable.due(turn.next)) if turn.next else 0,
            last_ms=milliseconds(max(handled, default=first)),
            runs=tuple(self._new_run(row, definition, timetable.schedule, fire, now) for fire in turn.starts),
            dropped=tuple(DroppedFires(drop.reason, drop.count, milliseconds(drop.last)) for drop in turn.dropped),
            replaces=turn.replaces,
            counts=tuple(
                (f"schedule_fires_dropped_total|{row.dag_id}|{drop.reason}", drop.count) for drop in turn.dropped
            ),
        )

    def _new_run(
        self, row: DagRow, definition: Definition, schedule: Schedule, fire: datetime, now: datetime
    ) -> NewRun:
        from orchestrator.windows import window_of

        window = window_of(schedule, fire)
        run_id = self._clock.new_run_id()
        created = e.RunCreated(
            at=now,
            run_id=run_id,
            tenant=row.tenant,
            dag_id=row.dag_id,
            dag_version=row.version,
            run_type="scheduled",
            window=window,
        )
        return NewRun(
            run_id=run_id,
            tenant=row.tenant,
            dag_id=row.dag_id,
            dag_version=row.version,
            run_type="scheduled",
            created_ms=milliseconds(now),
            event=codec.encode_events([created]),
            window_key=window.key(),
            sla_ms=milliseconds(fire) + definition.sla_s * 1000 if definition.sla_s else None,
            wake_ms=wake_ms(definition, milliseconds(now)),
        )
