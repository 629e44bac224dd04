"""The commands on CI pipelines against a scripted HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stub import Json, Stub, call, frames, stub

__all__ = ["call", "stub"]
Call = Callable[..., tuple[int, str, str]]

PIPELINE = {"id": "p1", "name": "Example", "version": 1, "required_modules": ["docker"], "created_at": "2026"}
LAUNCH = "/api/pipeline/launch"
STREAM = "/api/jobs/j1/logs/stream"


def job(status: str, **more: Any) -> Json:
    return {
        "id": "j1", "pipeline_id": "p1", "status": status, "requested_at": "2026", "started_at": None,
        "completed_at": None, "runner_id": None, "parameters": {}, "result": None, "retry_count": 0,
        "timeout_seconds": 60, **more,
    }  # fmt: skip


def line(number: int, message: str) -> tuple[int, str, Json]:
    return number, "log", {"timestamp": f"T{number}", "level": "Info", "message": message}


def end(status: str) -> tuple[None, str, Json]:
    return None, "end", {"status": status}


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "ci.lua"
    file.write_text("return {}")
    return str(file)


def test_a_pipeline_is_created_from_a_file(call: Call, stub: Stub, source: str) -> None:
    stub.on("POST", "/api/pipeline/create", PIPELINE)
    code, out, err = call("pipelines", "create", source)
    assert (code, stub.asked[0][2]) == (0, {"script": "return {}"})
    assert "Example" in out
    assert "orchestrator pipelines launch p1" in err
    assert json.loads(call("pipelines", "create", source, "--json")[1]) == PIPELINE


def test_what_the_source_does_not_say_is_said_by_options(
    call: Call, stub: Stub, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_TOKEN", "hunter2")
    stub.on("POST", "/api/pipeline/create", PIPELINE)
    options = ("--name", "Mine", "--require", "docker", "--tag", "ci", "--timeout", "60", "--retries", "2")
    code, out, err = call("pipelines", "create", source, *options, "--env", "A=b=c", "--secret", "CI_TOKEN")
    assert (code, stub.asked[0][2]) == (0, {
        "script": "return {}", "name": "Mine", "required_modules": ["docker"], "tags": ["ci"],
        "config": {"timeout_seconds": 60, "max_retries": 2, "env_vars": {"A": "b=c"},
                   "secret_env_vars": {"CI_TOKEN": "hunter2"}},
    })  # fmt: skip
    assert "hunter2" not in out + err


@pytest.mark.parametrize(("options", "why"), [
    (("--env", "A"), "--env 'A': K=V expected"),
    (("--secret", "NO_SUCH_VARIABLE"), "--secret NO_SUCH_VARIABLE: the environment has no such variable"),
])  # fmt: skip
def test_options_without_sense_are_refused_before_anything_is_asked(
    call: Call, stub: Stub, source: str, options: tuple[str, ...], why: str
) -> None:
    code, _, err = call("pipelines", "create", source, *options)
    assert (code, stub.asked) == (1, [])
    assert why in err
    assert "cannot be read" in call("pipelines", "create", "/no/such.lua")[2]


@pytest.mark.parametrize(("status", "code"), [("Succeeded", 0), ("Failed", 3), ("TimedOut", 3), ("Cancelled", 4)])
def test_a_job_that_is_waited_for_shows_its_log_and_tells_by_its_exit_status(
    call: Call, stub: Stub, status: str, code: int
) -> None:
    result = {"success": False, "exit_code": 7, "output": None, "error_message": "boom"}
    stub.on("POST", LAUNCH, job("Queued"))
    stub.on("GET", STREAM, frames(line(1, "first")), frames(line(2, "[x] second"), end(status)))
    stub.on("GET", "/api/jobs/j1", job(status, result=result))
    ended, out, err = call("pipelines", "launch", "p1", "--param", "n=1", "--param", "message=hi", "--wait")
    assert (ended, stub.asked[0][2]) == (code, {"pipeline_id": "p1", "parameters": {"n": 1, "message": "hi"}})
    assert err.splitlines() == ["j1 waits for a runner", "T1  Info     first", "T2  Info     [x] second"]
    assert status in out
    assert "boom" in out


def test_for_programs_a_job_that_is_waited_for_is_one_document(call: Call, stub: Stub) -> None:
    stub.on("POST", LAUNCH, job("Queued"))
    stub.on("GET", STREAM, frames(line(1, "first"), end("Succeeded")))
    stub.on("GET", "/api/jobs/j1", job("Succeeded"))
    code, out, err = call("pipelines", "launch", "p1", "--wait", "--json")
    assert (code, json.loads(out), err) == (0, job("Succeeded"), "")


def test_a_launch_that_is_not_waited_for_says_how_to_follow_it(call: Call, stub: Stub) -> None:
    stub.on("POST", LAUNCH, job("Queued"))
    code, out, err = call("pipelines", "launch", "p1")
    assert code == 0
    assert "j1" in out
    assert "orchestrator pipelines logs j1 -f" in err


def test_logs_are_printed_and_followed_over_a_lost_connection(call: Call, stub: Stub) -> None:
    entries = [line(1, "a")[2], line(2, "b")[2]]
    stub.on("GET", "/api/jobs/j1/logs", entries)
    assert call("pipelines", "logs", "j1")[1] == "T1  Info     a\nT2  Info     b\n"
    printed = call("pipelines", "logs", "j1", "--json")[1].splitlines()
    assert [json.loads(each) for each in printed] == entries
    stub.on("GET", STREAM, frames(line(1, "a")), frames(line(2, "b"), end("Succeeded")))
    code, out, _ = call("pipelines", "logs", "j1", "-f")
    assert (code, out) == (0, "T1  Info     a\nT2  Info     b\n")
    assert stub.headers[-1]["last-event-id"] == "1"


def test_lists_are_printed(call: Call, stub: Stub) -> None:
    stub.on("GET", "/api/pipeline/list", [PIPELINE])
    assert "Example" in call("pipelines", "list")[1]
    assert json.loads(call("pipelines", "list", "--json")[1]) == {"items": [PIPELINE]}
    stub.on("GET", "/api/jobs?status=Running&limit=50", [job("Running", runner_id="r1")])
    assert "r1" in call("pipelines", "jobs", "--status", "Running")[1]
    stub.on("GET", "/api/jobs/pipeline/p1", [job("Failed")])
    assert json.loads(call("pipelines", "jobs", "--pipeline", "p1", "--json")[1])["items"] == [job("Failed")]
    assert call("pipelines", "jobs", "--status", "running")[0] == 2
    runner = {"id": "r1", "status": "Online", "capabilities": ["log"], "last_heartbeat_at": "2026"}
    stub.on("GET", "/api/runners", [runner])
    assert "Online" in call("pipelines", "runners")[1]


def test_a_job_is_shown_and_cancelled_and_a_pipeline_deleted(call: Call, stub: Stub) -> None:
    stub.on("GET", "/api/jobs/j1", job("Running", runner_id="r1"))
    assert "r1" in call("pipelines", "show", "j1")[1]
    assert json.loads(call("pipelines", "show", "j1", "--json")[1]) == job("Running", runner_id="r1")
    stub.on("POST", "/api/jobs/j1/cancel", job("Cancelled"))
    assert "Cancelled" in call("pipelines", "cancel", "j1")[1]
    stub.on("DELETE", "/api/pipeline/p1", {})
    assert call("pipelines", "delete", "p1")[:2] == (0, "p1 deleted\n")
    assert json.loads(call("pipelines", "delete", "p1", "--json")[1]) == {"deleted": "p1"}


@pytest.mark.parametrize(("status", "error", "hint"), [
    (404, "Pipeline p1 not found", "`orchestrator pipelines list`"),
    (400, "Missing required input 'x' (type: string)", "--param x=VALUE"),
    (400, "Input 'x' expected type 'number', but got: \"a\"", "--param x=VALUE"),
])  # fmt: skip
def test_a_refusal_is_told_with_what_to_do_next(call: Call, stub: Stub, status: int, error: str, hint: str) -> None:
    stub.on("POST", LAUNCH, {"error": error}, status=status)
    code, _, err = call("pipelines", "launch", "p1")
    assert code == 1
    assert error in err
    assert hint in err


def test_what_there_is_not_or_has_ended_is_told_likewise(call: Call, stub: Stub) -> None:
    stub.on("GET", "/api/jobs/j1", {"error": "Job j1 not found"}, status=404)
    assert "`orchestrator pipelines jobs`" in call("pipelines", "show", "j1")[2]
    stub.on("POST", "/api/jobs/j1/cancel", {"error": "Job j1 is already completed (current: Failed)"}, status=400)
    assert "`orchestrator pipelines show`" in call("pipelines", "cancel", "j1")[2]
