"""What workers and API replicas say to the gateway about themselves: who they are, that they live, that they wait.

    register, heartbeat ─▶ WorkerBook (durable) ─▶ RemoteDispatch        who can do what
    poll, withdraw      ─▶ RemoteDispatch ─▶ ReplicaBook                 who waits, and the way back
    silence             ─▶ leases lapse, sessions end

It changes jobs by acts of the holder's turns only: a delivery that never arrived is taken back, a lapsed lease is
redelivered. Source: jobs contract, sections 4, 9a.
"""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import Any, Protocol

from actors.clock import Clock
from actors.held_job import HeldJob
from actors.holder import Act, Turn
from actors.lease_book import Lease, LeaseBook, poll_of, via_of
from actors.replica_book import ReplicaBook, Session
from actors.worker_book import WorkerBook
from orchestrator import remote as r
from orchestrator.job import Command, Redeliver, Undeliver, deadline
from orchestrator.job_commands import Rules
from orchestrator.remote_dispatch import Assignment, RemoteDispatch, WorkerKey

_log = logging.getLogger(__name__)


class Turns(Protocol):
    """The holder's turns, as far as the desk needs them."""

    def post(self, act: Act[HeldJob]) -> None:
        """Do this in the next turn."""

    def held(self, job_id: str) -> HeldJob | None:
        """A job that has not ended."""

    def step(self, turn: Turn[HeldJob], job_id: str, command: Command) -> HeldJob | None:
        """The command is carried out on a job that is held."""


