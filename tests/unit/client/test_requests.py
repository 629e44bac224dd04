"""What a client sends, what it repeats, and what it makes of answers."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest

from orchestrator import errors as core
from orchestrator.client import (
    ApiRefused,
    Conflicting,
    NotAllowed,
    NotRunning,
    NotThere,
    ServerBroken,
    ServerUnreachable,
)
from tests.unit.client.conftest import Both, FakeClock, Wire, refusal

BASE = "/api/v1/runtime/orchestrator"
RUN = {"run_id": "run_1", "dag_id": "d", "state": "running"}
PAUSE = "POST /api/orchestrators/orch-1/pause"


# -- what is sent


def test_every_request_carries_the_token(client: Both, wire: Wire) -> None:
    wire.on(f"GET {BASE}/dags/d", {"dag_id": "d"})
    assert client("dags.get", "d") == {"dag_id": "d"}
    assert wire.headers("authorization") == ["Bearer secret"]


def test_a_definition_is_sent_as_it_is(client: Both, wire: Wire) -> None:
    dag = {"dag_id": "d", "owner": "o", "schedule": None, "tasks": [{"id": "a", "params": {"x": None}}]}
    wire.on(f"POST {BASE}/dags", {"dag_id": "d", "status": "active", "version": 1})
    assert client("dags.define", dag)["version"] == 1
    assert wire.bodies() == [dag]
    assert wire.headers("content-type") == ["application/json"]


def test_names_are_escaped(client: Both, wire: Wire) -> None:
    wire.on("GET /api/plans/a b/c/tasks", [])
    client("instances.plan_tasks", "a b/c")
    assert wire.asked[0].url.raw_path == b"/api/plans/a%20b%2Fc/tasks"


@pytest.mark.parametrize(
    ("day", "sent"),
    [
        ("2025-10-01", "2025-10-01"),
        (date(2025, 10, 1), "2025-10-01"),
        (datetime(2025, 10, 1, 2, tzinfo=UTC), "2025-10-01T02:00:00Z"),
    ],
)
def test_days_are_text_dates_or_instants(client: Both, wire: Wire, day: Any, sent: str) -> None:
    wire.on(f"POST {BASE}/runs", RUN)
    client("dags.trigger", "d", start=day, end=day)
    assert wire.bodies() == [{"dag_id": "d", "from": sent, "to": sent}]


def test_a_backfill_says_only_what_was_asked_for(client: Both, wire: Wire) -> None:
    wire.on(f"POST {BASE}/runs", RUN)
    client("dags.backfill", "d", "2025-10-01", "2025-10-04", backwards=True, plan_hash="sha256:1")
    days = {"dag_id": "d", "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"}
    assert wire.bodies() == [{**days, "run_backwards": True, "plan_hash": "sha256:1"}]
    client("dags.dry_run", "d", "2025-10-01", "2025-10-04", reprocess="failed")
    assert wire.bodies()[1] == {**days, "dry_run": True, "reprocess": "failed"}


def test_a_backfill_may_be_over_partitions(client: Both, wire: Wire) -> None:
    wire.on(f"POST {BASE}/runs", RUN)
    client("dags.backfill", "d", partitions={"region": ["eu", "us"]})
    client("dags.trigger", "d", partition={"region": "eu"})
    assert wire.bodies() == [
        {"dag_id": "d", "run_type": "backfill", "partitions": {"region": ["eu", "us"]}},
        {"dag_id": "d", "partition": {"region": "eu"}},
    ]


@pytest.mark.parametrize(
    ("method", "given", "request_line", "body"),
    [
        ("dags.cancel", ("r",), f"POST {BASE}/runs/r/cancel", {}),
        ("dags.pause", ("d", "why"), f"POST {BASE}/dags/d/pause", {"reason": "why"}),
        ("dags.resume", ("d",), f"POST {BASE}/dags/d/resume", {}),
        ("dags.pause_run", ("r",), f"POST {BASE}/runs/r/pause", {}),
        ("dags.resume_run", ("r",), f"POST {BASE}/runs/r/resume", {}),
        ("dags.trigger_by_event", ("d", "o-7", {"n": 1}), f"POST {BASE}/dags/d/trigger/o-7", {"n": 1}),
        ("dags.widen", ("r", None, "2025-10-09"), f"POST {BASE}/runs/r/widen", {"to": "2025-10-09"}),
        (
            "dags.plan_widening",
            ("r", "2025-10-01"),
            f"POST {BASE}/runs/r/widen",
            {"from": "2025-10-01", "dry_run": True},
        ),
        ("dags.cap", ("r", None), f"POST {BASE}/runs/r/cap", {"max_active_runs": None}),
        ("dags.retry", ("r",), f"POST {BASE}/runs/r/retry", {}),
        ("dags.retry_task", ("r", "t"), f"POST {BASE}/runs/r/tasks/t/retry", {}),
        ("dags.skip_task", ("r", "t"), f"POST {BASE}/runs/r/tasks/t/skip", {}),
        ("dags.signal", ("r", "go"), f"POST {BASE}/runs/r/signals/go", {"data": None}),
        ("dags.decide", ("r", "t", "yes"), f"POST {BASE}/runs/r/tasks/t/decision", {"choice": "yes"}),
        ("dags.trigger_many", ([{"dag_id": "d"}],), f"POST {BASE}/runs/batch", {"runs": [{"dag_id": "d"}]}),
        ("runs.cancel", ("R",), "DELETE /runs/R", None),
        ("instances.resume", ("o",), "POST /api/orchestrators/o/resume", None),
        ("instances.start", ("demo",), "POST /api/orchestrators", {"plan": "demo"}),
        (
            "instances.skip_task",
            ("o", "1.1"),
            "POST /api/orchestrators/o/skip-task",
            {"task_id": "1.1", "reason": None},
        ),
        ("instances.retry_task", ("o", "1.1"), "POST /api/orchestrators/o/retry-task", {"task_id": "1.1"}),
    ],
)
def test_a_command_is_one_request(
    client: Both, wire: Wire, method: str, given: tuple[Any, ...], request_line: str, body: Any
) -> None:
    wire.on(request_line, {"runs": [], "status": "canceled", "success": True})
    client(method, *given)
    assert [f"{each.method} {each.url.path}" for each in wire.asked] == [request_line]
    assert wire.bodies() == [body]


@pytest.mark.parametrize(
    ("method", "given", "request_line", "answer", "expected"),
    [
        ("dags.run", ("r",), f"GET {BASE}/runs/r", RUN, RUN),
        ("dags.logs", ("r", "t"), f"GET {BASE}/runs/r/tasks/t/logs", {"items": [1]}, [1]),
        ("dags.approvals", (), f"GET {BASE}/approvals", {"items": [1]}, [1]),
        ("dags.query", ("r", "rows"), f"GET {BASE}/runs/r/query/rows", {"value": 4}, {"value": 4}),
        ("dags.queries", ("r",), f"GET {BASE}/runs/r/query", {"items": [1]}, [1]),
        ("runs.get", ("R",), "GET /runs/R", {"run": {"id": "R"}}, {"id": "R"}),
        ("runs.checkpoints", ("R",), "GET /runs/R/checkpoints", {"checkpoints": [1]}, [1]),
        ("runs.plan", (), "POST /runs", {"plan": {"steps": ["a"]}}, ["a"]),
        ("instances.list", (), "GET /api/orchestrators", [{"id": "o"}], [{"id": "o"}]),
        ("instances.get", ("o",), "GET /api/orchestrators/o", {"id": "o"}, {"id": "o"}),
        ("instances.status", ("o",), "GET /api/orchestrators/o/status", {"tasks": []}, {"tasks": []}),
        ("instances.plans", (), "GET /api/plans", [], []),
        ("instances.plan_status", ("p",), "GET /api/plans/p/status", {}, {}),
        ("instances.findings", ("p",), "GET /api/plans/p/findings", [], []),
        ("instances.finding", ("p", "1.1"), "GET /api/plans/p/findings/1.1", {"content": "text"}, "text"),
        ("health", (), "GET /health", {"ok": True}, {"ok": True}),
        ("get_json", ("/ready",), "GET /ready", {"ok": True}, {"ok": True}),
    ],
)
def test_an_answer_is_unwrapped(
    client: Both, wire: Wire, method: str, given: tuple[Any, ...], request_line: str, answer: Any, expected: Any
) -> None:
    wire.on(request_line, answer)
    assert client(method, *given) == expected


def test_a_run_is_created_with_what_was_given(client: Both, wire: Wire) -> None:
    wire.on("POST /runs", httpx.Response(201, json={"runId": "R"}))
    assert client("runs.create", dag_id="d", metadata={"k": [1]}, owner="u1", mode="k8s") == "R"
    assert dict(wire.asked[0].url.params) == {"mode": "k8s", "owner": "u1"}
    assert wire.bodies() == [{"dag_id": "d", "metadata": {"k": [1]}}]


def test_a_checkpoint_without_data_differs_from_one_with_null(client: Both, wire: Wire) -> None:
    wire.on("POST /runs/R/checkpoints", httpx.Response(201, json={"checkpointId": "c"}))
    assert client("runs.post_checkpoint", "R", "step") == "c"
    client("runs.post_checkpoint", "R", "step", None)
    assert wire.bodies() == [{"type": "step"}, {"type": "step", "data": None}]


def test_shutdown_says_whether_by_force(client: Both, wire: Wire) -> None:
    wire.on("POST /api/orchestrators/o/shutdown", {"success": True})
    client("instances.shutdown", "o")
    client("instances.shutdown", "o", force=True)
    assert [each.url.params["force"] for each in wire.asked] == ["false", "true"]


def test_lists_are_read_page_by_page_and_no_further_than_wanted(client: Both, wire: Wire) -> None:
    pages = ({"items": [1, 2], "next_cursor": "c"}, {"items": [3], "next_cursor": None})
    wire.on(f"GET {BASE}/runs", *pages, pages[0])
    assert client("dags.runs", dag_id="d") == [1, 2, 3]
    assert [dict(each.url.params) for each in wire.asked] == [
        {"limit": "200", "dag_id": "d"},
        {"limit": "200", "cursor": "c", "dag_id": "d"},
    ]
    wire.answers.clear()
    wire.on(f"GET {BASE}/dags", *pages)
    assert client.first(2, "dags.list", owner="me") == [1, 2]
    assert len(wire.asked) == 3


# -- what is repeated


def test_a_read_is_repeated_after_a_lost_answer_with_growing_waits(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on("GET /health", {"ok": True})
    client("health")
    lost = httpx.ReadError("cut")
    wire.on(f"GET {BASE}/runs/r", lost, lost, lost, RUN)
    assert client("dags.run", "r") == RUN
    assert clock.waits == [0.25, 0.5, 1.0]


def test_a_command_is_repeated_with_the_same_key(client: Both, wire: Wire) -> None:
    wire.on(f"POST {BASE}/runs", refusal(503, {"Retry-After": "1"}, error="dependency_down"), httpx.ReadError("x"), RUN)
    assert client("dags.trigger", "d") == RUN
    assert wire.headers("x-request-id") == ["key-1"] * 3
    client("dags.trigger", "d", key="order-7")
    assert wire.headers("x-request-id")[3:] == ["order-7"]
    wire.on("POST /runs", httpx.ReadError("x"), httpx.Response(201, json={"runId": "R"}))
    assert client("runs.create") == "R"
    assert wire.headers("idempotency-key")[4:] == ["key-2"] * 2


@pytest.mark.parametrize(
    ("method", "given", "request_line"),
    [
        ("runs.post_checkpoint", ("R", "step"), "POST /runs/R/checkpoints"),
        ("runs.cancel", ("R",), "DELETE /runs/R"),
        ("instances.start", ("demo",), "POST /api/orchestrators"),
        ("instances.retry_task", ("o", "1.1"), "POST /api/orchestrators/o/retry-task"),
    ],
)
def test_what_has_no_key_is_not_repeated_once_it_may_have_arrived(
    client: Both, wire: Wire, method: str, given: tuple[str, ...], request_line: str
) -> None:
    wire.on(request_line, httpx.ReadError("cut"))
    with pytest.raises(ServerUnreachable, match="was sent, and then: cut"):
        client(method, *given)
    assert len(wire.asked) == 1


def test_what_never_left_or_was_refused_unread_is_sent_again(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on("GET /health", {"ok": True})
    client("health")
    answers = (httpx.ConnectError("refused"), refusal(429, {"Retry-After": "2"}, error="rate_limited"))
    wire.on("POST /runs/R/checkpoints", *answers, httpx.Response(201, json={"checkpointId": "c"}))
    assert client("runs.post_checkpoint", "R", "step") == "c"
    assert clock.waits == [0.25, pytest.approx(2.2)]


def test_a_server_that_never_answered_is_not_waited_for(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on("GET /health", httpx.ConnectError("refused"))
    with pytest.raises(ServerUnreachable, match="no answer from http://server: refused"):
        client("health")
    assert (len(wire.asked), clock.waits) == (1, [])


def test_patience_ends(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on("GET /health", refusal(503, {"Retry-After": "1"}, error="dependency down"))
    with pytest.raises(ServerUnreachable, match="GET /health: 503 dependency down"):
        client("health")
    assert 25 < sum(clock.waits) < 40


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_lost_its_server_is_asked_again(client: Both, wire: Wire, status: int) -> None:
    wire.on(PAUSE, httpx.Response(status, text="<html>"), {"success": True})
    assert client("instances.pause", "orch-1") == {"success": True}


def test_a_dead_instance_is_not_waited_for(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on(PAUSE, refusal(503, detail="Orchestrator 'orch-1' is not running (process dead)"))
    with pytest.raises(NotRunning, match="process dead"):
        client("instances.pause", "orch-1")
    assert clock.waits == []


def test_a_command_on_an_instance_survives_a_journal_that_is_down(client: Both, wire: Wire) -> None:
    wire.on(PAUSE, refusal(503, {"Retry-After": "1"}, detail="Service Unavailable"), {"success": True})
    assert client("instances.pause", "orch-1")["success"]


# -- waiting for a run


def test_wait_asks_again_until_the_run_has_ended(client: Both, wire: Wire, clock: FakeClock) -> None:
    def later(_: httpx.Request) -> httpx.Response:
        clock.seconds += 60
        return httpx.Response(200, json=RUN)

    wire.on(f"GET {BASE}/runs/run_1", later, later, {**RUN, "state": "success"})
    assert client("dags.wait", "run_1")["state"] == "success"
    assert [each.url.params["wait_s"] for each in wire.asked] == ["60"] * 3
    assert wire.asked[0].extensions["timeout"]["read"] > 60
    assert clock.waits == []


def test_wait_gives_up_after_the_time_it_was_given(client: Both, wire: Wire, clock: FakeClock) -> None:
    def at_once(request: httpx.Request) -> httpx.Response:
        clock.seconds += 1
        return httpx.Response(200, json=RUN)

    wire.on(f"GET {BASE}/runs/run_1", at_once)
    with pytest.raises(TimeoutError, match="run_1 is still running after 10 s"):
        client("dags.wait", "run_1", timeout_s=10)
    assert 10 <= clock.seconds < 12
    assert int(wire.asked[0].url.params["wait_s"]) == 10


# -- errors


@pytest.mark.parametrize(
    ("status", "body", "kind", "message", "details"),
    [
        (400, {"error": "invalid_request", "message": "no", "details": [{"field": "to", "message": "early"}]},
         ApiRefused, "no", ("  to: early",)),
        (400, {"error": "validation failed", "details": ["/plan cycle"]}, ApiRefused, "validation failed",
         ("  /plan cycle",)),
        (422, {"detail": [{"loc": ["body", "task_id"], "msg": "Field required"}]}, ApiRefused,
         "the request is malformed", ("  body/task_id: Field required",)),
        (401, {"error": "unauthorized", "message": "missing"}, NotAllowed, "missing", ()),
        (403, {"detail": "Not enough permissions"}, NotAllowed, "Not enough permissions", ()),
        (404, {"detail": "Plan 'x' not found"}, NotThere, "Plan 'x' not found", ()),
        (409, {"error": "version_conflict", "message": "ended"}, Conflicting, "ended", ()),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_the_words_of_its_surface(
    client: Both, wire: Wire, status: int, body: Any, kind: type[ApiRefused], message: str, details: tuple[str, ...]
) -> None:
    wire.on("GET /health", httpx.Response(status, json=body))
    with pytest.raises(ApiRefused) as refused:
        client("health")
    assert type(refused.value) is kind
    assert (refused.value.status, refused.value.message, refused.value.details) == (status, message, details)
    assert refused.value.code == body.get("error", "")
    assert isinstance(refused.value, core.Refused)


def test_a_refusal_without_a_body_says_what_was_asked(client: Both, wire: Wire) -> None:
    wire.on("GET /runs/nope/events", httpx.Response(404))
    with pytest.raises(NotThere, match="GET /runs/nope/events: 404"):
        client("runs.events", "nope")


@pytest.mark.parametrize("answer", [httpx.Response(500, json={"error": "internal_error", "message": "oh"}),
                                    httpx.Response(200, text="<html>"), httpx.Response(302)])  # fmt: skip
def test_what_no_server_of_ours_should_say_is_not_repeated(client: Both, wire: Wire, answer: httpx.Response) -> None:
    wire.on("GET /health", answer)
    with pytest.raises(ServerBroken):
        client("health")
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    "error",
    [ApiRefused(400, "c", "m", ("d",)), NotThere(404, "", "m"), ServerUnreachable("u", "w"), NotRunning("m"),
     ServerBroken(500, "w")],
)  # fmt: skip
def test_an_error_survives_pickling_with_its_facts(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))
