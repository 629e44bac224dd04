"""What the surfaces for work outside the cluster need from the rest: the ports `Jobs` and `Pipelines`.

The same rules as in `ports.py`: every method but a poll keeps a deadline of 5 s and raises `orchestrator.errors`
only; a tenant's foreign objects are NotFound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from orchestrator import remote
from orchestrator.blueprint import Blueprint
from orchestrator.idempotency import Idempotency
from orchestrator.job_views import HistoryEvent, JobView
from orchestrator.pipeline_views import (
    Claimed,
    CompletionWanted,
    LogEntry,
    PipelineJobView,
    PipelineView,
    PipelineWanted,
    RunnerView,
)
from orchestrator.views import Frame
from orchestrator.webhook import Delivery
from serve_app.worker_tokens import WorkerTokens


class JobWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a client asks for."""

    #: name of the blueprint
    blueprint: str
    initial_data: dict[str, Any]
    webhook_url: str | None = None
    #: who asks, as the job keeps it
    client: str
    plan: str | None = None
    #: jobs that this client may create in a month; None = any number
    monthly_attempts: int | None = None


class Polling(Protocol):
    """One open poll."""

    @property
    def outcome(self) -> asyncio.Future[dict[str, Any] | None]:
        """A task as the worker gets it, or None when the time is over, or this server about to go away."""

    def withdraw(self) -> None:
        """The worker is gone, or its answer could not be written: what it was given goes back to the queue."""


class Commands(Protocol):
    """What one worker's socket is to be told; it ends when the worker has opened another socket. To be closed."""

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]: ...

    async def aclose(self) -> None:
        """Nobody listens any more."""


class Jobs(Protocol):
    """Jobs of blueprints, and the workers that do their tasks."""

    def blueprints(self) -> Sequence[tuple[Blueprint, int]]:
        """Loaded ones with their versions, by name."""

    async def create(self, tenant: str, wanted: JobWanted, idem: Idempotency | None) -> tuple[str, bool]:
        """Id of a job that exists, durably, and whether the answer was stored before.

        Raises NotFound (blueprint), Conflict (reused key), QuotaExhausted.
        """

    async def job(self, tenant: str, job_id: str) -> JobView:
        """One job; of one that waits for a worker also why, if the gateway says so within 0.5 s."""

    async def jobs(self, tenant: str, status: str | None, limit: int, offset: int) -> list[JobView]:
        """Newest first; `status` is one of those of the contract."""

    async def history(self, tenant: str, job_id: str) -> list[HistoryEvent]:
        """Oldest first."""

    async def counts(self, tenant: str) -> dict[str, int]:
        """Job status -> jobs, zeros left out; `queued` (pending, and waiting for a worker) always there."""

    async def cancel(self, tenant: str, job_id: str) -> str:
        """`cancellation_request_sent` or `cancellation_request_accepted`. Raises NotFound, Conflict (the status)."""

    async def release(self, tenant: str, job_id: str) -> None:
        """A quarantined job goes on where it stopped. Raises NotFound, Conflict (the status)."""

    async def approve(self, job_id: str, decision: str) -> None:
        """Raises NotFound, Invalid (no such decision), Conflict (it waits for none)."""

    async def workers(self, tenant: str) -> list[dict[str, Any]]:
        """Live workers, those of the cluster among them, by id."""

    async def webhooks(self, tenant: str, status: str | None, limit: int) -> Sequence[Delivery]:
        """Webhooks of the tenant's jobs with the log of attempts, newest first; `status` is a delivery's state."""

    async def retry_webhook(self, tenant: str, webhook_id: str) -> Delivery:
        """A dead letter is tried from the start. Raises NotFound, Conflict (its state)."""

    async def flush(self) -> None:
        """Every job, remote worker and webhook is gone."""

    async def ask(self, request: remote.Request) -> remote.Answer:
        """What workers say: Register, Heartbeat, Result, Progress. A Result of an unknown job is NotFound."""

    async def ask_leave(self, worker: str, path: str) -> int:
        """Whole seconds until a worker may ask at that path again; 0 = this request may pass, and counts.

        Of all replicas together at most 50 pass in any second.
        """

    def poll(
        self, tenant: str, worker_id: str, timeout_s: float, available_skills: Sequence[str], hot_skills: Sequence[str]
    ) -> Polling:
        """A worker waits for a task, from now on, for so long."""

    async def socket(self, tenant: str, worker_id: str) -> Commands:
        """What is to be told to a worker's socket ("" = anonymous). While it is open its worker counts as alive."""

    async def worker_tokens(self) -> WorkerTokens:
        """Individual tokens of workers, at most a second old."""

    async def reload_worker_tokens(self) -> None:
        """The file is read again, for every replica. Raises Invalid about the file."""


