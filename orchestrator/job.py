"""One job of a blueprint: decide, apply, owed.

    pending ─▶ running ─▶ waiting_for_worker | waiting_for_parallel_tasks | waiting_for_human | waiting_for_sub_job
                 ▲  └──▶ awaiting_retry ─┐                      │
                 ├───────────────────────┴──────────────────────┘ ─▶ finished | failed | error | quarantined | cancelled
                 └──────────────────────── released ──────────────────────────────────────────────┘

What a shell does: `revive(events, blueprint)`; then for each command `decide` (or `settle`, for a worker's result),
`apply` each event, make them durable, and see to what `owed` lists. What is asked and owed is defined in
`job_commands.py`, the state and its fold are in `job_state.py`, `owed` in `job_duties.py`; callers import from here.

- A result is answered by task id: the first accepted one wins, the same worker is answered alike for ever, everybody
  else is told why it was ignored. A retry has a new task id, a redelivery keeps it.
- A branch of a parallel state retries like a single task; its last outcome, whatever it is, is a branch result.
- After a cancel nothing is offered or retried any more. The job ends when the last task that is out has been answered,
  and at the latest after the grace period.
- An error that is final leads to `transitions["failure"]` when that is a working state (compensation).

Where the contract is silent: a job that visits more than VISITS_MAX states has status `error`, because a circle of
states without a task would fill the journal; sub-jobs nest DEPTH_MAX deep; a task for which a live worker exists that
is merely busy is not quarantined by the dispatch timeout ("nobody *can* take it"); a result status without transition
is answered `result_accepted_failure` (`result_accepted_success` when it is `success`).
Source: jobs contract, sections 4 (leases) and 5 (state machine), 9, 9a.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import assert_never

import msgspec

from orchestrator import job_events as e
from orchestrator import retry
from orchestrator.blueprint import Approval, Dispatch, Outcome, Parallel, SubBlueprint, Transition
from orchestrator.errors import Conflict, Invalid
from orchestrator.job_commands import (
    Approve,
    Begin,
    Cancel,
    CancelChild,
    Chance,
    ChildEnded,
    ChildRefused,
    Command,
    Deliver,
    Effect,
    Fault,
    MakeVisit,
    Offer,
    Recall,
    Redeliver,
    Release,
    Report,
    Rules,
    Settle,
    StartChild,
    Tick,
    Undeliver,
    Visited,
)
from orchestrator.job_duties import deadline, due_at, next_wake, owed, span, visit
from orchestrator.job_state import (
    CORE_STATES,
    ENDED,
    TRANSITIONS,
    Job,
    Slot,
    Stage,
    Status,
    answer,
    apply,
    revive,
)

__all__ = [
    "CORE_STATES",
    "ENDED",
    "TRANSITIONS",
    "Approve",
    "Begin",
    "Cancel",
    "CancelChild",
    "Chance",
    "ChildEnded",
    "ChildRefused",
    "Command",
    "Deliver",
    "Effect",
    "Fault",
    "Job",
    "MakeVisit",
    "Offer",
    "Recall",
    "Redeliver",
    "Release",
    "Report",
    "Rules",
    "Settle",
    "Stage",
    "StartChild",
    "Status",
    "Tick",
    "Undeliver",
    "Visited",
    "apply",
    "deadline",
    "decide",
    "next_wake",
    "owed",
    "revive",
    "settle",
    "visit",
]

DEPTH_MAX = 16
VISITS_MAX = 10_000
#: longest delay before a retry
BACKOFF_CAP_S = 60.0
MESSAGE_MAX = 4_000
NO_DETAILS = "No error details provided."
#: codes of an error that no retry mends -> status and text of the job's end
_FINAL = {
    "PERMANENT_ERROR": (Status.QUARANTINED, "Task failed with permanent error: {}"),
    "INVALID_INPUT_ERROR": (Status.FAILED, "Task failed: {}"),
    "INTEGRITY_MISMATCH_ERROR": (Status.FAILED, "Task failed: {}"),
}

Events = list[e.AnyJobEvent]
_canonical = msgspec.json.Encoder(order="deterministic")


def decide(job: Job, command: Command, now: datetime, chance: Chance, rules: Rules) -> Events:
    """Events that follow from the command; none when it changes nothing: it is late, or was done before.

    Raises Conflict (Cancel of a job that has ended, Release of one that is not quarantined: the message is its status;
    Approve of one that waits for none; Deliver of a task that does not wait), Invalid (Approve: no such decision).
    """
    match command:
        case Settle():
            return settle(job, command, now, chance, rules)[0]
        case Cancel():
            return _cancel(job, now)
        case Release():
            return _release(job, now)
        case Approve():
            return _approve(job, command, now)
        case Deliver():
            return _deliver(job, command, now)
    if job.ended:
        return []
    match command:
        case Begin():
            return _enter(job, job.blueprint.start, now) if job.status is Status.PENDING else []
        case Visited():
            return _visited(job, command, now, chance, rules)
        case Undeliver() | Redeliver():
            return _take_back(job, command, now, chance, rules)
        case Report():
            return _report(job, command, now)
        case ChildEnded():
            return _child_ended(job, command, now)
        case ChildRefused():
            return [_failed(now, command.error)] if job.child_open and job.child_id == command.child_id else []
        case Tick():
            return _tick(job, command, now, chance, rules)
        case Fault():
            return [e.JobEnded(now, Status.ERROR, Status.ERROR, command.error)]
        case _:
            assert_never(command)


# ── results ───────────────────────────────────────────────────────────────────────────────────────


def settle(job: Job, result: Settle, now: datetime, chance: Chance, rules: Rules) -> tuple[Events, dict[str, str]]:
    """Events that follow from a worker's result, and the body that the worker is answered once they are durable."""
    sent = job.sent.get(result.task_id)
    if sent is None:
        return [], _ignored("worker_mismatch")
    if sent.worker_id == result.worker_id:
        return [], {"status": sent.answer}
    found = job.live(result.task_id)
    cancelling = job.cancel_requested_at is not None
    if found is None or result.worker_id not in sent.holders:
        return [], _ignored("job_cancelled" if cancelling or job.status is Status.CANCELLED else "stale_task")
    if cancelling and result.status != "cancelled":
        return _drop(job, found[1], now), _ignored("job_cancelled")
    body = {"status": answer(job, result.status)}
    if cancelling:
        return [_finished(result, now), *_cancelled(job, found[1], now)], body
    return _accept(job, *found, result, now, chance, rules), body


