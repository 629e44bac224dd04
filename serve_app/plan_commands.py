"""The commands on plans and orchestrator instances, over the instances surface."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestrator.errors import Invalid
from serve_app import screen
from serve_app.api_client import Api, Json
from serve_app.session import Session, command, group

#: exit reason -> exit status, as of runs
_ENDS = {"complete": 0, "shutdown": 4}
_FAILED = 3
#: seconds between looks at an instance that is waited for
_LOOK_S = 0.5

InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE_ID")]
TaskId = Annotated[str, typer.Argument(metavar="TASK")]
PlanName = Annotated[str, typer.Argument(metavar="NAME")]

plans = group("Plans: markdown files with tasks.")
instances = group("Orchestrator instances: each works through a plan.")


# ------------------------------------------------------------------ plans


@command(plans, "list")
def plan_list(session: Session) -> None:
    """List the plan files."""
    with session.api() as api:
        found = api.surface("GET", "/api/plans")
    session.show_list(found, ("name", "has_status", "last_modified", "path"))


@command(plans, "run")
def plan_run(
    session: Session,
    plan: Annotated[str, typer.Argument(metavar="FILE|NAME", help="In the server's plans folder.")],
    executor: Annotated[
        str | None, typer.Option(help="How tasks are carried out, default: as the server says.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=50, help="Tasks at a time.")] = 5,
    max_iterations: Annotated[int, typer.Option(min=0, help="Batches until it gives up; 0 = no limit.")] = 50,
    max_retries: Annotated[int, typer.Option(min=0, max=10, help="Further tries of a failed task.")] = 2,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit status tells it.")] = False,
) -> None:
    """Work through a plan: an instance starts."""
    body: Json = {"batch_size": batch_size, "max_iterations": max_iterations, "max_retries": max_retries}
    with session.api() as api:
        name = _plan_name(api, plan)
        made = api.surface("POST", "/api/orchestrators", {**body, "plan": name, "executor": executor})
        if not wait:
            session.show(made, ("id", "plan_name", "status", "executor"))
            return
        _wait(session, api, made["id"])


@command(plans, "findings")
def plan_findings(
    session: Session,
    name: PlanName,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Print the finding of this task.")] = None,
) -> None:
    """List what the tasks of a plan left behind, or print one of it."""
    with session.api() as api:
        if task is None:
            found = api.surface("GET", f"/api/plans/{name}/findings")
            session.show_list(found, ("task_id", "size_bytes", "last_modified", "file_path"))
            return
        finding = api.surface("GET", f"/api/plans/{name}/findings/{task}")
    if session.as_json:
        screen.print_json(finding)
    else:
        print(finding["content"], end="")


def _plan_name(api: Api, given: str) -> str:
    """The name of a plan given by name, or as a file in the server's folder. Raises Invalid."""
    if not given.endswith(".md"):
        return given
    path = Path(given).resolve()
    known = {Path(each["path"]).resolve(): str(each["name"]) for each in api.surface("GET", "/api/plans")}
    if path not in known:
        raise Invalid(f"{given} is not in the server's folder of plans (`docs/plans` beneath ORCHESTRATOR_PLANS_ROOT)")
    return known[path]


def _wait(session: Session, api: Api, instance_id: str) -> NoReturn:
    """Returns with the exit status of the instance's end; Ctrl-C leaves it running."""
    with session.watching(instance_id):
        status = _until_stopped(session, api, instance_id)
    _show_status(session, status)
    raise typer.Exit(_ENDS.get(status["exit_reason"], _FAILED))


def _until_stopped(session: Session, api: Api, instance_id: str) -> Json:
    status: Json = api.surface("GET", f"/api/orchestrators/{instance_id}/status")
    with screen.progress(status["plan_name"], len(status["tasks"]), quiet=session.as_json) as bar:
        while status["status"] != "stopped":
            bar.show(
                status["summary"]["completed"] + status["summary"]["skipped"], status["summary"]["current_phase"] or ""
            )
            time.sleep(_LOOK_S)
            status = api.surface("GET", f"/api/orchestrators/{instance_id}/status")
    return status


# ------------------------------------------------------------------ instances


