"""How soon work goes on after a kill: from SIGKILL of one process to the next start of a task."""

from __future__ import annotations

import time

from tests.benchmarks.workloads import Load
from tests.dags_api import Json, fresh, task

PATIENCE_S = 300.0


def recovery(load: Load, kind: str, samples: int) -> list[float]:
    """Seconds from SIGKILL of one process of that kind to the next `running` of a task, amid short tasks."""
    out = []
    for _ in range(samples):
        name = fresh("kill")
        load.wire.post("/dags", {"dag_id": name, "owner": "bench", "tasks": _sleeps(40)})
        run_id = load.wire.post("/runs", {"dag_id": name})["run_id"]
        time.sleep(1.0)
        victim = load.server.processes(kind)[0]
        seen = _started(load, run_id)
        killed = time.perf_counter()
        victim.kill()
        _until(lambda seen=seen, run_id=run_id: _started(load, run_id) > seen)  # type: ignore[misc]  # a default binds the loop's variable
        out.append(time.perf_counter() - killed)
        ended = load.wire.get(f"/runs/{run_id}?wait_s=60")
        assert ended["state"] == "success", ended["error"]
    return out


def _started(load: Load, run_id: str) -> int:
    states: Json = load.wire.get(f"/runs/{run_id}")["tasks"]
    return sum(state != "pending" for state in states.values())


def _sleeps(count: int) -> list[Json]:
    return [{**task(f"t{n}"), "type": "core.sleep", "params": {"seconds": 0.25}} for n in range(count)]


def _until(holds: object) -> None:
    assert callable(holds)
    deadline = time.perf_counter() + PATIENCE_S
    while not holds():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"not so after {PATIENCE_S} s")
        time.sleep(0.02)