def _ignored(reason: str) -> dict[str, str]:
    return {"status": "ignored", "reason": reason}


def _finished(result: Settle, now: datetime, retry_at: datetime | None = None) -> e.TaskFinished:
    return e.TaskFinished(
        now,
        result.task_id,
        result.worker_id,
        result.status,
        result.data,
        result.error,
        result.data_metadata,
        retry_at,
    )


def _accept(job: Job, number: int, slot: Slot, result: Settle, now: datetime, chance: Chance, rules: Rules) -> Events:
    final = _finished(result, now)
    if result.status == "failure":
        code, message = _error(result.error)
        if code not in _FINAL:
            retry_at = _retry_at(slot.attempt, now, chance, rules)
            if retry_at is not None:
                return [_finished(result, now, retry_at), *_requeued(number, slot, retry_at, now, chance)]
            return [final, *_over(job, {number}, now, Status.QUARANTINED, _worn_out(slot, message))]
        status, text = _FINAL[code]
        return [final, *_over(job, {number}, now, status, text.format(message))]
    if job.parallel:
        return [final, *_aggregated(job, {number}, now)]
    target = job.transitions.get(result.status)
    if target is not None:
        return [final, *_enter(job, target, now)]
    if result.status == "cancelled":
        return [final, _ended(now, Status.CANCELLED)]
    return [final, _failed(now, f"Worker returned unhandled status: {result.status}")]