class Pipelines(Protocol):
    """CI pipelines, their jobs, and runners."""

    async def create(self, tenant: str, wanted: PipelineWanted, idem: Idempotency | None) -> PipelineView:
        """Raises Invalid with the contract's text (section 5), Conflict (reused key). May take 10 s: the script runs.

        `config.secret_env_vars` come with `***` for values, and are best shown only when there are any.
        """

    async def pipelines(self, tenant: str) -> list[PipelineView]:
        """Newest first."""

    async def pipeline(self, tenant: str, pipeline_id: str) -> PipelineView: ...

    async def delete(self, tenant: str, pipeline_id: str) -> None:
        """Its open jobs are cancelled; then it, its jobs and their logs are gone. Raises NotFound."""

    async def launch(
        self, tenant: str, pipeline_id: str, parameters: dict[str, Any], idem: Idempotency | None
    ) -> PipelineJobView:
        """Raises NotFound, Invalid (inputs), Conflict (reused key)."""

    async def job(self, tenant: str, job_id: str) -> PipelineJobView: ...

    async def jobs(
        self, tenant: str, pipeline_id: str | None, status: str | None, limit: int | None
    ) -> list[PipelineJobView]:
        """Newest first; `status` as on the wire."""

    async def scheduled(self, tenant: str, runner_id: str | None) -> list[PipelineJobView]:
        """Queued jobs that fit the runner and whose retry delay is over, oldest first."""

    async def claim(self, tenant: str, job_id: str, runner_id: str, idem: Idempotency | None) -> Claimed:
        """What the runner needs, with secrets. Raises NotFound, Invalid with the contract's text, Conflict (key)."""

    async def set_status(self, tenant: str, job_id: str, status: str) -> None:
        """Raises NotFound, Invalid (`Invalid status transition: …`)."""

    async def complete(self, tenant: str, job_id: str, wanted: CompletionWanted) -> None:
        """Raises NotFound, Invalid."""

    async def cancel(self, tenant: str, job_id: str) -> PipelineJobView:
        """Raises NotFound, Invalid (`Job <id> is already completed (current: …)`)."""

    async def add_logs(self, tenant: str, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """All or nothing, checked in form by the caller; the hint for `X-Job-Status`, if any. Raises NotFound."""

    async def logs(self, tenant: str, job_id: str) -> list[LogEntry]:
        """By time, then arrival."""

    async def open_logs(self, tenant: str, job_id: str, after: int) -> AsyncIterator[Sequence[Frame]] | None:
        """Frames `log` (seq = position) after position `after`, then `end` {"status"}; `keep_alive` in silence.

        None when nothing will ever follow.
        """

    async def register(self, tenant: str, runner_id: str, capabilities: Sequence[str] | None) -> RunnerView: ...
    async def heartbeat(self, tenant: str, runner_id: str) -> RunnerView: ...
    async def runners(self, tenant: str) -> list[RunnerView]:
        """By id."""

    async def runner(self, tenant: str, runner_id: str) -> RunnerView: ...
    async def delete_runner(self, tenant: str, runner_id: str) -> None:
        """Its jobs are treated as lost."""
