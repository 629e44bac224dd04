"""A job in memory: the fold of its events.

    Job ─▶ slots: one per task that its state wants (branches of a parallel state each have one)
    Slot ─▶ queued ⇄ leased ─▶ done | retrying ─▶ queued, with another task id
    Sent    one per task id ever given out: who had it, and what its result was answered

`apply` never refuses and needs no blueprint, so readers fold with it too (`job_fold.py`). Callers import from `job.py`.
Source: jobs contract, sections 4, 5, 9a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator import job_events as e
from orchestrator.blueprint import Approval, Blueprint, Dispatch, Parallel, SubBlueprint
from orchestrator.errors import Broken

#: code of a branch result that is no worker's, by `TaskGivenUp.why`
_CODES = {"timed_out": "TIMEOUT_ERROR", "no_worker": "NO_WORKER", "lost": "WORKER_LOST", "cancelled": "CANCELLED"}


class Status(StrEnum):
    """Where a job is; the words of the contract."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING_FOR_WORKER = "waiting_for_worker"
    WAITING_FOR_HUMAN = "waiting_for_human"
    WAITING_FOR_PARALLEL_TASKS = "waiting_for_parallel_tasks"
    WAITING_FOR_SUB_JOB = "waiting_for_sub_job"
    AWAITING_RETRY = "awaiting_retry"
    FINISHED = "finished"
    FAILED = "failed"
    ERROR = "error"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


_S = Status
ENDED = frozenset({_S.FINISHED, _S.FAILED, _S.ERROR, _S.QUARANTINED, _S.CANCELLED})
#: job status -> core run state, as the job's row has it
CORE_STATES: Mapping[Status, str] = {
    _S.PENDING: "queued",
    _S.RUNNING: "running",
    _S.AWAITING_RETRY: "running",
    _S.WAITING_FOR_WORKER: "waiting",
    _S.WAITING_FOR_HUMAN: "waiting",
    _S.WAITING_FOR_PARALLEL_TASKS: "waiting",
    _S.WAITING_FOR_SUB_JOB: "waiting",
    _S.FINISHED: "succeeded",
    _S.FAILED: "failed",
    _S.ERROR: "failed",
    _S.QUARANTINED: "quarantined",
    _S.CANCELLED: "cancelled",
}
_GOES_ON: frozenset[type[e.JobEvent]] = frozenset({e.StateStarted, e.JobEnded})
#: about a task that is queued already
_ABOUT_TASK = (
    e.TaskDelivered,
    e.TaskReturned,
    e.TaskRedelivered,
    e.TaskKept,
    e.TaskProgressed,
    e.TaskFinished,
    e.TaskGivenUp,
)
_OF_TASKS: frozenset[type[e.JobEvent]] = _GOES_ON | {e.TaskQueued, *_ABOUT_TASK, e.CancelRequested}
#: status -> events that can happen in it; what a batch leads through counts
TRANSITIONS: Mapping[Status, frozenset[type[e.JobEvent]]] = {
    _S.PENDING: _GOES_ON | {e.CancelRequested},
    _S.RUNNING: _GOES_ON | {e.StateFinished, e.StateFailed, e.CancelRequested},
    _S.WAITING_FOR_WORKER: _OF_TASKS,
    _S.WAITING_FOR_PARALLEL_TASKS: _OF_TASKS,
    _S.WAITING_FOR_HUMAN: _GOES_ON | {e.ApprovalReceived, e.CancelRequested},
    _S.WAITING_FOR_SUB_JOB: _GOES_ON | {e.SubJobStarted, e.SubJobEnded, e.CancelRequested},
    _S.AWAITING_RETRY: _GOES_ON | {e.TaskQueued, e.CancelRequested},
    **{status: frozenset() for status in ENDED},
    _S.QUARANTINED: frozenset({e.JobReleased}),
}


