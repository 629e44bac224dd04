"""Connections to a worker that break while it works, on real Ray: nobody counts its attempts as lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dags_api import Api, fresh, task

pytestmark = pytest.mark.ray

#: as many losses would fail the task, and Ray takes up to 2 s to tell of one
TIMES, EVERY_S = 3, 3.0


def test_a_task_whose_worker_is_cut_off_again_and_again_runs_once(api: Api, tmp_path: Path) -> None:
    name, params = fresh("cut_off"), {"folder": str(tmp_path), "times": TIMES, "every_s": EVERY_S}
    api.define(name, task("a", entrypoint="live_tasks:cut_off", params=params), task("b", "a"))
    run_id = api.trigger(name)["run_id"]
    run = api.wait(run_id, timeout_s=30)
    assert (run["state"], run["tasks"]) == ("success", {"a": "done", "b": "done"})
    steps = [f.data for f in api.events(run_id) if f.event == "task_state" and f.data["task"] == "a"]
    assert [(step["to"], step["attempt"]) for step in steps] == [("running", 1), ("done", 1)]
    cut = [int(line) for line in (tmp_path / "cut").read_text().split()]
    assert len(cut) == TIMES, "it ran once"
    assert min(cut) >= 1, "there was a connection to break, each time"
