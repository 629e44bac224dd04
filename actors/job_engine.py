"""What follows, within a turn, from what happened to jobs: they are driven on until each of them waits.

    touched ─▶ Begin, visits of declared states ─▶ offers and leases where workers look ─▶ sub-jobs ─▶ the end

Everything here is decided before the turn's commit, and so becomes durable in one step: a sub-job's end together with
what its parent makes of it, an end together with its webhook. What the world is to notice comes after the commit.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial

from actors.clock import Clock
from actors.handler_visits import HandlerVisits
from actors.held_job import HeldJob
from actors.holder import Turn
from actors.job_children import JobChildren
from actors.lease_book import Lease, LeaseBook, tenant_of
from orchestrator import declared_state
from orchestrator.job import (
    Begin,
    Cancel,
    CancelChild,
    ChildEnded,
    Effect,
    Job,
    MakeVisit,
    Offer,
    Recall,
    StartChild,
    Status,
    Visited,
)
from orchestrator.ports import LATENCY_BOUNDS
from orchestrator.remote_dispatch import RemoteDispatch, Waiting, WorkerKey
from orchestrator.remote_worker import requirements_of
from orchestrator.steps import Mail

_log = logging.getLogger(__name__)
#: visits of one job's declared states in one turn; it goes on in the next one
VISITS_PER_TURN = 500


#: the webhook that is owed at a job's end, if any
Webhook = Callable[[Job], Mail | None]


class JobChance:
    """`job.Chance` of a clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def task_id(self) -> str:
        """A new uuid4."""
        return self._clock.uuid()

    def jitter(self) -> float:
        """A share in [0, 1)."""
        return self._clock.jitter()


class JobEngine:
    """Drives the jobs of one holder. `held` finds one of them, `again` drives one in a later turn."""

    def __init__(
        self,
        clock: Clock,
        dispatch: RemoteDispatch,
        leases: LeaseBook,
        visits: HandlerVisits,
        children: JobChildren,
        webhook: Webhook,
        held: Callable[[str], HeldJob | None],
        again: Callable[[str], None],
        recall: Callable[[HeldJob, Recall], None],
        leased: Callable[[WorkerKey], None],
    ) -> None:
        self._clock = clock
        self.chance = JobChance(clock)
        self._dispatch = dispatch
        self._leases = leases
        self._visits = visits
        self._children = children
        self._webhook = webhook
        self._held = held
        self._again = again
        self._recall = recall
        self._leased = leased
        #: job -> tasks of it that wait or are held
        self._tasks: dict[str, set[str]] = {}
        #: jobs that wait for room to begin
        self._pending: OrderedDict[str, None] = OrderedDict()
        #: jobs whose end has not been seen to
        self._open: set[str] = set()

    def adopt(self, held: HeldJob) -> None:
        """The job is in memory now."""
        if not held.ended:
            self._open.add(held.run_id)

    def reopen(self, job_id: str) -> None:
        """The job had ended and goes on: its next end is to be seen to."""
        self._open.add(job_id)

    def drop(self, job_id: str) -> None:
        """The job is erased."""
        self._open.discard(job_id)
        self._pending.pop(job_id, None)
        self._visits.drop(job_id)
        for task_id in self._tasks.pop(job_id, ()):
            self._dispatch.drop(task_id)
            self._leases.release(task_id)

    def next_pending(self) -> None:
        """There may be room for a job that has not begun."""
        if self._pending and not self._visits.full:
            job_id, _ = self._pending.popitem(last=False)
            self._again(job_id)

    def drive(self, turn: Turn[HeldJob]) -> None:
        """Every job that the turn touched waits for something then."""
        todo = deque(turn.touched.values())
        while todo:
            for other in self._advance(turn, todo.popleft()):
                turn.touch(other)
                todo.append(other)

    # ── one job ───────────────────────────────────────────────────────────────────────────────────

    def _advance(self, turn: Turn[HeldJob], held: HeldJob) -> list[HeldJob]:
        """Drive it on; which others are to be driven because of that."""
        effects = self._visit(turn, held)
        self._place_tasks(held, effects)
        moved: list[HeldJob] = []
        for effect in effects:
            match effect:
                case Recall():
                    turn.after.append(partial(self._recall, held, effect))
                case StartChild():
                    self._children.start(turn, held.job, effect)
                case CancelChild():
                    moved += self._cancel_child(turn, held, effect.child_id)
        if held.ended and held.run_id in self._open:
            moved += self._end(turn, held)
        return moved

    def _visit(self, turn: Turn[HeldJob], held: HeldJob) -> list[Effect]:
        """Visit declared states until it waits. What it owes then, and what it owed on the way."""
        on_the_way: list[Effect] = []
        for _ in range(VISITS_PER_TURN):
            effects = held.owed()
            wanted = next((effect.visit for effect in effects if isinstance(effect, MakeVisit)), None)
            now, job = self._clock.now(), held.job
            if job.status is Status.PENDING and self._may_begin(job):
                held.step(Begin(), now, self.chance)
                turn.counts.append((f"orchestrator_jobs_total|{job.blueprint_name}", 1))
            elif wanted is None:
                return [*on_the_way, *effects]
            elif job.blueprint.states[wanted.state].code:
                self._visits.promise(wanted)
                turn.after.append(partial(self._visits.make, wanted))
                return [*on_the_way, *effects]
            else:
                outcome = declared_state.visit(job.blueprint, wanted)
                held.step(Visited(wanted.serial, outcome), now, self.chance)
            on_the_way += [effect for effect in effects if isinstance(effect, Recall)]
        turn.after.append(partial(self._again, held.run_id))
        return on_the_way

    def _may_begin(self, job: Job) -> bool:
        start = job.blueprint.states[job.blueprint.start]
        if start.code and self._visits.full and job.job_id not in self._pending:
            self._pending[job.job_id] = None
        return not (start.code and self._visits.full)

    def _place_tasks(self, held: HeldJob, effects: list[Effect]) -> None:
        """What waits and what is held, as dispatch and leases know it, is as the job says."""
        job = held.job
        offers = {effect.task_id: effect for effect in effects if isinstance(effect, Offer)}
        leased = {slot.task_id: slot for slot in job.leased()}
        known = self._tasks.get(job.job_id, set())
        for task_id in known - offers.keys() - leased.keys():
            self._dispatch.drop(task_id)
            self._leases.release(task_id)
        for task_id, offer in offers.items():
            self._leases.release(task_id)
            self._dispatch.offer(_waiting(job, offer))
        for task_id, slot in leased.items():
            lease = self._leases.find(task_id)
            if lease is None or lease.via != slot.via or lease.worker[1] != slot.worker_id:
                worker = worker_of(job, slot.via, slot.worker_id or "")
                self._leases.enter(Lease(job.job_id, task_id, worker, slot.via, self._clock.monotonic()))
                self._dispatch.hold(task_id, worker)
                self._leased(worker)
        if offers or leased:
            self._tasks[job.job_id] = offers.keys() | leased.keys()
        else:
            self._tasks.pop(job.job_id, None)

    # ── sub-jobs, ends ────────────────────────────────────────────────────────────────────────────

    def _cancel_child(self, turn: Turn[HeldJob], parent: HeldJob, child_id: str) -> list[HeldJob]:
        child = self._held(child_id)
        if child is None:
            self._children.look_after(turn, parent.job, child_id)
            return []
        if child.ended or child.job.cancel_requested_at is not None:
            return []
        child.step(Cancel(), self._clock.now(), self.chance)
        return [child]

    def _end(self, turn: Turn[HeldJob], held: HeldJob) -> list[HeldJob]:
        self._open.discard(held.run_id)
        self._pending.pop(held.run_id, None)
        self._visits.drop(held.run_id)
        job = held.job
        mail = self._webhook(job)
        if mail is not None:
            turn.mail.append(mail)
        if not job.releases:
            turn.counts.extend(_counts(job))
        turn.after.append(self.next_pending)
        self._children.ended(job.job_id)
        parent = self._held(job.parent_job_id) if job.parent_job_id else None
        if parent is None or parent.ended:
            return []
        parent.step(child_ended(job), self._clock.now(), self.chance)
        return [parent]


