"""Runners of CI jobs: who is registered, with what, and who has fallen silent.

    register, or a claim ─▶ online ─(no sign of life for `timeout_s`)─▶ offline ─(any sign of life)─▶ online

Registrations and changes between online and offline are written at once, before anybody is told; the instant of the
last sign of life is written a moment later (`is_urgent`). After a restart whoever was online has a whole `timeout_s`
again: it could reach nobody meanwhile. All runners have the same patience, so those online are kept in the order in
which they would fall silent, and one timer serves them all.
Source: pipelines contract, section 3, "Runner".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.clock import Clock
from actors.pipeline_queue import RunnerKey
from orchestrator import codec
from orchestrator.pipeline_messages import RunnerRecord, record_key
from orchestrator.pipeline_views import RunnerView


@dataclass(slots=True)
class Runner:
    """One runner in memory."""

    record: RunnerRecord
    #: None = unknown
    capabilities: frozenset[str] | None

    @property
    def key(self) -> RunnerKey:
        """Its tenant and id."""
        return self.record.tenant, self.record.runner_id

    def view(self, busy: bool) -> RunnerView:
        """As it is shown; `busy`: it has a job."""
        record = self.record
        status = "Offline" if record.offline else "Busy" if busy else "Online"
        return RunnerView(
            record.runner_id, record.capabilities or (), record.registered_at, record.last_heartbeat_at, status
        )


class RunnerBook:
    """All runners. It writes nothing itself: `changes` are for whoever has the journal."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._runners: dict[RunnerKey, Runner] = {}
        #: runners online -> monotonic seconds of the last sign of life, longest silence first
        self._seen: OrderedDict[RunnerKey, float] = OrderedDict()
        self._changed: set[RunnerKey] = set()
        #: something changed that must be durable before anybody is told
        self.is_urgent = False

    def load(self, records: Iterable[bytes]) -> None:
        """What the journal has."""
        for data in records:
            self._keep(codec.decode_document(data, RunnerRecord))

    def get(self, key: RunnerKey) -> Runner | None:
        """One of them."""
        return self._runners.get(key)

    def of_tenant(self, tenant: str) -> list[Runner]:
        """By id."""
        return sorted((each for each in self._runners.values() if each.key[0] == tenant), key=lambda each: each.key)

    def register(self, key: RunnerKey, capabilities: Sequence[str] | None) -> Runner:
        """It is registered with these capabilities, instead of what it had; a sign of life."""
        now, known = self._clock.now(), self._runners.get(key)
        registered_at = now if known is None else known.record.registered_at
        given = None if capabilities is None else tuple(capabilities)
        self._note(key, urgent=True)
        return self._keep(RunnerRecord(*key, registered_at, now, given))

    def claims(self, key: RunnerKey) -> Runner:
        """A claim comes from it: a sign of life, or a registration that says nothing of capabilities."""
        return self.alive(key) or self.register(key, None)

    def alive(self, key: RunnerKey) -> Runner | None:
        """A sign of life; None when there is no such runner."""
        runner = self._runners.get(key)
        if runner is None:
            return None
        record = runner.record
        self._note(key, urgent=record.offline)
        runner.record = RunnerRecord(*key, record.registered_at, self._clock.now(), record.capabilities)
        self._seen[key] = self._clock.monotonic()
        self._seen.move_to_end(key)
        return runner

    def remove(self, key: RunnerKey) -> bool:
        """It is forgotten; False when there was none."""
        self._seen.pop(key, None)
        if self._runners.pop(key, None) is None:
            return False
        self._note(key, urgent=True)
        return True

    # ── silence ───────────────────────────────────────────────────────────────────────────────────

    def next_silent_s(self) -> float | None:
        """In how many seconds the next runner falls silent, unless it gives a sign of life; None = nobody is online."""
        if not self._seen:
            return None
        return max(0.0, next(iter(self._seen.values())) + self._timeout_s - self._clock.monotonic())

    def fall_silent(self) -> list[RunnerKey]:
        """Whoever has been silent for too long is offline now; who that is."""
        now_s, silent = self._clock.monotonic(), list[RunnerKey]()
        while self._seen and next(iter(self._seen.values())) + self._timeout_s <= now_s:
            key, _ = self._seen.popitem(last=False)
            record = self._runners[key].record
            times = (record.registered_at, record.last_heartbeat_at)
            self._runners[key].record = RunnerRecord(*key, *times, record.capabilities, offline=True)
            self._note(key, urgent=True)
            silent.append(key)
        return silent

    # ── what is to be written ─────────────────────────────────────────────────────────────────────

    @property
    def is_changed(self) -> bool:
        """Is there anything to be written?"""
        return bool(self._changed)

    def changes(self) -> dict[str, bytes | None]:
        """Records that differ from what was written, None for those that are gone. They count as written now."""
        changed, self._changed, self.is_urgent = self._changed, set(), False
        return {record_key(*key): self._written(key) for key in changed}

    def _written(self, key: RunnerKey) -> bytes | None:
        runner = self._runners.get(key)
        return None if runner is None else codec.encode_document(runner.record)

    def _keep(self, record: RunnerRecord) -> Runner:
        capabilities = None if record.capabilities is None else frozenset(record.capabilities)
        runner = self._runners[record.tenant, record.runner_id] = Runner(record, capabilities)
        if not record.offline:
            self._seen[runner.key] = self._clock.monotonic()
            self._seen.move_to_end(runner.key)
        return runner

    def _note(self, key: RunnerKey, urgent: bool) -> None:
        self._changed.add(key)
        self.is_urgent = self.is_urgent or urgent
