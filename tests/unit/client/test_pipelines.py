"""CI pipelines, their jobs and logs as a client asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.client import ApiRefused, Client, NotThere, ServerUnreachable
from tests.stand_in import TOKEN, StandIn, serving
from tests.unit.client.conftest import Both, FakeClock, Wire, event, refusal, stream

CUT = httpx.ReadError("cut")
STREAM = "GET /api/jobs/j/logs/stream"
END = event("end", {"status": "Succeeded"})


def job(status: str, id: str = "j") -> dict[str, Any]:
    return {"id": id, "pipeline_id": "p", "status": status}


def line(number: int) -> str:
    return event("log", {"timestamp": "t", "level": "Info", "message": f"m{number}"}, number)


def test_a_pipeline_is_created_from_what_is_given(client: Both, wire: Wire) -> None:
    wire.on("POST /api/pipeline/create", {"id": "p"})
    client("pipelines.create", "return {}")
    more = {"tags": ("ci",), "required_modules": {"docker"}, "config": {"max_retries": 1}, "name": ""}
    client("pipelines.create", "return {}", key="k", **more)
    assert wire.bodies() == [
        {"script": "return {}"},
        {
            "script": "return {}",
            "name": "",
            "tags": ["ci"],
            "required_modules": ["docker"],
            "config": {"max_retries": 1},
        },
    ]
    assert wire.headers("idempotency-key") == ["key-1", "k"]


def test_a_launch_is_repeated_under_its_key_when_its_answer_is_lost(client: Both, wire: Wire) -> None:
    wire.on("POST /api/pipeline/launch", refusal(503, {"Retry-After": "0"}, error="x"), CUT, job("Queued"))
    assert client("pipelines.launch", "p", {"n": 1})["status"] == "Queued"
    assert wire.bodies() == [{"pipeline_id": "p", "parameters": {"n": 1}}] * 3
    assert wire.headers("idempotency-key") == ["key-1"] * 3


@pytest.mark.parametrize(("method", "asked"), [
    ("pipelines.cancel", "POST /api/jobs/j/cancel"), ("pipelines.delete", "DELETE /api/pipeline/j"),
    ("pipelines.delete_runner", "DELETE /api/runners/j"),
])  # fmt: skip
def test_what_would_be_refused_the_second_time_is_not_repeated(
    client: Both, wire: Wire, method: str, asked: str
) -> None:
    wire.on(asked, CUT)
    with pytest.raises(ServerUnreachable, match="was sent, and then"):
        client(method, "j")
    assert len(wire.asked) == 1


def test_what_has_no_answer_has_none(client: Both, wire: Wire) -> None:
    wire.on("DELETE /api/pipeline/p", httpx.Response(204))
    assert client("pipelines.delete", "p") is None


def test_jobs_are_listed_of_all_pipelines_or_of_one(client: Both, wire: Wire) -> None:
    wire.on("GET /api/jobs", [job("Queued")])
    assert client("pipelines.jobs", status="Queued", limit=7) == [job("Queued")]
    assert dict(wire.asked[-1].url.params) == {"status": "Queued", "limit": "7"}
    of_one = [job("Queued", "a"), job("Failed", "b"), job("Queued", "c")]
    wire.on("GET /api/jobs/pipeline/p", of_one)
    assert client("pipelines.jobs", pipeline_id="p") == of_one
    assert [each["id"] for each in client("pipelines.jobs", pipeline_id="p", status="Queued", limit=1)] == ["a"]


def test_a_job_is_waited_for_ever_less_often(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on("GET /api/jobs/j", *[job("Running")] * 6, job("TimedOut"))
    assert client("pipelines.wait", "j")["status"] == "TimedOut"
    assert clock.waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    wire.answers.clear()
    wire.on("GET /api/jobs/j", job("Running"))
    with pytest.raises(TimeoutError, match="j is still Running after 3 s"):
        client("pipelines.wait", "j", timeout_s=3)


# -- logs


def test_a_log_is_followed_to_its_end_over_cut_connections_each_line_once(client: Both, wire: Wire) -> None:
    wire.on(STREAM, stream("retry: 1000\n\n", line(1), line(2), line(3)[:8], cut=CUT), stream(line(2), line(3), END))
    events = client("pipelines.follow", "j")
    assert [(each.id, each.kind) for each in events] == [("1", "log"), ("2", "log"), ("3", "log"), (None, "end")]
    assert [each.data["message"] for each in events[:3]] == ["m1", "m2", "m3"]
    assert events[-1].data == {"status": "Succeeded"}
    assert wire.headers("last-event-id") == [None, "2"]


def test_a_log_is_followed_from_a_line_on(client: Both, wire: Wire) -> None:
    wire.on(STREAM, stream(line(8), cut=None), httpx.Response(204))
    assert [each.id for each in client("pipelines.follow", "j", after=7)] == ["8"]
    assert wire.headers("last-event-id") == ["7", "8"]


def test_a_log_that_is_left_early_is_closed(client: Both, wire: Wire) -> None:
    wire.on(STREAM, stream(line(1), line(2)))
    assert [each.id for each in client.first(1, "pipelines.follow", "j")] == ["1"]


# -- over a socket


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, StandIn]]:
    with serving() as found:
        yield found


@pytest.fixture
def live(server: tuple[str, StandIn]) -> Iterator[Client]:
    with Client(server[0], TOKEN) as client:
        yield client


def test_a_pipeline_is_created_launched_followed_and_deleted(live: Client, server: tuple[str, StandIn]) -> None:
    pipeline = live.pipelines.create("return {}", tags=["ci"], key="order-1")
    assert live.pipelines.create("return {}", tags=["ci"], key="order-1") == pipeline
    launched = live.pipelines.launch(pipeline["id"], {"message": "hi"})
    entry = {"timestamp": "2026-01-02T03:04:05.1Z", "level": "Info", "message": "hi"}
    assert live.pipelines.runners() == []
    for path, body in (("claim", {"runner_id": "r1"}), ("logs", [entry]), ("complete", {"result": {"success": True}})):
        httpx.post(f"{server[0]}/api/jobs/{launched['id']}/{path}", json=body).raise_for_status()
    events = list(live.pipelines.follow(launched["id"]))
    assert [each.data for each in events] == [entry, {"status": "Succeeded"}]
    assert live.pipelines.logs(launched["id"]) == [entry]
    ended = live.pipelines.wait(launched["id"])
    assert (ended["status"], ended["runner_id"], live.pipelines.jobs()[0]) == ("Succeeded", "r1", ended)
    assert [each["id"] for each in live.pipelines.runners()] == ["r1"]
    with pytest.raises(ApiRefused, match="is already completed"):
        live.pipelines.cancel(launched["id"])
    live.pipelines.delete(pipeline["id"])
    with pytest.raises(NotThere, match=f"Pipeline {pipeline['id']} not found"):
        live.pipelines.get(pipeline["id"])
    assert live.pipelines.list() == []


def test_stubs_are_read(live: Client) -> None:
    first, *_ = live.pipelines.stubs()
    assert live.pipelines.stub(first)["name"] == "log.lua"
