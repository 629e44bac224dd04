"""Work for the cluster's tests, and what is checked of it afterwards: the journal's events, and the marks of the code.

200 tasks in 50 runs, each `a -> b, c -> d`, of 50 to 300 ms; with a seed, so that every test has the same.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors import embedded
from actors.journal import Journal
from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Definition
from tests.dags_api import Api, fresh, task
from tests.invariants import check_history, check_row, check_versions
from tests.live import Server

RUNS, TASKS = 50, 200
SEED = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """One execution, as the user code saw it."""

    run_id: str
    task: str
    attempt: int
    node_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class Load:
    """Runs that go on, and the folder where their tasks leave marks."""

    server: Server
    api: Api
    run_ids: tuple[str, ...]
    folder: Path

    def marks(self) -> list[Mark]:
        """Every execution so far."""
        file = self.folder / "marks"
        words = (line.split() for line in file.read_text().splitlines()) if file.exists() else ()
        return [Mark(run_id, name, int(attempt), node, int(pid)) for run_id, name, attempt, node, pid in words]

    def until_begun(self, number: int, timeout_s: float = 60) -> None:
        """So many executions have begun."""
        until(lambda: len(self.marks()) >= number, timeout_s)

    def until_ended(self, timeout_s: float = 120) -> None:
        """All runs have succeeded."""
        deadline = time.monotonic() + timeout_s
        for run_id in self.run_ids:
            run = self.api.wait(run_id, timeout_s=max(1.0, deadline - time.monotonic()), every_s=0.2)
            assert run["state"] == "success", run

    def check(self) -> dict[tuple[str, str], int]:
        """What the journal holds obeys every rule; (run, task) -> attempt whose result was accepted."""
        return asyncio.run(self._check())

    async def _check(self) -> dict[tuple[str, str], int]:
        journal = Journal(embedded.ensure_running(self.server.home).url)
        accepted: dict[tuple[str, str], int] = {}
        try:
            for found in await journal.load(self.run_ids):
                row = found.row
                blob = await journal.definition(row.tenant, row.dag_id, row.dag_version)
                assert blob is not None
                definition = codec.decode_definition(blob)
                events = check_versions(found.batches)
                history = check_history(events, _always(definition))
                letters = dict.fromkeys(history.tasks, "d") if row.state == "succeeded" else {}
                check_row(row, letters, history)
                done = [event for event in events if isinstance(event, e.TaskSucceeded)]
                assert sorted(event.task for event in done) == sorted(history.tasks), f"{row.run_id}: a result twice"
                accepted |= {(row.run_id, event.task): event.attempt for event in done}
        finally:
            await journal.close()
        return accepted

    def executions(self) -> dict[tuple[str, str], list[Mark]]:
        """(run, task) -> its executions, in order."""
        found: dict[tuple[str, str], list[Mark]] = defaultdict(list)
        for mark in self.marks():
            found[mark.run_id, mark.task].append(mark)
        return dict(found)


def begin(server: Server) -> Load:
    """The runs are accepted."""
    api, name = server.api(), fresh("load")
    folder = Path(tempfile.mkdtemp(prefix="marks-", dir=server.home))
    chance = random.Random(SEED)
    lasting = [{"folder": str(folder), "seconds": round(chance.uniform(0.05, 0.3), 3)} for _ in range(TASKS // RUNS)]
    needs = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    tasks = [
        task(each, *needs[each], entrypoint="marking_tasks:mark", params=params)
        for each, params in zip(needs, lasting, strict=True)
    ]
    api.define(name, *tasks, max_active_runs=RUNS)
    return Load(server, api, tuple(api.trigger(name)["run_id"] for _ in range(RUNS)), folder)


def until(holds: Callable[[], bool], timeout_s: float, every_s: float = 0.1) -> float:
    """It holds, after so many seconds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < timeout_s, f"not so after {timeout_s} s"
        time.sleep(every_s)
    return time.monotonic() - start


def _always(definition: Definition) -> Callable[[int], Definition]:
    return lambda _version: definition
