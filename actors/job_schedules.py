"""Jobs that start by themselves: the entries of `schedules.toml`, fired once each.

    records `job_schedule`   name -> the firing that was made last, or when the schedule was first seen

A firing makes the job whose id follows from it, and is recorded after that: whoever dies in between makes the same job
again, which is none. One that was missed while nobody was here is made if no later one is due. Schedules belong to the
tenant `default`. Source: jobs contract, section 8.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from actors.clock import Clock
from actors.pinned_blueprints import PinnedBlueprints
from actors.settings import Settings
from orchestrator.blueprint import Blueprint
from orchestrator.errors import Invalid
from orchestrator.job_birth import Birth, fired_id, new_job
from orchestrator.job_schedule import JobSchedule, due, next_fire, parse_schedules
from orchestrator.ports import Journal
from orchestrator.steps import NewRun

_log = logging.getLogger(__name__)
KIND = "job_schedule"
TENANT = "default"
#: a clock that was set is noticed within so many seconds
_LOOK_S = 30.0


class Fired(msgspec.Struct, frozen=True):
    """Up to when a schedule has fired."""

    last: datetime


_decoder = msgspec.json.Decoder(Fired)


def read_schedules(settings: Settings) -> tuple[JobSchedule, ...]:
    """Of the configured file; none when there is none. Raises Invalid."""
    if not settings.schedules_config_path:
        return ()
    path = Path(settings.schedules_config_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path}: {error}") from error
    try:
        return parse_schedules(text, settings.schedules_zone)
    except Invalid as invalid:
        raise Invalid(f"{path}: {invalid}", invalid.details) from invalid


class JobSchedules:
    """Fires `schedules` for as long as `fire_forever` runs. `create` and `insist` as a holder has them."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        schedules: Sequence[JobSchedule],
        blueprints: PinnedBlueprints,
        owner: str,
        create: Callable[[NewRun], Awaitable[Any]],
        insist: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._schedules = schedules
        self._blueprints = blueprints
        self._owner = owner
        self._create = create
        self._insist = insist
        self._last: dict[str, datetime] = {}

    async def fire_forever(self) -> None:
        """Make what is due, then wait for the next."""
        if not self._schedules:
            return
        records = await self._insist(lambda: self._journal.records(KIND))
        self._last = {name: _decoder.decode(data).last for name, data in records.items()}
        for schedule in self._schedules:
            if schedule.name not in self._last:
                await self._note(schedule, self._clock.now())
        while True:
            for schedule in self._schedules:
                await self._fire_due(schedule)
            await asyncio.sleep(self._pause_s())

    async def _fire_due(self, schedule: JobSchedule) -> None:
        fire = due(schedule, self._last[schedule.name], self._clock.now())
        if fire is not None:
            await self._fire(schedule, fire)
            await self._note(schedule, fire)

    async def _fire(self, schedule: JobSchedule, fire: datetime) -> None:
        found: tuple[Blueprint, int] | None = await self._insist(lambda: self._blueprints.deployed(schedule.blueprint))
        if found is None:
            _log.error("schedule %s: no blueprint %r is deployed", schedule.name, schedule.blueprint)
            return
        birth = Birth(
            job_id=fired_id(schedule.name, fire),
            tenant=TENANT,
            initial_data=schedule.input_data,
            client={"name": f"schedule:{schedule.name}", "plan": None},
        )
        await self._create(new_job(birth, *found, self._owner, self._clock.now()))

    async def _note(self, schedule: JobSchedule, last: datetime) -> None:
        self._last[schedule.name] = last
        data = msgspec.json.encode(Fired(last))
        await self._insist(partial(self._journal.put_records, KIND, {schedule.name: data}))

    def _pause_s(self) -> float:
        now = self._clock.now()
        waits = [next_fire(schedule, self._last[schedule.name]) - now for schedule in self._schedules]
        return min(max(min(waits, default=timedelta(0)).total_seconds(), 0.001), _LOOK_S)