class Stage(StrEnum):
    """Where a task that a state wants is."""

    #: not queued yet: between two events of one batch
    NEW = "new"
    QUEUED = "queued"
    LEASED = "leased"
    RETRYING = "retrying"
    DONE = "done"


LIVE = frozenset({Stage.QUEUED, Stage.LEASED})


@dataclass(slots=True)
class Slot:
    """A task that the present state wants, and its current attempt."""

    spec: Dispatch
    stage: Stage = Stage.NEW
    #: of the current attempt, or of the last one
    task_id: str = ""
    attempt: int = 0
    redeliveries: int = 0
    #: since when this attempt is there
    since: datetime | None = None
    #: since when nobody has taken it
    waits_since: datetime | None = None
    #: who has the lease, and since when
    worker_id: str | None = None
    delivered_at: datetime | None = None
    #: as in the command Deliver
    via: str = ""
    retry_at: datetime | None = None


@dataclass(slots=True)
class Sent:
    """A task id that was given out."""

    slot: int
    attempt: int
    #: every worker that ever had it: the first result of any of them counts
    holders: set[str] = field(default_factory=set)
    #: whose result was accepted, and how that was answered
    worker_id: str | None = None
    answer: str = ""


class Job:
    """A job in memory; `apply` changes it in place, and nothing else does."""

    __slots__ = (
        "_blueprint",
        "aggregate_into",
        "aggregation_results",
        "blueprint_name",
        "blueprint_version",
        "cancel_requested_at",
        "child_id",
        "child_open",
        "client",
        "created_at",
        "data_metadata",
        "depth",
        "error",
        "finished_at",
        "initial_data",
        "job_id",
        "parent_job_id",
        "progress",
        "progress_message",
        "recalled",
        "releases",
        "retry_at",
        "retry_count",
        "sent",
        "serial",
        "slots",
        "started_at",
        "state",
        "state_history",
        "status",
        "stopped_in",
        "sub",
        "tenant",
        "transitions",
        "updated_at",
        "version",
        "visit_attempt",
        "webhook_url",
    )

    def __init__(self, created: e.JobCreated, blueprint: Blueprint | None) -> None:
        self._blueprint = blueprint
        self.job_id = created.job_id
        self.tenant = created.tenant
        self.blueprint_name = created.blueprint
        self.blueprint_version = created.version
        self.initial_data = created.initial_data
        self.webhook_url = created.webhook_url
        self.client = created.client
        self.parent_job_id = created.parent_job_id
        self.depth = created.depth
        self.version = 1
        self.status = Status.PENDING
        #: the state it is in, the start state before it begins
        self.state = created.state or (blueprint.start if blueprint is not None else "")
        self.state_history: dict[str, Any] = {}
        #: of the last visit, and which try of it that is
        self.serial = 0
        self.visit_attempt = 0
        #: when a failed visit is made again
        self.retry_at: datetime | None = None
        self.slots: list[Slot] = []
        #: not None: the slots are branches
        self.aggregate_into: str | None = None
        self.aggregation_results: dict[str, Any] = {}
        #: result status, decision or outcome -> state
        self.transitions: dict[str, str] = {}
        self.sub: SubBlueprint | None = None
        #: the last sub-job
        self.child_id: str | None = None
        self.child_open = False
        self.sent: dict[str, Sent] = {}
        #: task id -> worker that had it when its result stopped mattering
        self.recalled: dict[str, str] = {}
        self.retry_count = 0
        self.progress = 0.0
        self.progress_message = ""
        self.data_metadata: dict[str, Any] = {}
        self.cancel_requested_at: datetime | None = None
        self.error: str | None = None
        #: the state before the end, and how often the job went on after it
        self.stopped_in = ""
        self.releases = 0
        self.created_at = self.updated_at = created.at
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None

    @property
    def blueprint(self) -> Blueprint:
        """What it is a job of. Raises Broken for a job that was folded only to be shown."""
        if self._blueprint is None:
            raise Broken(f"job {self.job_id} was read without its blueprint")
        return self._blueprint

    @property
    def ended(self) -> bool:
        """Is it terminal?"""
        return self.status in ENDED

    @property
    def parallel(self) -> bool:
        """Are its slots branches?"""
        return self.aggregate_into is not None

    @property
    def current(self) -> Slot | None:
        """The task it waits for, when that is a single one."""
        return self.slots[0] if self.slots and not self.parallel else None

    def live(self, task_id: str) -> tuple[int, Slot] | None:
        """The slot whose current attempt that is, with its number; None when the attempt is over."""
        sent = self.sent.get(task_id)
        if sent is None or self.ended or sent.slot >= len(self.slots):
            return None
        slot = self.slots[sent.slot]
        return (sent.slot, slot) if slot.task_id == task_id and slot.stage in LIVE else None

    def leased(self) -> list[Slot]:
        """Tasks that are out at a worker."""
        return [slot for slot in self.slots if slot.stage is Stage.LEASED] if not self.ended else []


