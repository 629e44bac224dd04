"""Lists over several core states, and cursors that say which list they belong to.

A state of ours may stand for several core states (`failed` for failed, timed_out, quarantined), each with a
list of its own. `merged` puts their pages together: places of ids ascend with time, a gateway's cursor is the place to
go on below, and below the highest of these cursors some list may still hold runs that we have not seen.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from orchestrator.errors import Invalid
from orchestrator.ids import place
from orchestrator.views import Page, RunView

#: what a cursor looks like to callers
FORM = r"[A-Za-z0-9_-]{1,512}"

_FORM = re.compile(FORM, re.ASCII)


def merged(pages: Sequence[Page[RunView]], limit: int) -> Page[RunView]:
    """One page of at most `limit` runs, newest first, and the place to go on below."""
    horizon = max((page.next_cursor for page in pages if page.next_cursor is not None), default="")
    runs = sorted((run for page in pages for run in page.items), key=lambda run: place(run.run_id), reverse=True)
    complete = [run for run in runs if place(run.run_id) >= horizon]
    following = place(complete[limit - 1].run_id) if len(complete) > limit else horizon
    return Page(tuple(complete[:limit]), following or None)


def cursor_text(of: str, cursor: str | None) -> str | None:
    """A gateway's cursor as callers get it; `of` names the list."""
    if cursor is None:
        return None
    return base64.urlsafe_b64encode(f"{of}:{cursor}".encode()).decode().rstrip("=")


def cursor_of(of: str, text: str | None) -> str | None:
    """Inverse of `cursor_text`. Raises Invalid for anything that is no cursor of that list."""
    if text is None:
        return None
    prefix, _, cursor = _decoded(text).partition(":")
    if prefix != of or cursor_text(of, cursor) != text:
        raise Invalid("bad cursor", (("cursor", f"not a cursor of {of}"),))
    return cursor


def _decoded(text: str) -> str:
    if not _FORM.fullmatch(text):
        return ""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
