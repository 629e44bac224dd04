"""`make bench`: measures a real server through its command line and HTTP, beside plain Ray tasks.

    python -m tests.benchmarks.bench [--only PART ...] [--repeat 5] [--large]

Parts: chain, fan, map (a map of Python functions over a list made at run time, then a reduce), bulk, singly, backfill,
latency, recovery (a killed process to the next task start), plain (plain Ray tasks of the same numbers), footprint
(ready, idle CPU, memory), baseline (the same of Ray and Serve with nothing of ours; not run by default). `--large` adds
fan-outs of 10,000, 20,000 and 50,000 tasks with the memory of the RunActors. Prints a table and updates `latest.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from tests import live
from tests.benchmarks import durability, footprint
from tests.benchmarks.records import OURS, PLAIN, Record, record, repeated, save, show, single
from tests.benchmarks.wire import Wire
from tests.benchmarks.workloads import Load

PARTS = ("footprint", "latency", "chain", "fan", "map", "bulk", "singly", "backfill", "recovery", "plain")
ROOT = Path(__file__).parents[2]
#: workload -> (kind of plain Ray workload, number of tasks); names are those of our records
PLAIN_WORKLOADS = {
    "chain of 50": ("chain", 50),
    "fan-out of 500": ("fan", 500),
    "fan-out of 5,000": ("fan", 5000),
    "2,000 runs in bulk": ("fan", 2000),
    "300 runs by one POST each": ("fan", 300),
    "backfill 30 x 3": ("chains", 90),
    "backfill 365 x 3": ("chains", 1095),
}
LARGE = (10_000, 20_000, 49_999)
say = Console(stderr=True).print


def main() -> None:
    """Measures what the command line asks for."""
    options = _options()
    records = [*_of_ours(options), *_of_others(options)]
    save(records)
    show(records)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "baseline"], default=list(PARTS))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--idle-s", type=float, default=30.0, help="how long idle CPU is watched")
    return parser.parse_args()


# ---------------------------------------------------------------- our server


def _of_ours(options: argparse.Namespace) -> Iterator[Record]:
    parts = [part for part in PARTS if part in options.only and part != "plain"]
    if not parts and not options.large:
        return
    start = time.perf_counter()
    tasks = Path(__file__).with_name("bench_tasks.py")
    with live.serving(code=[tasks], environ={"BLUEPRINTS_DIR": ""}) as server:  # as `up` comes, for DAGs alone
        ready_s = time.perf_counter() - start
        say(f"ready in {ready_s:.1f} s")
        load = Load(server, Wire(server.url, server.tokens["admin"]))
        if "footprint" in parts:
            yield single(OURS, "up to ready", 1, ready_s, "orchestrator up --detach on a fresh home")
            yield from _footprint(OURS, server.processes, options.idle_s)
        load.fan_out(200)  # the first run pays for imports
        for part in parts:
            yield from _part(part, load, options.repeat)
        if options.large:
            yield from _large(load)


def _part(part: str, load: Load, repeat: int) -> Iterator[Record]:
    def timed(workload: str, n: int, once: Callable[[], float], notes: str = "") -> Record:
        with _told(workload):
            return record(OURS, workload, n, repeated(repeat, once), notes)

    if part == "chain":
        yield timed("chain of 50", 50, lambda: load.chain(50))
        yield timed("chain of 50, streamed", 50, lambda: load.chain_followed(50), "every event read")
    elif part == "fan":
        for width in (500, 5000):
            yield timed(f"fan-out of {width:,}", width, partial(load.fan_out, width))
            yield timed(
                f"fan-out of {width:,}, streamed", width, partial(load.fan_out_followed, width), "every event read"
            )
    elif part == "map":
        for width in (1000, 10_000):
            yield timed(f"map of {width:,}, then reduce", width, partial(load.map_reduce, width))
    elif part == "bulk":
        yield timed("2,000 runs in bulk", 2000, lambda: load.bulk(2000))
    elif part == "singly":
        yield timed("300 runs by one POST each", 300, lambda: load.singly(300), "16 connections")
    elif part == "backfill":
        for windows in (30, 365):
            yield timed(f"backfill {windows} x 3", windows * 3, partial(load.backfill, windows))
    elif part == "recovery":
        for kind in ("WorkerProcess", "SchedulerProcess", "SupervisorProcess", "RunActorProcess"):
            with _told(f"{kind} killed"):
                samples = durability.recovery(load, kind, 3)
            yield record(OURS, f"{kind} killed", 1, samples, "SIGKILL to the next task start, of two slots")
    elif part == "latency":
        with _told("start latency"):
            samples = sorted(load.start_latencies(100))
        yield single(OURS, "start latency p50", 100, statistics.median(samples), "POST to the task's first line, idle")
        yield single(OURS, "start latency p99", 100, samples[98], f"max {samples[-1] * 1000:.1f} ms")


def _large(load: Load) -> Iterator[Record]:
    for width in LARGE:
        before = _run_actor_bytes(load)
        with _told(f"fan-out of {width:,}"):
            seconds = load.fan_out(width)
        grown = _run_actor_bytes(load) - before
        yield record(OURS, f"fan-out of {width:,}", width, [seconds], f"RunActors grew by {grown / 1e6:.1f} MB")


def _run_actor_bytes(load: Load) -> int:
    return sum(footprint.pss_bytes(process.pid) for process in load.server.processes("RunActor"))


# ---------------------------------------------------------------- what others cost


def _of_others(options: argparse.Namespace) -> Iterator[Record]:
    if "plain" in options.only:
        with _told("plain Ray tasks"):
            items = [f"{workload}:{kind}:{n}" for workload, (kind, n) in PLAIN_WORKLOADS.items()]
            seconds = json.loads(_python("tests.benchmarks.plain_ray", str(options.repeat), *items).splitlines()[-1])
        for workload, (_, n) in PLAIN_WORKLOADS.items():
            yield record(PLAIN, workload, n, seconds[workload], "no journal, no HTTP")
    if "baseline" in options.only:
        yield from _baseline(options.idle_s)


def _python(module: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _baseline(span_s: float) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "ORCHESTRATOR_HOME": home}  # only a mark by which its processes are found
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.idle_ray", str(live.free_port())],
            env=environ,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            for line in child.stdout:
                if line.strip() == "ready":
                    break
            yield single(
                "Ray and Serve", "up to ready", 1, time.perf_counter() - start, "empty application, seven actors"
            )
            yield from _footprint("Ray and Serve", lambda: live.processes(Path(home)), span_s)
            child.stdin.close()
        live.kill_all(Path(home))


def _footprint(system: str, processes: Callable[[], list[live.Process]], span_s: float) -> Iterator[Record]:
    with _told(f"idle {system}"):
        time.sleep(15)
        shares = footprint.idle_cpu(processes, span_s)
        sizes = footprint.memory(processes())
    yield single(
        system, "idle CPU", 1, sum(shares.values()), f"seconds of CPU a second: {footprint.in_words(shares, '.1%')}"
    )
    megabytes = {name: value / 1e6 for name, value in sizes.items()}
    total = round(sum(megabytes.values()))
    yield Record(system, "idle memory", total, 0.0, 0.0, 0.0, f"n = MB of PSS: {footprint.in_words(megabytes, '.0f')}")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    say(f"{what}: measured in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
