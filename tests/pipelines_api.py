"""The pipelines surface as runners and their users see it, for tests: both generations of callers.

Deliberately knows nothing of the product's own modules: what it understands is what the contract says.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

Json = dict[str, Any]

#: the script of the contract, section 5
SCRIPT = """\
return { name = "Example", description = "d", requires = {"log"},
  inputs = { message = { type = "string", description = "m", required = false, default = "hi" } },
  stages = { { name = "build", script = function() log.info(input.get("message", "none")) end } } }
"""
TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled", "TimedOut"})
DONE = {"result": {"success": True, "exit_code": 0, "output": None, "error_message": None}}
FAILED = {"result": {"success": False, "exit_code": 2, "output": None, "error_message": "boom"}}

PIPELINE_KEYS = {
    *("id", "name", "description", "script", "required_modules", "created_at", "updated_at", "tags", "config"),
    "version",
}
JOB_KEYS = {
    *("id", "pipeline_id", "status", "requested_at", "started_at", "completed_at", "runner_id", "parameters"),
    *("result", "retry_count", "timeout_seconds"),
}
RUNNER_KEYS = {"id", "capabilities", "capability_count", "registered_at", "last_heartbeat_at", "status"}


@dataclass(slots=True)
class Ci:
    """One caller's view of pipelines, jobs and runners."""

    url: str
    token: str | None = None
    timeout_s: float = 20.0
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.http = httpx.Client(base_url=f"{self.url}/api", headers=headers, timeout=self.timeout_s)

    # -- pipelines

    def create(self, script: str = SCRIPT, **more: Any) -> Json:
        """A new pipeline."""
        made: Json = answered(self.http.post("/pipeline/create", json={"script": script, **more}))
        assert made.keys() >= PIPELINE_KEYS
        return made

    def launch(self, pipeline_id: str, **parameters: Any) -> Json:
        """A new job."""
        body = {"pipeline_id": pipeline_id, "parameters": parameters}
        job: Json = answered(self.http.post("/pipeline/launch", json=body))
        assert job.keys() >= JOB_KEYS
        return job

    def fresh_job(self, script: str = SCRIPT, **more: Any) -> str:
        """A queued job of a pipeline of its own."""
        job_id: str = self.launch(self.create(script, **more)["id"])["id"]
        return job_id

    # -- runners

    def register(self, runner_id: str, *capabilities: str) -> Json:
        """A runner that can these things; without any it does not say."""
        body = {"runner_id": runner_id} | ({"capabilities": list(capabilities)} if capabilities else {})
        runner: Json = answered(self.http.post("/runners/register", json=body))
        assert runner.keys() >= RUNNER_KEYS
        return runner

    def runner(self, runner_id: str) -> Json:
        """A runner as it is now."""
        found: Json = answered(self.http.get(f"/runners/{runner_id}"))
        return found

    def scheduled(self, runner_id: str | None = None) -> list[str]:
        """Ids of the jobs that a runner is offered."""
        query = {} if runner_id is None else {"runner_id": runner_id}
        return [each["id"] for each in answered(self.http.get("/jobs/scheduled", params=query))]

    # -- jobs

    def job(self, job_id: str) -> Json:
        """A job as it is now."""
        found: Json = answered(self.http.get(f"/jobs/{job_id}"))
        return found

    def claim(self, job_id: str, runner_id: str, **headers: str) -> httpx.Response:
        """The job for the runner, or a refusal."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"/jobs/{job_id}/claim", json={"runner_id": runner_id}, headers=named)

    def claimed(self, job_id: str, runner_id: str) -> Json:
        """What a runner gets of a job that it has claimed."""
        info: Json = answered(self.claim(job_id, runner_id))
        return info

    def put_status(self, job_id: str, status: str) -> httpx.Response:
        """The job has that status now, says a runner."""
        return self.http.put(f"/jobs/{job_id}/status", json={"status": status})

    def complete(self, job_id: str, body: Json) -> httpx.Response:
        """The job has ended, says a runner."""
        return self.http.post(f"/jobs/{job_id}/complete", json=body)

    def cancel(self, job_id: str) -> httpx.Response:
        """The job is to end, says somebody."""
        return self.http.post(f"/jobs/{job_id}/cancel")

    def until(self, job_id: str, holds: Callable[[Json], bool], timeout_s: float) -> Json:
        """The job once `holds(job)`; fails the test when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not holds(job := self.job(job_id)):
            assert time.monotonic() < deadline, f"still waiting after {timeout_s} s: {job}"
            time.sleep(0.05)
        return job

    def ended(self, job_id: str, timeout_s: float = 30) -> Json:
        """The job once it has ended."""
        return self.until(job_id, lambda job: job["status"] in TERMINAL, timeout_s)

    # -- logs

    def write(self, job_id: str, *messages: str, bare: bool = False) -> None:
        """Lines in the log of the job, of this instant."""
        batch = [line(each) for each in messages]
        empty(self.http.post(f"/jobs/{job_id}/logs", json=batch if bare else {"entries": batch}), 201)

    def logs(self, job_id: str) -> list[Json]:
        """The log of the job."""
        found: list[Json] = answered(self.http.get(f"/jobs/{job_id}/logs"))
        return found

    def messages(self, job_id: str) -> list[str]:
        """What the log says."""
        return [each["message"] for each in self.logs(job_id)]

    def follow(self, job_id: str, last: str | None = None) -> Iterator[tuple[str | None, str, Json]]:
        """Events (id, name, data) of the log, until the server ends the stream; comments are left out."""
        headers = {} if last is None else {"Last-Event-ID": last}
        with self.http.stream("GET", f"/jobs/{job_id}/logs/stream", headers=headers, timeout=60) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            event: dict[str, str] = {}
            for text in response.iter_lines():
                name, _, value = text.partition(": ")
                if text:
                    event[name] = value
                elif "data" in event:
                    yield event.get("id"), event["event"], json.loads(event["data"])
                if not text:
                    event = {}


def line(message: str, timestamp: str | None = None, level: str = "Info") -> Json:
    """A log entry, of this instant unless told otherwise."""
    now = time.time_ns()
    seconds, nanoseconds = divmod(now, 10**9)
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09}Z"
    return {"timestamp": timestamp or at, "level": level, "message": message}


def fresh(name: str) -> str:
    """A name that nobody has used."""
    return f"{name}-{secrets.token_hex(4)}"


def answered(response: httpx.Response, status: int = 200) -> Any:
    """The JSON body of a response that must have `status`."""
    where = f"{response.request.method} {response.url}"
    assert response.status_code == status, f"{where}: {response.status_code} {response.text[:500]}"
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.json()


def empty(response: httpx.Response, status: int = 204) -> None:
    """The response has that status and no body."""
    assert (response.status_code, response.content) == (status, b""), response.text[:500]


def told(response: httpx.Response, status: int, error: str) -> None:
    """The response is that refusal."""
    assert answered(response, status) == {"error": error}


def instant(text: str) -> datetime:
    """A time of the pipelines surface: UTC, six digits."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text), text
    return datetime.fromisoformat(text)
