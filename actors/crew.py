"""The worker slots a RunActor holds, and the batches that are on their way there.

A seat is a leased slot. At most two batches are in flight per seat: one that runs, and one short batch
behind it, so that a worker never waits for us while we commit. A batch is composed to last
about TARGET_S, by what tasks of its kind took before; a kind that was never seen goes alone. When a
batch takes longer than expected, what has not started in it is taken back (`give_back`), so nothing
waits behind a long task.

Each batch is looked after by one timer: take back, time out (cancel, then kill after a grace), and
ping a silent worker. Signs of life of an attempt (`heartbeat_timeout_s`) stay with its worker, which is asked only when
they may be overdue. Whatever happens ends as a message to the RunActor: `Ended` or `Gone`.

An exchange that fails says nothing about attempts while the worker lives: it is asked what it has of them
(`second_look.py`) for as long as it may be silent, and what runs there is waited for with an empty exchange.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors import second_look
from actors.peers import Peers, WorkerGone, WorkerUnreachable
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.control import Bound
from orchestrator.messages import Assignment, Exchange, Need, RunContext, Settled, bound_exchange

_log = logging.getLogger(__name__)

#: seconds of work in a batch
TARGET_S = 0.02
#: tasks in a batch
BATCH_MAX = 256
#: a batch that runs this much longer than expected gives back what has not started
PATIENCE_S = 0.03
#: timers may fire so much too early
_EARLY_S = 0.05
#: seconds before a worker that was not reached is asked again
_AGAIN_S = 0.2
#: (run id, task, attempt)
Key = tuple[str, str, int]


class Limit(NamedTuple):
    """How long one attempt may take, and how long it may be silent (None = for ever), seconds."""

    run_s: float
    silence_s: float | None = None


@dataclass(slots=True)
class Batch:
    """Attempts sent in one exchange. `open` maps those not settled yet to their limits."""

    number: int
    open: dict[Key, Limit]
    sent_s: float
    expected_s: float
    #: cancelled for overrunning a limit -> outcome that it is then, `timed_out` or `stalled`
    overdue: dict[Key, str] = field(default_factory=dict)
    #: attempt -> when its silence may be too long; asked of its worker then
    silent_at_s: dict[Key, float] = field(default_factory=dict)
    taken_back: bool = False
    #: its attempts went with it, and the worker has not been asked yet what became of them
    sent: bool = True
    timer: asyncio.TimerHandle | None = None
    #: when its worker was last asked for a sign of life, and last gave one
    asked_s: float = 0.0
    heard_s: float = 0.0


@dataclass(slots=True)
class Seat:
    """One leased worker slot."""

    worker: str
    incarnation: str
    lease: int
    batches: dict[int, Batch] = field(default_factory=dict)
    yielding: bool = False
    #: what its tasks need beside the slot: permits for one of them at a time came with the lease; None = plain tasks
    need: Need | None = None
    #: tasks of it that may still start; None = as many as come
    starts: int | None = None
    #: nobody has had a look yet at what could run on it
    fresh: bool = False
    #: not for tasks of backfills
    kept: bool = False
    #: Ray's id of the node that the worker is on; "" = it has not said so yet
    node: str = ""


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
    #: with the outcome that it is
    overdue: tuple[tuple[Key, str], ...]
    #: that was held on it; 0 = none
    lease: int = 0
    #: of that lease
    need: Need | None = None


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
        #: seconds between pings of a worker that is silent, and seconds it may be silent
        self._ping_s = settings.worker_ping_s
        self.lease_s = settings.worker_lease_s
        self._number = 0
        self.seats: dict[str, Seat] = {}
        #: has there ever been a seat that was not for tasks of backfills?
        self.keeps = False
        #: worker -> node it was on last
        self._nodes: dict[str, str] = {}
        #: worker -> batches whose reports are durable, to be told with the next one, whatever seat it has then
        self._acks: dict[str, list[int]] = {}
        #: worker -> newest lease for tasks with a need that was given back: a grant that comes again is void
        self._over: dict[str, int] = {}
        #: kind of task -> seconds one takes, smoothed
        self._took_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ── seats ──

    def locate(self, nodes: Iterable[tuple[str, str]]) -> None:
        """Workers are on these nodes: what they answer tells it, too, but later."""
        self._nodes.update(nodes)

    def seat(self, worker: str, incarnation: str, lease: int, kept: bool = False) -> bool:
        """A lease was granted. False: permits are still in use on that seat, so it is void."""
        known = self.seats.get(worker)
        if (known is not None and lease < known.lease) or lease <= self._over.get(worker, -1):
            return True  # a grant that comes late, or for the second time
        if known is not None and known.incarnation == incarnation:
            if known.need is not None:  # a scheduler that had not heard of it yet
                self._over[worker] = lease
                return False
            known.yielding = known.yielding and known.lease == lease
            known.lease, known.kept = lease, kept
            self.keeps |= kept
            return True
        if known is not None:  # replaced before we heard of its death
            self._lost(known)
        self._peers.meet(worker, incarnation)
        self.seats[worker] = Seat(worker, incarnation, lease, kept=kept, node=self._nodes.get(worker, ""))
        self.keeps |= kept
        return True

    def bind(self, grant: Bound) -> bool:
        """A lease for tasks with one need was granted. False: it came late, or the seat is taken, so it is void."""
        worker = grant.worker
        known = self.seats.get(worker)
        if grant.lease <= self._over.get(worker, 0):
            return True  # for the second time, and it is over
        if known is not None and known.incarnation != grant.incarnation:
            self._lost(known)
            known = None
        if known is not None and known.lease == grant.lease:
            return True
        if known is not None and (known.batches or known.lease > grant.lease):
            self._over[worker] = grant.lease
            return False
        self._peers.meet(worker, grant.incarnation)
        seat = self.seats[worker] = Seat(worker, grant.incarnation, grant.lease, need=grant.need, starts=grant.starts)
        seat.fresh, seat.kept, seat.node = True, grant.kept, grant.node or self._nodes.get(worker, "")
        return True

    def give_up(self, worker: str, lease: int) -> None:
        """The scheduler wants the slot back once it is free."""
        seat = self.seats.get(worker)
        if seat is not None and seat.lease == lease:
            seat.yielding = True

    def leave_idle(self) -> list[tuple[str, int]]:
        """Let go of the seats that have nothing in flight; the released leases."""
        idle = [seat for seat in self.seats.values() if not seat.batches and seat.need is None]
        for seat in idle:
            del self.seats[seat.worker]
        return [(seat.worker, seat.lease) for seat in idle]

    def vacate(self) -> list[tuple[str, int]]:
        """Let go of the seats that are to be given up and have nothing in flight."""
        idle = [seat for seat in self.seats.values() if seat.yielding and not seat.batches and seat.need is None]
        for seat in idle:
            del self.seats[seat.worker]
        return [(seat.worker, seat.lease) for seat in idle]

    def leave_kept(self) -> list[tuple[str, int]]:
        """Let go of the seats that are not for tasks of backfills and have nothing in flight."""
        idle = [s for s in self.seats.values() if s.kept and not s.batches and s.need is None]
        for seat in idle:
            del self.seats[seat.worker]
        return [(seat.worker, seat.lease) for seat in idle]

    def leave_bound(self) -> list[tuple[str, int]]:
        """Let go of the seats for tasks with a need that have nothing in flight and found nothing to do."""
        idle = [s for s in self.seats.values() if s.need is not None and not s.batches and not s.fresh]
        for seat in idle:
            del self.seats[seat.worker]
            self._over[seat.worker] = max(seat.lease, self._over.get(seat.worker, 0))
        return [(seat.worker, seat.lease) for seat in idle]

    def seen(self) -> None:
        """Everybody who could use a seat for tasks with a need has had a look."""
        for seat in self.seats.values():
            seat.fresh = False

    def bound(self) -> tuple[Bound, ...]:
        """Every seat for tasks with a need."""
        return tuple(
            Bound(seat.worker, seat.incarnation, seat.lease, seat.need, seat.starts, seat.kept)
            for seat in self.seats.values()
            if seat.need is not None
        )

    def with_room(self) -> list[Seat]:
        """Seats that can take a batch of plain tasks now, the emptiest first, and of equals those that are kept."""
        seats = [seat for seat in self.seats.values() if not seat.yielding and seat.need is None and _has_room(seat)]
        if self.keeps:
            seats.sort(key=lambda seat: not seat.kept)
        return sorted(seats, key=lambda seat: len(seat.batches))

    def bound_with_room(self) -> list[Seat]:
        """Seats that can take a batch of tasks with their need now, the emptiest first."""
        seats = [s for s in self.seats.values() if s.need is not None and not s.yielding and _has_room(s)]
        return sorted((s for s in seats if s.starts != 0), key=lambda seat: len(seat.batches))

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
        open_ = {(t.run_id, t.task, t.attempt): Limit(t.timeout_s, t.heartbeat_timeout_s) for t in tasks}
        batch = _batch(self._number, open_, expected_s)
        behind = bool(seat.batches)
        seat.batches[batch.number] = batch
        if seat.need is not None and self.seats.get(seat.worker) is not seat:
            self._lost(seat)  # lost since the batch was composed, and with it the permits
            return batch.number
        acks = tuple(self._acks.pop(seat.worker, ()))
        exchange = Exchange(self._owner, self._epoch, batch.number, tuple(contexts), tuple(tasks), acks)
        if seat.need is not None:
            exchange = bound_exchange(exchange, seat.need)
        self._spawn(self._exchange(seat, batch, actor_codec.encode_exchange(exchange)))
        self._look_again(seat, batch, expected_s + PATIENCE_S if behind or len(tasks) > 1 else self._next_look_s(batch))
        return batch.number

    def collect(
        self, worker: str, incarnation: str, lease: int, keys: dict[Key, Limit], need: Need | None = None
    ) -> None:
        """Take over attempts that run at a worker since before our time: wait for their end with an empty batch."""
        self.seat(worker, incarnation, lease)
        seat = self.seats[worker]
        if need is not None:
            seat.need, seat.starts = need, 0
        self._number += 1
        batch = _batch(self._number, dict(keys), 0.0)
        batch.taken_back, batch.sent = True, False
        seat.batches[batch.number] = batch
        self._spawn(self._exchange(seat, batch, self._empty(batch)))
        self._look_again(seat, batch, self._next_look_s(batch))

    def _empty(self, batch: Batch) -> bytes:
        """Waits for what runs of the batch, and starts nothing."""
        return actor_codec.encode_exchange(Exchange(self._owner, self._epoch, batch.number, (), ()))

    async def _exchange(self, seat: Seat, batch: Batch, blob: bytes) -> None:
        waits = True
        while waits:
            try:
                answer = await self._peers.exchange(seat.worker, blob)
            except WorkerUnreachable as failed:
                _log.warning("%s", failed)
                waits, blob = await self._ask(seat, batch), self._empty(batch)
            except WorkerGone as gone:
                _log.warning("%s", gone)
                return self._lost(seat)
            else:
                return self._post(Ended(seat.worker, actor_codec.decode_settled(answer), batch.number))

    async def _ask(self, seat: Seat, batch: Batch) -> bool:
        """What became of a batch whose exchange failed? True = some of it runs. `_look_after` ends the asking."""
        batch.taken_back = True  # nothing goes behind it meanwhile
        while batch.number in seat.batches:
            if await self._peers.is_dead(seat.worker):
                _log.warning("worker %s has died", seat.worker)
                self._lost(seat)
                return False
            try:
                about = (seat.worker, seat.incarnation, self._owner, self._epoch, batch.number)
                told = await second_look.look(self._peers, *about)
            except WorkerUnreachable as failed:
                _log.info("%s", failed)
                await asyncio.sleep(_AGAIN_S)
            except WorkerGone as gone:
                _log.warning("%s", gone)
                self._lost(seat)
            else:
                batch.heard_s = _now()
                found = second_look.found(batch.open, *told, batch.sent)
                batch.sent = False
                self._post(Ended(seat.worker, found.settled, None if found.live else batch.number))
                return bool(found.live)
        return False

    # ── what comes back ──

    def settle(self, ended: Ended) -> list[Key]:
        """Book an answer. Returns attempts of a finished batch that nobody reported: they are lost."""
        seat = self.seats.get(ended.worker)
        if seat is None:
            return []
        if seat.node != ended.settled.node:
            seat.node = self._nodes[ended.worker] = ended.settled.node
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
        overdue: list[tuple[Key, str]] = []
        for batch in seat.batches.values():
            _stop(batch)
            for key in batch.open:
                if key in batch.overdue:
                    overdue.append((key, batch.overdue[key]))
                else:
                    lost.append(key)
        seat.batches.clear()
        lease, need = (seat.lease, seat.need) if held else (0, None)
        if need is not None:
            self._over[seat.worker] = max(lease, self._over.get(seat.worker, 0))
        self._post(Gone(seat.worker, seat.incarnation, tuple(lost), tuple(overdue), lease, need))

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
            if batch.silent_at_s:
                await self._listen(seat, batch)
            if _now() - batch.asked_s >= self._ping_s:
                batch.asked_s = _now()
                await self._peers.control(seat.worker, "ping")
                batch.heard_s = _now()
        except WorkerGone as gone:
            silent_s = _now() - batch.heard_s
            _log.warning("%s (silent for %.1f of %.1f s)", gone, silent_s, self.lease_s)
            if silent_s >= self.lease_s - _EARLY_S:
                self._lost(seat)
                await self._end(seat.worker)
        if batch.number in seat.batches:
            self._look_again(seat, batch, self._next_look_s(batch))

    def _next_look_s(self, batch: Batch) -> float:
        now = _now()
        elapsed = now - batch.sent_s
        limits = [limit.run_s - elapsed for key, limit in batch.open.items() if key not in batch.overdue]
        ping_s = batch.asked_s + self._ping_s - now
        return max(0.01, min([ping_s, *limits, *(at - now for at in batch.silent_at_s.values())]))

    async def _take_back(self, seat: Seat, batch: Batch) -> None:
        batch.taken_back = True
        newest = max(seat.batches)
        answer = await self._peers.control(seat.worker, "give_back", self._owner, newest, self._epoch)
        for other in seat.batches.values():
            other.taken_back = True
        self._post(Ended(seat.worker, actor_codec.decode_settled(answer), None))

    def _time_out(self, seat: Seat, batch: Batch) -> None:
        elapsed = _now() - batch.sent_s
        for key, limit in batch.open.items():
            if elapsed >= limit.run_s and key not in batch.overdue:
                self._overrun(seat, batch, key, "timed_out")

    def _overrun(self, seat: Seat, batch: Batch, key: Key, outcome: str) -> None:
        batch.overdue[key] = outcome
        batch.silent_at_s.pop(key, None)
        self._spawn(self._cancel(seat.worker, key, outcome))

    async def _listen(self, seat: Seat, batch: Batch) -> None:
        """Attempts that may have been silent for too long: ask their worker for how long they have been."""
        for key, at_s in list(batch.silent_at_s.items()):
            limit_s = batch.open[key].silence_s if key in batch.open else None
            if limit_s is None:
                batch.silent_at_s.pop(key, None)
            elif at_s <= _now():
                silent_s = await self._peers.control(seat.worker, "silence", *key)
                if key not in batch.open or key in batch.overdue:
                    continue
                if silent_s is not None and silent_s >= limit_s:
                    self._overrun(seat, batch, key, "stalled")
                else:  # None: it has not begun, or has just ended
                    batch.silent_at_s[key] = _now() + max(0.01, limit_s - (silent_s or 0.0))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _batch(number: int, open_: dict[Key, Limit], expected_s: float) -> Batch:
    now = _now()
    batch = Batch(number, open_, now, expected_s, asked_s=now, heard_s=now)
    for key, limit in open_.items():
        if limit.silence_s is not None:
            batch.silent_at_s[key] = now + limit.silence_s
    return batch


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
