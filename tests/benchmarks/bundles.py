"""How long the first task of a new version waits, and what each one costs: the figures of docs/bundles.md.

    python -m tests.benchmarks.bundles

A version is one that the node has never seen, and its first task ends when it has returned. Medians of RUNS.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from actors.artifacts import Artifacts
from actors.attempt import LiveAttempt
from actors.bundle_processes import BundleProcesses
from actors.entrypoints import Entrypoints
from actors.executor import Executor
from actors.settings import Settings
from tests.bundle_builders import assignment, context, kept
from tests.worker_builders import FakeLogs, FakeNotes

RUNS = 5
TASKS = 2000


def took_s(call: Callable[[], object]) -> float:
    """Seconds that the call takes."""
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def children(home: Path) -> tuple[float, float]:
    """Child process per bundle: first task of a version, each further one; seconds."""
    settings = Settings(home=str(home), journal_url="redis://127.0.0.1:1")
    processes = BundleProcesses(settings, FakeNotes())
    task = assignment("later")
    names = [kept(home, f"version {number}") for number in range(RUNS)]
    first = [took_s(lambda name=name: processes.run(task, context(name), LiveAttempt())) for name in names]  # type: ignore[misc]  # a default binds it
    run = context(names[-1])
    each_s = took_s(lambda: [processes.run(task, run, LiveAttempt()) for _ in range(TASKS)]) / TASKS
    processes.end()
    return statistics.median(first), each_s


def in_the_worker(home: Path) -> float:
    """The same task without a bundle; seconds each."""
    executor = Executor(
        artifacts=Artifacts(home / "artifacts"),
        entrypoints=Entrypoints((str(home / "bundles" / "unpacked" / kept(home, "version 0")),)),
        logs=FakeLogs(),
        notes=FakeNotes(),
        http_allow="",
    )
    task, run = assignment("later"), context("")
    executor.run(task, run, LiveAttempt())
    return took_s(lambda: [executor.run(task, run, LiveAttempt()) for _ in range(TASKS)]) / TASKS


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        first_s, each_s = children(home)
        plain_s = in_the_worker(home)
        print(f"child process: first task {first_s:.2f} s, each {(each_s - plain_s) * 1000:.2f} ms more than without")


if __name__ == "__main__":
    main()
