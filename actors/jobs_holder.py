"""The jobs that this gateway holds, and everything that is asked of it: one mailbox, one writer.

    ask ─▶ WorkerDesk  what workers and replicas say of themselves
        └▶ JobDesk     what is asked about one job: result, progress, approval, cancel, release
    every turn ─▶ JobEngine drives the jobs that were touched ─▶ RemoteDispatch ─▶ deliveries ─▶ commit ─▶ pushes

A task is leased durably before its worker hears of it, and a result is answered once it is durable. After a restart
jobs and leases come from the journal, workers from their records with a fresh TTL, polls from the replicas that open
them again. Source: jobs contract, sections 4, 5, 7 (Dispatch), 9, 9a.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from actors.clock import Clock
from actors.handler_visits import Handlers, HandlerVisits
from actors.held_job import HeldJob, pinned, read
from actors.holder import Holder, Turn
from actors.job_children import JobChildren
from actors.job_desk import JobDesk
from actors.job_engine import JobEngine, Webhook
from actors.job_erasure import KIND as TENANTS
from actors.job_erasure import JobErasure
from actors.job_schedules import JobSchedules, read_schedules
from actors.lease_book import LeaseBook
from actors.names import JOBS
from actors.pinned_blueprints import PinnedBlueprints
from actors.record_writer import RecordWriter
from actors.replica_book import ReplicaBook
from actors.settings import Settings
from actors.worker_book import KIND, WorkerBook
from actors.worker_desk import WorkerDesk
from orchestrator import job as jobs
from orchestrator import outside_codec
from orchestrator import remote as r
from orchestrator.blueprint import Outcome, Visit
from orchestrator.errors import ActorUnreachable, Conflict, Fenced, Invalid, NotFound, OrchestratorError
from orchestrator.job_schedule import JobSchedule
from orchestrator.ports import Journal
from orchestrator.remote_dispatch import RemoteDispatch, WorkerKey
from orchestrator.rows import EventBatch, RunRow
from orchestrator.steps import CreatedRun, Creation, NewRun
from orchestrator.streams import Letter

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: sessions of one life of the gateway
_SESSIONS = 1 << 24
_REFUSALS: dict[type[OrchestratorError], str] = {
    NotFound: "not_found",
    Invalid: "invalid_decision",
    Conflict: "conflict",
}


class JobsHolder(Holder[HeldJob]):
    """Holds the runs of `names.JOBS`. `ask` is what the actor around it offers."""

    def __init__(
        self, journal: Journal, clock: Clock, settings: Settings, handlers: Handlers, webhook: Webhook
    ) -> None:
        super().__init__(JOBS, journal, clock)
        self._rules = rules_of(settings)
        self._look_every_s = max(0.05, settings.watcher_interval_s)
        self._poll_max_s = min(33.0, settings.worker_poll_timeout_s)
        self._blueprints = PinnedBlueprints(journal)
        self._dispatch = RemoteDispatch()
        self._leases = LeaseBook()
        ttl_s = 2 * settings.worker_health_check_interval_s
        self._workers = WorkerBook(RecordWriter(journal, KIND, self._fence), clock, ttl_s)
        self._erasure = JobErasure(journal, RecordWriter(journal, TENANTS, self._fence))
        self._schedules = JobSchedules(
            journal, clock, _schedules(settings), self._blueprints, JOBS, self.create, self.insist
        )
        self._children = JobChildren(clock, self._blueprints, self)
        self._engine = JobEngine(
            clock,
            self._dispatch,
            self._leases,
            HandlerVisits(handlers, settings.executor_max_concurrent_jobs, self._spawn, self._visited),
            self._children,
            webhook,
            held=self._held.get,
            again=self._drive_again,
            recall=lambda held, effect: self._job_desk.recall(held, effect),
            leased=self._leased,
        )

    # ── what a holder says ────────────────────────────────────────────────────────────────────────

    async def prepare(self) -> None:
        """Workers first: jobs have leases at them."""
        self._replicas = ReplicaBook(self._clock, self._epoch * _SESSIONS)
        self._desk = WorkerDesk(
            self._clock,
            self._rules,
            self._poll_max_s,
            self._workers,
            self._replicas,
            self._dispatch,
            self._leases,
            self,
        )
        self._job_desk = JobDesk(
            self._clock, self._engine.chance, self, self._desk, self._workers, self._leases, self._dispatch
        )
        self._workers.load(await self.insist(lambda: self._journal.records(KIND)))
        await self._erasure.load(self.insist)
        self._spawn(self._look_forever())
        self._spawn(self._fire_forever())

    async def expect(self, run_id: str, batches: Sequence[EventBatch]) -> None:
        """The blueprint that it is pinned to."""
        await self.insist(lambda: self._blueprints.read(*pinned(batches)))

    def revive(self, run_id: str, batches: Sequence[EventBatch]) -> HeldJob:
        """The job that these events make."""
        return HeldJob(read(batches, self._blueprints.version(*pinned(batches))), self._rules)

    def adopted(self, turn: Turn[HeldJob], held: HeldJob) -> None:
        """New, or after a restart; what it owes follows when the turn ends."""
        job = held.job
        self._engine.adopt(held)
        self._erasure.note(job.tenant)
        if self._blueprints.version(job.blueprint_name, job.blueprint_version) is None:
            lost = f"Version {job.blueprint_version} of blueprint '{job.blueprint_name}' is lost"
            held.step(jobs.Fault(lost), self._clock.now(), self._engine.chance)
        if job.parent_job_id:
            self._children.adopted(turn, job, self._held.get(job.parent_job_id))

    def woken(self, turn: Turn[HeldJob], held: HeldJob) -> None:
        """Something is due."""
        takers = frozenset(slot.task_id for slot in held.job.slots if self._has_taker(slot.task_id))
        held.step(jobs.Tick(takers), self._clock.now(), self._engine.chance)

    def _has_taker(self, task_id: str) -> bool:
        waiting = self._dispatch.find(task_id)
        if waiting is None:
            return False
        able = self._workers.offering(waiting.type)
        return any(worker.serves(waiting.tenant) and worker.fits(waiting.type, waiting.wanted) for worker in able)

    def received(self, turn: Turn[HeldJob], letter: Letter) -> None:
        """Nobody writes here."""
        _log.error("unexpected mail of %s", letter.sender)

    def turned(self, turn: Turn[HeldJob]) -> None:
        """Jobs go on until they wait; tasks that wait go to workers that poll."""
        self._engine.drive(turn)
        while assignments := self._dispatch.assign():
            for assignment in assignments:
                via, waiting = self._desk.assigned(assignment), assignment.waiting
                self.step(turn, waiting.job_id, jobs.Deliver(waiting.task_id, assignment.worker[1], via))
            self._engine.drive(turn)
            for assignment in assignments:
                self._desk.delivered(turn, assignment.waiting.task_id)

    def drop(self, run_id: str) -> None:
        """Forget a job that is erased."""
        self._engine.drop(run_id)
        super().drop(run_id)

    # ── what its parts use ────────────────────────────────────────────────────────────────────────

    def held(self, job_id: str) -> HeldJob | None:
        """A job that has not ended."""
        return self._held.get(job_id)

    def step(self, turn: Turn[HeldJob], job_id: str, command: jobs.Command) -> HeldJob | None:
        """The command is carried out on a job that is held."""
        held = self._held.get(job_id)
        if held is not None:
            turn.touch(held)
            held.step(command, self._clock.now(), self._engine.chance)
        return held

    def release(self, turn: Turn[HeldJob], found: HeldJob) -> None:
        """The quarantined job is held again, and goes on. Raises Conflict: its status."""
        held = self._known(found.run_id) or found  # two requests may have read it, each for itself
        held.step(jobs.Release(), self._clock.now(), self._engine.chance)
        self.resume(turn, held)
        self._engine.reopen(held.run_id)

    def command(self, job_id: str, command: jobs.Command) -> None:
        """The same in a later turn."""
        self.post(partial(self.step, job_id=job_id, command=command))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with this by the way."""
        self._spawn(work)

    async def create(self, run: NewRun) -> CreatedRun:
        """It exists."""
        [made] = await self.insist(lambda: self._journal.create_runs([Creation((run,))]))
        return made.runs[0]

    async def row(self, job_id: str) -> RunRow | None:
        """What the journal says of it."""
        return await self.insist(lambda: self._journal.summary(job_id))

    def _drive_again(self, job_id: str) -> None:
        self.post(partial(self._touch, job_id=job_id))

    def _touch(self, turn: Turn[HeldJob], job_id: str) -> None:
        held = self._held.get(job_id)
        if held is not None:
            turn.touch(held)

    def _visited(self, visit: Visit, outcome: Outcome) -> None:
        self.command(visit.job_id, jobs.Visited(visit.serial, outcome))
        self._engine.next_pending()

    def _leased(self, worker: WorkerKey) -> None:
        """After a restart a task may turn out to be at a worker that had expired before."""
        if not self._workers.lives(worker):
            self._desk.lapse(worker)

    async def _fence(self) -> None:
        await self.ensure_current(self._journal, self._epoch)

    async def _fire_forever(self) -> None:
        await self.ready()
        await self._schedules.fire_forever()

    async def _look_forever(self) -> None:
        await self.ready()
        while True:
            self._desk.look()
            self._workers.begin_flush()
            self._erasure.begin_flush()
            await asyncio.sleep(self._look_every_s)

    # ── requests ──────────────────────────────────────────────────────────────────────────────────

    async def ask(self, blob: bytes) -> bytes:
        """`outside_codec.encode_request` in, `outside_codec.encode_answer` out."""
        await self.ready()
        try:
            answer = await self._answer(outside_codec.decode_request(blob))
        except (NotFound, Invalid, Conflict) as refused:
            answer = r.Answer(refused=_REFUSALS[type(refused)], message=str(refused))
        except Fenced as fenced:
            raise ActorUnreachable(self.name, str(fenced)) from fenced
        return outside_codec.encode_answer(answer)

    async def _answer(self, ask: r.Request) -> r.Answer:
        match ask:
            case r.Register():
                return await self._desk.register(ask)
            case r.Heartbeat():
                return await self._desk.heartbeat(ask)
            case r.Poll():
                return await self._desk.poll(ask)
            case r.Polls():
                await asyncio.gather(*map(self._desk.poll, ask.polls))
                return r.Answer()
            case r.Withdraw():
                return self._desk.withdraw(ask)
            case r.Listen():
                return await self._desk.listen(ask)
            case r.Sockets():
                return self._desk.sockets(ask)
            case r.Alive():
                return self._desk.alive(ask)
            case r.Workers():
                return r.Answer(self._desk.listed(ask.tenant))
            case r.Figures():
                return r.Answer(self._figures())
            case r.Flush():
                return await self._flush()
            case _:
                return await self._job_desk.answer(ask)

    def _figures(self) -> dict[str, int]:
        return {
            "task_queue_length": self._dispatch.waiting,
            "active_workers": len(self._workers.live()),
            "leased_tasks": self._dispatch.held,
            "open_polls": self._dispatch.polling,
            "jobs": len(self._held),
        }

    async def _flush(self) -> r.Answer:
        erased = await self._erasure.erase(self.insist, list(self._held))
        await self.do(partial(self._forget, job_ids=erased))
        await self._desk.flush()
        return r.Answer()

    def _forget(self, turn: Turn[HeldJob], job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            turn.touched.pop(job_id, None)
            self.drop(job_id)


def _schedules(settings: Settings) -> tuple[JobSchedule, ...]:
    """As configured. `up` refuses a bad file; one that was spoilt since must not keep jobs from going on."""
    try:
        return read_schedules(settings)
    except Invalid as invalid:
        _log.critical("nothing is scheduled: %s", invalid)
        return ()


def rules_of(settings: Settings) -> jobs.Rules:
    """What decides about jobs, of all that can be set."""
    return jobs.Rules(
        retries_max=settings.job_max_retries,
        retry_backoff_s=settings.job_retry_backoff_s,
        redeliveries_max=settings.job_max_redeliveries,
        dispatch_timeout_s=settings.job_dispatch_timeout_s,
        cancel_grace_s=settings.job_cancel_grace_s,
        worker_timeout_s=settings.worker_timeout_s,
    )
