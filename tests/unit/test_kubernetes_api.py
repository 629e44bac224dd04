"""tests/kubernetes_api.py: the stand-in itself says what the published types allow, and refuses the rest."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import kubernetes_validate
import pytest

from orchestrator.kubernetes_job import job_of
from tests.kubernetes_api import HANGS, RELEASE, KubernetesApi, environment_of, has_ended
from tests.kubernetes_builders import an_order, name_of

JOBS, PODS = "/apis/batch/v1/namespaces/default/jobs", "/api/v1/namespaces/default/pods"
Json = dict[str, Any]


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


@pytest.fixture
def http(api: KubernetesApi) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, trust_env=False) as http:
        yield http


def a_job(task: str = "a", **changes: Any) -> Json:
    return job_of(an_order(task, **changes), "")


def changed(change: Callable[[Json], object]) -> Json:
    job = copy.deepcopy(a_job())
    change(job)
    return job


def watched(http: httpx.Client, version: str, until: str, **query: str) -> list[Json]:
    """Events of a watch from that version, up to the first of that type."""
    found = []
    params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "5", **query}
    with http.stream("GET", JOBS, params=params) as response:
        for line in response.iter_lines():
            found.append(json.loads(line))
            if found[-1]["type"] == until:
                break
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(activeDeadLineSeconds=5),
        lambda job: job["spec"].update(activeDeadlineSeconds="5"),
        lambda job: job["spec"].pop("template"),
        lambda job: job["spec"]["template"]["spec"].pop("containers"),
        lambda job: job["spec"]["template"]["spec"].pop("restartPolicy"),
        lambda job: job["spec"]["template"]["spec"]["containers"][0].pop("image"),
        lambda job: job["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "N", "value": 1}),
        lambda job: job["metadata"].update(name="Not_A_Name"),
        lambda job: job["metadata"]["labels"].update({"orchestrator/run-id": "no spaces"}),
        lambda job: job["metadata"]["annotations"].update({"orchestrator/attempt": 1}),
    ],
)
def test_a_job_that_the_api_would_refuse_is_refused(http: httpx.Client, change: Callable[[Json], object]) -> None:
    answer = http.post(JOBS, json=changed(change))
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")


def test_what_it_answers_is_of_the_published_types(api: KubernetesApi, http: httpx.Client) -> None:
    created = http.post(JOBS, json=a_job(type="core.noop"))
    assert created.status_code == 201
    things = [created.json()]
    for event in watched(http, "100", "BOOKMARK")[:-1]:
        things.append(event["object"])
    things += http.get(PODS).json()["items"]
    assert has_ended(things[-2])
    for thing in things:
        kubernetes_validate.validate(thing, RELEASE, strict=True)


def test_a_name_is_taken_once(http: httpx.Client) -> None:
    assert http.post(JOBS, json=a_job()).status_code == 201
    again = http.post(JOBS, json=a_job())
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")


def test_a_watch_tells_what_came_since_its_version_in_order(api: KubernetesApi, http: httpx.Client) -> None:
    http.post(JOBS, json=a_job(type="core.noop"))
    events = watched(http, "100", "BOOKMARK")
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert [event["type"] for event in events] == ["ADDED", *["MODIFIED"] * 3, "BOOKMARK"]
    assert versions[:-1] == [101, 102, 103, 104]
    assert [event["type"] for event in watched(http, "103", "BOOKMARK")] == ["MODIFIED", "BOOKMARK"]


def test_a_watch_is_of_what_its_selector_says(api: KubernetesApi, http: httpx.Client) -> None:
    api.plays("a", HANGS)
    http.post(JOBS, json=a_job())
    assert [e["type"] for e in watched(http, "100", "BOOKMARK", labelSelector="other")] == ["BOOKMARK"]
    found = watched(http, "100", "BOOKMARK", labelSelector="orchestrator/run-id")
    assert [e["type"] for e in found] == ["ADDED", "MODIFIED", "BOOKMARK"]


def test_a_version_that_is_forgotten_is_gone(api: KubernetesApi, http: httpx.Client) -> None:
    api.forgets()
    [event] = watched(http, "100", "ERROR")
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


def test_a_job_that_is_deleted_takes_its_pods_along_when_told_so(api: KubernetesApi, http: httpx.Client) -> None:
    for task in ("a", "b"):
        http.post(JOBS, json=a_job(task, type="core.noop"))
    http.delete(f"{JOBS}/{name_of('a')}", params={"propagationPolicy": "Background"})
    http.delete(f"{JOBS}/{name_of('b')}")
    assert api.jobs == {}
    assert [pod["metadata"]["labels"]["job-name"] for pod in api.pods.values()] == [name_of("b")]
    assert http.get(f"{JOBS}/{name_of('a')}").status_code == 404


def test_a_list_comes_in_pages(http: httpx.Client) -> None:
    for n in range(3):
        http.post(JOBS, json=a_job(f"t{n}"))
    first = http.get(JOBS, params={"limit": 2}).json()
    second = http.get(JOBS, params={"limit": 2, "continue": first["metadata"]["continue"]}).json()
    assert (len(first["items"]), len(second["items"]), "continue" in second["metadata"]) == (2, 1, False)


def test_references_in_the_environment_are_replaced_and_escapes_are_read() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A) $$(A) $(C) $$ $"}]
    job = {"spec": {"template": {"spec": {"containers": [{"env": env}]}}}}
    assert environment_of(job)["B"] == "1 $(A) $(C) $ $"
