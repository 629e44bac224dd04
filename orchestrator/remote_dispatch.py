"""Which remote worker gets which task: a queue for each want, and the workers that poll now.

    want     (tenant, type, requirements, strategy): its tasks by priority, then age; its candidates by strategy
    seat     one worker: its open polls, the tasks it holds; a candidate while it has a poll and room

Tasks are taken in one order over all wants, each by the best of its candidates, so a strategy is a preference among
workers that poll now and never a reason to wait. After `assign` no task waits that a polling worker with room could
take. Hence a step costs O(log n) for each want of the worker's skills: a worker that comes looks only at the heads, a
task that comes looks only at its want's best candidate. Entries of heaps become void by number, and are swept when they
outgrow what is there.

Source: jobs contract, section 7 (Dispatch); README section 4 (who serves which tenant).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.remote_worker import NO_REQUIREMENTS, RemoteWorker, Requirements

#: wants without tasks that are kept for a type
_IDLE_WANTS = 32
_SLACK = 64

#: (tenant, worker id)
WorkerKey = tuple[str, str]
#: (replica, number there)
PollKey = tuple[str, int]
#: smaller goes first: less priority, since, number
_Order = tuple[float, float, int]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for a worker."""

    task_id: str
    job_id: str
    tenant: str
    type: str
    #: since when, epoch seconds
    since: float
    priority: float = 0.0
    #: one of STRATEGIES; any other word counts as `default`
    strategy: str = "default"
    wanted: Requirements = NO_REQUIREMENTS


@dataclass(frozen=True, slots=True)
class Assignment:
    """The task goes to the worker, as the answer of that poll."""

    waiting: Waiting
    worker: WorkerKey
    poll: PollKey


@dataclass(slots=True)
class _Seat:
    worker: RemoteWorker
    #: what it holds
    tasks: set[str]
    #: open polls, oldest first, with the number at which each came
    polls: dict[PollKey, int] = field(default_factory=dict)
    #: number of the last assignment
    served: int = 0
    #: candidates' entries with another stamp are void
    stamp: int = 0
    #: skills under which it is on a bench; None = it is no candidate
    benched: frozenset[str] | None = None

    @property
    def key(self) -> WorkerKey:
        return self.worker.tenant, self.worker.worker_id

    @property
    def open(self) -> bool:
        """Is it a candidate?"""
        worker = self.worker
        return bool(self.polls) and len(self.tasks) < worker.capacity and not worker.draining and not worker.sated

    @property
    def since(self) -> int:
        return next(iter(self.polls.values()))


def _by_default(seat: _Seat, task_type: str) -> tuple[float, ...]:
    return (task_type not in seat.worker.hot, seat.worker.cost(task_type), seat.since)


def _round_robin(seat: _Seat, _: str) -> tuple[float, ...]:
    return (seat.served, seat.since)


def _least_connections(seat: _Seat, _: str) -> tuple[float, ...]:
    return (seat.worker.load, len(seat.tasks), seat.since)


def _cheapest(seat: _Seat, task_type: str) -> tuple[float, ...]:
    return (seat.worker.cost(task_type), seat.since)


def _best_value(seat: _Seat, task_type: str) -> tuple[float, ...]:
    return (seat.worker.cost(task_type) / seat.worker.reputation, seat.since)


#: the candidate with the smallest rank is preferred; of equals, who has waited longest
STRATEGIES: dict[str, Callable[[_Seat, str], tuple[float, ...]]] = {
    "default": _by_default,
    "round_robin": _round_robin,
    "least_connections": _least_connections,
    "cheapest": _cheapest,
    "best_value": _best_value,
}


@dataclass(slots=True, eq=False)
class _Want:
    tenant: str
    type: str
    wanted: Requirements
    rank: Callable[[_Seat, str], tuple[float, ...]]
    tasks: list[tuple[_Order, str]] = field(default_factory=list)
    candidates: list[tuple[tuple[float, ...], int, WorkerKey]] = field(default_factory=list)
    #: tasks that wait
    waiting: int = 0

    def accepts(self, seat: _Seat) -> bool:
        return seat.worker.serves(self.tenant) and seat.worker.fits(self.type, self.wanted)

    def enter(self, seat: _Seat) -> None:
        heapq.heappush(self.candidates, (self.rank(seat, self.type), seat.stamp, seat.key))


