"""Dates and instants as text: each has one spelling, and what is none is refused about its field.

date      2025-10-01
instant   2025-10-01T06:00:00Z, with a fraction of up to six digits only when there is one
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from orchestrator.errors import Invalid

DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")


def parse_date(text: str, field: str) -> date:
    """The date `YYYY-MM-DD`. Raises Invalid about `field`."""
    if DATE.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:  # the form is right, the calendar has no such day
            pass
    raise Invalid(f"{field}: {text[:50]!r} is not a date YYYY-MM-DD", ((field, "not a date"),))


def parse_instant(text: str, field: str) -> datetime:
    """The RFC 3339 instant in UTC, written with `Z`. Raises Invalid about `field`."""
    if _INSTANT.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:  # the form is right, the calendar or the clock has no such time
            pass
    raise Invalid(f"{field}: {text[:50]!r} is not an instant YYYY-MM-DDTHH:MM:SSZ", ((field, "not an instant"),))


def instant_text(instant: datetime) -> str:
    """The one spelling of an instant in windows; a fraction only when there is one."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
