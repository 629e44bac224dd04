"""The clock: durable timers and cron schedules, in the scheduler's process.

    next_due (journal) ─▶ sleep, at most LOOK_S ─▶ deliver due timers to inboxes, fire due schedules

Wall time decides what is due; sleeping is by the event loop's monotonic clock, and never longer than
LOOK_S, so that neither a set clock nor a schedule deployed meanwhile is noticed late. A fire is one atomic step
in the journal (the window is its identity and the DAG's next fire moves with it): it happens once, however
many schedulers or restarts are in between.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from actors.clock import Clock
from actors.hosted import instant, milliseconds
from actors.settings import Settings
from orchestrator import codec, errors
from orchestrator import events as e
from orchestrator.definition import Definition
from orchestrator.ports import DagRow, DueCron, Fire, FireResult, Journal, NewRun

_log = logging.getLogger(__name__)

#: seconds between looks when nothing is known to be due
LOOK_S = 1.0
#: seconds by which a fire may be late and still run, with catch-up `none`
GRACE_S = 60.0
#: seconds between two deliveries, so that a due item that cannot be delivered does not spin
_BREATH_S = 0.005


class Timekeeper:
    """Delivers what is due. `run` never returns."""

    def __init__(self, journal: Journal, clock: Clock, scheduler_epoch: int, settings: Settings) -> None:
        self._journal = journal
        self._clock = clock
        self._epoch = scheduler_epoch
        self._settings = settings

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
        if row is None or row.paused or row.next_fire_ms != cron.due_ms:
            return
        definition = codec.decode_definition(row.definition)
        result = await self._journal.fire(self._plan_fire(row, definition, cron, now))
        _log.info("fire of %s at %s: %s %s", cron.dag_id, instant(cron.due_ms), result.status, result.run_id)
        self._check(result)

    def _plan_fire(self, row: DagRow, definition: Definition, cron: DueCron, now: datetime) -> Fire:
        from orchestrator import schedule, windows

        fire = instant(cron.due_ms)
        run = None
        if definition.schedule is None:
            return Fire(
                tenant=cron.tenant, dag_id=cron.dag_id, scheduler_epoch=self._epoch, expected_ms=cron.due_ms, next_ms=0
            )
        parsed = schedule.parse(definition.schedule, definition.timezone)
        if (now - fire).total_seconds() < GRACE_S:
            run = self._new_run(row, definition, windows.window_of(parsed, fire), fire, now)
        counts = () if run else ((f"schedule_fires_missed_total|{cron.dag_id}", 1),)
        return Fire(
            tenant=cron.tenant,
            dag_id=cron.dag_id,
            scheduler_epoch=self._epoch,
            expected_ms=cron.due_ms,
            next_ms=milliseconds(parsed.next(fire if run else now - timedelta(seconds=GRACE_S))),
            run=run,
            counts=counts,
        )

    def _new_run(self, row: DagRow, definition: Definition, window: object, fire: datetime, now: datetime) -> NewRun:
        from orchestrator.definition import Window

        assert isinstance(window, Window)
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
        )

    def _check(self, result: FireResult) -> None:
        if result.status == "fenced":
            raise errors.Fenced("scheduler", self._epoch, self._epoch + 1)
