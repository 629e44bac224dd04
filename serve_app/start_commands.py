"""The commands that start runs: `run` and `backfill`, and following one to its end."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from serve_app import screen
from serve_app.api_client import Json
from serve_app.arguments import (
    DagId,
    DryRun,
    FirstDay,
    LastDay,
    Params,
    Partitions,
    PlanHash,
    Reprocess,
    Wait,
    params,
    partitions,
)
from serve_app.run_screen import show_plan, wait_for
from serve_app.session import Session, command, group

starting = group("Start runs.")


@command(starting, "run")
def run_command(
    session: Session,
    dag_id: DagId,
    param: Params = None,
    event: Annotated[
        str | None, typer.Option(metavar="ID", help="Because of this event: once, told how often.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Run a DAG now."""
    if event is not None:
        _trigger(session, params(param), wait, f"/dags/{dag_id}/trigger/{quote(event, safe='')}")
    else:
        _trigger(session, {"dag_id": dag_id, "params": params(param)}, wait)


@command(starting, "backfill")
def backfill_command(
    session: Session,
    dag_id: DagId,
    start: FirstDay = None,
    end: LastDay = None,
    partition: Partitions = None,
    param: Params = None,
    dry_run: DryRun = False,
    plan_hash: PlanHash = None,
    reprocess: Reprocess = "none",
    max_active_runs: Annotated[int | None, typer.Option(min=1, help="Windows at a time.")] = None,
    backwards: Annotated[bool, typer.Option("--backwards", help="Latest window first.")] = False,
    wait: Wait = False,
) -> None:
    """Run a DAG for every window of its schedule between two days, or for partitions: given ones, or all of its own."""
    body: Json = {"dag_id": dag_id, "run_type": "backfill", "from": start, "to": end, "params": params(param)}
    body |= {"reprocess": reprocess, "run_backwards": backwards, "plan_hash": plan_hash}
    body |= {"max_active_runs": max_active_runs, "dry_run": dry_run, "partitions": partitions(partition)}
    body = {name: value for name, value in body.items() if value not in (None, False)}
    if dry_run:
        show_plan(session, "/runs", body)
    else:
        _trigger(session, body, wait)


def _trigger(session: Session, body: Json, wait: bool, path: str = "/runs") -> None:
    with session.api() as api:
        answer = api.post(path, body)
        if wait:
            wait_for(session, api, answer["run_id"])
    if session.as_json:
        screen.print_json(answer)
    else:
        screen.print_line(f"{answer['run_id']} {screen.shown(answer['state'])}")
        screen.say(f"follow it with: orchestrator runs events {answer['run_id']} -f")
