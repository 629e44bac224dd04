"""Pools under load on real Ray: 2 -> 20 -> 2 workers lose and repeat nothing, and the first new one works within 3 s.

The load is many short runs, more than even 20 workers get done before the end. Each task writes down its attempt, its
process and when it began, so what is counted is what user code saw. How soon a new worker works is from the request to
scale to the first task in a process that was not there before; the figures are printed (`pytest -s`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dags_api import Api, Json, answered, task
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUNS, TASKS, TAKES_S = 500, 2, 0.1
FEW, MANY = 2, 20
FIRST_DISPATCH_S = 3.0


@dataclass(frozen=True, slots=True)
class Start:
    """One line of the tally."""

    run_id: str
    task: str
    attempt: int
    pid: int
    at_s: float


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: its workers are counted."""
    with serving(("--workers", str(FEW))) as started:
        yield started


def test_2_to_20_to_2_workers_under_load_lose_and_repeat_nothing(server: Server, tmp_path: Path) -> None:
    api = server.api()
    work = {"entrypoint": "live_tasks:tally", "params": {"folder": str(tmp_path), "seconds": TAKES_S}}
    api.define("short", task("a", **work), task("b", "a", **work), max_active_runs=200)
    runs = [{"dag_id": "short"} for _ in range(RUNS)]
    items = answered(api.post("/runs/batch", {"runs": runs}))["runs"]
    run_ids = {item["run_id"] for item in items}
    until(lambda: len(starts(tmp_path)) > 20)
    before = {start.pid for start in starts(tmp_path)}

    asked_s = time.time()
    answered(api.post("/workers/scale", {"n": MANY}))
    answered_s = time.time()
    until(lambda: any(start.pid not in before for start in starts(tmp_path)), timeout_s=30)
    first_s = min(start.at_s for start in starts(tmp_path) if start.pid not in before) - asked_s
    until(lambda: len({start.pid for start in starts(tmp_path)}) >= MANY, timeout_s=60)
    all_s = time.time() - asked_s

    print(f"\nscale answered after {answered_s - asked_s:.2f} s, first dispatch {first_s:.2f} s, all {all_s:.2f} s")

    answered(api.post("/workers/scale", {"n": FEW}))
    until(lambda: len(workers(api)) == FEW, timeout_s=30)
    until(lambda: all(run["state"] == "success" for run in api.runs(dag_id="short", limit=200)), timeout_s=120)

    seen = Counter((start.run_id, start.task) for start in starts(tmp_path))
    assert {run_id for run_id, _ in seen} == run_ids, "runs are missing, or others came"
    assert set(seen.values()) == {1}, "tasks ran twice"
    assert len(seen) == RUNS * TASKS
    assert {start.attempt for start in starts(tmp_path)} == {1}
    assert first_s <= FIRST_DISPATCH_S


def starts(folder: Path) -> list[Start]:
    """Everything that began so far."""
    path = folder / "tally"
    lines = path.read_text().splitlines() if path.exists() else []
    split = [line.split() for line in lines]
    return [Start(run, name, int(attempt), int(pid), float(at)) for run, name, attempt, pid, at in split]


def workers(api: Api) -> list[Json]:
    """Workers of the default pool."""
    found: list[Json] = answered(api.get("/workers"))["items"]
    return [each for each in found if each["pool"] == "default"]


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    """Waits for it; fails the test when that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"still waiting after {timeout_s} s"
        time.sleep(0.05)


def test_an_elastic_pool_is_empty_until_tasks_come_and_again_when_they_are_done_and_outlives_down(
    server: Server, tmp_path: Path
) -> None:
    api = server.api()
    pool = {"min": 0, "max": 2, "num_cpus": 0.5, "idle_timeout_s": 2, "scale_up_wait_s": 0}
    made = answered(api.http.put("/pools/burst", json=pool))
    assert (made["wanted"], made["max"]) == (0, 2)
    work = {"entrypoint": "live_tasks:tally", "params": {"folder": str(tmp_path), "seconds": 0.5}, "pool": "burst"}
    api.define("bursts", *(task(f"t{n}", **work) for n in range(6)))

    asked_s = time.time()
    run_id = api.trigger("bursts")["run_id"]
    assert api.wait(run_id, timeout_s=40)["state"] == "success"
    print(f"\nfrom zero: first dispatch after {starts(tmp_path)[0].at_s - asked_s:.2f} s")
    assert len({start.pid for start in starts(tmp_path)}) == 2
    until(lambda: pool_of(api, "burst")["workers"] == 0, timeout_s=20)

    answered(api.post("/workers/scale", {"pool": "burst", "n": 1}))
    answered(api.post("/workers/scale", {"n": 3}))
    server.down()
    server.up()
    api = server.api()
    until(lambda: len(workers(api)) == 3, timeout_s=20)
    until(lambda: pool_of(api, "burst")["workers"] - pool_of(api, "burst")["starting"] == 1, timeout_s=20)
    assert api.wait(api.trigger("bursts")["run_id"], timeout_s=40)["state"] == "success"
    assert answered(api.http.delete("/pools/burst")) == {"name": "burst", "deleted": True}
    until(lambda: all(each["pool"] != "burst" for each in answered(api.get("/workers"))["items"]), timeout_s=20)


def pool_of(api: Api, name: str) -> Json:
    """The pool as it is now."""
    return answered(api.get(f"/pools/{name}"))
