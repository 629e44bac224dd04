"""The jobs surface over HTTP, for black-box tests: a client, and workers that are simulated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from tests.live import Server

Json = dict[str, Any]

CREATE = "/api/v1/jobs/simple_flow"
ENDED = frozenset({"finished", "failed", "error", "quarantined", "cancelled"})
#: seconds within which what was acknowledged shows
SOON_S = 10.0

SIMPLE_FLOW = """
from orchestrator.blueprints import StateMachineBlueprint

bp = StateMachineBlueprint(
    name="simple_flow", api_endpoint="/jobs/simple_flow", api_version="v1", data_stores={"prefs": {"a": 1}}
)


@bp.handler_for("start", is_start=True)
async def start(initial_data, actions):
    actions.dispatch_task(
        task_type="video_processing", params=initial_data, transitions={"success": "finished", "needs_review": "review"}
    )


@bp.handler_for("review").when("context.initial_data.urgent == 'yes'")
async def urgent(actions):
    actions.transition_to("finished")


@bp.handler_for("review")
async def review(actions):
    actions.await_human_approval(
        integration="mail", message="ok?", transitions={"approved": "finished", "rejected": "failed"}
    )


any_task = StateMachineBlueprint(name="any_task", api_endpoint="/any_task", api_version="v1")


@any_task.handler_for("start", is_start=True)
def any_start(initial_data, actions):
    actions.dispatch_task(
        task_type=initial_data["type"], params=initial_data, transitions={"success": "finished", "failure": "failed"}
    )
"""


def write_blueprints(folder: Path) -> Path:
    """The folder, with the blueprints that the contract's examples use."""
    folder.mkdir(exist_ok=True)
    (folder / "flows.py").write_text(SIMPLE_FLOW)
    return folder


class Jobs:
    """A client and workers of one server."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.tokens = server.tokens
        self.client = httpx.Client(base_url=server.url, headers={"X-Client-Token": server.tokens["client"]}, timeout=60)
        self.worker = httpx.Client(base_url=server.url, headers={"X-Worker-Token": server.tokens["worker"]}, timeout=60)
        self.anybody = httpx.Client(base_url=server.url, timeout=60)

    def close(self) -> None:
        """Nothing is open any more."""
        for each in (self.client, self.worker, self.anybody):
            each.close()

    # -- as a client

    def create(self, initial_data: Json | None = None, path: str = CREATE, **more: Any) -> str:
        """Id of a new job."""
        answer = answered(self.client.post(path, json={"initial_data": initial_data or {}, **more}), 202)
        assert answer["status"] == "accepted"
        job_id: str = answer["job_id"]
        return job_id

    def job(self, job_id: str) -> Json:
        """The job, as it stands."""
        found: Json = answered(self.client.get(f"/api/v1/jobs/{job_id}"))
        return found

    def until(self, job_id: str, *statuses: str, within_s: float = SOON_S) -> Json:
        """The job, once it is in one of these."""
        deadline = time.monotonic() + within_s
        while (job := self.job(job_id))["status"] not in statuses:
            assert time.monotonic() < deadline, f"still {job['status']}: {job}"
            time.sleep(0.02)
        return job

    def history(self, job_id: str) -> list[Json]:
        """Lines, oldest first."""
        found: list[Json] = answered(self.client.get(f"/api/v1/jobs/{job_id}/history"))
        return found

    def cancel(self, job_id: str) -> httpx.Response:
        """The raw answer."""
        return self.client.post(f"/api/v1/jobs/{job_id}/cancel")

    def approve(self, job_id: str, decision: str) -> httpx.Response:
        """The raw answer."""
        return self.anybody.post(f"/_public/webhooks/approval/{job_id}", json={"decision": decision})

    def end_all(self) -> None:
        """No job of an earlier test is in the way of the next one."""
        for job in answered(self.client.get("/api/v1/jobs?limit=1000")):
            if job["status"] not in ENDED:
                self.cancel(job["id"])
                self.until(job["id"], *ENDED, within_s=30)

    # -- as workers

    def register(self, worker_id: str, *tasks: str, **more: Any) -> None:
        """The worker is known."""
        body = {"worker_id": worker_id, "supported_tasks": list(tasks or ("video_processing",)), **more}
        assert answered(self.worker.post("/_worker/workers/register", json=body)) == {"status": "registered"}

    def poll(self, worker_id: str, timeout_s: float = 10.0) -> httpx.Response:
        """The raw answer."""
        return self.worker.get(f"/_worker/workers/{worker_id}/tasks/next?timeout={timeout_s}")

    def take(self, worker_id: str, timeout_s: float = 10.0) -> Json:
        """A task that the worker got."""
        task: Json = answered(self.poll(worker_id, timeout_s))
        return task

    def result(self, task: Json, worker_id: str, **body: Any) -> Json:
        """What a result is answered."""
        ids = {"job_id": task["job_id"], "task_id": task["task_id"], "worker_id": worker_id}
        answer: Json = answered(self.worker.post("/_worker/tasks/result", json=ids | body))
        return answer

    def beat(self, worker_id: str, body: Json | None = None) -> Json:
        """What a heartbeat is answered."""
        answer: Json = answered(self.worker.patch(f"/_worker/workers/{worker_id}", json=body))
        return answer


def answered(response: httpx.Response, status: int = 200) -> Any:
    """The JSON of a success."""
    assert response.status_code == status, f"{response.request.url}: {response.status_code} {response.text}"
    return response.json()


def refused(response: httpx.Response, status: int, text: str) -> None:
    """The response is that error, and says nothing else."""
    assert (response.status_code, response.json()) == (status, {"error": text})
