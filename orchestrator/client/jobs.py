"""Surface `jobs`: jobs of blueprints, their history and workers, as clients see them (contracts/jobs.md).

A job is created with an `Idempotency-Key`, and cancelling may be repeated, so both may be sent again after a lost
answer. An approval, a release and a retry of a webhook may not: ServerUnreachable is raised, and `get` or `webhooks`
tells what is so. What workers call is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.client.script import Request, Script, ask, get, json_of, keyed, part, path, until
from orchestrator.client.shapes.jobs import (
    JobsBlueprint,
    JobsDashboard,
    JobsHistoryEvent,
    JobsJob,
    JobsJobStatus,
    JobsWebhook,
)

BASE = "/api/v1"
ENDED = frozenset({"finished", "failed", "error", "quarantined", "cancelled"})

Status = JobsJobStatus
WebhookStatus = Literal["pending", "delivered", "dead"]


def create(
    endpoint: str,
    initial_data: Mapping[str, Any] | None = None,
    *,
    version: str | None = "v1",
    webhook_url: str | None = None,
    key: str | None = None,
) -> Script[str]:
    """Id of a new job of the blueprint at `endpoint`, for instance `/jobs/simple_flow`.

    `version` None is for blueprints without one. `key` names the command: the same key gives the same job for 24 h.
    """
    body = {"initial_data": dict(initial_data or {})} | ({} if webhook_url is None else {"webhook_url": webhook_url})
    request = Request(method="POST", path=_endpoint(endpoint, version), body=body)
    return part(keyed(request, "Idempotency-Key", key), "job_id")


def get_job(job_id: str) -> Script[JobsJob]:
    """A job as it is now."""
    return get(path(BASE + "/jobs/{}", job_id))


def list_jobs(
    *, status: Status | None = None, limit: int | None = None, offset: int | None = None
) -> Script[list[JobsJob]]:
    """Jobs, newest first: 100 unless `limit` says otherwise."""
    return get(f"{BASE}/jobs", status=status, limit=limit, offset=offset)


def wait(job_id: str, timeout_s: float | None = None) -> Script[JobsJob]:
    """The job once it has ended. Raises TimeoutError after `timeout_s`; the job goes on."""
    job = yield from until(lambda: get_job(job_id), lambda job: job["status"] in ENDED, timeout_s)
    if job["status"] not in ENDED:
        raise TimeoutError(f"{job_id} is still {job['status']} after {timeout_s} s")
    return job


def cancel(job_id: str) -> Script[str]:
    """Whether a worker was told, as the server says it. Raises Conflicting when the job has ended."""
    where = path(BASE + "/jobs/{}/cancel", job_id)
    return part(json_of(Request(method="POST", path=where, repeatable=True)), "status")


def approve(job_id: str, decision: str) -> Script[None]:
    """The job that waits for a human goes on as `decision` says. Raises Conflicting when it waits for none."""
    where = path("/_public/webhooks/approval/{}", job_id)
    yield from ask(Request(method="POST", path=where, body={"decision": decision}))


def release(job_id: str) -> Script[None]:
    """The quarantined job goes on where it stopped. Raises Conflicting when it is not quarantined."""
    yield from ask(Request(method="POST", path=path(BASE + "/jobs/{}/release", job_id)))


def history(job_id: str) -> Script[list[JobsHistoryEvent]]:
    """What has happened to the job, oldest first."""
    return get(path(BASE + "/jobs/{}/history", job_id))


def workers() -> Script[list[dict[str, Any]]]:
    """Workers that are there, those of the cluster among them: what each has told of itself."""
    return get(f"{BASE}/workers")


def webhooks(*, status: WebhookStatus | None = None, limit: int | None = None) -> Script[list[JobsWebhook]]:
    """Webhooks and what became of them, newest first: 100 unless `limit` says otherwise."""
    return get(f"{BASE}/webhooks", status=status, limit=limit)


def retry_webhook(webhook_id: str) -> Script[JobsWebhook]:
    """A webhook that was given up is tried again from the start. Raises Conflicting when it is not dead."""
    return json_of(Request(method="POST", path=path(BASE + "/webhooks/{}/retry", webhook_id)))


def blueprints() -> Script[list[JobsBlueprint]]:
    """Blueprints that jobs can be created of."""
    return get(f"{BASE}/blueprints")


def graph(blueprint: str) -> Script[str]:
    """The blueprint's states and their transitions, in DOT."""
    answer = yield from ask(Request(method="GET", path=path(BASE + "/blueprints/{}/graph", blueprint), repeatable=True))
    return answer.content.decode()


def dashboard() -> Script[JobsDashboard]:
    """How many workers there are, and jobs by status."""
    return get(f"{BASE}/dashboard")


def _endpoint(endpoint: str, version: str | None) -> str:
    parts = [part for part in (version, *endpoint.split("/")) if part]
    return path("/api" + "/{}" * len(parts), *parts)
