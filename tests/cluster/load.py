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

import httpx

from actors import embedded
from actors.journal import Journal
from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Definition
from orchestrator.rows import History
from tests.dags_api import TERMINAL, Api, fresh, task
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
    journal_url: str

    def marks(self) -> list[Mark]:
        """Every execution so far."""
        return marks_in(self.folder)

    def until_begun(self, number: int, timeout_s: float = 60) -> None:
        """So many executions have begun."""
        until(lambda: len(self.marks()) >= number, timeout_s)

    def until_ended(self, timeout_s: float = 120) -> None:
        """All runs have succeeded; an API that is away meanwhile comes back."""
        deadline = time.monotonic() + timeout_s
        for run_id in self.run_ids:
            until(lambda run_id=run_id: self._state(run_id) in TERMINAL, max(1.0, deadline - time.monotonic()), 0.2)
            assert self._state(run_id) == "success", run_id

    def _state(self, run_id: str) -> str:
        try:
            answer = self.api.get(f"/runs/{run_id}")
        except httpx.TransportError:
            return ""
        return str(answer.json()["state"]) if answer.status_code == 200 else ""

    def check(self) -> dict[tuple[str, str], int]:
        """What the journal holds obeys every rule; (run, task) -> attempt whose result was accepted."""
        accepted: dict[tuple[str, str], int] = {}
        histories, definition = asyncio.run(self._read())
        for found in histories:
            run_id, events = found.row.run_id, check_versions(found.batches)
            history = check_history(events, lambda _: definition)
            check_row(found.row, dict.fromkeys(history.tasks, "d"), history)
            done = [event for event in events if isinstance(event, e.TaskSucceeded)]
            assert sorted(event.task for event in done) == sorted(history.tasks), f"{run_id}: a result twice"
            accepted |= {(run_id, event.task): event.attempt for event in done}
        return accepted

    def requeued(self) -> list[float]:
        """When attempts were given up as lost, and their tasks ready again, seconds since the epoch."""
        histories, _ = asyncio.run(self._read())
        events = [event for found in histories for event in check_versions(found.batches)]
        return [each.at.timestamp() for each in events if isinstance(each, e.TaskRetrying) and each.lost]

    async def _read(self) -> tuple[list[History], Definition]:
        journal = Journal(self.journal_url)
        try:
            histories = await journal.load(self.run_ids)
            row = histories[0].row
            blob = await journal.definition(row.tenant, row.dag_id, row.dag_version)
        finally:
            await journal.close()
        assert blob is not None
        return histories, codec.decode_definition(blob)

    def executions(self) -> dict[tuple[str, str], list[Mark]]:
        """(run, task) -> its executions, in order."""
        found: dict[tuple[str, str], list[Mark]] = defaultdict(list)
        for mark in self.marks():
            found[mark.run_id, mark.task].append(mark)
        return dict(found)


def marks_in(folder: Path) -> list[Mark]:
    """Every execution that left a mark there, in order."""
    file = folder / "marks"
    words = (line.split() for line in file.read_text().splitlines()) if file.exists() else ()
    return [Mark(run_id, name, int(attempt), node, int(pid)) for run_id, name, attempt, node, pid in words]


def begin(server: Server, journal_url: str = "") -> Load:
    """The runs are accepted; the journal is at `journal_url`, or the server's own."""
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
    return Load(
        server,
        api,
        tuple(api.trigger(name)["run_id"] for _ in range(RUNS)),
        folder,
        journal_url or embedded.ensure_running(server.home).url,
    )


def until(holds: Callable[[], bool], timeout_s: float, every_s: float = 0.1) -> float:
    """It holds, after so many seconds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < timeout_s, f"not so after {timeout_s} s"
        time.sleep(every_s)
    return time.monotonic() - start
