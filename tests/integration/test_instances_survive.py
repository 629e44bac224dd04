"""Orchestrator instances on a real server: their actor dies, their files are edited, and nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live import Server

pytestmark = pytest.mark.ray
PLAN = "\n".join(["# Slow", "## Phase 1: All", *(f"- [ ] 1.{n} Step {n}" for n in range(1, 7))])


def plan(live: Server, name: str) -> Path:
    """A fresh plan of six steps; its status.json."""
    root = Path(live.environ["ORCHESTRATOR_PLANS_ROOT"])
    path = root / "docs" / "plans" / f"{name}.md"
    path.write_text(PLAN)
    return root / "docs" / "plan-outputs" / name / "status.json"


def ask(live: Server, *arguments: str) -> Any:
    done = live.cli(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def until(holds: Callable[[], Any], within_s: float) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.1)
    return found


def status(live: Server, instance_id: str) -> Any:
    return ask(live, "instances", "show", instance_id)


def test_an_instance_whose_actor_is_killed_goes_on_and_leaves_no_process(live: Server) -> None:
    plan(live, "killed")
    made = ask(live, "plan", "run", "killed", "--executor", "slow", "--batch-size", "2")
    until(lambda: status(live, made["id"])["summary"]["in_progress"], 20)
    [actor] = live.processes("ray::OrchestratorProcess")
    assert actor.pid == made["pid"]
    os.kill(actor.pid, signal.SIGKILL)
    ended = until(lambda: (s := status(live, made["id"]))["status"] == "stopped" and s, 60)
    assert ended["exit_reason"] == "complete"
    told = [json.loads(line) for line in live.cli("instances", "events", made["id"], "--json").stdout.splitlines()]
    assert [each["id"] for each in told] == list(range(1, len(told) + 1))
    completed = [e["data"]["data"]["task_id"] for e in told if e["data"]["data"].get("new_status") == "completed"]
    assert sorted(completed) == [f"1.{n}" for n in range(1, 7)]
    until(lambda: not live.processes("ray::OrchestratorProcess"), 20)


def test_an_edit_of_the_status_file_reaches_the_instance_within_two_seconds(live: Server) -> None:
    path = plan(live, "edited")
    made = ask(live, "plan", "run", "edited", "--executor", "slow", "--batch-size", "1")
    assert live.cli("instances", "pause", made["id"]).returncode == 0
    until(path.exists, 5)
    time.sleep(2.5)
    document = json.loads(path.read_bytes())
    document["tasks"][5] |= {"status": "skipped", "reason": "by hand"}
    document["mine"] = True
    path.write_text(json.dumps(document))
    edited = time.monotonic()
    until(lambda: status(live, made["id"])["tasks"][5]["status"] == "skipped", 5)
    assert time.monotonic() - edited < 4  # two seconds, and what the command line takes to start
    assert live.cli("instances", "shutdown", made["id"], "--force").returncode == 0
    ended = until(lambda: (s := status(live, made["id"]))["status"] == "stopped" and s, 20)
    assert ended["exit_reason"] == "shutdown"
    kept = json.loads(path.read_bytes())
    assert (kept["mine"], kept["tasks"][5]["reason"]) == (True, "by hand")
    assert live.cli("instances", "pause", made["id"]).returncode == 1
    assert live.cli("instances", "retry", made["id"], "1.6").returncode == 0
    assert status(live, made["id"])["tasks"][5]["status"] == "pending"
