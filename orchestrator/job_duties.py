"""What a job owes the world as it stands, and when it must be looked at again.

Callers import from `job.py`. Source: jobs contract, sections 4, 5, 9a.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.blueprint import Visit
from orchestrator.errors import Broken
from orchestrator.job_commands import CancelChild, Effect, MakeVisit, Offer, Recall, Rules, StartChild
from orchestrator.job_state import Job, Slot, Stage, Status

#: beyond any timeout that makes sense, and within what datetime can add
_LONGEST_S = 366 * 86_400.0


def owed(job: Job) -> list[Effect]:
    """All that is to be done for it as it stands: after a restart, and after each step.

    A pending job waits for `Begin`, one that waits for a human for `Approve`. One that has ended owes recalls only.
    """
    out: list[Effect] = [Recall(task_id, worker_id) for task_id, worker_id in job.recalled.items()]
    if job.ended:
        return out
    if job.cancel_requested_at is not None:
        out += [Recall(slot.task_id, slot.worker_id or "") for slot in job.leased()]
        return [*out, CancelChild(job.child_id or "")] if job.child_open else out
    if job.status is Status.RUNNING:
        out.append(MakeVisit(visit(job)))
    out += [_offer(slot) for slot in job.slots if slot.stage is Stage.QUEUED]
    if job.child_open and job.sub is not None:
        out.append(StartChild(job.child_id or "", job.sub.name, job.sub.initial_data, job.depth + 1))
    return out


def visit(job: Job) -> Visit:
    """The visit that a running job waits for."""
    return Visit(
        job_id=job.job_id,
        blueprint=job.blueprint_name,
        version=job.blueprint_version,
        state=job.state,
        serial=job.serial,
        initial_data=job.initial_data,
        state_history=job.state_history,
        client=job.client,
        aggregation_results=job.aggregation_results,
        webhook_url=job.webhook_url,
    )


def _offer(slot: Slot) -> Offer:
    spec = slot.spec
    return Offer(
        slot.task_id,
        spec.type,
        spec.priority,
        _known(slot.since),
        spec.dispatch_strategy,
        spec.resource_requirements,
        spec.max_cost,
    )


def _known(at: datetime | None) -> datetime:
    if at is None:
        raise Broken("a task has no beginning")
    return at


# ── next_wake ─────────────────────────────────────────────────────────────────────────────────────


def next_wake(job: Job, rules: Rules) -> datetime | None:
    """The next instant at which a Tick is due; None = nothing happens by itself."""
    if job.ended:
        return None
    if job.cancel_requested_at is not None:
        return job.cancel_requested_at + span(rules.cancel_grace_s)
    instants = [due for slot in job.slots if (due := due_at(slot, rules)) is not None]
    if job.retry_at is not None:
        instants.append(job.retry_at)
    return min(instants, default=None)


def due_at(slot: Slot, rules: Rules) -> datetime | None:
    """When the task times out, is tried again, or has waited too long for a worker."""
    match slot.stage:
        case Stage.LEASED:
            limit_s = slot.spec.timeout_seconds
            return _known(slot.delivered_at) + span(rules.worker_timeout_s if limit_s is None else limit_s)
        case Stage.QUEUED:
            return _known(slot.waits_since) + span(rules.dispatch_timeout_s)
        case Stage.RETRYING:
            return slot.retry_at
        case _:
            return None


def deadline(job: Job, task_id: str, rules: Rules) -> datetime | None:
    """When the leased task times out; None when it is not leased."""
    found = job.live(task_id)
    return due_at(found[1], rules) if found is not None and found[1].stage is Stage.LEASED else None


def span(seconds: float) -> timedelta:
    """`seconds`, within what an instant can be moved by."""
    return timedelta(seconds=min(max(seconds, 0.0), _LONGEST_S))
