"""On which dates a schedule fires, beside what its cron expression says.

    exclude    never on these dates
    include    on these too, at the expression's times of day, whatever its day fields and `weekdays` say
    weekdays   on these days of the week only

Dates are those of the schedule's zone. A date is either excluded or included.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from orchestrator.dates import parse_date
from orchestrator.definition import Calendar
from orchestrator.errors import Invalid

DATES_MAX = 1000
#: 0 = Sunday, as in cron
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class Days:
    """A calendar, read."""

    exclude: frozenset[date] = frozenset()
    include: frozenset[date] = frozenset()
    #: 0 = Sunday; None = all
    weekdays: frozenset[int] | None = None

    def skips(self, day: date) -> str | None:
        """Why nothing fires on `day`: `excluded`, `weekday`, or None when something may."""
        if day in self.exclude:
            return "excluded"
        if self.weekdays is None or day in self.include or day.isoweekday() % 7 in self.weekdays:
            return None
        return "weekday"


EVERY_DAY = Days()


def days_of(calendar: Calendar | None) -> Days:
    """The calendar as it is asked. Raises Invalid about its field."""
    if calendar is None:
        return EVERY_DAY
    exclude, include = _dates(calendar.exclude, "exclude"), _dates(calendar.include, "include")
    if both := sorted(exclude & include):
        raise _refused("include", f"{both[0]} is excluded too")
    return Days(exclude, include, _weekdays(calendar.weekdays))


def _dates(texts: tuple[str, ...], name: str) -> frozenset[date]:
    if len(texts) > DATES_MAX:
        raise _refused(name, f"more than {DATES_MAX} dates")
    return frozenset(parse_date(text, f"calendar/{name}/{n}") for n, text in enumerate(texts))


def _weekdays(names: tuple[str, ...] | None) -> frozenset[int] | None:
    if names is None:
        return None
    if not names:
        raise _refused("weekdays", "names no day; leave it out for all of them")
    for n, name in enumerate(names):
        if name not in WEEKDAYS:
            raise _refused(f"weekdays/{n}", f"{name[:20]!r} is none of {', '.join(WEEKDAYS)}")
    return frozenset(WEEKDAYS.index(name) for name in names)


def _refused(name: str, why: str) -> Invalid:
    return Invalid(f"calendar/{name}: {why}", ((f"calendar/{name}", why),))