class WorkerDesk:
    """One for each holder of jobs."""

    def __init__(
        self,
        clock: Clock,
        rules: Rules,
        poll_max_s: float,
        workers: WorkerBook,
        replicas: ReplicaBook,
        dispatch: RemoteDispatch,
        leases: LeaseBook,
        turns: Turns,
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._poll_max_s = poll_max_s
        self._workers = workers
        self._replicas = replicas
        self._dispatch = dispatch
        self._leases = leases
        self._turns = turns
        #: open polls of each replica, with what ends them
        self._open: dict[str, dict[int, asyncio.TimerHandle]] = {}

    # ── workers ───────────────────────────────────────────────────────────────────────────────────

    async def register(self, ask: r.Register) -> r.Answer:
        """Durable when answered."""
        key = (ask.tenant, ask.worker_id)
        self._workers.meet(key).register(ask.body)
        await self._said(key)
        return r.Answer({"status": "registered"})

    async def heartbeat(self, ask: r.Heartbeat) -> r.Answer:
        """Of anybody: who is not known is from now on."""
        key = (ask.tenant, ask.worker_id)
        known = self._workers.get(key) is not None
        worker = self._workers.meet(key)
        if ask.body is not None:
            worker.merge(ask.body)
            self._tasks_told(key, ask.body)
        if ask.body is not None or not known:
            await self._said(key)
        body: dict[str, Any] = worker.view() if ask.body is not None else {"status": "ttl_refreshed"}
        if cancelled := self._leases.recalls(key):
            body["cancel_task_ids"] = cancelled
        if not worker.skills:
            body["require_full_sync"] = True
        return r.Answer(body)

    async def _said(self, key: WorkerKey) -> None:
        """It says something else of itself now."""
        worker = self._workers.get(key)
        if worker is not None:
            self._workers.indexed(key)
            self._dispatch.know(worker)
            self._turns.post(_nothing)  # it may get a task by that
            await self._workers.save(key)

    def _tasks_told(self, key: WorkerKey, body: dict[str, Any]) -> None:
        told = body.get("current_tasks")
        if isinstance(told, list):
            current = [task.get("task_id") if isinstance(task, dict) else task for task in told]
            names = [task for task in current if isinstance(task, str)]
            for lease in self._leases.heard(key, names, self._clock.monotonic()):
                _log.info("worker %s never got task %s", key[1], lease.task_id)
                self._turns.post(partial(self._redeliver, lease=lease))

    def alive(self, ask: r.Alive) -> r.Answer:
        """Signs of life; of unknown workers they mean nothing."""
        for worker_id in ask.worker_ids:
            self._workers.seen((ask.tenant, worker_id))
        return r.Answer()

    def listed(self, tenant: str) -> list[dict[str, Any]]:
        """Live workers of the tenant, by id."""
        return [worker.view() for worker in self._workers.live() if worker.tenant == tenant]

    # ── polls ─────────────────────────────────────────────────────────────────────────────────────

    async def poll(self, ask: r.Poll) -> r.Answer:
        """It is open soon after, unless it is withdrawn first."""
        self._replicas.hear(ask.replica)
        key = (ask.tenant, ask.worker_id)
        known = self._workers.get(key) is not None
        worker = self._workers.meet(key)
        if worker.sated or ask.available_skills or ask.hot_skills or not known:
            worker.polled(ask.available_skills, ask.hot_skills)
            await self._said(key)
        self._turns.post(partial(self._open_poll, ask=ask))
        return r.Answer()

    def _open_poll(self, turn: Turn[HeldJob], ask: r.Poll) -> None:
        session, key = self._replicas.hear(ask.replica), (ask.tenant, ask.worker_id)
        if ask.poll_id in session.over:
            return
        lease = self._leases.by_poll(ask.replica, ask.poll_id)
        if lease is not None and lease.worker == key:
            self._hand_over(turn, lease)
            return
        self._dispatch.know(self._workers.meet(key))
        self._dispatch.open(key, (ask.replica, ask.poll_id))
        polls = self._open.setdefault(ask.replica, {})
        if ask.poll_id not in polls:
            wait_s = min(max(ask.timeout_s, 0.0), self._poll_max_s)
            over = partial(self._poll_over, ask.replica, ask.poll_id)
            polls[ask.poll_id] = asyncio.get_running_loop().call_later(wait_s, over)

    def _poll_over(self, replica: str, poll_id: int) -> None:
        """Nothing came in time."""
        key = self._close(replica, poll_id)
        session = self._replicas.find(replica)
        if key is not None and session is not None:
            self._workers.seen(key)
            session.finish(poll_id)
            session.push(r.Expired(poll_id))

    def _close(self, replica: str, poll_id: int) -> WorkerKey | None:
        """It waits no more; whose it was, if it did."""
        polls = self._open.get(replica, {})
        timer = polls.pop(poll_id, None)
        if timer is not None:
            timer.cancel()
        if not polls:
            self._open.pop(replica, None)
        return self._dispatch.close((replica, poll_id))

    def withdraw(self, ask: r.Withdraw) -> r.Answer:
        """Whether it was opened, waits, or has been given a task."""
        self._turns.post(partial(self._withdraw, ask=ask))
        return r.Answer()

    def _withdraw(self, turn: Turn[HeldJob], ask: r.Withdraw) -> None:
        session = self._replicas.hear(ask.replica)
        for poll_id in ask.poll_ids:
            self._close(ask.replica, poll_id)
            session.finish(poll_id)
            self._take_back(turn, ask.replica, poll_id)

    def _take_back(self, turn: Turn[HeldJob], replica: str, poll_id: int) -> None:
        """What was given to the poll never arrived."""
        lease = self._leases.by_poll(replica, poll_id)
        if lease is not None:
            self._leases.release(lease.task_id)
            self._turns.step(turn, lease.job_id, Undeliver(lease.task_id, lease.worker[1]))

    # ── assignments ───────────────────────────────────────────────────────────────────────────────

    def assigned(self, assignment: Assignment) -> str:
        """The poll is answered with the task; by which call that is."""
        via = via_of(assignment.worker, *assignment.poll)
        self._close(*poll_of(via))
        self._workers.seen(assignment.worker)
        return via

    def delivered(self, turn: Turn[HeldJob], task_id: str) -> None:
        """The lease is decided: once it is durable, the worker gets the task."""
        lease = self._leases.find(task_id)
        if lease is not None:
            self._hand_over(turn, lease)

    def _hand_over(self, turn: Turn[HeldJob], lease: Lease) -> None:
        turn.after.append(partial(self._push_task, lease))

    def _push_task(self, lease: Lease) -> None:
        replica, poll_id = poll_of(lease.via)
        held = self._turns.held(lease.job_id)
        if held is None or self._leases.find(lease.task_id) is not lease:
            return
        session = self._replicas.find(replica)
        if session is None:  # it was lost during the commit
            self._turns.post(partial(self._take_back, replica=replica, poll_id=poll_id))
        elif poll_id not in session.over:
            session.finish(poll_id)
            session.push(r.Assigned(poll_id, self._task(held, lease.task_id)))

    def _task(self, held: HeldJob, task_id: str) -> dict[str, Any]:
        """As a worker gets it."""
        found = held.job.live(task_id)
        assert found is not None  # it is leased
        slot, due = found[1], deadline(held.job, task_id, self._rules)
        spec = slot.spec
        return {
            "job_id": held.run_id,
            "task_id": task_id,
            "type": spec.type,
            "params": spec.params,
            "tracing_context": {},
            "params_metadata": None,
            "priority": spec.priority,
            # whole seconds: an SDK that gets a fraction drops the task without a word (1.0b20)
            "deadline": math.ceil(due.timestamp()) if due else None,
            "attempt": slot.attempt,
        }

    # ── replicas ──────────────────────────────────────────────────────────────────────────────────

    async def listen(self, ask: r.Listen) -> r.Answer:
        """Body: Pushes."""
        return r.Answer(await self._replicas.listen(ask))

    def sockets(self, ask: r.Sockets) -> r.Answer:
        """Who opens one lives, and is told what to stop."""
        for key in self._replicas.sockets(ask):
            self._workers.seen(key)
            for task_id in self._leases.recalls(key):
                self.say_cancel(key, task_id, self._leases.job_of(key, task_id))
        return r.Answer()

    def say_cancel(self, worker: WorkerKey, task_id: str, job_id: str) -> bool:
        """The worker is told to stop by its socket, or by every anonymous one; False = there is none."""
        command = {"command": "cancel_task", "type": "cancel_task", "task_id": task_id, "job_id": job_id}
        addressees = self._replicas.addressees(worker)
        for session, serial in addressees:
            session.push(r.Say(serial, command))
        return bool(addressees)

    def reachable(self, worker: WorkerKey) -> bool:
        """Would a command get out on some socket?"""
        return bool(self._replicas.addressees(worker))

    # ── silence ───────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Who has been silent for too long?"""
        for session in self._replicas.lost():
            _log.info("replica %s is gone", session.replica)
            self._lose(session)
        expired, forgotten = self._workers.expire(lambda key: self._dispatch.polls_of(key) > 0)
        for key in expired:
            self.lapse(key)
        for key in forgotten:
            self._dispatch.forget(key)
            self._leases.forget(key)

    def lapse(self, key: WorkerKey) -> None:
        """The worker has expired: what it has goes to others."""
        worker = self._workers.get(key)
        for lease in self._leases.of(key):
            _log.info("worker %s is silent, its task %s is redelivered", key[1], lease.task_id)
            if worker is not None:
                worker.lapsed()
            self._turns.post(partial(self._redeliver, lease=lease))

    def _lose(self, session: Session) -> None:
        """Its polls are gone, and what was pushed to it and not acknowledged has not arrived."""
        for poll_id in list(self._open.get(session.replica, ())):
            self._close(session.replica, poll_id)
        for poll_id in session.unheard():
            self._turns.post(partial(self._take_back, replica=session.replica, poll_id=poll_id))

    def _redeliver(self, turn: Turn[HeldJob], lease: Lease) -> None:
        if self._leases.find(lease.task_id) is lease:
            self._leases.release(lease.task_id)
            self._turns.step(turn, lease.job_id, Redeliver(lease.task_id, lease.worker[1]))
            turn.counts.append(("orchestrator_task_redeliveries_total", 1))

    async def flush(self) -> None:
        """No worker is known, no poll is open; who polls is told that nothing came."""
        for replica, polls in list(self._open.items()):
            for poll_id in list(polls):
                self._poll_over(replica, poll_id)
        for key in list(self._workers):
            self._workers.forget(key)
            self._dispatch.forget(key)
            self._leases.forget(key)
        await self._workers.flush()


def _nothing(turn: Turn[HeldJob]) -> None:
    """A turn comes about."""
