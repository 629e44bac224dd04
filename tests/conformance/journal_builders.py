"""Steps for the journal's tests; everything that is not under test has a default."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Window
from orchestrator.ids import run_id
from orchestrator.ports import Journal
from orchestrator.steps import Append, Commit, Creation, Fire, NewBackfill, NewRun, NewWindow, PutDag

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW_MS = int(AT.timestamp() * 1000)
_numbers = itertools.count(1)


def new_id() -> str:
    return run_id(NOW_MS, 0, next(_numbers))


def created(run: str, dag_id: str, run_type: str, window: Window | None, parent: str | None = None) -> bytes:
    return codec.encode_events([e.RunCreated(AT, run, "t", dag_id, 1, run_type, window, {}, parent)])


def restarted(version: int = 1) -> bytes:
    return codec.encode_events([e.RunRestarted(AT, version)])


def new_run(day: str | None = None, *, dag_id: str = "d", **changes: Any) -> NewRun:
    run = changes.pop("run_id", None) or new_id()
    window = Window(day, day) if day else None
    run_type = changes.get("run_type", "manual")
    values: dict[str, Any] = {
        "run_id": run,
        "tenant": "t",
        "dag_id": dag_id,
        "dag_version": 1,
        "run_type": run_type,
        "created_ms": NOW_MS,
        "event": created(run, dag_id, run_type, window),
        "window_key": window.key() if window else "",
    }
    if changes.get("reprocess", "none") != "none":
        values |= {"restart_event": restarted(), "restart_version": 1}
    return NewRun(**(values | changes))


def days(n: int) -> list[str]:
    return [f"2025-{1 + i // 28:02d}-{1 + i % 28:02d}" if i < 336 else f"{3000 + i}-01-01" for i in range(n)]


def new_backfill(windows: list[NewWindow], key: str = "2025-01-01/2025-12-31", **changes: Any) -> NewBackfill:
    run = changes.pop("run_id", None) or new_id()
    start, _, end = key.partition("/")
    skipped = sum(w.action == "skip" for w in windows)
    event = e.BackfillCreated(AT, run, "t", "d", 1, Window(start, end), len(windows), skipped)
    values: dict[str, Any] = {
        "run_id": run,
        "tenant": "t",
        "dag_id": "d",
        "dag_version": 1,
        "window_key": key,
        "created_ms": NOW_MS,
        "event": codec.encode_events([event]),
        "windows": tuple(windows),
    }
    return NewBackfill(**(values | changes))


def create_windows(names: list[str], parent: str = "run_b") -> list[NewWindow]:
    made = []
    for name in names:
        run = new_id()
        window = Window(name, name)
        made.append(
            NewWindow(
                window_key=window.key(),
                run_id=run,
                action="create",
                event=created(run, "d", "manual", window, parent),
            )
        )
    return made


def put(dag_id: str = "d", **changes: Any) -> PutDag:
    values: dict[str, Any] = {
        "tenant": "t",
        "dag_id": dag_id,
        "definition": b'{"dag_id":"d"}',
        "content_hash": "h1",
        "owner": "team",
        "now_ms": NOW_MS,
        "base_version": 0,
    }
    return PutDag(**(values | changes))


def a_fire(scheduler: Owner, expected_ms: int, **changes: Any) -> Fire:
    values: dict[str, Any] = {"tenant": "t", "dag_id": "d", "scheduler_epoch": scheduler.epoch, "next_ms": 0}
    return Fire(expected_ms=expected_ms, **(values | changes))


def progress(n: int = 1) -> bytes:
    return codec.encode_events([e.TaskStarted(AT, "a", i + 1, "w") for i in range(n)])


def append(run: str, expected: int, count: int = 1, **changes: Any) -> Append:
    return Append(run_id=run, expected=expected, count=count, events=progress(count) if count else b"", **changes)


class Owner:
    """An owner that numbers its turns."""

    def __init__(self, journal: Journal, name: str = "actor-1") -> None:
        self.journal = journal
        self.name = name
        self.epoch = 0
        self.turn = 0

    async def start(self) -> Owner:
        self.epoch, self.turn = await self.journal.take_epoch(self.name), 0
        return self

    def step(self, *appends: Append, **changes: Any) -> Commit:
        self.turn += 1
        return Commit(owner=self.name, epoch=self.epoch, turn=self.turn, appends=appends, **changes)

    async def commit(self, *appends: Append, **changes: Any) -> list[str]:
        """What became of each append."""
        return [result.status for result in await self.journal.commit(self.step(*appends, **changes))]


async def create(journal: Journal, *runs: NewRun) -> list[str]:
    """Ids of these runs, under DAG `d`, which is made when it does not exist."""
    if await journal.dag("t", runs[0].dag_id) is None:
        await journal.put_dag(put(runs[0].dag_id))
    [result] = await journal.create_runs([Creation(runs)])
    assert result.status == "ok"
    return [run.run_id for run in result.runs]
