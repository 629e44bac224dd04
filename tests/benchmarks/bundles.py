"""How long the first task of a new version waits, and what each one costs: the figures of docs/bundles.md.

    python -m tests.benchmarks.bundles

Both ways start from a version that the node has never seen, and end when its task has returned. Medians of RUNS.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

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


class Actor:
    """What a pool per bundle would start."""

    def version(self) -> str:
        import helper  # type: ignore[import-not-found]  # in the working directory of the actor

        return str(helper.VERSION)


def ray_actors(home: Path) -> float:
    """An actor with a `runtime_env` of its own: until its first call has returned; seconds."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    kind: Any = ray.remote(num_cpus=0)(Actor)

    def first(folder: Path) -> None:
        actor = kind.options(runtime_env={"working_dir": str(folder)}).remote()
        ray.get(actor.version.remote())

    found = []
    for number in range(RUNS + 1):
        folder = home / f"version-{number}"
        folder.mkdir()
        (folder / "helper.py").write_text(f"VERSION = {number}\n")
        found.append(took_s(lambda folder=folder: first(folder)))  # type: ignore[misc]  # a default binds it
    ray.shutdown()
    return statistics.median(found[1:])


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        first_s, each_s = children(home)
        plain_s = in_the_worker(home)
        print(f"child process: first task {first_s:.2f} s, each {(each_s - plain_s) * 1000:.2f} ms more than without")
        print(f"Ray actor with a runtime_env: first call {ray_actors(home):.2f} s")


if __name__ == "__main__":
    main()
