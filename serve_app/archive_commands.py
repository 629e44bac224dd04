"""The command that lets runs that ended leave for the archive."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from orchestrator.client import dags
from orchestrator.client.shapes.cluster import DagsSweepView
from orchestrator.errors import Invalid, Unavailable
from serve_app import screen
from serve_app.session import Session, command, group

archiving = group("The archive.")

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
        while not no_wait and sweep["state"] in ("wanted", "running"):
            time.sleep(_LOOK_S)
            sweep = _now(sweep, api.run(dags.list_sweeps()))
            if not session.as_json:
                screen.say(f"{sweep['runs']:,} runs, {sweep['backfills']:,} backfills, {sweep['size_bytes']:,} bytes")
                say_why(sweep["error"])
    session.show(sweep, _COLUMNS)
    if sweep["state"] == "failed":
        raise Unavailable(f"the sweep failed: {sweep['error']}")


def _show(session: Session, sweeps: list[DagsSweepView]) -> None:
    if session.as_json:
        screen.print_json({"items": sweeps})
        return
    rows = (
        (
            each["sweep_id"],
            each["state"],
            minute(each["before"]),
            each["runs"],
            each["backfills"],
            each["left"],
            brief_size(each["size_bytes"]),
            each["to"],
        )
        for each in sweeps
    )
    screen.print_table(("sweep", "state", "before", "runs", "backfills", "left", "size", "to"), rows)


def _now(sweep: DagsSweepView, sweeps: list[DagsSweepView]) -> DagsSweepView:
    return next((each for each in sweeps if each["sweep_id"] == sweep["sweep_id"]), sweep)


def span_s(text: str) -> int:
    """Seconds of a span such as `30d`. Raises Invalid."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if found is None:
        raise Invalid(f"--older-than {text!r}: a number with s, m, h or d expected, like 30d")
    return int(found[1]) * _SECONDS[found[2]]


def say_why(error: str | None) -> None:
    """Why a sweep that goes on does not go on just now."""
    if error:
        screen.say(f"put off, and tried again: {error}")


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
