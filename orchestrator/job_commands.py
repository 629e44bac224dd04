"""What can be asked of a job, what it then owes the world, and the settings by which it decides.

Callers import all of it from `job.py`. Source: jobs contract, sections 4, 5 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from orchestrator.blueprint import Outcome, Visit


class Chance(Protocol):
    """What a decision needs that only the world has."""

    def task_id(self) -> str:
        """A new uuid4."""

    def jitter(self) -> float:
        """A share in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide (jobs contract, section 8). Seconds."""

    retries_max: int = 3
    retry_backoff_s: float = 1.0
    redeliveries_max: int = 3
    dispatch_timeout_s: float = 300.0
    cancel_grace_s: float = 30.0
    #: default of `timeout_seconds`
    worker_timeout_s: float = 300.0


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Begin:
    """The engine has room for it: the start state is visited."""


@dataclass(frozen=True, slots=True)
class Visited:
    """What the visit `serial` came to."""

    serial: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Deliver:
    """The task is handed to a worker: leased. Refused unless it waits for one."""

    task_id: str
    worker_id: str
    #: the call whose answer it is, in the dispatcher's words: who crashes before the answer may have to repeat it
    via: str = ""


@dataclass(frozen=True, slots=True)
class Undeliver:
    """The worker never got it (its connection was lost before the answer was written): queued, not counted.

    Nothing happens unless `worker_id` has it; "" = whoever has it.
    """

    task_id: str
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class Redeliver:
    """The lease lapsed, or the delivery was lost: queued again under the same id, counted. `worker_id` as above."""

    task_id: str
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """A worker's result. `error` as it came: text, object {code, message, …} or None."""

    task_id: str
    worker_id: str
    status: str
    data: Any = None
    error: Any = None
    data_metadata: Any = None


@dataclass(frozen=True, slots=True)
class Report:
    """Progress of a task, 0..1."""

    task_id: str
    worker_id: str
    progress: float
    message: str


@dataclass(frozen=True, slots=True)
class Approve:
    """A human's decision."""

    decision: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client, or the parent job, wants it to end."""


@dataclass(frozen=True, slots=True)
class Release:
    """Somebody has mended what a quarantined job failed at: the state in which it stopped is visited again."""


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The sub-job is terminal."""

    child_id: str
    #: job status
    outcome: str
    final_state: str
    error: str | None


@dataclass(frozen=True, slots=True)
class ChildRefused:
    """The sub-job cannot be made, for instance because no blueprint has that name: the job fails with `error`."""

    child_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Some instant of `next_wake` has come."""

    #: ids of waiting tasks that some live worker can do, were it free: they go on waiting beyond the dispatch timeout
    takers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fault:
    """The engine cannot go on with it, for instance because its blueprint is lost: status `error`."""

    error: str


Command = (
    Begin
    | Visited
    | Deliver
    | Undeliver
    | Redeliver
    | Settle
    | Report
    | Approve
    | Cancel
    | Release
    | ChildEnded
    | ChildRefused
    | Tick
    | Fault
)

# ── effects: what a job owes ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class MakeVisit:
    """Visit the state and answer `Visited`."""

    visit: Visit


@dataclass(frozen=True, slots=True)
class Offer:
    """The task waits for a worker."""

    task_id: str
    type: str
    priority: float
    #: since when it waits
    since: datetime
    dispatch_strategy: str
    resource_requirements: dict[str, Any] | None
    max_cost: float | None


@dataclass(frozen=True, slots=True)
class Recall:
    """The worker should stop the task: by its socket, and in its next heartbeats until it has answered.

    Also of a job that has ended. The same ones are listed again and again: those that were not listed before are new.
    """

    task_id: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class StartChild:
    """A job of that blueprint, under this id: to be made unless it exists; if it has ended, `ChildEnded` is due."""

    child_id: str
    blueprint: str
    initial_data: dict[str, Any]
    #: for its JobCreated
    depth: int


@dataclass(frozen=True, slots=True)
class CancelChild:
    """The sub-job is to end too: best in the same turn, so that both end in one commit when no task is out."""

    child_id: str


Effect = MakeVisit | Offer | Recall | StartChild | CancelChild
