"""Cursors of lists: where the next page begins, as text that means nothing to callers.

Those of runs are ids, since a surface puts several lists of them together and has to compare; it hides them itself.
"""

from __future__ import annotations

import base64
import binascii
import re

from orchestrator.errors import Invalid

_RUN_ID = re.compile(r"run_[0-9A-Za-z]{1,64}", re.ASCII)


def cursor_of(name: str) -> str:
    """A cursor behind the object of that name; opaque to callers."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def name_of(cursor: str | None, form: re.Pattern[str]) -> str:
    """The name a cursor was made of; "" for none. Raises Invalid."""
    if cursor is None:
        return ""
    try:
        name = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError):
        name = ""
    if not form.fullmatch(name) or cursor_of(name) != cursor:
        raise Invalid("not a cursor of this list", (("cursor", "not a cursor of this list"),))
    return name


def run_of(cursor: str | None) -> str | None:
    """The run below which the next page begins; None = at the newest. Raises Invalid."""
    if cursor is not None and not _RUN_ID.fullmatch(cursor):
        raise Invalid("not a cursor of this list", (("cursor", "not a cursor of this list"),))
    return cursor
