"""What is asked of the gateway about one job: a worker's result, a human's decision, a client's cancel or release.

Each is one act of a turn of the holder; the answer is given once everything that the turn decided is durable. A job of
another tenant is answered like an unknown one. Source: jobs contract, sections 2 to 5, 9a.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar, assert_never

from actors.clock import Clock
from actors.held_job import HeldJob
from actors.holder import Turn
from actors.lease_book import LeaseBook
from actors.worker_book import WorkerBook
from actors.worker_desk import WorkerDesk
from orchestrator import job as jobs
from orchestrator import remote as r
from orchestrator.errors import NotFound
from orchestrator.remote_dispatch import RemoteDispatch, WorkerKey, why

T = TypeVar("T")
AboutJob = r.Result | r.Progress | r.Approve | r.Cancel | r.Release | r.Why


class Jobs(Protocol):
    """The holder, as far as the desk needs it."""

    async def find(self, run_id: str) -> HeldJob | None:
        """A job, held or ended."""

    async def do(self, act: Callable[[Turn[HeldJob]], T]) -> T:
        """What the act returns, once it is durable."""

    def held(self, job_id: str) -> HeldJob | None:
        """A job that has not ended."""

    def step(self, turn: Turn[HeldJob], job_id: str, command: jobs.Command) -> HeldJob | None:
        """The command is carried out on a job that is held."""

    def release(self, turn: Turn[HeldJob], found: HeldJob) -> None:
        """A quarantined job is held again, and goes on. Raises Conflict: its status."""


class JobDesk:
    """One for each holder of jobs."""

    def __init__(
        self,
        clock: Clock,
        chance: jobs.Chance,
        holder: Jobs,
        desk: WorkerDesk,
        workers: WorkerBook,
        leases: LeaseBook,
        dispatch: RemoteDispatch,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._jobs = holder
        self._desk = desk
        self._workers = workers
        self._leases = leases
        self._dispatch = dispatch

    async def answer(self, ask: AboutJob) -> r.Answer:
        """Raises NotFound; Conflict and Invalid as the machine does."""
        held = await self._jobs.find(ask.job_id)
        if held is None or not _may_see(ask, held.job.tenant):
            raise NotFound("job", ask.job_id)
        match ask:
            case r.Result():
                return r.Answer(await self._jobs.do(partial(self._result, held=held, ask=ask)))
            case r.Progress():
                return await self._jobs.do(partial(self._progress, held=held, ask=ask))
            case r.Approve():
                return await self._jobs.do(partial(self._approve, held=held, ask=ask))
            case r.Cancel():
                return r.Answer({"status": await self._jobs.do(partial(self._cancel, held=held))})
            case r.Release():
                await self._jobs.do(partial(self._jobs.release, found=held))
                return r.Answer()
            case r.Why():
                return r.Answer({"reason": self._why(held.job)})
            case _ as never:
                assert_never(never)

    def _result(self, turn: Turn[HeldJob], held: HeldJob, ask: r.Result) -> dict[str, str]:
        speaker = _speaker(held.job, ask)
        key = (ask.tenant, speaker)
        worker = self._workers.seen(key)
        before = held.job.version
        result = jobs.Settle(ask.task_id, speaker, ask.status, ask.data, ask.error, ask.data_metadata)
        body = held.settle(result, self._clock.now(), self._chance)
        self._leases.answered(key, ask.task_id)
        if held.job.version != before:
            turn.touch(held)
            if worker is not None and body["status"] != "ignored":
                worker.settled(ask.status)
        return body

    def _progress(self, turn: Turn[HeldJob], held: HeldJob, ask: r.Progress) -> r.Answer:
        speaker = _speaker(held.job, ask)
        self._workers.seen((ask.tenant, speaker))
        report = jobs.Report(ask.task_id, speaker, ask.progress, ask.message)
        self._jobs.step(turn, held.run_id, report)
        return r.Answer()

    def _approve(self, turn: Turn[HeldJob], held: HeldJob, ask: r.Approve) -> r.Answer:
        held.step(jobs.Approve(ask.decision), self._clock.now(), self._chance)
        turn.touch(held)
        return r.Answer()

    def _cancel(self, turn: Turn[HeldJob], held: HeldJob) -> str:
        again = held.job.cancel_requested_at is not None
        held.step(jobs.Cancel(), self._clock.now(), self._chance)
        turn.touch(held)
        out = self._tasks_out(held)
        if again:
            turn.after.append(lambda: self._say_cancel(out))
        sent = any(self._desk.reachable(worker) for worker, _, _ in out)
        return "cancellation_request_sent" if sent else "cancellation_request_accepted"

    def _say_cancel(self, tasks: Sequence[tuple[WorkerKey, str, str]]) -> None:
        for task in tasks:
            self._desk.say_cancel(*task)

    def _tasks_out(self, held: HeldJob) -> list[tuple[WorkerKey, str, str]]:
        """Tasks of the job and of its sub-jobs that are at workers: (worker, task, job)."""
        out = []
        job: HeldJob | None = held
        while job is not None:
            for slot in job.job.leased():
                worker = self._worker_of(job, slot.task_id, slot.worker_id or "")
                out.append((worker, slot.task_id, job.run_id))
            job = self._jobs.held(job.job.child_id or "") if job.job.child_open else None
        return out

    def _why(self, job: jobs.Job) -> str | None:
        """Why a task of the job waits for a worker, if one does."""
        live = self._workers.live()
        for slot in job.slots:
            waiting = self._dispatch.find(slot.task_id)
            if waiting is not None:
                return why(waiting, live)
        return None

    def recall(self, held: HeldJob, effect: jobs.Recall) -> None:
        """The worker is to stop the task."""
        key = self._worker_of(held, effect.task_id, effect.worker_id)
        if self._workers.get(key) is not None:
            self._leases.recall(key, effect.task_id, held.run_id)
        self._desk.say_cancel(key, effect.task_id, held.run_id)

    def _worker_of(self, held: HeldJob, task_id: str, worker_id: str) -> WorkerKey:
        lease, own = self._leases.find(task_id), (held.job.tenant, worker_id)
        if lease is not None:
            return lease.worker
        return own if self._workers.get(own) is not None else ("default", worker_id)


def _may_see(ask: AboutJob, tenant: str) -> bool:
    """An approval needs no more than the job's id; workers of `default` serve everybody."""
    match ask:
        case r.Approve():
            return True
        case r.Result() | r.Progress():
            return ask.tenant in ("default", tenant)
        case _:
            return ask.tenant == tenant


def _speaker(job: jobs.Job, ask: r.Result | r.Progress) -> str:
    """Who says it. Who does not tell, as on the anonymous sockets of older SDKs, speaks for whoever has the task."""
    if ask.worker_id:
        return ask.worker_id
    sent, live = job.sent.get(ask.task_id), job.live(ask.task_id)
    settled = sent.worker_id if sent is not None else None
    return settled or (live[1].worker_id if live is not None else None) or ""
