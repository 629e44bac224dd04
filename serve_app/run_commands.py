"""The commands on runs and backfills: what they are, what they did, and what becomes of them."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from serve_app import screen
from serve_app.api_client import Json
from serve_app.arguments import (
    DryRun,
    FirstDay,
    LastDay,
    Limit,
    Params,
    Partitions,
    PlanHash,
    Reprocess,
    RunId,
    params,
    partitions,
)
from serve_app.run_screen import ENDED, show_plan, show_run, window_text
from serve_app.session import Session, command, group

runs = group("Runs and backfills.")


@command(runs, "list")
def runs_list(
    session: Session,
    dag: Annotated[str | None, typer.Option(help="Runs of this DAG.")] = None,
    state: Annotated[str | None, typer.Option(help="queued, running, success, failed or cancelled")] = None,
    run_type: Annotated[str | None, typer.Option("--type", help="manual, backfill or scheduled")] = None,
    parent: Annotated[str | None, typer.Option(help="Runs of this backfill.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Runs that left for the archive.")] = False,
    limit: Limit = 50,
) -> None:
    """List runs, newest first."""
    filters = {"dag_id": dag, "state": state, "run_type": run_type, "parent_run_id": parent}
    with session.api() as api:
        items = api.items("/runs", limit, **filters, archived="true" if archived else None)
    session.show_rows(items, ("run", "dag", "type", "state", "window", "created", "attempts"), _row)


def _row(run: Json) -> tuple[Any, ...]:
    window = window_text(run["window"])
    return run["run_id"], run["dag_id"], run["run_type"], run["state"], window, run["created_at"], run["attempts"]


@command(runs, "show")
def runs_show(session: Session, run_id: RunId) -> None:
    """Show one run with its tasks or windows."""
    with session.api() as api:
        run = api.get(f"/runs/{run_id}")
    show_run(session, run)


@command(runs, "events")
def runs_events(
    session: Session,
    run_id: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    after: Annotated[int | None, typer.Option(help="Begin after this event.")] = None,
) -> None:
    """Print what happened to a run, one event a line."""
    with session.api() as api:
        for event in api.follow(run_id, after) if follow else api.history(run_id, after):
            if session.as_json:
                screen.print_json_line({"id": event.id, "event": event.kind, "data": event.data})
            elif event.kind != "end":
                screen.print_line(_event_line(event.id, event.kind, event.data))


def _event_line(number: int | None, kind: str, data: Json) -> str:
    window = window_text(data.get("window")) if "window" in data else None
    what = data.get("task") or window or data.get("deadline") or "run"
    change = f"{screen.shown(data.get('from'))} > {screen.shown(data.get('to'))}" if "to" in data else ""
    error = screen.shown(data.get("error"))
    return f"{number:>6}  {data.get('ts', '')}  {kind:<12}  {screen.shown(what)}  {change}  {error}".rstrip()


@command(runs, "logs")
def runs_logs(
    session: Session,
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task.")] = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Print what a run's tasks have written."""
    printed: dict[tuple[str, int], int] = {}
    with session.api() as api:
        while True:
            run = api.get(f"/runs/{run_id}")
            goes_on = follow and run["state"] not in ENDED
            started = [name for name, state in run["tasks"].items() if state not in ("pending", "upstream_failed")]
            for name in [task] if task else started:
                for chunk in api.get(f"/runs/{run_id}/tasks/{name}/logs", attempt=attempt)["items"]:
                    _print_log(session, _whole_lines(chunk) if goes_on else chunk, printed)
            if not goes_on:
                return
            time.sleep(1.0)


@command(runs, "instances")
def runs_instances(
    session: Session,
    run_id: RunId,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A mapped task.")],
    state: Annotated[str | None, typer.Option(help="Only instances in this state.")] = None,
) -> None:
    """List the instances of a mapped task; their ids go wherever a task's id does."""
    with session.api() as api:
        cursor: str | None = None
        while True:
            page = api.get(f"/runs/{run_id}/tasks/{task}/instances", state=state, cursor=cursor, limit=200)
            for each in page["items"]:
                if session.as_json:
                    screen.print_json_line(each)
                else:
                    print(f"{each['task']:<24}  {each['state']}")
            cursor = page["next_cursor"]
            if cursor is None:
                break
        if not session.as_json:
            told = ", ".join(f"{number} {name}" for name, number in page["counts"].items())
            print(f"{page['task']} is {page['state']}: {told or 'no instances'}")


def _whole_lines(chunk: Json) -> Json:
    """Without what may be the beginning of a line."""
    return {**chunk, "text": chunk["text"][: chunk["text"].rfind("\n") + 1]}


def _print_log(session: Session, chunk: Json, printed: dict[tuple[str, int], int]) -> None:
    """Prints what is new in `chunk`; `printed` holds how much of each attempt has been."""
    key = (chunk["task"], chunk["attempt"])
    new = chunk["text"][printed.get(key, 0) :]
    printed[key] = len(chunk["text"])
    if session.as_json and new:
        screen.print_json_line({**chunk, "text": new})
    elif new:
        prefix = f"{chunk['task']}/{chunk['attempt']} | "
        print("".join(f"{prefix}{line}\n" for line in new.splitlines()), end="", flush=True)


@command(runs, "cancel")
def runs_cancel(session: Session, run_id: RunId) -> None:
    """Cancel a run, or all unfinished windows of a backfill."""
    session.send(f"/runs/{run_id}/cancel", _changed)


@command(runs, "pause")
def runs_pause(session: Session, run_id: RunId) -> None:
    """Start no further task of a run, or window of a backfill."""
    session.send(f"/runs/{run_id}/pause", _changed)


@command(runs, "resume")
def runs_resume(session: Session, run_id: RunId) -> None:
    """Let a paused run or backfill go on."""
    session.send(f"/runs/{run_id}/resume", _changed)


@command(runs, "widen")
def runs_widen(
    session: Session,
    run_id: RunId,
    start: FirstDay = None,
    end: LastDay = None,
    partition: Partitions = None,
    param: Params = None,
    dry_run: DryRun = False,
    plan_hash: PlanHash = None,
    reprocess: Reprocess = "none",
) -> None:
    """Add days, or partitions, to a backfill that goes on."""
    body: Json = {"from": start, "to": end, "partitions": partitions(partition), "params": params(param)}
    body |= {"reprocess": reprocess, "plan_hash": plan_hash, "dry_run": dry_run}
    body = {name: value for name, value in body.items() if value not in (None, False)}
    path = f"/runs/{run_id}/widen"
    if dry_run:
        show_plan(session, path, body)
    else:
        session.send(path, lambda a: f"{_changed(a)}: {a['added']} more, {a['counts']['total']} windows", body)


@command(runs, "cap")
def runs_cap(
    session: Session,
    run_id: RunId,
    n: Annotated[int | None, typer.Argument(metavar="[N]", min=1, help="Left out: as many as the DAG allows.")] = None,
) -> None:
    """Let N windows of a backfill run at a time."""
    session.send(f"/runs/{run_id}/cap", _changed, {"max_active_runs": n})


@command(runs, "retry")
def runs_retry(
    session: Session,
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task.")] = None,
) -> None:
    """Retry the failed tasks of a run; what is done is kept."""
    session.send(f"/runs/{run_id}/tasks/{task}/retry" if task else f"/runs/{run_id}/retry", _changed)


def _changed(answer: Json) -> str:
    task = f" {answer['task']}" if answer.get("task") else ""
    paused = ", paused" if answer.get("paused") else ""
    return f"{answer['run_id']}{task} {screen.shown(answer['state'])}{paused}"
