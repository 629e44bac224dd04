"""What a run waits for, on a real server: everything is killed, the journal too, and it comes about all the same."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from tests.dags_api import answered, fresh, task
from tests.live import kill_all, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_signal_an_approval_and_a_wait_outlive_sigkill_of_everything() -> None:
    with serving() as server:
        api = server.api()
        name, until = fresh("waits"), datetime.now(UTC) + timedelta(seconds=25)
        api.define(
            name,
            task("first", kind="core.sleep", params={"seconds": 1}),
            task("signal", "first", kind="core.signal", params={"name": "go"}),
            task("ask", kind="core.approval", params={"prompt": "Well?", "quorum": 2}),
            task("hold", kind="core.signal", params={"name": "end"}),
            task("wait", kind="core.wait", params={"until": until.isoformat().replace("+00:00", "Z")}),
        )
        run_id = api.trigger(name)["run_id"]
        sent = answered(api.post(f"/runs/{run_id}/signals/go", {"data": {"n": 7}, "signal_id": "s1"}))  # early
        assert sent == {"run_id": run_id, "name": "go", "signal_id": "s1", "state": sent["state"]}
        run = api.until(run_id, lambda run: set(run.get("waiting_for", {})) >= {"ask", "wait"})
        assert run["tasks"]["wait"] == "running"
        answered(api.post(f"/runs/{run_id}/tasks/ask/decision", {"choice": "approve", "by": "ada"}))
        kill_all(server.home)
        os.sync()
        server.up()
        api = server.api()
        assert answered(api.post(f"/runs/{run_id}/signals/go", {"data": 8, "signal_id": "s1"}))["signal_id"] == "s1"
        [approval] = answered(api.get("/approvals", params={"run_id": run_id}))["items"]
        assert [vote["by"] for vote in approval["votes"]] == ["ada"]
        answered(api.post(f"/runs/{run_id}/tasks/ask/decision", {"choice": "approve", "by": "bob"}))
        late = api.post(f"/runs/{run_id}/tasks/ask/decision", {"choice": "reject", "by": "cid"})
        assert late.status_code == 409, late.text
        answered(api.post(f"/runs/{run_id}/signals/end"))
        end = api.wait(run_id, timeout_s=60)
        assert (end["state"], set(end["tasks"].values())) == ("success", {"done"})
        assert datetime.now(UTC) >= until
        frames = api.events(run_id)
        kinds = [frame.event for frame in frames]
        assert [kinds.count(kind) for kind in ("signal", "signal_consumed", "vote", "vote_refused")] == [2, 2, 2, 1]
        [woken] = [f for f in frames if f.event == "task_state" and (f.data["task"], f.data["to"]) == ("wait", "done")]
        assert datetime.fromisoformat(woken.data["ts"]) >= until.replace(microsecond=until.microsecond // 1000 * 1000)
