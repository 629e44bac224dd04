"""What a worker knows of the batches it was sent: what runs, what waits, which reports are still to be acknowledged.

    open ──▶ start ──▶ settle ──▶ … ──▶ close ──▶ answer ──▶ (ack in a later open) ──▶ forgotten
               ▲ skips what was cancelled; ends early at give_back

Per owner: a batch runs once, whatever is sent again; a batch of a former incarnation (smaller epoch) does not run
at all; reports stay until an ack. Acknowledging a batch covers every report that the answer to it carried, so reports
of lost answers, of former incarnations too, ride along in the next answer and go with its ack.

Bookkeeping only: no I/O, no user code, one lock, callable from any thread. One batch is open at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.attempt import LiveAttempt
from orchestrator.messages import Assignment, BoundExchange, Exchange, Need, Report

#: (run id, task, attempt)
Key = tuple[str, str, int]

#: reports kept in all; beyond, the oldest of former incarnations go
KEPT_MAX = 10_000
#: batch numbers, and answers, remembered per owner; the exchanges in flight are at most a few
SEEN_MAX = 4096
TOLD_MAX = 256
#: cancels remembered for attempts that have not arrived: a cancel may overtake its exchange
EARLY_MAX = 10_000
#: an owner that is silent this long is forgotten; its attempts count as lost by then
SILENT_MAX_S = 24 * 3600.0


@dataclass(slots=True, eq=False)
class Record:
    """What came of one batch, kept until acknowledged."""

    epoch: int
    reports: list[Report] = field(default_factory=list)
    untouched: list[Key] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Batch:
    """The batch that is being worked on."""

    owner: str
    number: int
    record: Record
    tasks: tuple[Assignment, ...]
    #: index of the next task to start, and of the first that will not start
    next: int = 0
    end: int = 0
    #: the attempt that runs now: the one before `next`
    live: LiveAttempt | None = None
    #: what its tasks need beside the slot
    need: Need | None = None


@dataclass(slots=True, eq=False)
class _Owner:
    heard_s: float
    epoch: int = 0
    #: batches of this epoch that arrived, oldest first
    seen: dict[int, None] = field(default_factory=dict)
    newest: int = 0
    #: batches up to this number are not to be started any more
    given_back: int = 0
    records: list[Record] = field(default_factory=list)
    #: batch -> what the answer to it carried and is not acknowledged
    told: dict[int, tuple[Record, ...]] = field(default_factory=dict)

    def advance(self, epoch: int) -> None:
        """A new incarnation begins with a clean slate, except for what it has not been told yet."""
        if epoch > self.epoch:
            self.epoch, self.newest, self.given_back = epoch, 0, 0
            self.seen.clear()
            self.told.clear()

    def acknowledge(self, batch: int) -> None:
        """What the answer to `batch` carried is durable."""
        covered = set(map(id, self.told.get(batch, ())))
        if covered:
            self.records = [record for record in self.records if id(record) not in covered]
            self.told[batch] = ()

    def remember(self, batch: int) -> None:
        """`batch` has arrived."""
        self.seen[batch] = None
        self.newest = max(self.newest, batch)
        _trim(self.seen, SEEN_MAX)

    def tell(self, batch: int) -> tuple[Record, ...]:
        """What the answer to `batch` carries. The first answer settles what an ack of it will cover."""
        everything = tuple(self.records)
        told = self.told.setdefault(batch, everything)
        _trim(self.told, TOLD_MAX)
        return told if batch in self.seen else everything


class BatchBook:
    """Everything a worker must remember between two exchanges."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._owners: dict[str, _Owner] = {}
        self._open: Batch | None = None
        self._cancels: dict[Key, str] = {}

    # ── the thread that runs tasks ──

    def open(self, exchange: Exchange) -> Batch | None:
        """Take the acks; the batch to run, or None when there is nothing to run (again)."""
        with self._lock:
            owner = self._owner(exchange.owner)
            if exchange.epoch < owner.epoch:
                return None
            owner.advance(exchange.epoch)
            for number in exchange.acks:
                owner.acknowledge(number)
            if not exchange.tasks or exchange.batch in owner.seen:
                return None
            owner.remember(exchange.batch)
            record = Record(exchange.epoch)
            batch = Batch(exchange.owner, exchange.batch, record, exchange.tasks, end=len(exchange.tasks))
            batch.need = exchange.need if isinstance(exchange, BoundExchange) else None
            owner.records.append(record)
            if exchange.batch <= owner.given_back:
                self._stop(batch)
                return None
            self._open = batch
            return batch

    def start(self, batch: Batch) -> tuple[Assignment, LiveAttempt] | None:
        """The next task to run; None when none is left."""
        with self._lock:
            while batch.next < batch.end:
                task = batch.tasks[batch.next]
                batch.next += 1
                if not self._cancels or (reason := self._cancels.pop(_key(task), None)) is None:
                    batch.live = LiveAttempt()
                    return task, batch.live
                batch.record.reports.append(_never_ran(task, reason))
            return None

    def settle(self, batch: Batch, report: Report) -> None:
        """The task started last has ended."""
        with self._lock:
            batch.record.reports.append(report)
            batch.live = None

    def close(self, batch: Batch) -> None:
        """Nothing of the batch will start any more."""
        with self._lock:
            self._stop(batch)
            batch.live = self._open = None
            self._drop_excess()

    def answer(self, exchange: Exchange) -> tuple[list[Report], list[Key]]:
        """Reports and untouched attempts for the answer to `exchange`; the same again when it is sent again."""
        with self._lock:
            owner = self._owner(exchange.owner)
            if exchange.epoch < owner.epoch:
                return [], [_key(task) for task in exchange.tasks]
            return _contents(owner.tell(exchange.batch))

    # ── threads that answer meanwhile ──

    def give_back(self, name: str, up_to_batch: int, epoch: int | None) -> tuple[int, list[Report], list[Key]]:
        """Batches up to that number start nothing more. The newest batch that has arrived, and what came of all."""
        with self._lock:
            owner = self._owner(name)
            if epoch is not None:
                owner.advance(epoch)
            if epoch is None or epoch == owner.epoch:
                owner.given_back = max(owner.given_back, up_to_batch)
                batch = self._open
                if batch is not None and batch.owner == name and _covers(batch, owner.epoch, up_to_batch):
                    self._stop(batch)
            return owner.newest, *_contents(owner.records)

    def cancel(self, key: Key, reason: str) -> bool:
        """True when the attempt is here and will be reported with the first reason given. One that comes later, too."""
        with self._lock:
            batch = self._open
            if batch is not None and batch.live is not None and _key(batch.tasks[batch.next - 1]) == key:
                live = batch.live
            else:
                return self._cancel_ahead(key, reason)
        return live.cancel(reason)

    def silence(self, key: Key) -> float | None:
        """Seconds since the running attempt gave a sign of life; None = it is not this one that runs."""
        with self._lock:
            batch = self._open
            if batch is None or batch.live is None or _key(batch.tasks[batch.next - 1]) != key:
                return None
            return batch.live.silence_s()

    def holding(self, name: str, epoch: int | None) -> tuple[list[Key], list[Report]]:
        """What of that owner runs or waits here, and its reports. With `epoch`: nothing older starts from now on."""
        with self._lock:
            owner = self._owner(name)
            if epoch is not None:
                owner.advance(epoch)
            live = list(map(_key, _unfinished(self._open))) if self._open and self._open.owner == name else []
            return live, _contents(owner.records)[0]

    def fence(self, epochs: Mapping[str, int]) -> tuple[tuple[str, int, int] | None, Need | None]:
        """Owner, epoch, number and need of what runs. Nothing of incarnations before these starts from now on."""
        with self._lock:
            for name, epoch in epochs.items():
                self._owner(name).advance(epoch)
            batch = self._open
            if batch is None:
                return None, None
            for name, epoch in epochs.items():
                if batch.owner == name and batch.record.epoch < epoch:
                    self._stop(batch)
            return (batch.owner, batch.record.epoch, batch.number), batch.need

    # ── with the lock held ──

    def _owner(self, name: str) -> _Owner:
        now_s = self._monotonic()
        owner = self._owners.get(name)
        if owner is None:
            self._forget_silent(now_s)
            owner = self._owners[name] = _Owner(now_s)
        owner.heard_s = now_s
        return owner

    def _forget_silent(self, now_s: float) -> None:
        busy = self._open.owner if self._open else None
        for name, owner in list(self._owners.items()):
            if now_s - owner.heard_s > SILENT_MAX_S and name != busy:
                del self._owners[name]

    def _stop(self, batch: Batch) -> None:
        for task in _waiting(batch):
            reason = self._cancels.pop(_key(task), None)
            if reason is None:
                batch.record.untouched.append(_key(task))
            else:
                batch.record.reports.append(_never_ran(task, reason))
        batch.end = batch.next

    def _cancel_ahead(self, key: Key, reason: str) -> bool:
        self._cancels.setdefault(key, reason)
        if len(self._cancels) > EARLY_MAX:
            del self._cancels[next(iter(self._cancels))]
        return self._open is not None and any(_key(task) == key for task in _waiting(self._open))

    def _drop_excess(self) -> None:
        excess = sum(len(record.reports) for owner in self._owners.values() for record in owner.records) - KEPT_MAX
        for owner in self._owners.values():
            for record in [record for record in owner.records if record.epoch < owner.epoch]:
                if excess <= 0:
                    return
                owner.records.remove(record)
                excess -= len(record.reports)


def _covers(batch: Batch, epoch: int, up_to_batch: int) -> bool:
    return batch.record.epoch < epoch or batch.number <= up_to_batch


def _waiting(batch: Batch) -> tuple[Assignment, ...]:
    return batch.tasks[batch.next : batch.end]


def _unfinished(batch: Batch) -> Iterator[Assignment]:
    if batch.live is not None:
        yield batch.tasks[batch.next - 1]
    yield from _waiting(batch)


def _contents(records: Sequence[Record]) -> tuple[list[Report], list[Key]]:
    return (
        [report for record in records for report in record.reports],
        [key for record in records for key in record.untouched],
    )


def _trim(remembered: dict[int, Any], most: int) -> None:
    if len(remembered) > most:
        del remembered[next(iter(remembered))]


def _key(task: Assignment) -> Key:
    return (task.run_id, task.task, task.attempt)


def _never_ran(task: Assignment, reason: str) -> Report:
    return Report(task.run_id, task.task, task.attempt, reason, error=f"{reason} before it started")
