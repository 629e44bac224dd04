"""The commands on plans and instances against a scripted HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stub import Json, Stub, call, frames, stub

__all__ = ["call", "stub"]
Call = Callable[..., tuple[int, str, str]]

TASK = {"id": "1.1", "description": "Do it", "status": "completed", "phase": "Phase 1: A", "retry_count": 0}
SUMMARY = {"total_tasks": 1, "completed": 1, "skipped": 0, "current_phase": None, "progress_percent": 100.0}
INFO = {"id": "orch-1", "plan_name": "demo", "status": "running", "executor": "echo", "exit_reason": None}


def status(word: str, reason: str | None) -> Json:
    tasks = [{**TASK, "last_error": None}]
    return {
        "instance_id": "orch-1",
        "plan_name": "demo",
        "status": word,
        "summary": SUMMARY,
        "tasks": tasks,
        "phases": [],
        "exit_reason": reason,
    }


@pytest.mark.parametrize(
    ("reason", "code"), [("complete", 0), ("blocked", 3), ("max_iterations", 3), ("error", 3), ("shutdown", 4)]
)
def test_a_plan_that_is_waited_for_tells_by_its_exit_status(call: Call, stub: Stub, reason: str, code: int) -> None:
    stub.on("POST", "/api/orchestrators", INFO, status=201)
    stub.on("GET", "/api/orchestrators/orch-1/status", status("running", None), status("stopped", reason))
    ended, out, _ = call("plan", "run", "demo", "--executor", "slow", "--batch-size", "2", "--wait", "--json")
    assert (ended, json.loads(out)["exit_reason"]) == (code, reason)
    body = {"plan": "demo", "executor": "slow", "batch_size": 2, "max_iterations": 50, "max_retries": 2}
    assert stub.asked[0] == ("POST", "/api/orchestrators", body)


def test_a_plan_file_is_known_by_its_place_on_the_server(call: Call, stub: Stub, tmp_path: Path) -> None:
    here = tmp_path / "mine.md"
    here.write_text("# Mine")
    stub.on("GET", "/api/plans", [{"name": "mine", "path": str(here)}])
    stub.on("POST", "/api/orchestrators", INFO, status=201)
    assert call("plan", "run", str(here))[0] == 0
    assert stub.asked[-1][2]["plan"] == "mine"
    code, _, err = call("plan", "run", str(tmp_path / "other.md"))
    assert code == 1
    assert "is not in the server's folder of plans" in err


def test_a_refusal_is_told_in_the_servers_words(call: Call, stub: Stub) -> None:
    stub.on("POST", "/api/orchestrators", {"detail": "Plan 'demo' is already being run by 'orch-7'"}, status=409)
    code, _, err = call("plan", "run", "demo")
    assert code == 1
    assert "already being run by 'orch-7'" in err
    assert "instances events -f" in err
    stub.on("POST", "/api/orchestrators/orch-9/pause", {"detail": "Orchestrator 'orch-9' not found"}, status=404)
    assert "`orchestrator instances list`" in call("instances", "pause", "orch-9")[2]


def test_what_does_not_run_is_not_asked_twice(call: Call, stub: Stub) -> None:
    dead = {"detail": "Orchestrator 'orch-1' is not running (process dead)"}
    stub.on("POST", "/api/orchestrators/orch-1/pause", dead, status=503)
    code, _, err = call("instances", "pause", "orch-1")
    assert (code, len(stub.asked)) == (1, 1)
    assert "process dead" in err


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("pause", "orch-1"), "pause", {}),
        (("resume", "orch-1"), "resume", {}),
        (("shutdown", "orch-1"), "shutdown?force=false", {}),
        (("shutdown", "orch-1", "--force"), "shutdown?force=true", {}),
        (("skip", "orch-1", "1.1", "--reason", "later"), "skip-task", {"task_id": "1.1", "reason": "later"}),
        (("retry", "orch-1", "1.1"), "retry-task", {"task_id": "1.1"}),
    ],
)
def test_commands_reach_the_instance(call: Call, stub: Stub, arguments: Any, path: str, body: Json) -> None:
    done = {"success": True, "message": "as you wish", "error": None}
    stub.on("POST", f"/api/orchestrators/orch-1/{path}", done, {**done, "success": False, "error": "no"})
    assert call("instances", *arguments)[:2] == (0, "as you wish\n")
    assert stub.asked[-1][2] == body
    assert call("instances", *arguments)[:2] == (1, "as you wish: no\n")


def test_lists_and_findings_are_printed(call: Call, stub: Stub) -> None:
    stub.on("GET", "/api/orchestrators", [{**INFO, "pid": 7, "started_at": "2026"}])
    assert "orch-1" in call("instances", "list")[1]
    assert json.loads(call("instances", "list", "--json")[1])["items"][0]["id"] == "orch-1"
    stub.on("GET", "/api/orchestrators/orch-1/status", status("stopped", "complete"))
    assert "Do it" in call("instances", "show", "orch-1")[1]
    stub.on("GET", "/api/plans/demo/findings/1.1", {"task_id": "1.1", "content": "found\n"})
    assert call("plan", "findings", "demo", "1.1")[1] == "found\n"
    found = {"task_id": "1.1", "file_path": "/f", "size_bytes": 6, "last_modified": "2026"}
    stub.on("GET", "/api/plans/demo/findings", [found])
    assert "/f" in call("plan", "findings", "demo")[1]


def event(number: int, kind: str, **data: Any) -> tuple[int, str, Json]:
    return number, kind, {"type": kind, "timestamp": "T", "seq": number, "data": data}


def test_events_are_followed_over_a_lost_connection_until_the_instance_stops(call: Call, stub: Stub) -> None:
    first = (None, "initial_status", {"data": {"status": "running"}})
    changed = event(1, "task_changed", task_id="1.1", old_status="pending", new_status="in_progress")
    stopped = event(2, "orchestrator_state", old_state="running", new_state="stopped")
    path = "/api/orchestrators/orch-1/events-sse"
    stub.on("GET", path, frames(first, changed), frames(first, stopped))
    code, out, _ = call("instances", "events", "orch-1", "-f")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["1", "2"]
    assert [headers["last-event-id"] for headers in stub.headers] == ["0", "1"]
    assert "running > stopped" in out
    code, out, _ = call("instances", "events", "orch-1", "--json")
    assert json.loads(out.splitlines()[0])["id"] == 2
