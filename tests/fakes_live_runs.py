"""Runs of the runs surface in memory: everything that its HTTP layer can see, without journal, actors or time.

A run starts as soon as it is created, unless `held`; its tasks never do anything. Taskless runs end as the contract
says. `broken` makes every call raise that error, `gate` holds back every mutation, `keep_silence` makes open
streams say that they are alive.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from orchestrator.errors import AlreadyEnded, Conflict, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.live_run_views import CheckpointView, LiveRunCreated, LiveRunView, LiveRunWanted
from orchestrator.rows import TERMINAL
from orchestrator.views import Frame, RunChanged
from tests.fakes_gateway import EPOCH, FakeClock
from tests.fakes_rates import SlidingWindows

replace = msgspec.structs.replace

NOTHING = msgspec.Raw(b"")
MILLISECOND = timedelta(milliseconds=1)
ENDS = {"run.completed": "succeeded", "run.failed": "failed"}
#: core state -> type of the checkpoint that tells it
TOLD = {"running": "started", "succeeded": "completed", "failed": "failed", "cancelled": "canceled"}


@dataclass
class Entry:
    """One run and who follows it."""

    view: LiveRunView
    wanted: LiveRunWanted
    checkpoints: list[CheckpointView] = field(default_factory=list)
    followers: list[asyncio.Queue[Frame]] = field(default_factory=list)

    @property
    def taskless(self) -> bool:
        return self.wanted.tasks is None and self.wanted.dag_id is None


@dataclass
class FakeLiveRuns:
    """`serve_app.ports.LiveRuns`, in memory."""

    broken: Exception | None = None
    gate: asyncio.Event | None = None
    held: bool = False
    #: streams end once they have nothing to tell, for clients that read to the end
    streams_end: bool = False
    #: (tenant, dag id) that runs can be created of
    dags: set[tuple[str, str]] = field(default_factory=set)
    now: datetime = EPOCH
    clock: FakeClock = field(default_factory=FakeClock)
    _windows: SlidingWindows = field(default_factory=SlidingWindows)
    _runs: dict[tuple[str, str], Entry] = field(default_factory=dict)
    _stored: dict[str, tuple[str, str]] = field(default_factory=dict)

    # -- what tests do to it

    def settle(self, run_id: str, state: str, tenant: str = "default") -> None:
        """The run is now in that core state, and says so as the contract wants: status first."""
        entry = self._entry(tenant, run_id)
        entry.view = replace(entry.view, state=state)
        self._tell_all(entry, Frame(None, "status", {"runId": run_id, "status": state}))
        if state in TOLD:
            self._append(entry, TOLD[state], NOTHING)

    def change(self, run_id: str, **changes: Any) -> None:
        """The run of the default tenant is now like that, without a word."""
        entry = self._entry("default", run_id)
        entry.view = replace(entry.view, **changes)

    def wanted(self, run_id: str, tenant: str = "default") -> LiveRunWanted:
        """What the run was created from."""
        return self._entry(tenant, run_id).wanted

    def keep_silence(self, run_id: str) -> None:
        """Nothing has happened for a while."""
        self._tell_all(self._entry("default", run_id), Frame(None, "keep_alive"))

    def followers(self, run_id: str) -> int:
        """Streams that are open."""
        return len(self._entry("default", run_id).followers)

    def count(self, tenant: str = "default") -> int:
        """Runs of a tenant."""
        return sum(owner == tenant for owner, _ in self._runs)

    # -- the port

    async def ask_leave(self, caller: str, most: int, window_s: float) -> int:
        return math.ceil(self._windows.ask_leave(caller, most, window_s, self.clock.seconds))

    async def create(self, tenant: str, wanted: LiveRunWanted, idem: Idempotency | None) -> LiveRunCreated:
        await self._pass_gate()
        if idem is not None and idem.key in self._stored:
            fingerprint, run_id = self._stored[idem.key]
            if fingerprint != idem.fingerprint:
                raise Conflict("this key came with another request before")
            return LiveRunCreated(run_id, replayed=True)
        if wanted.dag_id is not None and (tenant, wanted.dag_id) not in self.dags:
            raise NotFound("DAG", wanted.dag_id)
        run_id = f"Run{len(self._runs) + 1:09d}"
        view = LiveRunView(run_id, wanted.mode, self.now, "queued", wanted.owner, wanted.metadata)
        self._runs[tenant, run_id] = Entry(view, wanted)
        if idem is not None:
            self._stored[idem.key] = (idem.fingerprint, run_id)
        if not self.held:
            self.settle(run_id, "running", tenant)
        return LiveRunCreated(run_id)

    async def run(self, tenant: str, run_id: str) -> LiveRunView:
        self._check()
        return self._entry(tenant, run_id).view

    async def checkpoints(
        self, tenant: str, run_id: str, after: datetime | None, limit: int | None
    ) -> list[CheckpointView]:
        self._check()
        return [each for each in self._entry(tenant, run_id).checkpoints if after is None or each.at > after][:limit]

    async def post_checkpoint(self, tenant: str, run_id: str, kind: str, data: msgspec.Raw) -> CheckpointView:
        await self._pass_gate()
        entry = self._entry(tenant, run_id)
        added = self._append(entry, kind, data)
        if entry.taskless and kind in ENDS and entry.view.state not in TERMINAL:
            self.settle(run_id, ENDS[kind], tenant)
        return added

    async def cancel(self, tenant: str, run_id: str) -> RunChanged:
        await self._pass_gate()
        entry = self._entry(tenant, run_id)
        if entry.view.state in TERMINAL:
            raise AlreadyEnded(run_id, entry.view.state)
        self.settle(run_id, "cancelled", tenant)
        return RunChanged(run_id, "cancelled", 1)

    async def open_events(
        self, tenant: str, run_id: str, after: datetime | None, replay: int
    ) -> AsyncIterator[Sequence[Frame]]:
        self._check()
        entry = self._entry(tenant, run_id)
        past = [each for each in entry.checkpoints if after is None or each.at > after]
        if after is None:
            past = past[len(past) - min(replay, len(past)) :]
        live: asyncio.Queue[Frame] = asyncio.Queue()
        entry.followers.append(live)
        return self._stream(entry, live, past)

    # -- inside

    async def _stream(
        self, entry: Entry, live: asyncio.Queue[Frame], past: list[CheckpointView]
    ) -> AsyncIterator[Sequence[Frame]]:
        try:
            for each in past:
                yield [_frame(each)]
            while not self.streams_end:
                yield [await live.get()]
        finally:
            entry.followers.remove(live)

    def _append(self, entry: Entry, kind: str, data: msgspec.Raw) -> CheckpointView:
        """`ts` is the clock's, or a millisecond after the last one."""
        run_id, earlier = entry.view.run_id, entry.checkpoints
        at = max(self.now, earlier[-1].at + MILLISECOND) if earlier else self.now
        added = CheckpointView(f"Chk{len(earlier) + 1:05d}", run_id, at, kind, data)
        earlier.append(added)
        self._tell_all(entry, _frame(added))
        return added

    def _tell_all(self, entry: Entry, frame: Frame) -> None:
        for each in entry.followers:
            each.put_nowait(frame)

    def _entry(self, tenant: str, run_id: str) -> Entry:
        if (tenant, run_id) not in self._runs:
            raise NotFound("run", run_id)
        return self._runs[tenant, run_id]

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def _pass_gate(self) -> None:
        self._check()
        if self.gate is not None:
            await self.gate.wait()


def _frame(view: CheckpointView) -> Frame:
    told = {"id": view.id, "runId": view.run_id, "ts": view.at, "type": view.kind}
    return Frame(None, "checkpoint", told if view.data == NOTHING else {**told, "data": view.data})
