"""The commands on DAGs: each is a request or two, and an answer for people or programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.client import dags as client
from serve_app import screen
from serve_app.api_client import Json
from serve_app.arguments import DagId, Limit
from serve_app.session import Session, command, group

dags = group("DAG definitions.")


@command(dags, "list")
def dags_list(
    session: Session,
    owner: Annotated[str | None, typer.Option()] = None,
    status: Annotated[str | None, typer.Option(help="active or paused")] = None,
    limit: Limit = 200,
) -> None:
    """List the DAGs."""
    with session.api() as api:
        items = api.items("/dags", limit, owner=owner, status=status)
    columns = ("dag_id", "status", "version", "schedule", "owner", "next_run_at")
    session.show_rows(items, columns, lambda each: [each.get(column) for column in columns])


@command(dags, "show")
def dags_show(session: Session, dag_id: DagId) -> None:
    """Show one DAG and its tasks."""
    with session.api() as api:
        dag = api.get(f"/dags/{dag_id}")
    if session.as_json:
        screen.print_json(dag)
        return
    screen.print_facts({name: value for name, value in dag.items() if name not in ("tasks", "awaits")})
    if dag.get("awaits"):
        screen.print_line("")
        waits = ((f"{a['kind']} {a['name']}", _met(a), ", ".join(map(screen.cause, a["by"]))) for a in dag["awaits"])
        screen.print_table(("waits for", "", "by"), waits)
    rows = ((t["id"], t.get("type") or t.get("entrypoint"), ", ".join(t["depends_on"])) for t in dag["tasks"])
    screen.print_line("")
    screen.print_table(("task", "type", "depends on"), rows)


def _met(awaited: Json) -> str:
    if not awaited["known"]:
        return "nobody has it"
    return "met" if awaited["met"] else "not yet"


@command(dags, "deploy")
def dags_deploy(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE_OR_DIR")],
    no_bundle: Annotated[
        bool, typer.Option("--no-bundle", help="Of a folder: let its code be found as that of a file is.")
    ] = False,
) -> None:
    """Deploy the DAGs in a .py, .yaml or .json file, or in a folder of them with all its code and requirements.txt."""
    from serve_app import deploy

    with session.api() as api:
        local = session.target().local
        if path.is_dir() and not no_bundle:
            deployed = deploy.deploy_bundle(api, session.home if local else None, path)
        else:
            deployed = deploy.deploy_local(api, session.home, path) if local else deploy.deploy_remote(api, path)
    if session.as_json:
        screen.print_json({"items": deployed})
        return
    for each in deployed:
        said = f" bundle {each['bundle'][:12]}" if "bundle" in each else ""
        screen.print_line(f"{each['dag_id']} version {each['version']} {screen.shown(each['status'])}{said}")


@command(dags, "preview")
def dags_preview(
    session: Session,
    dag_id: DagId,
    n: Annotated[int, typer.Option("-n", min=1, max=200, help="So many ticks.")] = 10,
    start: Annotated[str | None, typer.Option("--from", metavar="INSTANT", help="RFC 3339 in Z; now.")] = None,
) -> None:
    """Show when a DAG's schedule fires next, and what its calendar skips."""
    with session.api() as api:
        told = api.get(f"/dags/{dag_id}/schedule/preview", n=n, **({"from": start} if start else {}))
    if session.as_json:
        screen.print_json(told)
        return
    if not told["items"]:
        screen.print_line(f"{dag_id} has no schedule, or none that fires any more")
        return
    if told["paused"]:
        screen.print_line(f"{dag_id} is paused: nothing fires until it is resumed")
    rows = ((_minute(t["local"]), _minute(t["at"]), _delay(t), _span(t["window"]), _remark(t)) for t in told["items"])
    screen.print_table((told["timezone"], "UTC", "runs at", "window", ""), rows)


@command(dags, "pause")
def dags_pause(session: Session, dag_id: DagId) -> None:
    """Start nothing more of a DAG; what runs goes on."""
    session.send(f"/dags/{dag_id}/pause", lambda a: f"{a['dag_id']} {screen.shown(a['status'])}")


@command(dags, "resume")
def dags_resume(session: Session, dag_id: DagId) -> None:
    """Let a DAG's runs start again."""
    session.send(f"/dags/{dag_id}/resume", lambda a: f"{a['dag_id']} {screen.shown(a['status'])}")


@command(dags, "uncache")
def dags_uncache(
    session: Session, dag_id: DagId, task: Annotated[str | None, typer.Argument(metavar="[TASK]")] = None
) -> None:
    """Let a DAG's tasks, or one of them, compute anew instead of using results of earlier runs."""
    with session.api() as api:
        answer = api.run(client.uncache(dag_id, task))
    what = f"task {task} of {dag_id}" if task else f"all tasks of {dag_id}"
    session.tell(answer, f"{what}: results from before {answer['uncached_at']} are not used any more")


def _span(window: Json | None) -> str:
    if window is None:
        return ""
    return window["from"] if window["from"] == window["to"] else f"{window['from']} – {window['to']}"


def _minute(instant: str) -> str:
    return instant[:16].replace("T", " ")


def _delay(tick: Json) -> str:
    """When jitter has it run, to the second."""
    return "" if tick["runs_at"] in (None, tick["at"]) else tick["runs_at"][11:19]


def _remark(tick: Json) -> str:
    if tick["skipped"]:
        return f"skipped: {tick['skipped']}"
    return "clocks change" if tick["moved"] else ""
