"""The commands on artifacts: what large values take, and letting go of those of runs that ended long ago."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.client import artifacts as scripts
from serve_app.archive_commands import at_its_end, brief_size, minute, show_sweep, span_s
from serve_app.session import Session, command, group

artifacts = group("Artifacts: large values that tasks returned.")

_COLUMNS = (
    "sweep_id", "state", "before", "dry_run", "runs", "files", "size_bytes", "there_files", "there_bytes",
)  # fmt: skip


@command(artifacts, "list")
def artifacts_list(session: Session) -> None:
    """List sweeps, the latest first: what is under way, what went, and what was there then."""
    with session.api() as api:
        found = api.run(scripts.list_artifact_sweeps())
    session.show_rows(
        found,
        ("sweep", "state", "before", "runs", "files", "size", "there"),
        lambda each: (
            each["sweep_id"],
            each["state"] + (" dry" if each["dry_run"] else ""),
            minute(each["before"]),
            each["runs"],
            each["files"],
            brief_size(each["size_bytes"]),
            None if each["there_bytes"] is None else brief_size(each["there_bytes"]),
        ),
    )


@command(artifacts, "sweep")
def artifacts_sweep(
    session: Session,
    older_than: Annotated[str, typer.Option(metavar="SPAN", help="Of runs that ended longer ago: 30d, 12h, 1h.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once; the server goes on.")] = False,
) -> None:
    """Remove artifacts of runs that ended long ago. The server does so by itself, after 180 days unless set."""
    older_than_s = span_s(older_than)
    with session.api() as api:
        sweep = api.run(scripts.sweep_artifacts(older_than_s, dry_run=dry_run))
        if not no_wait:
            sweep = at_its_end(session, api, sweep, scripts.list_artifact_sweeps, ("runs", "files", "size_bytes"))
    show_sweep(session, sweep, _COLUMNS)