def _error(error: object) -> tuple[str, str]:
    """Code and message of an error in any of its forms."""
    if isinstance(error, dict):
        message = error.get("message")
        return str(error.get("code") or ""), str(message) if message not in (None, "") else NO_DETAILS
    return "", str(error) if error not in (None, "") else NO_DETAILS


def _worn_out(slot: Slot, message: str) -> str:
    return f"Task failed after {slot.attempt} attempts: {message}"


def _retry_at(attempt: int, now: datetime, chance: Chance, rules: Rules) -> datetime | None:
    """When it is tried again after its attempt `attempt`; None = never."""
    if not retry.may_retry(attempt, rules.retries_max, permanent=False):
        return None
    return now + retry.delay(rules.retry_backoff_s, BACKOFF_CAP_S, attempt, chance.jitter())


def _requeued(number: int, slot: Slot, retry_at: datetime, now: datetime, chance: Chance) -> Events:
    return [e.TaskQueued(now, chance.task_id(), number, slot.attempt + 1)] if retry_at <= now else []


def _over(job: Job, numbers: Collection[int], now: datetime, status: Status, error: str) -> Events:
    """What follows when no further attempt of these tasks is made, and none succeeded."""
    if job.parallel:
        return _aggregated(job, numbers, now)
    target = job.transitions.get("failure", "")
    if target in job.blueprint.states and job.blueprint.status_at(target) is None:
        return _enter(job, target, now)
    return [e.JobEnded(now, status, status, error)]


def _aggregated(job: Job, numbers: Collection[int], now: datetime) -> Events:
    """On to the aggregator, once all branches but these have their result."""
    if any(slot.stage is not Stage.DONE for n, slot in enumerate(job.slots) if n not in numbers):
        return []
    return _enter(job, job.aggregate_into or "", now)


# ── states ────────────────────────────────────────────────────────────────────────────────────────


def _enter(job: Job, state: str, now: datetime) -> Events:
    """The job goes on in `state`."""
    blueprint = job.blueprint
    status, known = blueprint.status_at(state), blueprint.states.get(state)
    if status is None and known is None:
        return [_failed(now, f"Unknown state '{state}'")]
    if status is not None and (known is None or not (known.code or known.set)):
        return [e.JobEnded(now, status, state)]
    if job.serial >= VISITS_MAX:
        return [e.JobEnded(now, Status.ERROR, Status.ERROR, f"More than {VISITS_MAX} visits of states")]
    return [e.StateStarted(now, state, job.serial + 1)]


def _failed(now: datetime, error: str) -> e.JobEnded:
    return e.JobEnded(now, Status.FAILED, Status.FAILED, error)


def _ended(now: datetime, status: Status) -> e.JobEnded:
    return e.JobEnded(now, status, status)


def _visited(job: Job, command: Visited, now: datetime, chance: Chance, rules: Rules) -> Events:
    if job.status is not Status.RUNNING or command.serial != job.serial:
        return []
    outcome = command.outcome
    if outcome.error is not None:
        return _visit_failed(job, outcome, now, chance, rules)
    end = job.blueprint.status_at(job.state)
    if end is not None:
        if outcome.action is not None:
            return _broke(job, now, f"State '{job.state}' is an end: no action can follow")
        return [_left(job, outcome, now), e.JobEnded(now, end, job.state)]
    if outcome.action is None:
        return _broke(job, now, f"State '{job.state}' made no action")
    return [_left(job, outcome, now), *_act(job, outcome, now, chance)]


