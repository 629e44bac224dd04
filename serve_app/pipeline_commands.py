"""The commands on CI pipelines, their jobs and runners, over the pipelines surface."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.client import pipelines as asked
from orchestrator.client.shapes.pipelines import PipelinesJob
from orchestrator.errors import Invalid, OrchestratorError
from serve_app import screen
from serve_app.api_client import Api, ApiRefused, Json
from serve_app.arguments import Params, params
from serve_app.session import Session, command, group

#: status at the end -> exit status, as of runs
_ENDS = {"Succeeded": 0, "Cancelled": 4}
_FAILED = 3

PipelineId = Annotated[str, typer.Argument(metavar="PIPELINE_ID")]
JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]

pipelines = group("CI pipelines in Lua, their jobs and logs.")


# ------------------------------------------------------------------ pipelines


@command(pipelines, "create")
def pipelines_create(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Lua source.")],
    name: Annotated[str | None, typer.Option(help="Name, default: what the source says.")] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="Module that a runner must have; may be given several times.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Label; may be given several times.")] = None,
    timeout: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="Limit of an attempt, default 3600.")
    ] = None,
    retries: Annotated[int | None, typer.Option(min=0, help="Further tries of a failed job, default 0.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="What `env` gives to stages.")] = None,
    secret: Annotated[
        list[str] | None, typer.Option(metavar="K", help="The same, from this command's environment; never shown.")
    ] = None,
) -> None:
    """Create a pipeline from a file, once its source is found to be good."""
    config: Json = {"timeout_seconds": timeout, "max_retries": retries}
    config |= {"env_vars": _pairs(env), "secret_env_vars": _secrets(secret or (), os.environ)}
    config = {key: value for key, value in config.items() if value not in (None, {})}
    with session.api() as api:
        made = api.run(
            asked.create(_source(file), name=name, required_modules=require, tags=tag, config=config or None)
        )
    session.show(made, ("id", "name", "version", "required_modules"))
    if not session.as_json:
        screen.say(f"launch it with: orchestrator pipelines launch {made['id']}")


@command(pipelines, "list")
def pipelines_list(session: Session) -> None:
    """List the pipelines, newest first."""
    with session.api() as api:
        found = api.run(asked.list_pipelines())
    session.show_list(found, ("id", "name", "version", "required_modules", "created_at"))


@command(pipelines, "delete")
def pipelines_delete(session: Session, pipeline_id: PipelineId) -> None:
    """Delete a pipeline with its jobs and their logs; open ones are cancelled."""
    with session.api() as api:
        api.run(asked.delete(pipeline_id))
    session.tell({"deleted": pipeline_id}, f"{pipeline_id} deleted")


@command(pipelines, "launch")
def pipelines_launch(
    session: Session,
    pipeline_id: PipelineId,
    param: Params = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the log until the end; the exit status tells it.")] = False,
) -> None:
    """Launch a pipeline: a job is queued for a runner."""
    with session.api() as api:
        job = api.run(asked.launch(pipeline_id, params(param)))
        if wait:
            _wait(session, api, job)
    session.show(job, ("id", "status"))
    if not session.as_json:
        screen.say(f"follow it with: orchestrator pipelines logs {job['id']} -f")


def _wait(session: Session, api: Api, job: PipelinesJob) -> NoReturn:
    """Shows the log until the job ends, and returns with its exit status; Ctrl-C leaves it running."""
    if not session.as_json:
        screen.say(f"{job['id']} waits for a runner")
    with session.watching(job["id"], f"; follow it with: orchestrator pipelines logs {job['id']} -f"):
        for event in api.iterate(asked.follow_logs(job["id"])):
            if event.kind == "log" and not session.as_json:
                screen.say(_log_line(event.data))
        ended = api.run(asked.wait(job["id"]))
    _show_job(session, ended)
    raise typer.Exit(_ENDS.get(ended["status"], _FAILED))


# ------------------------------------------------------------------ jobs


@command(pipelines, "jobs")
def pipelines_jobs(
    session: Session,
    pipeline: Annotated[str | None, typer.Option(help="Jobs of this pipeline.")] = None,
    status: Annotated[asked.Status | None, typer.Option(help="Jobs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
) -> None:
    """List jobs, newest first."""
    with session.api() as api:
        found = api.run(asked.list_jobs(pipeline_id=pipeline, status=status, limit=limit))
    session.show_list(found, ("id", "pipeline_id", "status", "runner_id", "requested_at", "retry_count"))


@command(pipelines, "show")
def pipelines_show(session: Session, job_id: JobId) -> None:
    """Show a job and how it ended."""
    with session.api() as api:
        job = api.run(asked.get_job(job_id))
    _show_job(session, job)


@command(pipelines, "logs")
def pipelines_logs(
    session: Session,
    job_id: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print what a job has written, one line each."""
    with session.api() as api:
        if not follow:
            for entry in api.run(asked.logs(job_id)):
                _print_log(session, entry)
            return
        for event in api.iterate(asked.follow_logs(job_id)):
            if event.kind == "log":
                _print_log(session, event.data)


@command(pipelines, "cancel")
def pipelines_cancel(session: Session, job_id: JobId) -> None:
    """Cancel a job, at once."""
    with session.api() as api:
        job = api.run(asked.cancel(job_id))
    session.show(job, ("id", "status"))


@command(pipelines, "runners")
def pipelines_runners(session: Session) -> None:
    """List the runners."""
    with session.api() as api:
        found = api.run(asked.list_runners())
    session.show_list(found, ("id", "status", "capabilities", "last_heartbeat_at"))


def hint(error: OrchestratorError) -> str | None:
    """What to do next about a refusal of this surface."""
    match error:
        case ApiRefused(status=404) if re.match(r"Pipeline \S+ not found", error.message):
            return "see what there is with `orchestrator pipelines list`"
        case ApiRefused(status=404) if re.match(r"Job \S+ not found", error.message):
            return "see what there is with `orchestrator pipelines jobs`"
        case ApiRefused(status=400) if found := re.match(r"(Missing required i|I)nput '(.*?)' ", error.message):
            return f"give it with --param {found[2]}=VALUE"
        case ApiRefused(status=400) if "is already completed" in error.message:
            return "see how it ended with `orchestrator pipelines show`"
    return None


# ------------------------------------------------------------------ inside


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file}: cannot be read: {error}") from None


def _pairs(given: Sequence[str] | None) -> dict[str, str]:
    """`K=V` pairs as an object of texts. Raises Invalid."""
    found = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Invalid(f"--env {each!r}: K=V expected")
        found[name] = value
    return found


def _secrets(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Values of variables. On a command line everybody on the machine could read them. Raises Invalid."""
    if missing := [name for name in names if name not in environ]:
        raise Invalid(f"--secret {missing[0]}: the environment has no such variable")
    return {name: environ[name] for name in names}


def _print_log(session: Session, entry: Mapping[str, Any]) -> None:
    if session.as_json:
        screen.print_json_line(dict(entry))
    else:
        print(_log_line(entry), flush=True)


def _log_line(entry: Mapping[str, Any]) -> str:
    return f"{entry['timestamp']}  {entry['level']:<7}  {entry['message']}"


def _show_job(session: Session, job: PipelinesJob) -> None:
    if session.as_json:
        screen.print_json(job)
        return
    facts = {name: value for name, value in job.items() if name != "result"}
    result: Any = job["result"] or {}
    screen.print_facts({**facts, **{name: value for name, value in result.items() if name != "success"}})
