"""The commands on limits: how many tasks may run, or start, under a name."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.client import dags
from orchestrator.errors import Invalid
from serve_app.api_client import Json
from serve_app.session import Session, command, group

limits = group("Limits on tasks that run.")

Name = Annotated[str, typer.Argument(metavar="NAME")]


@command(limits, "list")
def limits_list(session: Session) -> None:
    """List limits that are defined or in use."""
    with session.api() as api:
        found = api.run(dags.list_limits())
    columns = ("name", "max_running", "rate", "running", "waiting")
    session.show_rows(found, columns, lambda each: [_shown(dict(each))[column] for column in columns])


@command(limits, "set")
def limits_set(
    session: Session,
    name: Name,
    max_running: Annotated[int | None, typer.Option(min=0, help="Permits in use at a time; not given: any.")] = None,
    rate: Annotated[str | None, typer.Option(metavar="N/SECONDS", help="Starts in any such span: 100/60.")] = None,
) -> None:
    """Define a limit; what is not given is not limited."""
    given = _rate(rate) if rate is not None else None
    with session.api() as api:
        answer = api.run(dags.set_limit(name, max_running=max_running, rate=given))
    shown = _shown(dict(answer))
    session.tell(answer, f"{name}: max_running {shown['max_running']}, rate {shown['rate']}")


@command(limits, "delete")
def limits_delete(session: Session, name: Name) -> None:
    """Forget a limit: tasks that name it are only counted."""
    with session.api() as api:
        answer = api.run(dags.delete_limit(name))
    session.tell(answer, f"{name} deleted")


@command(limits, "waiting")
def limits_waiting(session: Session, run_id: Annotated[str, typer.Argument(metavar="RUN_ID")]) -> None:
    """Tell what the ready tasks of a run wait for."""
    with session.api() as api:
        found = api.run(dags.waiting(run_id))
    session.show_rows(found, ("task", "waits for"), lambda each: (each["task"], "; ".join(each["reasons"])))


def _rate(text: str) -> tuple[int, float]:
    count, _, seconds = text.partition("/")
    try:
        return int(count), float(seconds or 1)
    except ValueError:
        raise Invalid(f"--rate {text!r}: N/SECONDS expected, like 100/60") from None


def _shown(limit: Json) -> Json:
    rate = limit["rate"]
    return limit | {
        "name": limit["name"] if limit["kind"] == "limit" else f"dag {limit['name']}",
        "max_running": "–" if limit["max_running"] is None else limit["max_running"],
        "rate": "–" if rate is None else f"{rate['count']}/{rate['per_s']:g} s",
    }