def _visit_failed(job: Job, outcome: Outcome, now: datetime, chance: Chance, rules: Rules) -> Events:
    error = outcome.error or ""
    if not outcome.again:
        return _broke(job, now, error)
    tries = job.visit_attempt
    retry_at = _retry_at(tries, now, chance, rules)
    failed = e.StateFailed(now, job.serial, error, retry_at)
    if retry_at is None:
        text = f"Handler of state '{job.state}' failed after {tries} attempts: {error}"
        return [failed, e.JobEnded(now, Status.QUARANTINED, Status.QUARANTINED, text)]
    return [failed, *_visit_again(job, now)] if retry_at <= now else [failed]


def _visit_again(job: Job, now: datetime) -> Events:
    return [e.StateStarted(now, job.state, job.serial + 1, job.visit_attempt + 1)]


def _broke(job: Job, now: datetime, error: str) -> Events:
    return [e.StateFailed(now, job.serial, error), _failed(now, error)]


def _left(job: Job, outcome: Outcome, now: datetime) -> e.StateFinished:
    before, after = job.state_history, outcome.state_history
    changed = {key: value for key, value in after.items() if key not in before or not _same(before[key], value)}
    removed = tuple(key for key in before if key not in after)
    return e.StateFinished(now, job.serial, outcome.action, changed, removed)


def _same(one: object, other: object) -> bool:
    """Equal as JSON: 1 and true are not."""
    return one is other or _canonical.encode(one) == _canonical.encode(other)


def _act(job: Job, outcome: Outcome, now: datetime, chance: Chance) -> Events:
    match outcome.action:
        case Transition():
            return _enter(job, outcome.action.state, now)
        case Dispatch():
            return [e.TaskQueued(now, chance.task_id())]
        case Parallel() as parallel if not parallel.tasks:
            return _enter(job, parallel.aggregate_into, now)
        case Parallel() as parallel:
            return [e.TaskQueued(now, chance.task_id(), number) for number in range(len(parallel.tasks))]
        case SubBlueprint() if job.depth >= DEPTH_MAX:
            return [_failed(now, f"Sub-blueprints are nested more than {DEPTH_MAX} deep")]
        case SubBlueprint():
            return [e.SubJobStarted(now, chance.task_id())]
        case Approval() | None:
            return []
        case _ as never:
            assert_never(never)


# ── humans, sub-jobs, cancel ──────────────────────────────────────────────────────────────────────


def _approve(job: Job, command: Approve, now: datetime) -> Events:
    if job.status is not Status.WAITING_FOR_HUMAN:
        raise Conflict("Job is not in a state that can be approved")
    target = job.transitions.get(command.decision)
    if target is None:
        raise Invalid(f"Invalid decision '{command.decision}' for this job")
    return [e.ApprovalReceived(now, command.decision), *_enter(job, target, now)]


def _child_ended(job: Job, command: ChildEnded, now: datetime) -> Events:
    if not job.child_open or job.child_id != command.child_id:
        return []
    over = e.SubJobEnded(now, command.child_id, command.outcome, command.final_state, command.error)
    if job.cancel_requested_at is not None:
        return [over, _ended(now, Status.CANCELLED)]
    word = "success" if command.outcome == Status.FINISHED else "failure"
    target = job.transitions.get(word)
    if target is not None:
        return [over, *_enter(job, target, now)]
    if word == "success":
        return [over, _failed(now, "Sub-job finished, but 'success' has no transition")]
    return [over, _failed(now, f"Sub-job {command.outcome}: {command.error or NO_DETAILS}")]


def _cancel(job: Job, now: datetime) -> Events:
    if job.ended:
        raise Conflict(job.status)
    if job.cancel_requested_at is not None:
        return []
    asked = e.CancelRequested(now)
    return [asked] if job.leased() or job.child_open else [asked, _ended(now, Status.CANCELLED)]


def _release(job: Job, now: datetime) -> Events:
    if job.status is not Status.QUARANTINED:
        raise Conflict(job.status)
    return [e.JobReleased(now), *_enter(job, job.stopped_in, now)]


