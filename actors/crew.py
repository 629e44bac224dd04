"""The worker slots a RunActor holds, and the batches that are on their way there.

A seat is a leased slot. At most two batches are in flight per seat: one that runs, and one short batch
behind it, so that a worker never waits for us while we commit. A batch is composed to last
about TARGET_S, by what tasks of its kind took before; a kind that was never seen goes alone. When a
batch takes longer than expected, what has not started in it is taken back (`give_back`), so nothing
waits behind a long task.

Each batch is looked after by one timer: take back, time out (cancel, then kill after a grace), and
ping a silent worker. Whatever happens ends as a message to the RunActor: `Ended` or `Gone`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from actors.peers import Peers, WorkerGone
from actors.settings import Settings
from orchestrator import codec
from orchestrator.messages import Assignment, Exchange, RunContext, Settled

_log = logging.getLogger(__name__)

#: seconds of work in a batch
TARGET_S = 0.02
#: tasks in a batch
BATCH_MAX = 256
#: a batch that runs this much longer than expected gives back what has not started
PATIENCE_S = 0.03
#: (run id, task, attempt)
Key = tuple[str, str, int]


@dataclass(slots=True)
class Batch:
    """Attempts sent in one exchange. `open` maps those not settled yet to their time limit, seconds."""

    number: int
    open: dict[Key, float]
    sent_s: float
    expected_s: float
    #: cancelled for overrunning their time limit
    overdue: set[Key] = field(default_factory=set)
    taken_back: bool = False
    timer: asyncio.TimerHandle | None = None
    pings_missed: int = 0


@dataclass(slots=True)
class Seat:
    """One leased worker slot."""

    worker: str
    incarnation: str
    lease: int
    batches: dict[int, Batch] = field(default_factory=dict)
    yielding: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker answered; `batch` is over when given."""

    worker: str
    settled: Settled
    batch: int | None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker is gone; these attempts with it, the second group because they overran their limit."""

    worker: str
    incarnation: str
    lost: tuple[Key, ...]
    overdue: tuple[Key, ...]
    #: that was held on it; 0 = none
    lease: int = 0


class Crew:
    """All seats of one RunActor."""

    def __init__(
        self, owner: str, epoch: int, peers: Peers, post: Callable[[Ended | Gone], None], settings: Settings
    ) -> None:
        self._owner = owner
        self._epoch = epoch
        self._peers = peers
        self._post = post
        self._grace_s = settings.cancel_grace_s
        #: seconds between pings of a worker that is silent, and pings it may miss
        self._ping_s = settings.worker_ping_s
        self._pings_missed_max = max(1, round(settings.worker_lease_s / settings.worker_ping_s))
        self._number = 0
        self.seats: dict[str, Seat] = {}
        #: worker -> batches whose reports are durable, to be told with the next one, whatever seat it has then
        self._acks: dict[str, list[int]] = {}
        #: kind of task -> seconds one takes, smoothed
        self._took_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ── seats ──

    def seat(self, worker: str, incarnation: str, lease: int) -> None:
        """A lease was granted."""
        known = self.seats.get(worker)
        if known is not None and lease < known.lease:  # a grant that comes late, or for the second time
            return
        if known is not None and known.incarnation == incarnation:
            known.yielding = known.yielding and known.lease == lease
            known.lease = lease
            return
        if known is not None:  # replaced before we heard of its death
            self._lost(known)
        self.seats[worker] = Seat(worker, incarnation, lease)

    def give_up(self, worker: str, lease: int) -> None:
        """The scheduler wants the slot back once it is free."""
        seat = self.seats.get(worker)
        if seat is not None and seat.lease == lease:
            seat.yielding = True

    def leave_idle(self) -> list[tuple[str, int]]:
        """Let go of the seats that have nothing in flight; the released leases."""
        idle = [seat for seat in self.seats.values() if not seat.batches]
        for seat in idle:
            del self.seats[seat.worker]
        return [(seat.worker, seat.lease) for seat in idle]

    def vacate(self) -> list[tuple[str, int]]:
        """Let go of the seats that are to be given up and have nothing in flight."""
        idle = [seat for seat in self.seats.values() if seat.yielding and not seat.batches]
        for seat in idle:
            del self.seats[seat.worker]
        return [(seat.worker, seat.lease) for seat in idle]

    def with_room(self) -> list[Seat]:
        """Seats that can take a batch now, the emptiest first."""
        seats = [seat for seat in self.seats.values() if not seat.yielding and _has_room(seat)]
        return sorted(seats, key=lambda seat: len(seat.batches))

    # ── durations ──

    def takes_s(self, kind: str) -> float | None:
        """Seconds a task of that kind is expected to take; None = never seen."""
        return self._took_s.get(kind)

    def took(self, kind: str, seconds: float) -> None:
        """Learn from one attempt; a long one counts at once, short ones little by little."""
        known = self._took_s.get(kind)
        self._took_s[kind] = seconds if known is None or seconds > 4 * known else known + (seconds - known) / 8

    # ── sending ──

    def send(self, seat: Seat, contexts: Iterable[RunContext], tasks: list[Assignment], expected_s: float) -> int:
        """Send a batch; its attempts are durable as started. Its number."""
        self._number += 1
        open_ = {(task.run_id, task.task, task.attempt): task.timeout_s for task in tasks}
        batch = Batch(self._number, open_, _now(), expected_s)
        behind = bool(seat.batches)
        seat.batches[batch.number] = batch
        acks = tuple(self._acks.pop(seat.worker, ()))
        exchange = Exchange(self._owner, self._epoch, batch.number, tuple(contexts), tuple(tasks), acks)
        self._spawn(self._exchange(seat, batch, codec.encode_exchange(exchange)))
        self._look_again(seat, batch, expected_s + PATIENCE_S if behind or len(tasks) > 1 else self._next_look_s(batch))
        return batch.number

    def collect(self, worker: str, incarnation: str, lease: int, keys: dict[Key, float]) -> None:
        """Take over attempts that run at a worker since before our time: wait for their end with an empty batch."""
        self.seat(worker, incarnation, lease)
        seat = self.seats[worker]
        self._number += 1
        batch = Batch(self._number, dict(keys), _now(), 0.0, taken_back=True)
        seat.batches[batch.number] = batch
        self._spawn(
            self._exchange(seat, batch, codec.encode_exchange(Exchange(self._owner, self._epoch, batch.number, (), ())))
        )
        self._look_again(seat, batch, self._next_look_s(batch))

    async def _exchange(self, seat: Seat, batch: Batch, blob: bytes) -> None:
        try:
            answer = await self._peers.exchange(seat.worker, blob)
        except WorkerGone as gone:
            _log.warning("%s", gone)
            self._lost(seat)
        else:
            self._post(Ended(seat.worker, codec.decode_settled(answer), batch.number))

    # ── what comes back ──

    def settle(self, ended: Ended) -> list[Key]:
        """Book an answer. Returns attempts of a finished batch that nobody reported: they are lost."""
        seat = self.seats.get(ended.worker)
        if seat is None:
            return []
        settled = {(r.run_id, r.task, r.attempt) for r in ended.settled.reports} | set(ended.settled.untouched)
        for batch in seat.batches.values():
            if batch.open:
                for key in settled & batch.open.keys():
                    del batch.open[key]
        if ended.batch is None:
            return []
        finished = seat.batches.pop(ended.batch, None)
        if finished is None:
            return []
        _stop(finished)
        self._acks.setdefault(ended.worker, []).append(finished.number)
        return list(finished.open)

    def abort(self, worker: str, key: Key) -> None:
        """Stop an attempt whose result does not count any more; kill its worker when it does not obey."""
        self._spawn(self._cancel(worker, key, "cancelled"))

    async def _cancel(self, worker: str, key: Key, reason: str) -> None:
        try:
            await self._peers.control(worker, "cancel", *key, reason)
        except WorkerGone as gone:
            _log.info("cancel of %s: %s", key, gone)
        await asyncio.sleep(self._grace_s)
        seat = self.seats.get(worker)
        if seat is not None and any(key in batch.open for batch in seat.batches.values()):
            _log.warning("attempt %s did not stop within %.1f s: ending worker %s", key, self._grace_s, worker)
            await self._end(worker)

    async def _end(self, worker: str) -> None:
        try:
            await self._peers.kill(worker)
        except WorkerGone as gone:
            _log.info("%s", gone)

    def _lost(self, seat: Seat) -> None:
        """The worker is gone. Told again when a batch that was composed before went there after that."""
        held = self.seats.get(seat.worker) is seat
        if held:
            del self.seats[seat.worker]
        elif not seat.batches:
            return
        lost: list[Key] = []
        overdue: list[Key] = []
        for batch in seat.batches.values():
            _stop(batch)
            for key in batch.open:
                (overdue if key in batch.overdue else lost).append(key)
        seat.batches.clear()
        self._post(Gone(seat.worker, seat.incarnation, tuple(lost), tuple(overdue), seat.lease if held else 0))

    # ── looking after a batch ──

    def _look_again(self, seat: Seat, batch: Batch, delay_s: float) -> None:
        _stop(batch)
        loop = asyncio.get_running_loop()
        batch.timer = loop.call_later(delay_s, lambda: self._spawn(self._look_after(seat, batch)))

    async def _look_after(self, seat: Seat, batch: Batch) -> None:
        if batch.number not in seat.batches:
            return
        try:
            if not batch.taken_back:
                await self._take_back(seat, batch)
            self._time_out(seat, batch)
            if _now() - batch.sent_s >= self._ping_s:
                await self._peers.control(seat.worker, "ping")
            batch.pings_missed = 0
        except WorkerGone as gone:
            batch.pings_missed += 1
            _log.warning("%s (%d of %d)", gone, batch.pings_missed, self._pings_missed_max)
            if batch.pings_missed >= self._pings_missed_max:
                self._lost(seat)
                await self._end(seat.worker)
        if batch.number in seat.batches:
            self._look_again(seat, batch, self._next_look_s(batch))

    def _next_look_s(self, batch: Batch) -> float:
        elapsed = _now() - batch.sent_s
        limits = [limit - elapsed for key, limit in batch.open.items() if key not in batch.overdue]
        return max(0.01, min([self._ping_s, *limits]))

    async def _take_back(self, seat: Seat, batch: Batch) -> None:
        batch.taken_back = True
        newest = max(seat.batches)
        answer = await self._peers.control(seat.worker, "give_back", self._owner, newest, self._epoch)
        for other in seat.batches.values():
            other.taken_back = True
        self._post(Ended(seat.worker, codec.decode_settled(answer), None))

    def _time_out(self, seat: Seat, batch: Batch) -> None:
        elapsed = _now() - batch.sent_s
        for key, limit in batch.open.items():
            if elapsed >= limit and key not in batch.overdue:
                batch.overdue.add(key)
                self._spawn(self._cancel(seat.worker, key, "timed_out"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_room(seat: Seat) -> bool:
    if not seat.batches:
        return True
    # a second batch only behind one that is known to be short and is not late
    return len(seat.batches) < 2 and all(b.expected_s <= TARGET_S and not b.taken_back for b in seat.batches.values())


def _stop(batch: Batch) -> None:
    if batch.timer is not None:
        batch.timer.cancel()
        batch.timer = None


def _now() -> float:
    return asyncio.get_running_loop().time()
