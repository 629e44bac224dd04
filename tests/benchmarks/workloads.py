"""What is measured on a running server: each function does its workload once and returns the seconds it took.

Submit to completion, both seen by the client: from the first byte of the POST to the answer of
`GET /runs/{id}?wait_s=60`, or to the `end` of the run's event stream where that is said; where many runs are
started at once, to the DAG's `run_counts` (asked for every 10 ms). Definitions are posted before the clock starts.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.wire import Wire
from tests.dags_api import Json, fresh, task
from tests.live import Server

POLL_S = 0.01
#: more than this means that something hangs
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """One client of one server."""

    server: Server
    wire: Wire

    # ------------------------------------------------------------ workloads

    def chain(self, length: int) -> float:
        """Tasks one after another."""
        return self._awaited({"dag_id": self.define(chain(length))})

    def chain_followed(self, length: int) -> float:
        """The same; the stream of all their events is read."""
        return self._followed(self.define(chain(length)))

    def fan_out(self, width: int) -> float:
        """`width` independent tasks and one that needs them all."""
        return self._awaited({"dag_id": self.define(fan(width))})

    def fan_out_followed(self, width: int) -> float:
        """The same; the stream of all their events is read."""
        return self._followed(self.define(fan(width)))

    def map_reduce(self, width: int) -> float:
        """A list made at run time, a function per element, and one that gets all they return."""
        return self._awaited({"dag_id": self.define(map_reduce(width))})

    def bulk(self, count: int) -> float:
        """Runs of one task, all in one POST."""
        dag = self.define([task("a")])
        body = self.wire.request("POST", "/runs/batch", json.dumps({"runs": [{"dag_id": dag}] * count}).encode())
        start = time.perf_counter()
        self.wire.exchange(body)
        self._until(lambda: self._finished(dag) == count)
        return time.perf_counter() - start

    def singly(self, count: int, connections: int = 16) -> float:
        """Runs of one task, one POST each, a few under way at any time."""
        dag = self.define([task("a")])
        request = self.wire.request("POST", "/runs", json.dumps({"dag_id": dag}).encode())
        start = time.perf_counter()
        self.wire.exchange_all([request] * count, connections)
        self._until(lambda: self._finished(dag) == count)
        return time.perf_counter() - start

    def backfill(self, windows: int) -> float:
        """One run a day, three tasks in a row each."""
        dag = self.define([task("extract"), task("transform", "extract"), task("load", "transform")])
        return self._awaited({"dag_id": dag, "run_type": "backfill", "from": "2020-01-01", "to": day(windows)})

    def start_latencies(self, samples: int) -> list[float]:
        """Seconds from POST to the first line of user code, one run after another on an idle server."""
        dag = self.define([{"id": "a", "entrypoint": "bench_tasks:stamp", "params": {"path": ""}}])
        with tempfile.TemporaryDirectory() as folder:
            for warm_up in range(10):
                self._one_start(dag, Path(folder, f"warm{warm_up}"))
            return [self._one_start(dag, Path(folder, str(n))) for n in range(samples)]

    # ------------------------------------------------------------ parts

    def define(self, tasks: Iterable[Json]) -> str:
        """A new DAG with room for everything at once."""
        name = fresh("bench")
        self.wire.post("/dags", {"dag_id": name, "owner": "bench", "max_active_runs": 1000, "tasks": list(tasks)})
        return name

    def _awaited(self, trigger: Json) -> float:
        start = time.perf_counter()
        run = self.wire.post("/runs", trigger)
        run = self._end(run["run_id"])
        took = time.perf_counter() - start
        assert run["state"] == "success", run["error"]
        return took

    def _end(self, run_id: str) -> Json:
        deadline = time.perf_counter() + PATIENCE_S
        while (run := self.wire.get(f"/runs/{run_id}?wait_s=60"))["state"] in {"queued", "running"}:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{run_id} is not over after {PATIENCE_S} s")
        return run

    def _followed(self, dag: str) -> float:
        start = time.perf_counter()
        run_id = self.wire.post("/runs", {"dag_id": dag})["run_id"]
        self.wire.follow(run_id)
        took = time.perf_counter() - start
        assert self.wire.get(f"/runs?dag_id={dag}")["items"][0]["state"] == "success"
        return took

    def _one_start(self, dag: str, path: Path) -> float:
        request = self.wire.request(
            "POST", "/runs", json.dumps({"dag_id": dag, "params": {"path": str(path)}}).encode()
        )
        start_ns = time.time_ns()
        run: Any = json.loads(self.wire.exchange(request))
        assert self._end(run["run_id"])["state"] == "success"
        time.sleep(0.03)
        return (int(path.read_text()) - start_ns) / 1e9

    def _finished(self, dag: str) -> int:
        counts: Json = self.wire.get(f"/dags/{dag}")["run_counts"]
        assert not counts.get("failed"), counts
        return int(counts.get("success", 0))

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.perf_counter() + PATIENCE_S
        while not holds():
            if time.perf_counter() > deadline:
                raise TimeoutError(f"not done after {PATIENCE_S} s")
            time.sleep(POLL_S)


def chain(length: int) -> list[Json]:
    """Tasks one after another."""
    names = [f"t{n}" for n in range(length)]
    return [task(name, *names[max(0, n - 1) : n]) for n, name in enumerate(names)]


def fan(width: int) -> list[Json]:
    """`width` independent tasks and a join."""
    names = [f"t{n}" for n in range(width)]
    return [*map(task, names), task("join", *names)]


def map_reduce(width: int) -> list[Json]:
    """A producer, a mapped task and a reduce."""
    return [
        {"id": "numbers", "entrypoint": "bench_tasks:numbers", "params": {"n": width}},
        {"id": "double", "entrypoint": "bench_tasks:double", "expand": {"item": "numbers"}},
        {"id": "total", "entrypoint": "bench_tasks:total", "inputs": {"results": "double"}},
    ]


def day(number: int) -> str:
    """The `number`-th day from 2020-01-01 on, counted from one."""
    return time.strftime("%Y-%m-%d", time.gmtime(1577836800 + (number - 1) * 86400))
