"""What may be asked of a run: commands, in the imperative, which `run_decisions.decide` makes events of, or refuses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from orchestrator import events as e
from orchestrator.messages import Note, Report, Value


@dataclass(frozen=True, slots=True)
class Start:
    """Admit the run."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Hand ready tasks (by position) to a worker."""

    positions: tuple[int, ...]
    worker: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Settle:
    """A worker reported the end of an attempt. `jitter` is in [0, 1)."""

    report: Report
    jitter: float


@dataclass(frozen=True, slots=True)
class Recall:
    """The result of an equal task is known: it is that of this one, which may start."""

    task: str
    value: Value
    length: int | None
    cached: e.CachedFrom


@dataclass(frozen=True, slots=True)
class Lose:
    """The worker of an attempt is gone."""

    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The worker never started the attempt."""

    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A running attempt noted a checkpoint or its progress."""

    note: Note


@dataclass(frozen=True, slots=True)
class Pause:
    """Start no further task."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Start tasks again."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the run; what its tasks still do does not count."""


@dataclass(frozen=True, slots=True)
class TimeOut:
    """The run exceeded its own limit."""


@dataclass(frozen=True, slots=True)
class GoIdle:
    """Nobody has posted a checkpoint for too long to a run that its caller drives."""


@dataclass(frozen=True, slots=True)
class Post:
    """Whoever follows the run posts a checkpoint; one that is driven so ends with `run.completed` or `run.failed`."""

    kind: str
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class MissSla:
    """The deadline passed while the run was not over."""

    deadline: datetime


@dataclass(frozen=True, slots=True)
class CheckDeadlines:
    """Look which deadlines have passed; what follows from that."""


@dataclass(frozen=True, slots=True)
class RetryTask:
    """Run a failed task again, and what waited for it."""

    task: str


@dataclass(frozen=True, slots=True)
class RetryFailed:
    """Run every failed or cancelled task again."""


@dataclass(frozen=True, slots=True)
class SkipTask:
    """Let dependents proceed as if the task were done."""

    task: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Reprocess: everything again, under `dag_version`."""

    dag_version: int


Command = (
    Start
    | Begin
    | Settle
    | Recall
    | Lose
    | GiveBack
    | Mark
    | Pause
    | Resume
    | Cancel
    | TimeOut
    | GoIdle
    | Post
    | MissSla
    | CheckDeadlines
    | RetryTask
    | RetryFailed
    | SkipTask
    | Restart
)