@command(instances, "list")
def instances_list(session: Session) -> None:
    """List the instances that live, and those that ended a short while ago."""
    with session.api() as api:
        found = api.surface("GET", "/api/orchestrators")
    session.show_list(found, ("id", "plan_name", "status", "exit_reason", "executor", "pid", "started_at"))


@command(instances, "show")
def instances_show(session: Session, instance_id: InstanceId) -> None:
    """Show how far an instance is."""
    with session.api() as api:
        status = api.surface("GET", f"/api/orchestrators/{instance_id}/status")
    _show_status(session, status)


@command(instances, "events")
def instances_events(
    session: Session,
    instance_id: InstanceId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the instance stops.")] = False,
    after: Annotated[int, typer.Option(help="Begin after this event.")] = 0,
) -> None:
    """Print what happened to an instance, one event a line."""
    with session.api() as api:
        for event in api.follow_instance(instance_id, after, live=follow):
            if session.as_json:
                screen.print_json_line({"id": event.id, "event": event.kind, "data": event.data})
            else:
                screen.print_line(_event_line(event.id, event.kind, event.data))


def _event_line(number: int | None, kind: str, told: Json) -> str:
    data = told.get("data") or {}
    match kind:
        case "task_changed":
            what = f"{data['task_id']}  {screen.shown(data['old_status'])} > {screen.shown(data['new_status'])}"
        case "phase_changed":
            what = f"{screen.shown(data['old_phase'])} > {screen.shown(data['new_phase'])}"
        case "orchestrator_state":
            what = f"{screen.shown(data['old_state'])} > {screen.shown(data['new_state'])}"
        case "tool_started":
            what = screen.shown(f"{data['tool_name']} {data['tool_id']}")
        case "tool_completed":
            how = "" if data["success"] else " failed"
            what = screen.shown(f"{data['tool_name']} {data['tool_id']}{how} {data['duration_ms']} ms")
        case _:
            what = ""
    return f"{number:>6}  {told.get('timestamp', '')}  {kind:<18}  {what}".rstrip()


@command(instances, "pause")
def instances_pause(session: Session, instance_id: InstanceId) -> None:
    """Start no further task of an instance."""
    _steer(session, instance_id, "pause")


@command(instances, "resume")
def instances_resume(session: Session, instance_id: InstanceId) -> None:
    """Let a paused instance go on."""
    _steer(session, instance_id, "resume")


@command(instances, "shutdown")
def instances_shutdown(
    session: Session,
    instance_id: InstanceId,
    force: Annotated[bool, typer.Option("--force", help="Cancel what is in progress.")] = False,
) -> None:
    """End an instance after its present batch."""
    _steer(session, instance_id, "shutdown", force="true" if force else "false")


@command(instances, "skip")
def instances_skip(
    session: Session,
    instance_id: InstanceId,
    task: TaskId,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Count a task as done."""
    _steer(session, instance_id, "skip-task", {"task_id": task, "reason": reason})


@command(instances, "retry")
def instances_retry(session: Session, instance_id: InstanceId, task: TaskId) -> None:
    """Make a failed or skipped task pending again."""
    _steer(session, instance_id, "retry-task", {"task_id": task})


def _steer(session: Session, instance_id: str, what: str, body: Json | None = None, **query: str) -> None:
    """Sends a command and prints its answer; exit status 1 when it was not done."""
    with session.api() as api:
        answer = api.surface("POST", f"/api/orchestrators/{instance_id}/{what}", body, **query)
    session.tell(answer, screen.shown(": ".join(filter(None, (answer["message"], answer["error"])))))
    if not answer["success"]:
        raise typer.Exit(1)


# ------------------------------------------------------------------ shared


def _show_status(session: Session, status: Json) -> None:
    if session.as_json:
        screen.print_json(status)
        return
    facts = {name: value for name, value in status.items() if name not in ("tasks", "phases", "summary")}
    screen.print_facts({**facts, **status["summary"]})
    screen.print_line("")
    rows = (
        (t["id"], t["status"], t["retry_count"] or None, t["description"], t["last_error"]) for t in status["tasks"]
    )
    screen.print_table(("task", "status", "retries", "description", "error"), rows)