def _drop(job: Job, slot: Slot, now: datetime) -> Events:
    """A task of a job that is being cancelled is out no more."""
    dropped = e.TaskGivenUp(now, slot.task_id, "cancelled", "The job was cancelled")
    return [dropped, *_cancelled(job, slot, now)]


def _cancelled(job: Job, apart_from: Slot, now: datetime) -> Events:
    """The end, when no other task is out."""
    return [] if any(slot is not apart_from for slot in job.leased()) else [_ended(now, Status.CANCELLED)]


# ── workers ───────────────────────────────────────────────────────────────────────────────────────


def _deliver(job: Job, command: Deliver, now: datetime) -> Events:
    found = job.live(command.task_id)
    if found is None or found[1].stage is not Stage.QUEUED or job.cancel_requested_at is not None:
        raise Conflict(f"task {command.task_id} does not wait for a worker")
    return [e.TaskDelivered(now, command.task_id, command.worker_id, command.via)]


def _take_back(job: Job, command: Undeliver | Redeliver, now: datetime, chance: Chance, rules: Rules) -> Events:
    found = job.live(command.task_id)
    if found is None or found[1].stage is not Stage.LEASED or command.worker_id not in ("", found[1].worker_id):
        return []
    number, slot = found
    if job.cancel_requested_at is not None:
        return _drop(job, slot, now)
    if isinstance(command, Undeliver):
        return [e.TaskReturned(now, command.task_id)]
    if slot.redeliveries < rules.redeliveries_max:
        return [e.TaskRedelivered(now, command.task_id)]
    why = "Worker lost"
    retry_at = _retry_at(slot.attempt, now, chance, rules)
    lost = e.TaskGivenUp(now, slot.task_id, "lost", why, retry_at)
    if retry_at is None:
        return [lost, *_over(job, {number}, now, Status.QUARANTINED, _worn_out(slot, why))]
    return [lost, *_requeued(number, slot, retry_at, now, chance)]


def _report(job: Job, command: Report, now: datetime) -> Events:
    found = job.live(command.task_id)
    if found is None or command.worker_id not in job.sent[command.task_id].holders:
        return []
    if command.progress != command.progress:  # not a number
        return []
    progress, message = min(1.0, max(0.0, command.progress)), command.message[:MESSAGE_MAX]
    if (progress, message) == (job.progress, job.progress_message):
        return []
    return [e.TaskProgressed(now, command.task_id, progress, message)]


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


def _tick(job: Job, command: Tick, now: datetime, chance: Chance, rules: Rules) -> Events:
    if job.cancel_requested_at is not None:
        over = job.cancel_requested_at + span(rules.cancel_grace_s) <= now
        return [_ended(now, Status.CANCELLED)] if over else []
    if job.retry_at is not None and job.retry_at <= now:
        return _visit_again(job, now)
    out: Events = []
    over_now: set[int] = set()
    verdict = Status.FAILED, ""
    for number, slot in enumerate(job.slots):
        due = due_at(slot, rules)
        if due is None or due > now:
            continue
        if slot.stage is Stage.RETRYING:
            out.append(e.TaskQueued(now, chance.task_id(), number, slot.attempt + 1))
        elif slot.stage is Stage.QUEUED and slot.task_id in command.takers:
            out.append(e.TaskKept(now, slot.task_id))
        else:
            why, verdict = _too_late(slot)
            out.append(e.TaskGivenUp(now, slot.task_id, why, verdict[1]))
            over_now.add(number)
    return [*out, *_over(job, over_now, now, *verdict)] if over_now else out


def _too_late(slot: Slot) -> tuple[str, tuple[Status, str]]:
    if slot.stage is Stage.LEASED:
        return "timed_out", (Status.FAILED, "Worker task timed out.")
    return "no_worker", (Status.QUARANTINED, f"No suitable workers for task type '{slot.spec.type}'")
