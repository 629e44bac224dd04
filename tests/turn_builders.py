"""Runs in a RunActor's memory, and turns that are taken by hand."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from actors.hosted import HostedBackfill, HostedRun
from actors.mail import Asked
from actors.residents import Residents
from actors.turn import Turn
from orchestrator import events as e
from orchestrator import run as runs
from orchestrator import run_commands
from orchestrator.command import Command, CommandReply
from orchestrator.definition import Definition, TaskSpec
from orchestrator.idempotency import Idempotency
from tests.builders import AT, Watch, a_dag, a_task, created, versions


def _dag(tasks: tuple[str | TaskSpec, ...], **changes: Any) -> Definition:
    return a_dag(*(a_task(it) if isinstance(it, str) else it for it in tasks or ("a", "b")), **changes)


def a_queued_run(run_id: str = "run_1", *tasks: str | TaskSpec, **changes: Any) -> HostedRun:
    """It waits for admission, and belongs to nobody."""
    return HostedRun(runs.fold([created(run_id)], versions(_dag(tasks, **changes))))


def a_run(run_id: str = "run_1", *tasks: str | TaskSpec, **changes: Any) -> HostedRun:
    """It has begun, and is owned here."""
    return HostedRun(runs.fold([created(run_id), e.RunStarted(AT, 1)], versions(_dag(tasks, **changes))), claimed=True)


def a_backfill(windows: int = 2) -> HostedBackfill:
    """Nobody has claimed it yet; its id is `run_b`."""
    return HostedBackfill(Watch(windows).backfill)


class Time:
    """A clock that moves when told to: seconds since AT."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return AT + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return self.passed_s

    def jitter(self) -> float:
        return 0.5


class House:
    """Runs that live somewhere, and what the house has asked for."""

    def __init__(self, *hosted: HostedRun | HostedBackfill, passivate_after_s: float = 60.0) -> None:
        self.time = Time()
        #: reads that were asked for, in order
        self.loads: list[str] = []
        self.welcomed: list[str] = []
        self.left: list[str] = []
        self.busy: set[str] = set()
        self.residents = Residents(
            self.time,  # type: ignore[arg-type]  # the part of it that is asked
            passivate_after_s,
            self.loads.append,
            lambda hosted: self.welcomed.append(hosted.run.run_id),
            self.left.append,
            self.busy.__contains__,
        )
        for each in hosted:
            self.residents.adopt(each)

    def turn(self) -> Turn:
        """One that nobody looks at but the test."""
        return Turn(self.time.now, lambda hosted: None)


def begin(turn: Turn, hosted: HostedRun, task: str, worker: str = "w0") -> None:
    """The task goes to a worker."""
    turn.step(hosted, run_commands.Begin((hosted.run.position(task),), worker, "i1"))


def asked(kind: str, run_id: str = "run_1", key: str = "", **changes: Any) -> Asked:
    """A client's command; call it where a loop runs."""
    idem = Idempotency(key, "f") if key else None
    answer: asyncio.Future[CommandReply] = asyncio.get_running_loop().create_future()
    return Asked(Command(kind=kind, run_id=run_id, idem=idem, **changes), answer)
