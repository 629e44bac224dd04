"""The commands on jobs of blueprints against a scripted HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve_app import job_commands
from tests.cli_stub import Json, Stub, call, stub

__all__ = ["call", "stub"]
Call = Callable[..., tuple[int, str, str]]

ACCEPTED = {"status": "accepted", "job_id": "j1"}


def job(status: str, **more: Any) -> Json:
    return {
        "id": "j1", "blueprint_name": "flow", "current_state": "start", "status": status, "progress": 0.5,
        "progress_message": "half", "created_at": "2026", **more,
    }  # fmt: skip


def test_a_job_is_created_with_the_data_of_a_file_and_parameters(call: Call, stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"clip": "a", "n": 1}')
    stub.on("POST", "/api/v1/jobs/flow", ACCEPTED, status=202)
    options = ("--data", str(file), "--param", "n=2", "--webhook", "https://x.example/h")
    code, out, err = call("jobs", "create", "/jobs/flow", *options)
    assert (code, stub.asked[0][2]) == (0, {
        "initial_data": {"clip": "a", "n": 2}, "webhook_url": "https://x.example/h",
    })  # fmt: skip
    assert "j1" in out
    assert "orchestrator jobs show j1" in err
    stub.on("POST", "/api/flow", ACCEPTED, status=202)
    created = call("jobs", "create", "flow", "--version", "", "--json")[1]
    assert json.loads(created) == {"job_id": "j1"}


@pytest.mark.parametrize(("text", "why"), [("[1]", "a JSON object expected"), ("{", "cannot be read")])
def test_data_that_are_no_object_are_refused(call: Call, stub: Stub, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "data.json"
    file.write_text(text)
    code, _, err = call("jobs", "create", "/jobs/flow", "--data", str(file))
    assert (code, stub.asked) == (1, [])
    assert why in err


@pytest.mark.parametrize(
    ("status", "code"), [("finished", 0), ("failed", 3), ("error", 3), ("quarantined", 3), ("cancelled", 4)]
)
def test_a_job_that_is_waited_for_tells_by_its_exit_status(
    call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    monkeypatch.setattr(job_commands, "_LOOK_S", 0)
    stub.on("POST", "/api/v1/jobs/flow", ACCEPTED, status=202)
    stub.on("GET", "/api/v1/jobs/j1", job("pending"), job("waiting_for_worker"), job(status))
    ended, out, err = call("jobs", "create", "/jobs/flow", "--wait", "--json")
    assert (ended, json.loads(out), err) == (code, job(status), "")
    ended, out, err = call("jobs", "create", "/jobs/flow", "--wait")
    assert (ended, err) == (code, "j1\n")
    assert status in out


def test_jobs_are_listed_and_shown(call: Call, stub: Stub) -> None:
    stub.on("GET", "/api/v1/jobs?limit=50", [job("running")])
    assert "flow" in call("jobs", "list")[1]
    stub.on("GET", "/api/v1/jobs?status=failed&limit=2", [])
    listed = call("jobs", "list", "--status", "failed", "--limit", "2", "--json")[1]
    assert json.loads(listed) == {"items": []}
    assert call("jobs", "list", "--status", "sad")[0] == 2
    stub.on("GET", "/api/v1/jobs/j1", job("running"))
    assert "half" in call("jobs", "show", "j1")[1]
    assert json.loads(call("jobs", "show", "j1", "--json")[1]) == job("running")
    found = {"name": "flow", "api_version": "v1", "api_endpoint": "/jobs/flow", "version": 3}
    stub.on("GET", "/api/v1/blueprints", [found])
    assert "/jobs/flow" in call("jobs", "blueprints")[1]


def test_a_job_is_cancelled_and_approved(call: Call, stub: Stub) -> None:
    stub.on("POST", "/api/v1/jobs/j1/cancel", {"status": "cancellation_request_sent"})
    assert "cancellation_request_sent" in call("jobs", "cancel", "j1")[1]
    approval = "/_public/webhooks/approval/j1"
    stub.on("POST", approval, {"status": "approval_received", "job_id": "j1"})
    answer = json.loads(call("jobs", "approve", "j1", "approved", "--json")[1])
    assert answer == {"job_id": "j1", "decision": "approved"}
    assert stub.asked[-1] == ("POST", approval, {"decision": "approved"})


def test_a_job_that_waits_says_why(call: Call, stub: Stub) -> None:
    stub.on("GET", "/api/v1/jobs/j1", job("waiting_for_worker", waiting_reason="no live worker offers 'video'"))
    shown = call("jobs", "show", "j1")[1]
    assert [line.split(None, 1)[1].strip() for line in shown.splitlines() if line.startswith("waiting_reason")] == [
        "no live worker offers 'video'"
    ]


def test_a_quarantined_job_is_released(call: Call, stub: Stub) -> None:
    stub.on("POST", "/api/v1/jobs/j1/release", {"status": "released", "job_id": "j1"})
    assert json.loads(call("jobs", "release", "j1", "--json")[1]) == {"job_id": "j1", "status": "released"}
    stub.on("POST", "/api/v1/jobs/j2/release", {"error": "Job is not quarantined (status: running)."}, status=409)
    code, _, err = call("jobs", "release", "j2")
    assert code == 1
    assert "`orchestrator jobs show`" in err


def test_webhooks_are_listed_and_tried_again(call: Call, stub: Stub) -> None:
    dead = {"id": "msg_j1", "event": "job_finished", "status": "dead", "attempt_count": 6, "next_attempt_at": None,
            "attempts": [{"timestamp": "T", "status_code": 500, "error": None}]}  # fmt: skip
    lost = {**dead, "id": "msg_j2", "attempts": [{"timestamp": "T", "status_code": None, "error": "ConnectError"}]}
    new = {**dead, "id": "msg_j3", "attempts": []}
    stub.on("GET", "/api/v1/webhooks?limit=50", [dead, lost, new])
    lines = [line.split() for line in call("jobs", "webhooks")[1].splitlines()[1:]]
    assert [(line[0], line[4:]) for line in lines] == [
        ("msg_j1", ["500"]),
        ("msg_j2", ["ConnectError"]),
        ("msg_j3", []),
    ]
    stub.on("GET", "/api/v1/webhooks?status=dead&limit=2", [dead])
    listed = call("jobs", "webhooks", "--status", "dead", "--limit", "2", "--json")[1]
    assert json.loads(listed) == {"items": [dead]}
    stub.on("POST", "/api/v1/webhooks/msg_j1/retry", {**dead, "status": "pending"})
    assert "pending" in call("jobs", "retry-webhook", "msg_j1")[1]
    stub.on("POST", "/api/v1/webhooks/msg_j3/retry", {"error": "Webhook is not dead (status: pending)."}, status=409)
    assert "--status dead" in call("jobs", "retry-webhook", "msg_j3")[2]
    stub.on("POST", "/api/v1/webhooks/msg_j9/retry", {"error": "Webhook not found"}, status=404)
    assert "`orchestrator jobs webhooks`" in call("jobs", "retry-webhook", "msg_j9")[2]


def test_the_history_of_a_job_is_printed(call: Call, stub: Stub) -> None:
    created = {"timestamp": "T1", "event_type": "job_created", "state": None, "previous_state": None,
               "next_state": None, "worker_id": None}  # fmt: skip
    moved = {**created, "timestamp": "T2", "event_type": "state_finished", "previous_state": "start",
             "next_state": "review", "worker_id": "w1"}  # fmt: skip
    stub.on("GET", "/api/v1/jobs/j1/history", [created, moved])
    lines = call("jobs", "history", "j1")[1].splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["T1", "job_created"], ["T2", "state_finished", "start", ">", "review", "w1"],
    ]  # fmt: skip
    assert json.loads(call("jobs", "history", "j1", "--json")[1]) == {"items": [created, moved]}


def test_a_refusal_is_told_with_what_to_do_next(call: Call, stub: Stub) -> None:
    stub.on("POST", "/api/v1/nope", {"error": "Not found"}, status=404)
    assert "`orchestrator jobs blueprints`" in call("jobs", "create", "/nope")[2]
    stub.on("GET", "/api/v1/jobs/j1", {"error": "Job not found"}, status=404)
    assert "`orchestrator jobs list`" in call("jobs", "show", "j1")[2]
    ended = {"error": "Job is not in a state that can be cancelled (status: finished)."}
    stub.on("POST", "/api/v1/jobs/j1/cancel", ended, status=409)
    code, _, err = call("jobs", "cancel", "j1")
    assert code == 1
    assert "status: finished" in err
    assert "`orchestrator jobs show`" in err
    stub.on("POST", "/_public/webhooks/approval/j1", {"error": "Invalid decision 'x' for this job"}, status=400)
    assert "current_task_transitions" in call("jobs", "approve", "j1", "x")[2]