def child_ended(child: Job) -> ChildEnded:
    """What a parent is told of the end of its sub-job."""
    return ChildEnded(child.job_id, str(child.status), str(child.state), child.error)


def worker_of(job: Job, via: str, worker_id: str) -> WorkerKey:
    """Who has a task of the job that was handed over by that call."""
    return (tenant_of(via) if via else job.tenant), worker_id


def _waiting(job: Job, offer: Offer) -> Waiting:
    return Waiting(
        task_id=offer.task_id,
        job_id=job.job_id,
        tenant=job.tenant,
        type=offer.type,
        since=offer.since.timestamp(),
        priority=offer.priority,
        strategy=offer.dispatch_strategy,
        wanted=requirements_of(offer.resource_requirements, offer.max_cost),
    )


def _counts(job: Job) -> list[tuple[str, int]]:
    """What the job's first end adds to the metrics; one after a release adds nothing, so that a job counts once."""
    counts = []
    if job.started_at is None:  # it never began, so it was not counted then
        counts.append((f"orchestrator_jobs_total|{job.blueprint_name}", 1))
    if job.status not in (Status.FINISHED, Status.CANCELLED):
        counts.append((f"orchestrator_jobs_failed_total|{job.blueprint_name}", 1))
    seconds = max(0.0, ((job.finished_at or job.created_at) - job.created_at).total_seconds())
    place = bisect_left(LATENCY_BOUNDS, seconds)
    if place < len(LATENCY_BOUNDS):
        counts.append((f"orchestrator_job_duration_seconds|le|{LATENCY_BOUNDS[place]}", 1))
    counts.append(("orchestrator_job_duration_seconds|sum_ms", round(seconds * 1000)))
    counts.append(("orchestrator_job_duration_seconds|count", 1))
    return counts