def revive(events: Sequence[e.AnyJobEvent], blueprint: Blueprint | None) -> Job:
    """The job that these events, from its first, make. Raises Broken when they do not begin one."""
    if not events or not isinstance(events[0], e.JobCreated):
        raise Broken("the events of a job do not begin with its creation")
    job = Job(events[0], blueprint)
    for event in events[1:]:
        apply(job, event)
    return job


# ── apply ─────────────────────────────────────────────────────────────────────────────────────────


def apply(job: Job, event: e.JobEvent) -> None:
    """The event has happened. Never refuses."""
    job.version += 1
    job.updated_at = event.at
    match event:
        case e.StateStarted():
            _start_state(job, event)
        case e.StateFinished():
            _finish_state(job, event)
        case e.StateFailed():
            if event.retry_at is not None:
                job.status, job.retry_at = Status.AWAITING_RETRY, event.retry_at
                job.retry_count = job.visit_attempt
        case e.SubJobStarted():
            job.child_id, job.child_open = event.child_id, True
        case e.SubJobEnded():
            job.child_open = False
            result = {"outcome": event.outcome, "final_state": event.final_state, "error_message": event.error}
            job.state_history = job.state_history | {f"sub_job_{event.child_id}_result": result}
        case e.CancelRequested():
            job.cancel_requested_at = event.at
        case e.JobEnded():
            _end(job, event)
        case e.JobReleased():
            job.status, job.state, job.releases = Status.RUNNING, job.stopped_in, job.releases + 1
            job.error = job.finished_at = None
        case _:
            _apply_to_task(job, event)


def _start_state(job: Job, event: e.StateStarted) -> None:
    if job.started_at is None:
        job.started_at = event.at
    job.status, job.state = Status.RUNNING, event.state
    job.serial, job.visit_attempt, job.retry_at = event.serial, event.attempt, None
    if event.attempt == 1:
        job.retry_count = 0
    _clear(job)


def _clear(job: Job) -> None:
    job.slots, job.aggregate_into, job.transitions, job.sub = [], None, {}, None


def _finish_state(job: Job, event: e.StateFinished) -> None:
    if event.changed or event.removed:
        kept = {key: value for key, value in job.state_history.items() if key not in event.removed}
        job.state_history = kept | event.changed
    match event.action:
        case Dispatch():
            job.status, job.slots, job.transitions = (
                _S.WAITING_FOR_WORKER,
                [Slot(event.action)],
                event.action.transitions,
            )
            job.retry_count, job.progress, job.progress_message = 0, 0.0, ""
        case Parallel():
            job.status, job.aggregate_into = _S.WAITING_FOR_PARALLEL_TASKS, event.action.aggregate_into
            job.slots, job.aggregation_results = [Slot(task) for task in event.action.tasks], {}
            job.retry_count, job.progress, job.progress_message = 0, 0.0, ""
        case Approval():
            job.status, job.transitions = _S.WAITING_FOR_HUMAN, event.action.transitions
        case SubBlueprint():
            job.status, job.transitions, job.sub = _S.WAITING_FOR_SUB_JOB, event.action.transitions, event.action


