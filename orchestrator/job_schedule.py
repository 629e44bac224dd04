"""`schedules.toml`: which blueprints start by themselves, and when.

    [nightly]                              [often]                        [report]
    blueprint = "sync"                     blueprint = "poll"             blueprint = "report"
    daily_at = "02:30"                     interval_seconds = 90          weekly_days = ["mon", "thu"]
    input_data = {full = true}                                            time = "09:00"

An entry has one of `interval_seconds`, `daily_at`, `weekly_days` with `time`, `monthly_dates` with `time`. The last
three are times on the wall clock of one zone, and `schedule.py` says what becomes of them when the clocks change. An
interval is counted from the firing before, so that whoever keeps that instant keeps the beat over restarts. A date that
a month does not have is left out there. Source: jobs contract, section 8.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.errors import Invalid
from orchestrator.faults import Fault, json_fault, refusal
from orchestrator.schedule import Schedule, parse, zone_of

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
INTERVAL_MIN_S = 1
INTERVAL_MAX_S = 366 * 86_400

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_KEYS = ("blueprint", "input_data", "interval_seconds", "daily_at", "weekly_days", "monthly_dates", "time")
_KINDS = ("interval_seconds", "daily_at", "weekly_days", "monthly_dates")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSchedule:
    """One entry. Either `interval` or `times` is set."""

    name: str
    blueprint: str
    input_data: dict[str, Any] = field(default_factory=dict)
    interval: timedelta | None = None
    times: Schedule | None = None


def parse_schedules(text: str, zone: str) -> tuple[JobSchedule, ...]:
    """The entries of a `schedules.toml`, in its order, on the wall clock of an IANA zone. Raises Invalid."""
    zone_of(zone)
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"malformed TOML: {error}") from None
    faults: list[Fault] = []
    found = [_entry(name, entry, zone, faults) for name, entry in entries.items()]
    if faults:
        raise refusal(faults)
    return tuple(one for one in found if one is not None)


def check_blueprints(schedules: Collection[JobSchedule], known: Collection[str]) -> None:
    """Every schedule starts one of these blueprints. Raises Invalid."""
    faults = [
        (f"{s.name}/blueprint", f"unknown blueprint {s.blueprint!r}") for s in schedules if s.blueprint not in known
    ]
    if faults:
        raise refusal(faults)


def next_fire(schedule: JobSchedule, after: datetime) -> datetime:
    """The first firing strictly after `after`, which is the firing before, or when the schedule was first seen. UTC."""
    if schedule.interval is not None:
        return after.astimezone(UTC) + schedule.interval
    return _times(schedule).next(after)


def due(schedule: JobSchedule, last: datetime, now: datetime) -> datetime | None:
    """The firing to make now: the newest one after `last` and up to `now`. None when there is none.

    Older ones that were missed meanwhile are left out, since each is older than one period; the newest is not.
    """
    if schedule.interval is not None:
        periods = (now - last) // schedule.interval
        return last.astimezone(UTC) + periods * schedule.interval if periods > 0 else None
    instant = timedelta(microseconds=1)
    fires = list(_times(schedule).between(last + instant, now + instant))
    return fires[-1] if fires else None


def _times(schedule: JobSchedule) -> Schedule:
    assert schedule.times is not None
    return schedule.times


def _entry(name: str, entry: Any, zone: str, faults: list[Fault]) -> JobSchedule | None:
    before = len(faults)
    if not isinstance(entry, dict):
        faults.append((name, "must be a table"))
        return None
    faults += [(f"{name}/{key}", f"unknown key; expected {', '.join(_KEYS)}") for key in entry if key not in _KEYS]
    blueprint, data = entry.get("blueprint"), entry.get("input_data", {})
    if not isinstance(blueprint, str) or not blueprint:
        faults.append((f"{name}/blueprint", "must name a blueprint"))
    if not isinstance(data, dict):
        faults.append((f"{name}/input_data", "must be a table"))
    elif found := json_fault(data):
        faults.append(("/".join(filter(None, (name, "input_data", found[0]))), found[1]))
    when = _when(name, entry, faults)
    if when is None or len(faults) > before:
        return None
    told = {"name": name, "blueprint": blueprint, "input_data": data}
    return (
        JobSchedule(**told, interval=when)
        if isinstance(when, timedelta)
        else JobSchedule(**told, times=parse(when, zone))
    )


def _when(name: str, entry: Mapping[str, Any], faults: list[Fault]) -> timedelta | str | None:
    """An interval, or a cron expression; None when it is at fault."""
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        have = f"not {' and '.join(kinds)}" if kinds else "there is none"
        faults.append((name, f"must have exactly one of {', '.join(_KINDS)}: {have}"))
        return None
    kind = kinds[0]
    try:
        return _READERS[kind](entry, entry[kind])
    except Invalid as invalid:
        faults += [(f"{name}/{place}", problem) for place, problem in invalid.details]
        return None


def _interval(entry: Mapping[str, Any], written: Any) -> timedelta:
    _no_time(entry, "interval_seconds")
    number = isinstance(written, int | float) and not isinstance(written, bool)
    if not number or not INTERVAL_MIN_S <= written <= INTERVAL_MAX_S:
        raise _wrong("interval_seconds", f"must be a number from {INTERVAL_MIN_S} to {INTERVAL_MAX_S}")
    return timedelta(seconds=written)


def _daily(entry: Mapping[str, Any], written: Any) -> str:
    _no_time(entry, "daily_at")
    return f"{_clock('daily_at', written)} * * *"


def _weekly(entry: Mapping[str, Any], written: Any) -> str:
    days = [day.lower() if isinstance(day, str) else day for day in written] if isinstance(written, list) else []
    if not days or not all(day in WEEKDAYS for day in days):
        raise _wrong("weekly_days", f"must be a list of {', '.join(WEEKDAYS)}")
    return f"{_clock('time', entry.get('time'))} * * {','.join(dict.fromkeys(days))}"


def _monthly(entry: Mapping[str, Any], written: Any) -> str:
    dates = written if isinstance(written, list) else []
    if not dates or not all(type(date) is int and 1 <= date <= 31 for date in dates):
        raise _wrong("monthly_dates", "must be a list of numbers from 1 to 31")
    return f"{_clock('time', entry.get('time'))} {','.join(map(str, dict.fromkeys(dates)))} * *"


_READERS: dict[str, Callable[[Mapping[str, Any], Any], timedelta | str]] = {
    "interval_seconds": _interval,
    "daily_at": _daily,
    "weekly_days": _weekly,
    "monthly_dates": _monthly,
}


def _clock(key: str, written: Any) -> str:
    """Minute and hour of a cron expression."""
    match = _CLOCK.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise _wrong(key, 'must be a time of day such as "06:30"')
    return f"{int(match[2])} {int(match[1])}"


def _no_time(entry: Mapping[str, Any], kind: str) -> None:
    if "time" in entry:
        raise _wrong("time", f"goes with weekly_days or monthly_dates, not with {kind}")


def _wrong(place: str, problem: str) -> Invalid:
    return Invalid(f"{place}: {problem}", ((place, problem),))
