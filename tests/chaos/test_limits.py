"""A limit over runs on several RunActors, and the SIGKILL of the scheduler in the middle: it is never exceeded."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.chaos.monkey import Monkey
from tests.dags_api import Api, answered, fresh, instant, task
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
RUNS, TASKS, MOST = 4, 10, 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: other tests should not meet one that was shot at."""
    with serving(("--workers", "6")) as started:
        yield started


@pytest.mark.parametrize("kind", ["scheduler", "run actor", "worker"])
def test_a_limit_holds_over_run_actors_and_the_death_of_a_process(server: Server, kind: str) -> None:
    api = server.api()
    name, dag_id = fresh("slow"), fresh("limited")
    assert answered(api.http.put(f"/limits/{name}", json={"max_running": MOST}))["running"] == 0
    sleep = {"kind": "core.sleep", "params": {"seconds": 0.4}, "limits": [name], "retries": 3}
    api.define(dag_id, *(task(f"t{n}", **sleep) for n in range(TASKS)))
    run_ids = [api.trigger(dag_id)["run_id"] for _ in range(RUNS)]
    with Monkey(server, kind, SEED).at_work(1, 3.0):
        for run_id in run_ids:
            assert api.wait(run_id, timeout_s=90, every_s=0.3)["state"] == "success", (kind, SEED)
    most = most_at_a_time(api, run_ids)
    assert most <= MOST, f"{most} of {MOST} ran at a time; kind {kind}, seed {SEED}"
    assert kind != "scheduler" or most == MOST
    time.sleep(1.5)
    assert answered(api.get(f"/limits/{name}"))["running"] == 0, "every permit is back"


def most_at_a_time(api: Api, run_ids: list[str]) -> int:
    """How many tasks ran at a time, as their events tell."""
    steps = []
    for run_id in run_ids:
        for frame in api.events(run_id):
            if frame.event == "task_state" and "running" in (frame.data["from"], frame.data["to"]):
                steps.append((instant(frame.data["ts"]), frame.data["to"] == "running"))
    running = most = 0
    for _, begins in sorted(steps):
        running += 1 if begins else -1
        most = max(most, running)
    return most
