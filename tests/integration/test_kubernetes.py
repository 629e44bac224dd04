"""A whole server beside a stand-in of a Kubernetes cluster: from `POST /runs?mode=k8s` to the Jobs and back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from actors.kubernetes_config import configured
from actors.settings import read_settings
from tests.kubernetes_api import HANGS, KubernetesApi, Play
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Json = dict[str, Any]
CREATED = r"^POST /apis/batch/v1/namespaces/jobs/jobs$"


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture(scope="module")
def server(cluster: KubernetesApi) -> Iterator[Server]:
    environ = {
        "ORCHESTRATOR_K8S_API_URL": cluster.url,
        "ORCHESTRATOR_K8S_NAMESPACE": "jobs",
        "ORCHESTRATOR_K8S_IMAGE": "ours:1",
        "RATE_LIMIT_MAX": "100000",
    }
    with serving(("--workers", "1"), environ=environ) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30.0, trust_env=False) as http:
        yield http


def posted(http: httpx.Client, *nodes: Json, edges: tuple[tuple[str, str], ...] = ()) -> str:
    """A run of these nodes as Jobs."""
    plan = {"nodes": list(nodes), "edges": [{"from": a, "to": b} for a, b in edges]}
    answer = http.post("/runs", params={"mode": "k8s"}, json={"plan": plan})
    assert answer.status_code == 201, answer.text
    run_id: str = answer.json()["runId"]
    return run_id


def status(http: httpx.Client, run_id: str) -> str:
    run: Json = http.get(f"/runs/{run_id}").raise_for_status().json()["run"]
    assert run["mode"] == "k8s"
    return str(run["status"])


def checkpoints(http: httpx.Client, run_id: str) -> list[Json]:
    found: list[Json] = http.get(f"/runs/{run_id}/checkpoints").raise_for_status().json()["checkpoints"]
    return found


def until(holds: Callable[[], object], within_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.05)


def jobs_of(cluster: KubernetesApi, run_id: str) -> dict[str, str]:
    """task -> name of its newest Job."""
    found = {}
    for name, job in cluster.jobs.items():
        if job["metadata"]["labels"]["orchestrator/run-id"].endswith(run_id):
            found[job["metadata"]["annotations"]["orchestrator/task-id"]] = name
    return found


def running(cluster: KubernetesApi, run_id: str, task: str) -> str:
    """The Job of that task, once it runs."""

    def active() -> bool:
        job = cluster.jobs.get(jobs_of(cluster, run_id).get(task, ""), {})
        return bool(job.get("status", {}).get("active"))

    until(active)
    return jobs_of(cluster, run_id)[task]


def test_a_plan_becomes_jobs_and_completes(http: httpx.Client, cluster: KubernetesApi) -> None:
    run_id = posted(http, {"id": "a"}, {"id": "b", "type": "core.echo", "params": {"n": 1}}, edges=(("a.out", "b.in"),))
    until(lambda: status(http, run_id) == "completed")
    assert set(jobs_of(cluster, run_id)) == {"a", "b"}
    kinds = [checkpoint["type"] for checkpoint in checkpoints(http, run_id)]
    assert (kinds[0], kinds[-1], kinds.count("task.completed")) == ("started", "completed", 2)


def test_a_job_that_fails_is_tried_again_and_tells_why(http: httpx.Client, cluster: KubernetesApi) -> None:
    cluster.plays("load", Play(exit_code=3, message="no such table"), Play())
    run_id = posted(http, {"id": "load", "type": "acme.load", "image": "acme:1", "retries": 1, "retry_delay_s": 0})
    until(lambda: status(http, run_id) == "completed")
    [retrying] = [each for each in checkpoints(http, run_id) if each["type"] == "task.retrying"]
    assert "exit code 3: no such table" in retrying["data"]["error"]["message"]


def test_a_run_that_is_deleted_takes_its_jobs_along(http: httpx.Client, cluster: KubernetesApi) -> None:
    cluster.plays("stays", HANGS)
    run_id = posted(http, {"id": "stays"})
    name = running(cluster, run_id, "stays")
    assert http.delete(f"/runs/{run_id}").json() == {"ok": True, "status": "canceled"}
    until(lambda: name not in cluster.jobs)
    assert status(http, run_id) == "canceled"


@pytest.mark.parametrize("title", ["ray::Kubernetes", "ray::RunActor"])
def test_a_job_outlives_the_actor_that_waits_for_it(
    server: Server, http: httpx.Client, cluster: KubernetesApi, title: str
) -> None:
    cluster.plays("long", HANGS)
    run_id = posted(http, {"id": "long"}, {"id": "next"}, edges=(("long", "next"),))
    name = running(cluster, run_id, "long")
    asked = len(cluster.asked(CREATED))
    victims = server.processes(title)
    assert victims
    for victim in victims:
        victim.kill()
    if title == "ray::Kubernetes":  # it asks for the Job again, and finds it
        until(lambda: len(cluster.asked(CREATED)) > asked)
    cluster.ends(name)
    until(lambda: status(http, run_id) == "completed", 60.0)
    started = [each["data"] for each in checkpoints(http, run_id) if each["type"] == "task.started"]
    assert [(each["task"], each["attempt"]) for each in started] == [("long", 1), ("next", 1)]


def test_a_job_outlives_the_server(server: Server, http: httpx.Client, cluster: KubernetesApi) -> None:
    cluster.plays("overnight", HANGS)
    run_id = posted(http, {"id": "overnight"})
    name = running(cluster, run_id, "overnight")
    server.down()
    cluster.ends(name)
    server.up()
    until(lambda: status(http, run_id) == "completed", 60.0)
    assert jobs_of(cluster, run_id) == {"overnight": name}


@pytest.mark.skipif(configured(read_settings(os.environ)), reason="this machine has a cluster of its own")
def test_without_a_cluster_there_is_a_clear_refusal(live: Server) -> None:
    with httpx.Client(base_url=live.url, trust_env=False) as http:
        answer = http.post("/runs", params={"mode": "k8s"}, json={"plan": {"nodes": [{"id": "a"}], "edges": []}})
        assert (answer.status_code, answer.json()) == (503, {"error": "k8s unavailable"})
        assert http.post("/runs", params={"mode": "k8s"}).status_code == 201
