"""Tasks that remote workers hold, as memory: by which call each was handed over, and which are to be stopped.

The truth is in the jobs; this is where to look from a worker's side. A worker that tells which tasks it has, twice in a
row without one of them, never got that one: `heard` says so. Source: jobs contract, section 4 (leases).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.remote_dispatch import WorkerKey

#: a heartbeat sooner after the delivery may have been on its way before it
HEARD_AFTER_S = 5.0
HEARD_TIMES = 2
#: commands to stop that are kept for one worker
_RECALLS_MAX = 1_000


@dataclass(slots=True)
class Lease:
    """One task at one worker."""

    job_id: str
    task_id: str
    worker: WorkerKey
    #: the call by whose answer it was handed over: replica and poll, as the journal has it
    via: str
    #: since when, monotonic
    since_s: float
    #: heartbeats in a row that told of others, not of this one
    missing: int = 0


def via_of(worker: WorkerKey, replica: str, poll_id: int) -> str:
    """The call by which a worker gets a task, and whose worker it is. A replica's name has no `|`."""
    return f"{poll_id}|{replica}|{worker[0]}"


def poll_of(via: str) -> tuple[str, int]:
    """Replica and number of the poll."""
    poll_id, replica, _ = via.split("|", 2)
    return replica, int(poll_id)


def tenant_of(via: str) -> str:
    """Whose worker it is."""
    return via.split("|", 2)[2]


class LeaseBook:
    """Leases by task, worker and poll."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._by_worker: dict[WorkerKey, dict[str, Lease]] = {}
        self._by_poll: dict[tuple[str, int], Lease] = {}
        #: worker -> task -> job
        self._recalls: dict[WorkerKey, OrderedDict[str, str]] = {}

    def enter(self, lease: Lease) -> None:
        """The worker has the task."""
        self.release(lease.task_id)
        self._leases[lease.task_id] = lease
        self._by_worker.setdefault(lease.worker, {})[lease.task_id] = lease
        if lease.via:
            self._by_poll[poll_of(lease.via)] = lease

    def release(self, task_id: str) -> None:
        """Nobody has the task."""
        lease = self._leases.pop(task_id, None)
        if lease is None:
            return
        held = self._by_worker[lease.worker]
        del held[task_id]
        if not held:
            del self._by_worker[lease.worker]
        if lease.via and self._by_poll.get(poll_of(lease.via)) is lease:
            del self._by_poll[poll_of(lease.via)]

    def find(self, task_id: str) -> Lease | None:
        """Who has it, if anybody."""
        return self._leases.get(task_id)

    def by_poll(self, replica: str, poll_id: int) -> Lease | None:
        """What was handed over by that poll, if it is still held."""
        return self._by_poll.get((replica, poll_id))

    def of(self, worker: WorkerKey) -> list[Lease]:
        """What the worker has."""
        return list(self._by_worker.get(worker, {}).values())

    def heard(self, worker: WorkerKey, current: Iterable[str], now_s: float) -> list[Lease]:
        """The worker says what it has. Leases that it never got."""
        told = set(current)
        self._recalled_no_more(worker, told)
        lost = []
        for lease in self.of(worker):
            if lease.task_id in told:
                lease.missing = 0
            elif lease.missing or now_s - lease.since_s >= HEARD_AFTER_S:
                lease.missing += 1
                if lease.missing >= HEARD_TIMES:
                    lost.append(lease)
        return lost

    # ── commands to stop ──────────────────────────────────────────────────────────────────────────

    def recall(self, worker: WorkerKey, task_id: str, job_id: str) -> None:
        """The worker is to stop the task."""
        wanted = self._recalls.setdefault(worker, OrderedDict())
        wanted[task_id] = job_id
        while len(wanted) > _RECALLS_MAX:
            wanted.popitem(last=False)

    def answered(self, worker: WorkerKey, task_id: str) -> None:
        """The worker has told how the task ended."""
        wanted = self._recalls.get(worker)
        if wanted is not None:
            wanted.pop(task_id, None)
            if not wanted:
                del self._recalls[worker]

    def recalls(self, worker: WorkerKey) -> list[str]:
        """Tasks that it is to stop."""
        return list(self._recalls.get(worker, ()))

    def job_of(self, worker: WorkerKey, task_id: str) -> str:
        """The job of a task that it is to stop."""
        return self._recalls[worker][task_id]

    def forget(self, worker: WorkerKey) -> None:
        """Nothing is to be told to it any more."""
        self._recalls.pop(worker, None)

    def _recalled_no_more(self, worker: WorkerKey, told: set[str]) -> None:
        for task_id in self.recalls(worker):
            if task_id not in told and task_id not in self._leases:
                self.answered(worker, task_id)
