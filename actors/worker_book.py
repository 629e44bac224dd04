"""The remote workers that the gateway knows: who lives, who has expired, and their durable records.

A registration is durable before it is answered. Signs of life are memory only: after a restart every worker that had
not expired gets a fresh TTL. What a worker says that is of the moment (load, current tasks) and its reputation are
written when something else is, or when it expires.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import timedelta

import msgspec

from actors.clock import Clock
from actors.record_writer import RecordWriter
from orchestrator.remote_dispatch import WorkerKey
from orchestrator.remote_worker import KNOWN_S, RemoteWorker, WorkerRecord

KIND = "worker"
_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(WorkerRecord)


class WorkerBook:
    """Workers by (tenant, id)."""

    def __init__(self, writer: RecordWriter, clock: Clock, ttl_s: float) -> None:
        self._writer = writer
        self._clock = clock
        self._ttl_s = ttl_s
        self._known: dict[WorkerKey, RemoteWorker] = {}
        self._live: dict[WorkerKey, None] = {}
        self._by_skill: dict[str, dict[WorkerKey, None]] = {}
        #: skills under which it stands in `_by_skill`
        self._skills: dict[WorkerKey, frozenset[str]] = {}
        self._stored: dict[WorkerKey, bytes] = {}
        #: (when to look at it again, key); of a key only the entry for `_due_s` counts
        self._due: list[tuple[float, WorkerKey]] = []
        self._due_s: dict[WorkerKey, float] = {}

    def load(self, records: dict[str, bytes]) -> None:
        """What is kept of them; those that had not expired live."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        for data in records.values():
            record = _decoder.decode(data)
            worker = RemoteWorker(record.tenant, record.worker_id, record.body, record.reputation)
            key = (record.tenant, record.worker_id)
            self._known[key], self._stored[key] = worker, data
            if not record.gone_ms:
                worker.seen(now_s, now)
                self._revive(key)
            else:
                gone = timedelta(milliseconds=now.timestamp() * 1000 - record.gone_ms)
                worker.seen(now_s - self._ttl_s - gone.total_seconds(), now - gone)
                self._watch(key, worker.seen_s + self._ttl_s + KNOWN_S)

    def __iter__(self) -> Iterator[WorkerKey]:
        return iter(self._known)

    def get(self, key: WorkerKey) -> RemoteWorker | None:
        """A known one."""
        return self._known.get(key)

    def lives(self, key: WorkerKey) -> bool:
        """Is it known, and not expired?"""
        return key in self._live

    def live(self) -> list[RemoteWorker]:
        """Those that have not expired, by id."""
        return [self._known[key] for key in sorted(self._live, key=lambda key: (key[1], key[0]))]

    def offering(self, skill: str) -> list[RemoteWorker]:
        """Live ones with that skill."""
        return [self._known[key] for key in self._by_skill.get(skill, ())]

    def seen(self, key: WorkerKey) -> RemoteWorker | None:
        """A sign of life of a worker; None when it is not known."""
        worker = self._known.get(key)
        if worker is not None:
            worker.seen(self._clock.monotonic(), self._clock.now())
            self._revive(key)
        return worker

    def meet(self, key: WorkerKey) -> RemoteWorker:
        """The same; it is known from now on."""
        if key not in self._known:
            self._known[key] = RemoteWorker(*key)
        worker = self.seen(key)
        assert worker is not None  # it was put there
        return worker

    def indexed(self, key: WorkerKey) -> None:
        """It may have other skills now."""
        skills = self._known[key].skills if key in self._live else frozenset()
        before = self._skills.pop(key, frozenset())
        for skill in before - skills:
            self._by_skill[skill].pop(key, None)
        for skill in skills - before:
            self._by_skill.setdefault(skill, {})[key] = None
        if skills:
            self._skills[key] = skills

    async def save(self, key: WorkerKey) -> None:
        """What it says of itself is durable."""
        self._note(key)
        if self._writer.pending(_name(key)):
            await self._writer.flush()

    def _note(self, key: WorkerKey) -> None:
        worker = self._known.get(key)
        if worker is None:
            return
        gone_ms = 0 if key in self._live else round((worker.seen_at or self._clock.now()).timestamp() * 1000)
        record = WorkerRecord(worker.tenant, worker.worker_id, worker.lasting(), worker.reputation, gone_ms)
        data = _encoder.encode(record)
        if data != self._stored.get(key):
            self._stored[key] = data
            self._writer.note(_name(key), data)

    async def flush(self) -> None:
        """What was noted is durable."""
        await self._writer.flush()

    def begin_flush(self) -> None:
        """The same, soon."""
        self._writer.begin()

    def expire(self, present: Callable[[WorkerKey], bool]) -> tuple[list[WorkerKey], list[WorkerKey]]:
        """Who has been silent for a TTL by now, and who for so long that it is forgotten. `flush` writes it.

        Who is `present`, because a call of it is open, is not silent.
        """
        expired: list[WorkerKey] = []
        forgotten: list[WorkerKey] = []
        now_s = self._clock.monotonic()
        while self._due and self._due[0][0] <= now_s:
            at_s, key = heapq.heappop(self._due)
            if self._due_s.get(key) != at_s:
                continue
            if present(key):
                self.seen(key)
            silent_s = now_s - self._known[key].seen_s
            if key in self._live and silent_s < self._ttl_s:
                self._watch(key, now_s + self._ttl_s - silent_s)
            elif silent_s < self._ttl_s + KNOWN_S:
                self._expire(key)
                expired.append(key)
            else:
                self.forget(key)
                forgotten.append(key)
        return expired, forgotten

    def forget(self, key: WorkerKey) -> None:
        """It is not known any more; its record goes with the next write."""
        if key in self._known:
            self._live.pop(key, None)
            self.indexed(key)
            del self._known[key]
            self._due_s.pop(key, None)
            self._stored.pop(key, None)
            self._writer.note(_name(key), None)

    def _expire(self, key: WorkerKey) -> None:
        self._live.pop(key, None)
        self.indexed(key)
        self._note(key)
        self._watch(key, self._known[key].seen_s + self._ttl_s + KNOWN_S)

    def _revive(self, key: WorkerKey) -> None:
        if key not in self._live:
            self._live[key] = None
            self.indexed(key)
            self._watch(key, self._known[key].seen_s + self._ttl_s)

    def _watch(self, key: WorkerKey, at_s: float) -> None:
        self._due_s[key] = at_s
        heapq.heappush(self._due, (at_s, key))


def _name(key: WorkerKey) -> str:
    return "/".join(key)
