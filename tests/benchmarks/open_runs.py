"""Many runs open at once: what each holds in the RunActors, and whether all go on after every process was killed.

    python -m tests.benchmarks.open_runs [--count 10000]

Each run is three tasks in a row, the last of which takes 20 ms of a worker: with two workers 10,000 runs stay open
for minutes. When all are admitted the memory of the RunActors is compared with before; then every process of
the server gets SIGKILL, the server is started again, and all runs must end well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from tests import live
from tests.benchmarks import footprint
from tests.benchmarks.records import OURS, Record, save, show
from tests.benchmarks.wire import Wire
from tests.dags_api import Json, fresh, task

#: most runs of one DAG that may be active
PER_DAG = 1000
STEP: Json = {"kind": "core.sleep", "params": {"seconds": 0.02}}


def main() -> None:
    """Measures and adds to `latest.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    with live.serving() as server:
        wire = Wire(server.url, server.tokens["admin"])
        wire.post("/runs", {"dag_id": _define(wire)})  # the first run pays for imports
        time.sleep(2)
        before = _held_bytes(server)
        dags = [_define(wire) for _ in range(-(-count // PER_DAG))]
        for number, dag in enumerate(dags):
            wire.post("/runs/batch", {"runs": [{"dag_id": dag}] * min(PER_DAG, count - number * PER_DAG)})
        _until(lambda: _in_state(wire, dags, "queued") == 0)
        still_open = _in_state(wire, dags, "running")
        each = (_held_bytes(server) - before) / still_open
        live.kill_all(server.home)
        start = time.perf_counter()
        server.up()
        ready_s = time.perf_counter() - start
        wire = Wire(server.url, server.tokens["admin"])
        left = _in_state(wire, dags, "running")
        done = _in_state(wire, dags, "success")
        _until(lambda: _in_state(wire, dags, "success") > done + 100)
        moving_s = time.perf_counter() - start
        _until(lambda: _in_state(wire, dags, "success") == count)
        total_s = time.perf_counter() - start
    notes = f"{each / 1000:.1f} KB each in RunActors; {left} open at SIGKILL of everything; ready {ready_s:.1f} s"
    notes += f", runs end again after {moving_s:.1f} s"
    records = [
        Record(OURS, f"{count:,} open runs recovered", count, round(total_s, 2), round(count / total_s, 1), 0.0, notes)
    ]
    save(records)
    show(records)


def _define(wire: Wire) -> str:
    name = fresh("open")
    tasks = [task("a"), task("b", "a"), task("c", "b", **STEP)]
    wire.post("/dags", {"dag_id": name, "owner": "bench", "max_active_runs": PER_DAG, "tasks": tasks})
    return name


def _in_state(wire: Wire, dags: list[str], state: str) -> int:
    return sum(wire.get(f"/dags/{dag}")["run_counts"].get(state, 0) for dag in dags)


def _held_bytes(server: live.Server) -> int:
    return sum(footprint.pss_bytes(process.pid) for process in server.processes("ray::RunActorProcess"))


def _until(holds: Callable[[], bool], patience_s: float = 900.0) -> None:
    deadline = time.perf_counter() + patience_s
    while not holds():
        assert time.perf_counter() < deadline, "this takes too long"
        time.sleep(0.2)


if __name__ == "__main__":
    main()
