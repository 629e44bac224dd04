"""The commands on what runs wait for: signals, approvals, runs that they call; and what runs answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from orchestrator.client import dags as asked
from serve_app import screen
from serve_app.api_client import Api, Json
from serve_app.arguments import RunId
from serve_app.run_commands import runs
from serve_app.session import Session, command, group

approvals = group("Approvals that tasks wait for.")


@command(runs, "signal")
def runs_signal(
    session: Session,
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the task waits for.")],
    data: Annotated[str, typer.Option(metavar="JSON", help="JSON, or text: what the task returns.")] = "null",
    signal_id: Annotated[str | None, typer.Option("--id", help="A second signal with it is the first one.")] = None,
) -> None:
    """Signal a run; it keeps the signal until a task waits for it."""
    with session.api() as api:
        sent = api.run(asked.signal(run_id, name, _json_or_text(data), signal_id=signal_id))
    session.show(dict(sent), ("run_id", "name", "signal_id", "state"))


@command(runs, "query")
def runs_query(
    session: Session,
    run_id: RunId,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this value.")] = None,
) -> None:
    """Show what a run's tasks have published, how far it is and what it waits for."""
    with session.api() as api:
        found = [api.run(asked.query(run_id, name))] if name else api.run(asked.queries(run_id))
    if session.as_json:
        screen.print_json(found[0] if name else {"items": found})
        return
    screen.print_facts({each["name"]: json.dumps(each["value"]) for each in found})


@command(runs, "tree")
def runs_tree(session: Session, run_id: RunId) -> None:
    """Show a run with the runs that its tasks called, and what those called."""
    with session.api() as api:
        tree = _called(api, api.get(f"/runs/{run_id}"))
    if session.as_json:
        screen.print_json(tree)
        return
    for depth, task, run in _flat(tree, 0, ""):
        name = f"{task}: {run['dag_id']}" if task else run["dag_id"]
        screen.print_line(f"{'  ' * depth}{name}  {run['state']}  {run['run_id']}")


def _called(api: Api, run: Json) -> Json:
    """The run with its children, each with its own."""
    below = {task: _called(api, api.get(f"/runs/{each['run_id']}")) for task, each in run.get("children", {}).items()}
    return {"run_id": run["run_id"], "dag_id": run["dag_id"], "state": run["state"], "children": below}


def _flat(tree: Json, depth: int, task: str) -> Iterator[tuple[int, str, Json]]:
    yield depth, task, tree
    for below, each in tree["children"].items():
        yield from _flat(each, depth + 1, below)


@command(approvals, "list")
def approvals_list(
    session: Session,
    dag: Annotated[str | None, typer.Option(help="Of runs of this DAG.")] = None,
    run: Annotated[str | None, typer.Option(help="Of this run.")] = None,
) -> None:
    """List what waits for a decision, oldest first."""
    with session.api() as api:
        found = api.run(asked.approvals(dag_id=dag, run_id=run))
    session.show_rows(
        found,
        ("run", "task", "prompt", "choices", "votes", "expires"),
        lambda a: (
            a["run_id"],
            a["task"],
            a["prompt"],
            ", ".join(a["choices"]),
            f"{len(a['votes'])}/{a['quorum']}",
            a["expires_at"],
        ),
    )


@command(approvals, "decide")
def approvals_decide(
    session: Session,
    run_id: RunId,
    task: Annotated[str, typer.Argument(metavar="TASK")],
    choice: Annotated[str, typer.Argument(metavar="CHOICE")],
    comment: Annotated[str | None, typer.Option(help="Why.")] = None,
    by: Annotated[str | None, typer.Option(help="Whose vote it is; needs an admin token.")] = None,
) -> None:
    """Vote on an approval."""
    with session.api() as api:
        changed = api.run(asked.decide(run_id, task, choice, comment=comment, by=by))
    session.show(dict(changed), ("run_id", "task", "state"))


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
