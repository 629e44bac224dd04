"""A gateway over a journal in memory, a control plane that answers as told, and an owner that moves runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from actors.clock import Clock
from orchestrator import actor_codec, codec
from orchestrator import events as e
from orchestrator.cluster_views import PoolView, RunWaiting, WorkerView
from orchestrator.command import Command, CommandReply
from orchestrator.control import LimitUsage
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import ActorUnreachable, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.limits import LIMITS
from orchestrator.pools import PoolSpec
from orchestrator.starts import Trigger, Triggered
from orchestrator.steps import Append
from serve_app.gateway import Gateway
from tests.conformance.journal_builders import Owner
from tests.fakes_journal import MemoryJournal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class SetClock(Clock):
    """Time that stands still."""

    def now(self) -> datetime:
        return NOW

    def _wall_ms(self) -> int:
        return round(NOW.timestamp() * 1000)


class Stage:
    """`ports.ControlPlane`: answers each command as told, and remembers it."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, Command]] = []
        self.reply = CommandReply(state="cancelled", attempts=1)
        self.hangs = False
        self.woken = 0
        self.journal: MemoryJournal

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        if self.hangs:
            await asyncio.sleep(60)
        self.commands.append((owner, actor_codec.decode_command(command)))
        return actor_codec.encode_command_reply(self.reply)

    async def workers(self) -> bytes:
        return actor_codec.encode_workers([WorkerView("w", "default", "idle")])

    async def scale_workers(self, pool: str, n: int) -> bytes:
        return actor_codec.encode_workers([WorkerView(f"w{i}", pool, "idle") for i in range(n)])

    async def drain_worker(self, worker_id: str) -> bytes:
        return actor_codec.encode_workers([WorkerView(worker_id, "default", "draining")])

    async def pools(self) -> bytes:
        return actor_codec.encode_pool_views(
            [PoolView("gpu", PoolSpec(max=4), wanted=3, workers=3, starting=1, busy=2)]
        )

    async def set_pool(self, change: bytes) -> bytes:
        name, spec = actor_codec.decode_pool_change(change)
        if spec is None and name != "gpu":
            raise NotFound("pool", name)
        return actor_codec.encode_pool_views([] if spec is None else [PoolView(name, spec)])

    async def alive(self) -> bool:
        return not self.hangs

    async def load(self) -> dict[str, int]:
        return {"workers": 1, "plain_waiting": 2, "pool_waiting|gpu": 3}

    async def gateway_exists(self) -> bool:
        return True

    async def gateway(self, ward: str, _request: bytes, _patience_s: float = 5.0) -> bytes:
        raise ActorUnreachable(ward, "it is not here")

    async def set_limit(self, change: bytes) -> None:
        key, limit = actor_codec.decode_limit_change(change)
        await self.journal.put_records(LIMITS, {key: None if limit is None else codec.encode_limit(limit)})

    async def explain(self, run_id: str) -> bytes:
        if self.hangs:
            raise ActorUnreachable("scheduler", "it hangs")
        return actor_codec.encode_waiting(RunWaiting(run_id, "slot", "manual", share=0.25))

    async def wake_archiver(self) -> None:
        self.woken += 1

    async def limit_usage(self) -> bytes:
        if self.hangs:
            raise ActorUnreachable("scheduler", "it hangs")
        return actor_codec.encode_usage(
            [LimitUsage("l/t/one", 2, 5), LimitUsage("l/other/one", 9, 9), LimitUsage("d/t/d", 1, 0)]
        )


class World:
    """A gateway, its journal, and an owner that moves runs."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.stage = Stage()
        self.stage.journal = self.journal
        self.gateway = Gateway(self.journal, self.stage, SetClock(), windows_max=1000, dags_max=3)

    async def define(self, **changes: Any) -> None:
        await self.gateway.define_dag("t", definition(**changes), keep_tasks=False, expect=None, idem=None)

    async def end(self, run_id: str, state: str = "succeeded", letter: str = "d") -> None:
        owner = await Owner(self.journal).start()
        row = await self.journal.summary(run_id)
        assert row is not None
        events = codec.encode_events([e.RunStarted(NOW, 1), e.RunSucceeded(NOW)])
        step = Append(
            run_id=run_id,
            expected=row.version,
            count=2,
            events=events,
            state=state,
            attempts=row.attempts + 1,
            tasks=(("extract", letter), ("transform", letter)),
        )
        assert await owner.commit(step) == ["ok"]

    async def trigger(self, idem: Idempotency | None = None, **changes: Any) -> Triggered:
        return await self.gateway.trigger("t", Trigger(dag_id="d", **changes), idem)

    async def backfill(self, start: str = "2025-10-01", end: str = "2025-10-04", **changes: Any) -> Triggered:
        return await self.trigger(run_type="backfill", start=start, end=end, **changes)


def definition(**changes: Any) -> Definition:
    tasks = (TaskSpec("extract"), TaskSpec("transform", depends_on=("extract",)))
    return Definition(**({"dag_id": "d", "owner": "team", "tasks": tasks} | changes))


def key(name: str, fingerprint: str = "f") -> Idempotency:
    return Idempotency(name, fingerprint)
