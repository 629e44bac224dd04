"""The instances contract against a real server: the acceptance examples of its section 9, by their numbers.

Black box: HTTP, WebSocket, event streams, and the plan files. The plan `demo` is never started; examples that run a
plan take a fresh copy of it, so that each stands alone.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.dags_api import at_once
from tests.instances_api import DEMO, Board, Json, answered, frames_of, instant, next_frame, told
from tests.live import Server

pytestmark = pytest.mark.ray

COMPONENTS = {
    *("HealthResponse", "OrchestratorInfo", "StatusResponse", "StatusSummary", "TaskInfo", "PhaseSummary"),
    *("PlanInfo", "FindingInfo", "CommandResponse", "SkipTaskRequest", "RetryTaskRequest"),
}


#: 10 s of work for `slow`, one task at a time
LONGER = DEMO + "- [ ] 2.2 Run them again\n- [ ] 2.3 And again\n"


@pytest.fixture(scope="module")
def board(live: Server) -> Board:
    return live.board()


@pytest.fixture
def paused(board: Board) -> Iterator[str]:
    """An instance that was paused at once: of its tasks at most 1.1 was begun."""
    with pausing(board) as instance_id:
        yield instance_id


@contextlib.contextmanager
def pausing(board: Board) -> Iterator[str]:
    """The same for the length of a `with` block; it is shut down at the end."""
    instance_id = board.start(board.fresh_plan(), executor="slow", batch_size=1)
    assert answered(board.command(instance_id, "pause"))["success"]
    yield instance_id
    board.command(instance_id, "shutdown?force=true")


# ---------------------------------------------------------------- 1, 2: plans


def test_a_plan_that_was_never_run_is_listed_without_a_status(board: Board) -> None:
    plans = answered(board.http.get("/api/plans"))
    assert [each["name"] for each in plans] == sorted(each["name"] for each in plans)
    (demo,) = [each for each in plans if each["name"] == "demo"]
    path = board.root / "docs" / "plans" / "demo.md"
    assert {**demo, "last_modified": ...} == {
        "name": "demo",
        "path": str(path),
        "has_status": False,
        "last_modified": ...,
        "output_dir": None,
    }
    assert instant(demo["last_modified"]).timestamp() == pytest.approx(path.stat().st_mtime, abs=0.001)


def test_what_a_plan_has_not_is_told_in_the_contracts_words(board: Board) -> None:
    for path in ("status", "tasks"):
        no_status = "No status found for plan 'demo'. Run /plan:implement first."
        told(board.http.get(f"/api/plans/demo/{path}"), 404, no_status)
        told(board.http.get(f"/api/plans/nope/{path}"), 404, "Plan 'nope' not found")
    assert answered(board.http.get("/api/plans/demo/findings")) == []
    told(board.http.get("/api/plans/nope/findings"), 404, "Plan 'nope' not found")
    told(board.http.get("/api/plans/%2e%2e/tasks"), 404, "Plan '..' not found")


# ---------------------------------------------------------------- 3, 4: a run, and what it leaves behind


def test_a_plan_is_worked_through_in_order(board: Board) -> None:
    plan = board.fresh_plan()
    instance_id = board.start(plan, executor="echo")
    status = board.ended(instance_id, timeout_s=15)
    assert (status["status"], status["exit_reason"]) == ("stopped", "complete")
    assert (status["summary"]["completed"], status["summary"]["progress_percent"]) == (4, 100.0)
    assert [each["id"] for each in status["tasks"]] == ["1.1", "1.2", "1.3", "2.1"]
    assert status["tasks"][2]["description"] == "Write the file (depends: 1.1, 1.2)"
    assert [(each["phase_number"], each["name"], each["completed_tasks"]) for each in status["phases"]] == [
        (1, "Setup", 3),
        (2, "Check", 1),
    ]
    for each in ("started_at", "completed_at"):
        instant(status["tasks"][0][each])

    kept = {each["id"]: each for each in board.status_json(plan)["tasks"]}
    assert [each["status"] for each in kept.values()] == ["completed"] * 4
    assert datetime.fromisoformat(kept["2.1"]["startedAt"]) >= datetime.fromisoformat(kept["1.3"]["completedAt"])

    info = answered(board.get(instance_id))
    assert (info["status"], info["exit_reason"], info["executor"]) == ("stopped", "complete", "echo")
    assert (info["worktree_path"], info["socket_path"]) == (None, None)
    of_plan = answered(board.http.get(f"/api/plans/{plan}/status"))
    assert (of_plan["instance_id"], of_plan["status"], of_plan["summary"]) == ("", "stopped", status["summary"])


def test_findings_are_listed_and_read(board: Board) -> None:
    plan = board.fresh_plan()
    board.ended(board.start(plan))
    findings = answered(board.http.get(f"/api/plans/{plan}/findings"))
    assert [each["task_id"] for each in findings] == ["1.1", "1.3", "2.1"]
    found = answered(board.http.get(f"/api/plans/{plan}/findings/1.1"))
    assert found.keys() == {"task_id", "content"}
    assert (found["task_id"], "Create the folder" in found["content"]) == ("1.1", True)
    assert findings[0]["size_bytes"] == len(found["content"].encode())
    missing = f"Finding for task '9.9' not found in plan '{plan}'"
    told(board.http.get(f"/api/plans/{plan}/findings/9.9"), 404, missing)


# ---------------------------------------------------------------- 5: pause and resume


@pytest.mark.slow
def test_a_paused_instance_starts_nothing_until_it_is_resumed(board: Board) -> None:
    instance_id = board.start(board.fresh_plan(), executor="slow", batch_size=1)
    for _ in "ab":
        assert answered(board.command(instance_id, "pause")) == {
            "success": True,
            "message": f"Orchestrator '{instance_id}' pause requested",
            "error": None,
        }
    assert board.status(instance_id)["status"] == "paused"
    assert answered(board.get(instance_id))["status"] == "running"
    board.until(instance_id, lambda status: status["summary"]["in_progress"] == 0)
    begun = started(board.status(instance_id))
    time.sleep(5)
    still = board.status(instance_id)
    assert (still["status"], started(still)) == ("paused", begun)

    resumed = answered(board.command(instance_id, "resume"))
    assert (resumed["success"], resumed["message"]) == (True, f"Orchestrator '{instance_id}' resume requested")
    assert board.status(instance_id)["status"] == "running"
    assert board.ended(instance_id)["exit_reason"] == "complete"


def started(status: Json) -> list[str]:
    """Tasks that were begun."""
    return [each["id"] for each in status["tasks"] if each["started_at"] is not None]


# ---------------------------------------------------------------- 6: one instance a plan


def test_of_two_starters_of_one_plan_exactly_one_wins(board: Board) -> None:
    plan = board.fresh_plan()

    def start(_: int) -> Any:
        return board.http.post("/api/orchestrators", json={"plan": plan, "executor": "slow"})

    answers = sorted(at_once(2, start), key=lambda answer: int(answer.status_code))
    assert [each.status_code for each in answers] == [201, 409]
    instance_id = answers[0].json()["id"]
    told(answers[1], 409, f"Plan '{plan}' is already being run by '{instance_id}'")
    assert answered(board.command(instance_id, "shutdown?force=true"))["success"]
    assert board.ended(instance_id)["exit_reason"] == "shutdown"


def test_a_start_that_cannot_be_is_refused(board: Board) -> None:
    start = {"plan": board.fresh_plan()}
    told(board.http.post("/api/orchestrators", json={"plan": "nope"}), 404, "Plan 'nope' not found")
    unknown = board.http.post("/api/orchestrators", json={**start, "executor": "y"})
    told(unknown, 400, "Unknown executor 'y'")
    cyclic = board.fresh_plan("## Phase 1: A\n- [ ] 1.1 a (depends: 1.2)\n- [ ] 1.2 b (depends: 1.1)\n")
    refused = board.http.post("/api/orchestrators", json={"plan": cyclic})
    told(refused, 400, "Dependency cycle detected: 1.1 -> 1.2 -> 1.1")
    faulty = board.http.post("/api/orchestrators", json={**start, "batch_size": 51})
    assert answered(faulty, 422)["detail"][0]["loc"] == ["body", "batch_size"]


# ---------------------------------------------------------------- 7, 8, 9: commands on tasks, and on the dead


def test_a_task_is_skipped_or_the_answer_says_why_not(board: Board, paused: str) -> None:
    body = {"task_id": "2.1", "reason": "later"}
    done = {"success": True, "message": "Task '2.1' skipped", "error": None}
    assert [answered(board.command(paused, "skip-task", body)) for _ in "ab"] == [done, done]
    assert board.task(paused, "2.1")["status"] == "skipped"
    assert answered(board.command(paused, "skip-task", {"task_id": "9.9"})) == {
        "success": False,
        "message": "Skip failed",
        "error": "Failed to mark task 9.9 as skipped. Task may not exist.",
    }
    assert answered(board.command(paused, "skip-task", {"task_id": "1.2"}))["error"] == "Task status is 'completed'"
    (fault,) = answered(board.command(paused, "skip-task", {}), 422)["detail"]
    assert (fault["loc"], fault["type"], fault["input"]) == (["body", "task_id"], "missing", {})


def test_a_skipped_task_is_retried_once(board: Board, paused: str) -> None:
    answered(board.command(paused, "skip-task", {"task_id": "2.1"}))
    assert answered(board.command(paused, "retry-task", {"task_id": "2.1"})) == {
        "success": True,
        "message": "Task '2.1' reset for retry",
        "error": None,
    }
    task = board.task(paused, "2.1")
    assert (task["status"], task["retry_count"], task["last_error"]) == ("pending", 1, None)
    assert answered(board.command(paused, "retry-task", {"task_id": "2.1"})) == {
        "success": False,
        "message": "Task is not in a retriable state",
        "error": "Task status is 'pending', must be 'failed' or 'skipped'",
    }
    told(board.command(paused, "retry-task", {"task_id": "9.9"}), 404, "Task '9.9' not found in plan")


def test_a_stopped_instance_takes_no_commands_but_skips(board: Board, paused: str) -> None:
    shut = answered(board.command(paused, "shutdown?force=true"))
    assert (shut["success"], shut["message"]) == (True, f"Orchestrator '{paused}' shutdown requested")
    assert board.ended(paused)["exit_reason"] == "shutdown"
    for command in ("pause", "resume", "shutdown"):
        dead = f"Orchestrator '{paused}' is not running (process dead)"
        told(board.command(paused, command), 503, dead)
        told(board.command("orch-1", command), 404, "Orchestrator 'orch-1' not found")
    assert answered(board.command(paused, "skip-task", {"task_id": "2.1"}))["success"]
    assert board.task(paused, "2.1")["status"] == "skipped"
    for path in ("", "/status", "/events-sse"):
        told(board.get("nope", path), 404, "Orchestrator 'nope' not found")


# ---------------------------------------------------------------- 10, 11: sockets


def test_a_socket_tells_everything_in_order_and_says_how_it_ended(board: Board) -> None:
    instance_id = board.start(board.fresh_plan(), executor="slow")
    with board.socket(instance_id, "events?since=0") as socket:
        first, *rest = frames_of(socket)
        assert socket.close_code == 1000
    assert (first["type"], first["data"]["instance_id"]) == ("initial_status", instance_id)
    assert "seq" not in first
    events = [each for each in rest if each["type"] != "ping"]
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert {each["instance_id"] for each in events} == {instance_id}
    for each in rest:
        instant(each["timestamp"])

    changed = [each["data"] for each in events if each["type"] == "task_changed"]
    steps = [(each["old_status"], each["new_status"]) for each in changed if each["task_id"] == "1.1"]
    assert steps == [("pending", "in_progress"), ("in_progress", "completed")]
    assert changed[0].keys() == {"task_id", "old_status", "new_status", "description", "phase"}
    raw = next(each["data"] for each in events if each["type"] == "status_updated")
    assert {"planPath", "planName", "createdAt", "tasks"} <= raw.keys()
    phases = [each["data"] for each in events if each["type"] == "phase_changed"]
    assert phases[-1]["new_phase"] is None
    assert [each["type"] for each in events].index("task_changed") < [each["type"] for each in events].index(
        "status_updated"
    )
    assert (events[-1]["type"], events[-1]["data"]["new_state"]) == ("orchestrator_state", "stopped")


def test_a_socket_of_tool_calls_is_flat_and_pairs_them(board: Board) -> None:
    instance_id = board.start(board.fresh_plan(LONGER), executor="slow", batch_size=1)
    with board.socket(instance_id, "activity") as socket:
        first, *rest = [each for each in frames_of(socket) if each["type"] != "ping"]
        assert socket.close_code == 1000
    assert {**first, "timestamp": ...} == {
        "type": "connected",
        "timestamp": ...,
        "instance_id": instance_id,
        "message": "Activity stream connected",
    }
    begun: set[str] = set()
    # the first call may have begun before the socket was open
    for each in itertools.dropwhile(lambda frame: frame["type"] == "tool_completed", rest):
        assert (each["instance_id"], each["tool_name"]) == (instance_id, "slow")
        if each["type"] == "tool_started":
            begun.add(each["tool_id"])
            continue
        assert each["type"] == "tool_completed"
        begun.remove(each["tool_id"])
        assert (each["input_summary"], each["success"]) == (None, True)
        assert type(each["duration_ms"]) is int
        assert each["duration"] == pytest.approx(each["duration_ms"] / 1000, abs=0.002)
        assert each["duration"] >= 2
    assert begun == set()
    assert sum(each["type"] == "tool_started" for each in rest) >= 2


# ---------------------------------------------------------------- 12: streams resume


def test_a_stream_resumes_after_the_last_id_without_a_gap(board: Board) -> None:
    instance_id = board.start(board.fresh_plan(), executor="slow", batch_size=1)
    with board.stream(instance_id) as events:
        begun = list(itertools.islice((each for each in events if each.id is not None), 3))
    assert begun[0].name == "initial_status"
    last = begun[-1].id
    assert last is not None

    with board.stream(instance_id, last) as events:
        first, *rest = [each for each in events if each.name != "ping"]
    assert (first.id, first.name) == (None, "initial_status")
    assert [each.id for each in rest] == list(range(last + 1, last + 1 + len(rest)))
    assert all(each.data["seq"] == each.id and each.data["type"] == each.name for each in rest)
    assert (rest[-1].name, rest[-1].data["data"]["new_state"]) == ("orchestrator_state", "stopped")

    with board.stream(instance_id, 0) as events:
        replayed = [each.id for each in events if each.id is not None]
    assert replayed == list(range(1, len(replayed) + 1))


# ---------------------------------------------------------------- 13: what does not exist


@pytest.mark.parametrize("kind", ["events", "activity"])
def test_a_socket_of_an_unknown_instance_is_refused_with_403(board: Board, kind: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        board.socket("nope", kind)
    assert refused.value.response.status_code == 403
    told(board.get("nope", "/events-sse"), 404, "Orchestrator 'nope' not found")


# ---------------------------------------------------------------- 14: signs of life


@pytest.mark.slow
def test_an_idle_socket_pings_and_does_not_mind_what_it_is_told(board: Board, paused: str) -> None:
    board.until(paused, lambda status: status["summary"]["in_progress"] == 0)
    with board.socket(paused, "events") as socket:
        hang_up = threading.Timer(31.5, socket.close)
        hang_up.start()
        for nonsense in ("not json", '{"type":"pong"}', b"\x00\xff"):
            socket.send(nonsense)
        assert (first := next_frame(socket)) is not None
        assert first["type"] == "initial_status"
        frames = list(frames_of(socket, timeout_s=40))
        hang_up.join()
    (ping,) = [each for each in frames if each["type"] == "ping"]
    assert ping.keys() == {"type", "timestamp"}
    instant(ping["timestamp"])


# ---------------------------------------------------------------- 15: descriptions


def test_the_description_has_the_names_that_clients_are_generated_from(board: Board) -> None:
    document = answered(board.http.get("/openapi.json"))
    assert (document["info"]["title"], document["info"]["version"]) == ("Orchestrator API", "1.0.0")
    assert set(document["components"]["schemas"]) >= COMPONENTS | {"StartOrchestratorRequest"}
    operation = document["paths"]["/api/orchestrators/{instance_id}/skip-task"]["post"]
    assert operation["operationId"] == "skip_task_api_orchestrators__instance_id__skip_task_post"
    assert operation["tags"] == ["Commands"]
    for path in ("/docs", "/redoc"):
        page = board.http.get(path)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_health_counts_running_instances(board: Board, paused: str) -> None:
    health = answered(board.http.get("/health"))
    assert {"ok": True, "service": "orchestrator", "status": "healthy", "version": "1.0.0"}.items() <= health.items()
    running = [each for each in answered(board.http.get("/api/orchestrators")) if each["status"] == "running"]
    assert paused in [each["id"] for each in running]
    assert health["orchestrators_running"] == len(running)
    instant(health["timestamp"])
