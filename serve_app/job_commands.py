"""The commands on jobs of blueprints, over the jobs surface."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestrator.client import jobs as asked
from orchestrator.client.shapes.jobs import JobsHistoryEvent, JobsJob, JobsWebhook
from orchestrator.errors import Invalid, OrchestratorError
from serve_app import screen
from serve_app.api_client import Api, ApiRefused, Json
from serve_app.arguments import Params, params
from serve_app.session import Session, command, group

#: status at the end -> exit status, as of runs
_ENDS = {"finished": 0, "cancelled": 4}
_FAILED = 3
#: seconds between looks at a job that is waited for
_LOOK_S = 0.5

JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]

jobs = group("Jobs: state machines (blueprints) whose tasks remote workers do.")


@command(jobs, "blueprints")
def jobs_blueprints(session: Session) -> None:
    """List the blueprints that jobs can be created of."""
    with session.api() as api:
        found = api.run(asked.blueprints())
    session.show_list(found, ("name", "api_version", "api_endpoint", "version"))


@command(jobs, "create")
def jobs_create(
    session: Session,
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="Path of its blueprint, as `jobs blueprints` shows it.")
    ],
    param: Params = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Initial data as JSON; - = standard input.")] = None,
    version: Annotated[str, typer.Option(help="API version of the blueprint; empty = it has none.")] = "v1",
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Told when the job has ended.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit status tells it.")] = False,
) -> None:
    """Create a job; its initial data are the file's, and the parameters."""
    initial = {**_initial_data(data), **params(param)}
    with session.api() as api:
        job_id = api.run(asked.create(endpoint, initial, version=version or None, webhook_url=webhook))
        if wait:
            _wait(session, api, job_id)
    session.show({"job_id": job_id}, ("job_id",))
    if not session.as_json:
        screen.say(f"look at it with: orchestrator jobs show {job_id}")


@command(jobs, "show")
def jobs_show(session: Session, job_id: JobId) -> None:
    """Show a job."""
    with session.api() as api:
        job = api.run(asked.get_job(job_id))
    _show_job(session, job)


@command(jobs, "list")
def jobs_list(
    session: Session,
    status: Annotated[asked.Status | None, typer.Option(help="Jobs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
) -> None:
    """List jobs, newest first."""
    with session.api() as api:
        found = api.run(asked.list_jobs(status=status, limit=limit))
    session.show_list(found, ("id", "blueprint_name", "status", "current_state", "progress", "created_at"))


@command(jobs, "cancel")
def jobs_cancel(session: Session, job_id: JobId) -> None:
    """Cancel a job: at once, or as soon as the worker that has its task gives it back."""
    with session.api() as api:
        status = api.run(asked.cancel(job_id))
    session.show({"job_id": job_id, "status": status}, ("job_id", "status"))


@command(jobs, "release")
def jobs_release(session: Session, job_id: JobId) -> None:
    """Let a quarantined job go on where it stopped."""
    with session.api() as api:
        api.run(asked.release(job_id))
    session.show({"job_id": job_id, "status": "released"}, ("job_id", "status"))


@command(jobs, "approve")
def jobs_approve(
    session: Session,
    job_id: JobId,
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="One of those that its blueprint offers.")],
) -> None:
    """Decide for a job that waits for a human."""
    with session.api() as api:
        api.run(asked.approve(job_id, decision))
    session.show({"job_id": job_id, "decision": decision}, ("job_id", "decision"))


@command(jobs, "history")
def jobs_history(session: Session, job_id: JobId) -> None:
    """Print what has happened to a job, one event a line."""
    with session.api() as api:
        events = api.run(asked.history(job_id))
    session.show_rows(
        events,
        ("time", "event", "state", "change", "worker"),
        lambda each: (each["timestamp"], each["event_type"], each["state"], _change(each), each["worker_id"]),
    )


@command(jobs, "webhooks")
def jobs_webhooks(
    session: Session,
    status: Annotated[asked.WebhookStatus | None, typer.Option(help="Webhooks with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
) -> None:
    """List webhooks and what became of them, newest first."""
    with session.api() as api:
        found = api.run(asked.webhooks(status=status, limit=limit))
    session.show_rows(
        found,
        ("id", "event", "status", "attempts", "last answer"),
        lambda each: (each["id"], each["event"], each["status"], each["attempt_count"], _last(each)),
    )


@command(jobs, "retry-webhook")
def jobs_retry_webhook(
    session: Session, webhook_id: Annotated[str, typer.Argument(metavar="WEBHOOK_ID", help="Of one that is dead.")]
) -> None:
    """Try a webhook again that was given up."""
    with session.api() as api:
        tried = api.run(asked.retry_webhook(webhook_id))
    session.show(tried, ("id", "status", "next_attempt_at"))


def hint(error: OrchestratorError) -> str | None:
    """What to do next about a refusal of this surface."""
    match error:
        case ApiRefused(status=404, message="Not found"):
            return "see what can be created with `orchestrator jobs blueprints`"
        case ApiRefused(status=404, message="Job not found"):
            return "see what there is with `orchestrator jobs list`"
        case ApiRefused(status=404, message="Webhook not found"):
            return "see what there is with `orchestrator jobs webhooks`"
        case ApiRefused(status=409) if re.match(r"Webhook is not dead", error.message):
            return "see which are with `orchestrator jobs webhooks --status dead`"
        case ApiRefused(status=400) if error.message.startswith("Invalid decision"):
            return "see what the job waits for with `orchestrator jobs show`: current_task_transitions"
        case ApiRefused(status=409) if re.match(r"Job is not (in a state|quarantined)", error.message):
            return "look at its present state with `orchestrator jobs show`"
    return None


# ------------------------------------------------------------------ inside


def _initial_data(file: Path | None) -> Json:
    """The JSON object in a file. Raises Invalid."""
    if file is None:
        return {}
    try:
        found = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"--data {file}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Invalid(f"--data {file}: a JSON object expected")
    return found


def _wait(session: Session, api: Api, job_id: str) -> NoReturn:
    """Returns with the exit status of the job's end; Ctrl-C leaves it going on."""
    if not session.as_json:
        screen.say(job_id)
    with session.watching(job_id, f"; look at it with: orchestrator jobs show {job_id}"):
        job = _until_ended(session, api, job_id)
    _show_job(session, job)
    raise typer.Exit(_ENDS.get(job["status"], _FAILED))


def _until_ended(session: Session, api: Api, job_id: str) -> JobsJob:
    job = api.run(asked.get_job(job_id))
    with screen.progress(job["blueprint_name"], 100, quiet=session.as_json) as bar:
        while job["status"] not in asked.ENDED:
            note = " ".join(filter(None, (job["current_state"], job["status"], job["progress_message"])))
            bar.show(round(100 * job["progress"]), note)
            time.sleep(_LOOK_S)
            job = api.run(asked.get_job(job_id))
    return job


def _show_job(session: Session, job: JobsJob) -> None:
    if session.as_json:
        screen.print_json(job)
    else:
        screen.print_facts(job)


def _change(event: JobsHistoryEvent) -> str | None:
    if event["next_state"] is None:
        return None
    return f"{event['previous_state'] or ''} > {event['next_state']}"


def _last(webhook: JobsWebhook) -> str | None:
    """What the last attempt came to; None = there was none."""
    last = webhook["attempts"][-1] if webhook["attempts"] else None
    return None if last is None else last["error"] or str(last["status_code"])
