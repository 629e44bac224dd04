"""What can happen to a job: a closed set of its own, under the rules of `events.py`.

One event is at most one line of the job's history (`job_fold.py`), so the place of an event in the stream, its version,
names that line. Everything a reader needs is in here: whoever folds a job needs no blueprint.
Source: jobs contract, sections 1 (history), 4 and 5.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from orchestrator.blueprint import Action

#: version of the meaning of the events below, written beside each batch
SCHEMA = 1


class JobEvent(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Anything that happened to a job. `at` is when it was decided, UTC."""

    at: datetime


class JobCreated(JobEvent, frozen=True, tag="job_created"):
    """A job exists, and waits for room to begin. It is pinned to this version of its blueprint."""

    job_id: str
    tenant: str
    blueprint: str
    version: int
    initial_data: dict[str, Any] = {}
    webhook_url: str | None = None
    #: {"name", "plan"}
    client: dict[str, Any] = {}
    parent_job_id: str | None = None
    #: how many jobs are above it
    depth: int = 0
    #: its start state
    state: str = ""


class StateStarted(JobEvent, frozen=True, tag="state_started"):
    """A visit of `state` is to be made, numbered `serial`; `attempt` counts the tries of that visit from 1."""

    state: str
    serial: int
    attempt: int = 1


class StateFinished(JobEvent, frozen=True, tag="state_finished"):
    """The visit came to `action` (None in an end state), and wrote `changed` into the state history."""

    serial: int
    action: Action | None = None
    changed: dict[str, Any] = {}
    removed: tuple[str, ...] = ()


class StateFailed(JobEvent, frozen=True, tag="state_failed"):
    """The visit came to nothing. It is made again at `retry_at`; None = never."""

    serial: int
    error: str
    retry_at: datetime | None = None


class TaskQueued(JobEvent, frozen=True, tag="task_queued"):
    """Attempt `attempt` of the task waits for a worker, under its own id; `slot` is its place among the branches."""

    task_id: str
    slot: int = 0
    attempt: int = 1


class TaskDelivered(JobEvent, frozen=True, tag="task_delivered"):
    """The task is leased to the worker; its time runs. `via`: as in the command Deliver."""

    task_id: str
    worker_id: str
    via: str = ""


class TaskReturned(JobEvent, frozen=True, tag="task_returned"):
    """The worker never got it: queued as if nothing had been."""

    task_id: str


class TaskRedelivered(JobEvent, frozen=True, tag="task_redelivered"):
    """The worker is gone, or lost it: queued again under the same id."""

    task_id: str


class TaskKept(JobEvent, frozen=True, tag="task_kept"):
    """Nobody took it within the dispatch timeout, but somebody who is busy can: it goes on waiting."""

    task_id: str


class TaskProgressed(JobEvent, frozen=True, tag="task_progressed"):
    """The worker told how far it is: 0..1, and a text."""

    task_id: str
    progress: float
    message: str = ""


class TaskFinished(JobEvent, frozen=True, tag="task_finished"):
    """The worker's result was accepted. The task is tried again at `retry_at`; None = that was its last attempt."""

    task_id: str
    worker_id: str
    status: str
    data: Any = None
    error: Any = None
    data_metadata: Any = None
    retry_at: datetime | None = None


class TaskGivenUp(JobEvent, frozen=True, tag="task_given_up"):
    """No result of the attempt will be accepted any more. `retry_at` as in TaskFinished."""

    task_id: str
    #: lost | timed_out | no_worker | cancelled
    why: str
    error: str = ""
    retry_at: datetime | None = None


class SubJobStarted(JobEvent, frozen=True, tag="sub_job_started"):
    """The job waits for the end of another one."""

    child_id: str


class SubJobEnded(JobEvent, frozen=True, tag="sub_job_ended"):
    """The sub-job is terminal: `outcome` is its status, `final_state` its last state."""

    child_id: str
    outcome: str
    final_state: str
    error: str | None = None


class ApprovalReceived(JobEvent, frozen=True, tag="approval_received"):
    """Somebody has decided."""

    decision: str


class CancelRequested(JobEvent, frozen=True, tag="cancel_requested"):
    """Nothing new is begun; the job ends once the workers and sub-jobs it waits for have, or after the grace period."""


class JobEnded(JobEvent, frozen=True, tag="job_ended"):
    """Terminal."""

    #: finished | failed | error | quarantined | cancelled
    status: str
    #: the end state
    state: str
    error: str | None = None


class JobReleased(JobEvent, frozen=True, tag="job_released"):
    """A quarantined job goes on, in the state in which it stopped."""


#: the union the codec decodes into
AnyJobEvent = (
    JobCreated
    | StateStarted
    | StateFinished
    | StateFailed
    | TaskQueued
    | TaskDelivered
    | TaskReturned
    | TaskRedelivered
    | TaskKept
    | TaskProgressed
    | TaskFinished
    | TaskGivenUp
    | SubJobStarted
    | SubJobEnded
    | ApprovalReceived
    | CancelRequested
    | JobEnded
    | JobReleased
)
