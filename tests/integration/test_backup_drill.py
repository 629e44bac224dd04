"""The drill of `orchestrator backup` and `restore`, on a real server that works meanwhile and is then lost.

What was accepted before `backup` began is in the copy, ended or not; what was open goes on there and ends right.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.dags_api import Api, Frame, Json, answered, task
from tests.live import Server, free_port, kill_all, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WINDOWS = 60


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is lost."""
    with serving() as started:
        yield started


@pytest.fixture
def other(server: Server) -> Iterator[Server]:
    """Where the copy is restored: a data directory that is not there yet, and a port of its own."""
    home = Path(tempfile.mkdtemp(prefix="orc-"), "home")
    environ = {**server.environ, "ORCHESTRATOR_HOME": str(home)}
    port = str(free_port())
    made = replace(server, url=f"http://127.0.0.1:{port}", home=home, environ=environ, options=("--port", port))
    yield made
    kill_all(home)


def test_nothing_accepted_before_a_backup_is_lost_and_open_runs_go_on(server: Server, other: Server) -> None:
    api = server.api()
    define(api)
    archived = [api.wait(api.trigger("chain")["run_id"])["run_id"] for _ in range(3)]
    assert json.loads(cli(server, "archive", "--older-than", "0s", "--json"))["runs"] == 3
    ended = {run_id: told(api, run_id) for run_id in (api.wait(api.trigger("chain")["run_id"])["run_id"],)}
    ended |= {run_id: told(api, run_id) for run_id in archived}
    waiting = api.trigger("waits")["run_id"]
    backfill = api.trigger("slow", run_type="backfill", start="2024-01-01", end="2024-02-29")["run_id"]
    slow = [api.trigger("slow")["run_id"] for _ in range(5)]
    accepted: list[str] = []
    stop = threading.Event()
    load = threading.Thread(target=keep_triggering, args=(server.api(), accepted, stop))
    load.start()
    time.sleep(1.0)
    before = list(accepted)
    copy = other.home.with_name("copy")
    made = json.loads(cli(server, "backup", str(copy), "--json"))
    assert made["journal"] is True
    stop.set()
    load.join()
    assert before
    assert len(accepted) > len(before), "it went on meanwhile"
    kill_all(server.home)

    cli(replace(other, home=server.home), "restore", str(copy))  # run beside what it makes
    other.up()
    again = other.api()
    for run_id, known in ended.items():
        assert told(again, run_id) == known
    answered(again.post(f"/runs/{waiting}/signals/go", {"data": 1}))
    for run_id in (*before, *slow, waiting, backfill):
        run = again.wait(run_id, timeout_s=90, every_s=0.1)
        assert run["state"] == "success", run
        check_stream(again.events(run_id), run)
    counts = again.run(backfill)["counts"]
    assert (counts["total"], counts["success"]) == (WINDOWS, WINDOWS)
    windows = again.runs(parent_run_id=backfill, limit=200)
    assert len({window["window"]["from"] for window in windows}) == WINDOWS
    for run in again.runs(limit=200):
        assert again.wait(run["run_id"], timeout_s=60, every_s=0.1)["state"] == "success", (
            "what came later may be there"
        )
    fresh = again.wait(again.trigger("chain")["run_id"])
    assert fresh["state"] == "success"
    other.down()


def define(api: Api) -> None:
    api.define("chain", task("a"), task("b", "a"))
    api.define("slow", task("a", kind="core.sleep", params={"seconds": 0.5}), task("b", "a"))
    api.define("waits", task("go", kind="core.signal", params={"name": "go"}), task("b", "go"))


def keep_triggering(api: Api, accepted: list[str], stop: threading.Event) -> None:
    """Runs one after another; those that were answered."""
    while not stop.is_set():
        accepted.append(api.trigger("chain")["run_id"])


def told(api: Api, run_id: str) -> tuple[Json, list[Frame]]:
    return api.run(run_id), api.events(run_id)


def check_stream(frames: list[Frame], run: Json) -> None:
    """Gapless to its end, and each task was done once."""
    assert [frame.id for frame in frames[:-1]] == list(range(1, len(frames)))
    assert (frames[-1].event, frames[-1].data["state"]) == ("end", "success")
    done = [frame.data["task"] for frame in frames if frame.event == "task_state" and frame.data["to"] == "done"]
    if run["run_type"] != "backfill":
        assert sorted(done) == sorted(run["tasks"])


def cli(server: Server, *arguments: str) -> str:
    ended = server.cli(*arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