class RemoteDispatch:
    """Tasks that wait, workers that poll. Nothing here is durable."""

    def __init__(self) -> None:
        self._seats: dict[WorkerKey, _Seat] = {}
        self._polls: dict[PollKey, WorkerKey] = {}
        #: task -> who holds it, and the reverse
        self._held: dict[str, WorkerKey] = {}
        self._tasks: dict[WorkerKey, set[str]] = {}
        self._waiting: dict[str, tuple[_Order, Waiting, _Want]] = {}
        self._wants: dict[str, dict[Any, _Want]] = {}
        #: skill -> candidates
        self._bench: dict[str, dict[WorkerKey, _Seat]] = {}
        self._dirty: dict[_Want, None] = {}
        self._numbers = itertools.count(1)

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return len(self._waiting)

    @property
    def polling(self) -> int:
        """Polls that are open."""
        return len(self._polls)

    @property
    def held(self) -> int:
        """Tasks that workers hold."""
        return len(self._held)

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────────

    def offer(self, waiting: Waiting) -> None:
        """A task waits; nobody holds it. A second time changes nothing."""
        known = self._waiting.get(waiting.task_id)
        if known is not None and known[1] == waiting:
            return
        self.drop(waiting.task_id)
        want = self._want(waiting)
        order = (-waiting.priority, waiting.since, next(self._numbers))
        self._waiting[waiting.task_id] = (order, waiting, want)
        want.waiting += 1
        heapq.heappush(want.tasks, (order, waiting.task_id))
        self._dirty[want] = None

    def hold(self, task_id: str, worker: WorkerKey) -> None:
        """The worker has the task, known here or not. A second time changes nothing."""
        if self._held.get(task_id) != worker:
            self.drop(task_id)
            self._held[task_id] = worker
            self._tasks.setdefault(worker, set()).add(task_id)
            self._refresh(worker)

    def drop(self, task_id: str) -> None:
        """It neither waits nor is held any more."""
        known = self._waiting.pop(task_id, None)
        if known is not None:
            known[2].waiting -= 1
        holder = self._held.pop(task_id, None)
        if holder is not None:
            self._tasks[holder].discard(task_id)
            self._refresh(holder)
            self._tidy(holder)

    def find(self, task_id: str) -> Waiting | None:
        """A task that waits."""
        known = self._waiting.get(task_id)
        return known[1] if known else None

    def holder(self, task_id: str) -> WorkerKey | None:
        """Who holds it."""
        return self._held.get(task_id)

    def tasks_of(self, worker: WorkerKey) -> list[str]:
        """What the worker holds, by id."""
        return sorted(self._tasks.get(worker, ()))

    # ── workers ───────────────────────────────────────────────────────────────────────────────────

    def know(self, worker: RemoteWorker) -> None:
        """A worker that is new, or says something else of itself now."""
        key = (worker.tenant, worker.worker_id)
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = _Seat(worker, self._tasks.setdefault(key, set()))
        seat.worker = worker
        self._refresh(key)

    def forget(self, worker: WorkerKey) -> None:
        """It is not known any more; its polls are gone with it."""
        seat = self._seats.get(worker)
        if seat is not None:
            for poll in seat.polls:
                del self._polls[poll]
            seat.polls.clear()
            self._refresh(worker)
            del self._seats[worker]
            self._tidy(worker)

    def _tidy(self, worker: WorkerKey) -> None:
        if worker not in self._seats and not self._tasks.get(worker):
            self._tasks.pop(worker, None)

    def open(self, worker: WorkerKey, poll: PollKey) -> None:
        """A worker that is known polls. A second time changes nothing."""
        if poll in self._polls:
            return
        seat = self._seats[worker]
        self._polls[poll] = worker
        seat.polls[poll] = next(self._numbers)
        if len(seat.polls) == 1:
            self._refresh(worker)

    def close(self, poll: PollKey) -> WorkerKey | None:
        """The poll waits no more; whose it was, None = it did not wait."""
        worker = self._polls.pop(poll, None)
        if worker is not None:
            del self._seats[worker].polls[poll]
            self._refresh(worker)
        return worker

    def is_open(self, poll: PollKey) -> bool:
        """Does it wait?"""
        return poll in self._polls

    def polls_of(self, worker: WorkerKey) -> int:
        """How many of its polls wait."""
        seat = self._seats.get(worker)
        return len(seat.polls) if seat else 0

    # ── choice ────────────────────────────────────────────────────────────────────────────────────

    def assign(self) -> list[Assignment]:
        """What goes to whom now; these polls are closed, these tasks held."""
        out: list[Assignment] = []
        heads = [(order, n, want) for n, want in enumerate(self._dirty) if (order := self._head(want)) is not None]
        self._dirty = {}
        heapq.heapify(heads)
        while heads:
            _, n, want = heapq.heappop(heads)
            seat = self._best(want)
            if seat is None:
                continue
            out.append(self._take(want, seat))
            if (order := self._head(want)) is not None:
                heapq.heappush(heads, (order, n, want))
        self._dirty = {}
        return out

    def _head(self, want: _Want) -> _Order | None:
        """Of its first task; void entries before it are swept."""
        while want.tasks:
            order, task_id = want.tasks[0]
            known = self._waiting.get(task_id)
            if known is not None and known[0] == order:
                return order
            heapq.heappop(want.tasks)
        return None

    def _best(self, want: _Want) -> _Seat | None:
        while want.candidates:
            _, stamp, key = want.candidates[0]
            seat = self._seats.get(key)
            if seat is not None and seat.benched is not None and seat.stamp == stamp:
                return seat
            heapq.heappop(want.candidates)
        return None

    def _take(self, want: _Want, seat: _Seat) -> Assignment:
        _, task_id = heapq.heappop(want.tasks)
        _, waiting, _ = self._waiting.pop(task_id)
        want.waiting -= 1
        poll = next(iter(seat.polls))
        del seat.polls[poll], self._polls[poll]
        self._held[task_id] = seat.key
        seat.tasks.add(task_id)
        seat.served = next(self._numbers)
        self._refresh(seat.key)
        return Assignment(waiting, seat.key, poll)

    # ── indexes ───────────────────────────────────────────────────────────────────────────────────

    def _want(self, waiting: Waiting) -> _Want:
        strategy = waiting.strategy if waiting.strategy in STRATEGIES else "default"
        of_type = self._wants.setdefault(waiting.type, {})
        key = (waiting.tenant, waiting.wanted, strategy)
        want = of_type.get(key)
        if want is None:
            if len(of_type) >= _IDLE_WANTS:
                of_type = self._wants[waiting.type] = {k: w for k, w in of_type.items() if w.waiting}
            want = of_type[key] = _Want(waiting.tenant, waiting.type, waiting.wanted, STRATEGIES[strategy])
            for seat in self._bench.get(waiting.type, {}).values():
                if want.accepts(seat):
                    want.enter(seat)
        return want

    def _refresh(self, worker: WorkerKey) -> None:
        """Whatever changed about its seat: old entries are void, and there are new ones while it is open."""
        seat = self._seats.get(worker)
        if seat is None:
            return
        seat.stamp = next(self._numbers)
        skills = seat.worker.skills if seat.open else None
        if skills != seat.benched:
            for skill in seat.benched or ():
                self._bench[skill].pop(seat.key, None)
            for skill in skills or ():
                self._bench.setdefault(skill, {})[seat.key] = seat
            seat.benched = skills
        for skill in skills or ():
            for want in self._wants.get(skill, {}).values():
                if want.accepts(seat):
                    self._sweep(want)
                    want.enter(seat)
                    self._dirty[want] = None

    def _sweep(self, want: _Want) -> None:
        if len(want.candidates) > 2 * len(self._bench.get(want.type, ())) + _SLACK:
            want.candidates = [entry for entry in want.candidates if self._valid(entry[2], entry[1])]
            heapq.heapify(want.candidates)

    def _valid(self, key: WorkerKey, stamp: int) -> bool:
        seat = self._seats.get(key)
        return seat is not None and seat.benched is not None and seat.stamp == stamp


def why(waiting: Waiting, workers: Iterable[RemoteWorker]) -> str:
    """Why nobody has taken the task, in one sentence. `workers`: those that live."""
    able = [worker for worker in workers if worker.serves(waiting.tenant) and waiting.type in worker.skills]
    if not able:
        return f"no live worker offers '{waiting.type}'"
    price = waiting.wanted.max_cost
    affordable = [worker for worker in able if price is None or worker.cost(waiting.type) <= price]
    if not affordable:
        return f"{_live(able)} '{waiting.type}', none for a cost of at most {price:g}"
    fit = [worker for worker in affordable if worker.fits(waiting.type, waiting.wanted)]
    if not fit:
        return f"{_live(affordable)} '{waiting.type}', none meets the resource requirements"
    if all(worker.draining for worker in fit):
        return f"{_live(fit)} '{waiting.type}', all are draining"
    return f"{_live(fit)} '{waiting.type}', none asks for a task now"


def _live(workers: list[RemoteWorker]) -> str:
    return f"{len(workers)} live worker{' offers' if len(workers) == 1 else 's offer'}"
