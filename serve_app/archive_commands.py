"""The command that lets runs that ended leave for the archive, and how a sweep is followed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer

from orchestrator.client import dags
from orchestrator.client.script import Script
from orchestrator.client.shapes.cluster import DagsSweepView
from orchestrator.errors import Invalid, Unavailable
from serve_app import screen
from serve_app.api_client import Api
from serve_app.session import Session, command, group

archiving = group("The archive.")

#: a sweep, as the server tells it
S = TypeVar("S", bound=Mapping[str, Any])

#: seconds between two looks at how far it is
_LOOK_S = 1.0
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS = ("sweep_id", "state", "before", "runs", "backfills", "left", "size_bytes", "to")


@command(archiving, "archive")
def archive_command(
    session: Session,
    older_than: Annotated[
        str, typer.Option(metavar="SPAN", help="What ended longer ago leaves: 30d, 12h, 0s.")
    ] = "30d",
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Absolute folder on the server, or fsspec URL; default as set.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only tell what is under way and what left last.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once; the server goes on.")] = False,
) -> None:
    """Let runs that ended long ago leave for the archive: the journal's memory comes back, they stay readable."""
    older_than_s = span_s(older_than)
    with session.api() as api:
        if status:
            _show(session, api.run(dags.list_sweeps()))
            return
        sweep = api.run(dags.sweep_archive(older_than_s, to))
        if not no_wait:
            sweep = at_its_end(session, api, sweep, dags.list_sweeps, ("runs", "backfills", "size_bytes"))
    show_sweep(session, sweep, _COLUMNS)


def at_its_end(
    session: Session, api: Api, sweep: S, listed: Callable[[], Script[list[S]]], counted: Iterable[str]
) -> S:
    """The sweep when it has ended; what is `counted`, and why it does not go on, is told meanwhile."""
    while sweep["state"] in ("wanted", "running"):
        time.sleep(_LOOK_S)
        sweep = next((each for each in api.run(listed()) if each["sweep_id"] == sweep["sweep_id"]), sweep)
        if not session.as_json:
            screen.say(", ".join(f"{sweep[name]:,} {name.removeprefix('size_')}" for name in counted))
            if sweep["error"]:
                screen.say(f"put off, and tried again: {sweep['error']}")
    return sweep


def show_sweep(session: Session, sweep: Mapping[str, Any], columns: Sequence[str]) -> None:
    """It is shown; one that failed is an error."""
    session.show(sweep, columns)
    if sweep["state"] == "failed":
        raise Unavailable(f"the sweep failed: {sweep['error']}")


def _show(session: Session, sweeps: list[DagsSweepView]) -> None:
    session.show_rows(
        sweeps,
        ("sweep", "state", "before", "runs", "backfills", "left", "size", "to"),
        lambda each: (
            each["sweep_id"],
            each["state"],
            minute(each["before"]),
            each["runs"],
            each["backfills"],
            each["left"],
            brief_size(each["size_bytes"]),
            each["to"],
        ),
    )


def span_s(text: str) -> int:
    """Seconds of a span such as `30d`. Raises Invalid."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if found is None:
        raise Invalid(f"--older-than {text!r}: a number with s, m, h or d expected, like 30d")
    return int(found[1]) * _SECONDS[found[2]]


def minute(instant: str) -> str:
    """An instant in UTC, for a table."""
    return instant[:16].replace("T", " ")


def brief_size(size_bytes: int) -> str:
    """Bytes in a few letters, for a table."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = size_bytes / 1000
    for unit in ("kB", "MB", "GB", "TB"):
        if size < 999.95:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"
