"""Arguments that several commands of the command line take, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.errors import Invalid
from serve_app.api_client import Json

DagId = Annotated[str, typer.Argument(metavar="DAG_ID")]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID")]
Params = Annotated[list[str] | None, typer.Option("--param", metavar="K=V", help="Parameter; V as JSON or text.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit status tells it.")]
FirstDay = Annotated[str | None, typer.Option("--from", metavar="DATE", help="First day.")]
LastDay = Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last day, inclusive.")]
Partitions = Annotated[
    list[str] | None,
    typer.Option("--partition", metavar="VALUE | NAME=VALUE", help="Instead of days; once for each value."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
PlanHash = Annotated[str | None, typer.Option(help="Do exactly what the dry run with this hash told.")]
Reprocess = Annotated[str, typer.Option(help="Windows that ran already: none, failed or completed.")]
Limit = Annotated[int, typer.Option(min=1, help="At most this many.")]


def params(given: Sequence[str] | None) -> Json:
    """`k=v` pairs as an object. Raises Invalid for anything else."""
    found: Json = {}
    for each in given or ():
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise Invalid(f"--param {each!r}: k=v expected")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def partitions(given: Sequence[str] | None) -> list[str] | dict[str, list[str]] | None:
    """Values as a list; `name=value` as lists by name. Raises Invalid when both are there."""
    if not given:
        return None
    named = [each.partition("=") for each in given if "=" in each]
    if not named:
        return list(given)
    if len(named) < len(given):
        raise Invalid("--partition: either values, or name=value")
    found: dict[str, list[str]] = {}
    for name, _, value in named:
        found.setdefault(name, []).append(value)
    return found
