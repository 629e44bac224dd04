"""The commands on bundles of code: what there is, and letting go of what nobody needs."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.client import dags
from orchestrator.errors import Invalid
from serve_app import screen
from serve_app.archive_commands import brief_size, minute, span_s
from serve_app.session import Session, command, group

#: digits of an id that are shown, and enough to name it
_SHORT = 12

bundles = group("Bundles of code that DAGs were deployed in.")


@command(bundles, "list")
def bundles_list(session: Session) -> None:
    """List bundles, those last sent or deployed first."""
    with session.api() as api:
        found = api.run(dags.list_bundles())
    session.show_rows(
        found,
        ("bundle", "size", "files", "touched", "dags"),
        lambda each: (
            each["bundle"][:_SHORT],
            brief_size(each["size_bytes"]),
            each["files"],
            minute(each["touched_at"]),
            _uses(each["dags"], each["current"]),
        ),
    )


@command(bundles, "delete")
def bundles_delete(
    session: Session,
    ids: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="An id, or its first 12 digits or more.")],
) -> None:
    """Remove bundles; refused for one that the current version of a DAG or a run needs."""
    with session.api() as api:
        known = [each["bundle"] for each in api.run(dags.list_bundles())]
        for each in [_meant(given, known) for given in ids]:
            api.run(dags.delete_bundle(each))
            if session.as_json:
                screen.print_json({"bundle": each, "deleted": True})
            else:
                screen.say(f"{each[:_SHORT]} removed")


@command(bundles, "prune")
def bundles_prune(
    session: Session,
    older_than: Annotated[str, typer.Option(metavar="SPAN", help="Sent or deployed longer ago: 1h, 30d, 0s.")] = "1h",
) -> None:
    """Remove bundles that no current version of a DAG and no run needs. The server does so by itself, a day later."""
    with session.api() as api:
        gone = api.run(dags.prune_bundles(span_s(older_than)))
    if session.as_json:
        screen.print_json({"items": gone})
        return
    for each in gone:
        screen.print_line(each)
    screen.say(f"{len(gone)} removed")


def _meant(given: str, known: list[str]) -> str:
    """The one bundle whose id begins so. Raises Invalid."""
    found = [each for each in known if each.startswith(given)]
    if len(given) < _SHORT or len(found) != 1:
        what = "an id needs 12 digits" if len(given) < _SHORT else f"{len(found)} bundles begin so"
        raise Invalid(f"{given!r}: {what}; see what there is with `orchestrator bundles list`")
    return found[0]


def _uses(deployed: list[str], current: list[str]) -> str:
    return ", ".join(dag_id if dag_id in current else f"({dag_id})" for dag_id in deployed)