def _end(job: Job, event: e.JobEnded) -> None:
    for slot in job.leased():
        job.recalled[slot.task_id] = slot.worker_id or ""
    job.stopped_in = job.state
    job.status, job.state, job.error = Status(event.status), event.state, event.error
    job.finished_at, job.retry_at, job.child_open = event.at, None, False
    _clear(job)


def _apply_to_task(job: Job, event: e.JobEvent) -> None:
    if isinstance(event, e.TaskQueued):
        job.slots[event.slot] = Slot(
            job.slots[event.slot].spec, Stage.QUEUED, event.task_id, event.attempt, since=event.at, waits_since=event.at
        )
        job.sent[event.task_id] = Sent(event.slot, event.attempt)
        job.retry_count = max(slot.attempt for slot in job.slots) - 1
        job.status = job.status if job.parallel else Status.WAITING_FOR_WORKER
        return
    if not isinstance(event, _ABOUT_TASK):
        return
    sent = job.sent[event.task_id]
    slot = job.slots[sent.slot]
    match event:
        case e.TaskDelivered():
            slot.stage, slot.worker_id, slot.delivered_at = Stage.LEASED, event.worker_id, event.at
            slot.via = event.via
            sent.holders.add(event.worker_id)
        case e.TaskReturned() | e.TaskRedelivered():
            slot.redeliveries += isinstance(event, e.TaskRedelivered)
            slot.stage, slot.worker_id, slot.delivered_at, slot.waits_since = Stage.QUEUED, None, None, event.at
        case e.TaskKept():
            slot.waits_since = event.at
        case e.TaskProgressed():
            job.progress, job.progress_message = event.progress, event.message
        case e.TaskFinished():
            _take_result(job, event, sent, slot)
        case e.TaskGivenUp():
            if slot.worker_id is not None and event.why in ("timed_out", "cancelled"):
                job.recalled[event.task_id] = slot.worker_id
            outcome = "cancelled" if event.why == "cancelled" else "failure"
            error = {"code": _CODES[event.why], "message": event.error}
            _leave(job, slot, event.retry_at, {"status": outcome, "data": None, "error": error})


def _take_result(job: Job, event: e.TaskFinished, sent: Sent, slot: Slot) -> None:
    sent.worker_id, sent.answer = event.worker_id, answer(job, event.status)
    if slot.worker_id is not None and slot.worker_id != event.worker_id:
        job.recalled[event.task_id] = slot.worker_id
    if isinstance(event.data_metadata, dict):
        job.data_metadata = job.data_metadata | event.data_metadata
    leads_on = event.status in job.transitions and event.status not in ("failure", "cancelled")
    if leads_on and isinstance(event.data, dict):
        job.state_history = job.state_history | event.data
    _leave(job, slot, event.retry_at, {"status": event.status, "data": event.data, "error": event.error})


def answer(job: Job, status: str) -> str:
    """The word for an accepted result of that status."""
    if job.parallel:
        return "parallel_branch_result_accepted"
    if status == "cancelled":
        return "result_accepted_cancelled"
    good = status == "success" or (status in job.transitions and status != "failure")
    return "result_accepted_success" if good else "result_accepted_failure"


def _leave(job: Job, slot: Slot, retry_at: datetime | None, result: dict[str, Any]) -> None:
    slot.worker_id = slot.delivered_at = None
    if retry_at is not None:
        slot.stage, slot.retry_at = Stage.RETRYING, retry_at
        if not job.parallel:
            job.status, job.retry_count = Status.AWAITING_RETRY, slot.attempt
        return
    slot.stage = Stage.DONE
    if job.parallel:
        job.aggregation_results[slot.task_id] = result
