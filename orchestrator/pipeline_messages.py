"""What is said to the gateway about CI jobs and runners, and the small documents that are kept about both.

    request  one struct of `Request`, tagged `ask`;   answer  an `Answer`; its request names the type of its body

Whoever asks acts for a tenant. Runners of tenant `default` serve every tenant; all others, and all who are not runners,
see what is their own.
Source: pipelines contract, sections 2 to 4.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError, Unavailable
from orchestrator.ids import DEFAULT_TENANT as DEFAULT_TENANT
from orchestrator.messages import NO_JSON
from orchestrator.pipeline import Input
from orchestrator.pipeline_views import JobResult, LogEntry, PipelineView

#: runs of CI jobs are of definitions `@ci/<pipeline id>`
KIND = "@ci"


def definition_of(pipeline_id: str) -> str:
    """The definition that its jobs are runs of."""
    return f"{KIND}/{pipeline_id}"


class Ask(msgspec.Struct, frozen=True, tag_field="ask", omit_defaults=True):
    """A request to the gateway."""

    tenant: str


class Scheduled(Ask, frozen=True, tag="scheduled"):
    """Body: list[PipelineJobView]. A sign of life of the runner; None = jobs for whomever."""

    runner_id: str | None = None


class Claim(Ask, frozen=True, tag="claim"):
    """Body: Claimed, secrets included."""

    job_id: str
    runner_id: str
    #: idempotency key and fingerprint
    key: str = ""
    fingerprint: str = ""


class SetStatus(Ask, frozen=True, tag="status"):
    """No body."""

    job_id: str
    status: str


class Complete(Ask, frozen=True, tag="complete"):
    """No body."""

    job_id: str
    result: JobResult
    status: str | None = None


class AddLogs(Ask, frozen=True, tag="logs"):
    """Body: the status of a job that somebody else has ended, or None."""

    job_id: str
    entries: tuple[LogEntry, ...]


class Cancel(Ask, frozen=True, tag="cancel"):
    """Body: PipelineJobView."""

    job_id: str


class DeletePipeline(Ask, frozen=True, tag="delete_pipeline"):
    """No body."""

    pipeline_id: str


class Register(Ask, frozen=True, tag="register"):
    """Body: RunnerView. `capabilities` None = unknown."""

    runner_id: str
    capabilities: tuple[str, ...] | None = None


class Heartbeat(Ask, frozen=True, tag="heartbeat"):
    """Body: RunnerView."""

    runner_id: str


class Runners(Ask, frozen=True, tag="runners"):
    """Body: list[RunnerView], by id."""


class DeleteRunner(Ask, frozen=True, tag="delete_runner"):
    """No body."""

    runner_id: str


Request = (
    Scheduled
    | Claim
    | SetStatus
    | Complete
    | AddLogs
    | Cancel
    | DeletePipeline
    | Register
    | Heartbeat
    | Runners
    | DeleteRunner
)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`refused`: not_found (`kind` and `message`, its name) | invalid | conflict | unavailable, or None."""

    body: msgspec.Raw = NO_JSON
    refused: str | None = None
    message: str = ""
    kind: str = ""


def refusal(error: OrchestratorError) -> Answer:
    """The answer that says so."""
    match error:
        case NotFound():
            return Answer(refused="not_found", message=error.name, kind=error.kind)
        case Invalid():
            return Answer(refused="invalid", message=error.message)
        case Conflict():
            return Answer(refused="conflict", message=error.message)
        case _:
            return Answer(refused="unavailable", message=str(error))


def check(answer: Answer) -> None:
    """Raises what it was refused with, if it was."""
    match answer.refused:
        case None:
            return
        case "not_found":
            raise NotFound(answer.kind, answer.message)
        case "invalid":
            raise Invalid(answer.message)
        case "conflict":
            raise Conflict(answer.message)
        case _:
            raise Unavailable(answer.message)


# ── records ───────────────────────────────────────────────────────────────────────────────────────

#: kinds of records
PIPELINES, RUNNERS, DELETIONS = "pipeline", "runner", "pipeline_deletion"


def record_key(tenant: str, name: str) -> str:
    """Key of a record of any of these kinds."""
    return f"{tenant}|{name}"


class PipelineRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pipeline. It never changes."""

    tenant: str
    #: as it is shown: secrets masked
    view: PipelineView
    inputs: tuple[Input, ...] = ()
    #: JSON of `config.secret_env_vars`, encrypted; "" = there are none
    sealed: str = ""


class RunnerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A runner, as last written: the instant of the last sign of life may be a moment behind."""

    tenant: str
    runner_id: str
    registered_at: datetime
    last_heartbeat_at: datetime
    #: None = unknown
    capabilities: tuple[str, ...] | None = None
    offline: bool = False


class Deletion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pipeline is deleted: at first to be carried out, then remembered for as long as keys of its creation are."""

    tenant: str
    pipeline_id: str
    at: datetime
    done: bool = False


class SecretsOfJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `JobLaunched.sealed` holds."""

    #: all of them, as they were given
    parameters: dict[str, object] = {}
    env_vars: dict[str, str] = {}
    #: what is masked
    values: tuple[str, ...] = ()
