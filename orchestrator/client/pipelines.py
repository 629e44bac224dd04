"""Surface `pipelines`: CI pipelines in Lua, their jobs, logs and runners, as those see them who start jobs and wait.

Creating and launching carry an `Idempotency-Key`, so they may be sent again after a lost answer. Cancelling and
deleting are refused the second time: when their answer is lost, ServerUnreachable is raised, and `job` or `list` tells
what is so. What runners call is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from orchestrator.client.follow import SILENCE_S, Event, Events, Following, follow
from orchestrator.client.script import Emit, Request, Script, ask, get, json_of, keyed, path, until
from orchestrator.client.shapes.pipelines import (
    PipelinesJob,
    PipelinesLogEntry,
    PipelinesPipeline,
    PipelinesRunner,
    PipelinesStub,
)

BASE = "/api/pipeline"
JOBS = "/api/jobs"
RUNNERS = "/api/runners"
ENDED = frozenset({"Succeeded", "Failed", "Cancelled", "TimedOut"})

Status = Literal["Queued", "Running", "Succeeded", "Failed", "Cancelled", "TimedOut"]


# -- pipelines


def create(
    script: str,
    *,
    name: str | None = None,
    description: str | None = None,
    required_modules: Iterable[str] | None = None,
    tags: Iterable[str | Mapping[str, str]] | None = None,
    config: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> Script[PipelinesPipeline]:
    """A new pipeline; what is not given is what the script says. `key` names the command for 24 h."""
    body: dict[str, Any] = {"script": script, "name": name, "description": description, "config": config}
    body |= {"required_modules": None if required_modules is None else list(required_modules)}
    body |= {"tags": None if tags is None else list(tags)}
    given = {each: value for each, value in body.items() if value is not None}
    return keyed(Request(method="POST", path=f"{BASE}/create", body=given), "Idempotency-Key", key)


def list_pipelines() -> Script[list[PipelinesPipeline]]:
    """Pipelines, newest first."""
    return get(f"{BASE}/list")


def get_pipeline(pipeline_id: str) -> Script[PipelinesPipeline]:
    """One of them."""
    return get(path(BASE + "/{}", pipeline_id))


def delete(pipeline_id: str) -> Script[None]:
    """The pipeline is gone with its jobs and their logs; open ones are cancelled."""
    return _delete(path(BASE + "/{}", pipeline_id))


def launch(
    pipeline_id: str, parameters: Mapping[str, Any] | None = None, *, key: str | None = None
) -> Script[PipelinesJob]:
    """A new job, queued. `key` names the command: the same key gives the same job for 24 h."""
    body = {"pipeline_id": pipeline_id, "parameters": dict(parameters or {})}
    return keyed(Request(method="POST", path=f"{BASE}/launch", body=body), "Idempotency-Key", key)


# -- jobs


def get_job(job_id: str) -> Script[PipelinesJob]:
    """A job as it is now."""
    return get(path(JOBS + "/{}", job_id))


def list_jobs(
    *, pipeline_id: str | None = None, status: Status | None = None, limit: int | None = None
) -> Script[list[PipelinesJob]]:
    """Jobs, newest first: the latest of all pipelines (100 unless `limit` says otherwise), or those of one."""
    if pipeline_id is None:
        return get(JOBS, status=status, limit=limit)
    return _of_pipeline(pipeline_id, status, limit)


def cancel(job_id: str) -> Script[PipelinesJob]:
    """The job ends as cancelled, at once; its runner is not told. Raises ApiRefused when it has ended."""
    return json_of(Request(method="POST", path=path(JOBS + "/{}/cancel", job_id)))


def wait(job_id: str, timeout_s: float | None = None) -> Script[PipelinesJob]:
    """The job once it has ended. Raises TimeoutError after `timeout_s`; the job goes on."""
    job = yield from until(lambda: get_job(job_id), lambda job: job["status"] in ENDED, timeout_s)
    if job["status"] not in ENDED:
        raise TimeoutError(f"{job_id} is still {job['status']} after {timeout_s} s")
    return job


def logs(job_id: str) -> Script[list[PipelinesLogEntry]]:
    """What the job has written so far, by time."""
    return get(path(JOBS + "/{}/logs", job_id))


def follow_logs(job_id: str, after: str | int | None = None) -> Events:
    """What the job writes, from the first line or after one on: `log`, at last `end` with the job's `status`.

    Lines come in the order in which the server got them; ids count them.
    """
    return follow(_JobLogs(job_id, after))


# -- runners and stubs


def list_runners() -> Script[list[PipelinesRunner]]:
    """Runners by id."""
    return get(RUNNERS)


def get_runner(runner_id: str) -> Script[PipelinesRunner]:
    """One of them."""
    return get(path(RUNNERS + "/{}", runner_id))


def delete_runner(runner_id: str) -> Script[None]:
    """The runner is forgotten, and its jobs are treated as lost."""
    return _delete(path(RUNNERS + "/{}", runner_id))


def list_stubs() -> Script[list[str]]:
    """Lua modules that there are stubs of."""
    return get("/api/stubs")


def get_stub(name: str) -> Script[PipelinesStub]:
    """A file for Lua editors that describes a module."""
    return get(path("/api/stubs/{}", name))


class _JobLogs:
    """Ids count 1, 2, 3…; `end` comes last, and after that the answer is 204."""

    def __init__(self, job_id: str, after: str | int | None) -> None:
        self._path = path(JOBS + "/{}/logs/stream", job_id)
        self._last = 0 if after is None else int(after)

    def request(self) -> Request:
        headers = {"Last-Event-ID": str(self._last)} if self._last else {}
        return Request(method="GET", path=self._path, headers=headers, repeatable=True, timeout_s=SILENCE_S)

    def take(self, event: Event) -> Following[bool]:
        if event.kind == "end":
            yield Emit(event)
            return True
        number = 0 if event.id is None else int(event.id)
        if number > self._last:
            self._last = number
            yield Emit(event)
        return False

    def ended(self) -> bool:
        return False


# -- inside


def _of_pipeline(pipeline_id: str, status: Status | None, limit: int | None) -> Script[list[PipelinesJob]]:
    """The server filters neither by status nor by number here."""
    found: list[PipelinesJob] = yield from get(path(JOBS + "/pipeline/{}", pipeline_id))
    return [job for job in found if status in (None, job["status"])][:limit]


def _delete(where: str) -> Script[None]:
    yield from ask(Request(method="DELETE", path=where))
