"""Windows: the piece of time a run is about.

    date window      2025-10-01 / 2025-10-04                     both days inclusive
    instant window   2025-10-01T06:00:00Z / 2025-10-01T18:00:00Z   the end exclusive

A fire of a schedule with one time of day is about its local date; of any other schedule, about the time
until the next fire. A window is identified by its text (`Window.key`), so each has one spelling.
Source: contracts/dags.md, "Window", "Windows of a backfill", section 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise

from orchestrator.dates import DATE, instant_text, parse_date, parse_instant
from orchestrator.definition import Window
from orchestrator.errors import Invalid
from orchestrator.schedule import FIRST_YEAR, LAST_YEAR, Schedule, parse

#: one fire on every date that exists, however the clocks change
_DAILY = "0 12 * * *"


def manual_window(start: str | None, end: str | None) -> Window | None:
    """The window of a manual run: a date pair, an instant pair, or none. Raises Invalid."""
    if start is None and end is None:
        return None
    if start is None or end is None:
        missing = "from" if start is None else "to"
        raise Invalid("from and to are given together or not at all", ((missing, "missing"),))
    if DATE.fullmatch(start):
        first, last = parse_date(start, "from"), parse_date(end, "to")
        if last < first:
            raise _reversed()
        return Window(first.isoformat(), last.isoformat())
    since, until = parse_instant(start, "from"), parse_instant(end, "to")
    if until < since:
        raise _reversed()
    if until == since:
        raise Invalid("the window is empty: to is exclusive", (("to", "equal to from"),))
    return Window(instant_text(since), instant_text(until))


def window_of(schedule: Schedule, fire: datetime) -> Window:
    """What the run of that fire is about. Raises Invalid when an instant window would never end."""
    if schedule.at_most_daily:
        return _day(schedule.date_of(fire))
    return Window(instant_text(fire), instant_text(schedule.next(fire)))


def backfill_windows(schedule: Schedule | None, zone: str, start: date, end: date, limit: int) -> list[Window]:
    """One window per fire whose local date lies in `start`..`end`, ascending; without a schedule one per date.

    `zone` says which dates exist when there is no schedule. Raises Invalid when there is no window or more
    than `limit`.
    """
    if end < start:
        raise _reversed()
    windows = windows_between(schedule, zone, start, end, limit)
    if not windows:
        raise Invalid(f"no window from {start} to {end}", (("from", "nothing is due between from and to"),))
    return windows


def windows_between(schedule: Schedule | None, zone: str, start: date, end: date, limit: int) -> list[Window]:
    """The same; none when nothing is due. Raises Invalid when there are more than `limit`."""
    if start.year < FIRST_YEAR or end.year > LAST_YEAR:
        raise Invalid(
            f"a backfill lies in the years {FIRST_YEAR} to {LAST_YEAR}",
            (("from" if start.year < FIRST_YEAR else "to", "out of range"),),
        )
    windows = list(islice(_windows(schedule or parse(_DAILY, zone), start, end), limit + 1))
    if len(windows) > limit:
        raise Invalid(f"more than {limit} windows from {start} to {end}", (("to", f"more than {limit} windows"),))
    return windows


def _windows(schedule: Schedule, start: date, end: date) -> Iterator[Window]:
    # Wide enough for any offset and gap; `dated` says what belongs to which date.
    begin = datetime.combine(start, time.min, UTC) - timedelta(days=1)
    finish = datetime.combine(end, time.min, UTC) + timedelta(days=3)
    known = None
    for (fire, day), (following, _) in pairwise(schedule.dated(begin)):
        if fire >= finish:
            return
        if not start <= day <= end:
            continue
        if not schedule.at_most_daily:
            yield Window(instant_text(fire), instant_text(following))
        elif day != known:  # `0 */24 * * *` follows real time: twice on a date whose midnight comes twice
            yield _day(day)
            known = day


def _day(day: date) -> Window:
    return Window(day.isoformat(), day.isoformat())


def _reversed() -> Invalid:
    return Invalid("to is before from", (("to", "before from"),))
