"""Small worlds in which runs leave for the archive: months pass for the archiver alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from actors.archive_store import ArchiveStore
from actors.archiver import Archiver
from actors.clock import Clock
from actors.settings import Settings
from orchestrator.archive import Sweep
from orchestrator.definition import Definition, TaskSpec
from orchestrator.starts import Trigger
from orchestrator.views import Frame, RunView
from serve_app.gateway import Gateway
from tests.world import World
from tests.world_clients import TENANT

DAY = "2025-02-01"
LATER = timedelta(days=31)


class LaterClock(Clock):
    """A clock that is a month ahead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now() + LATER


def archiver(world: World, **settings: Any) -> Archiver:
    return Archiver(world.journal, LaterClock(world.clock), changed(world.settings, settings))


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    return Settings.from_dict(settings.to_dict() | changes)


def wanted(world: World, **changes: Any) -> Sweep:
    """Everything that has ended by now."""
    now = world.clock.now() + timedelta(days=1)
    return Sweep(**({"id": "one", "before_ms": round(now.timestamp() * 1000), "to": ""} | changes))


async def swept(world: World) -> Sweep:
    return await archiver(world).sweep(wanted(world))


async def defined(world: World, **changes: Any) -> Gateway:
    """A gateway of a world in which DAG `d` is a → b."""
    tasks = (TaskSpec(id="a", type="core.sleep"), TaskSpec(id="b", type="core.sleep", depends_on=("a",)))
    await world.clients.define(Definition(**({"dag_id": "d", "owner": "team", "tasks": tasks} | changes)))
    return world.clients.gateways[0]


async def ended(world: World, run_id: str) -> str:
    async with asyncio.timeout(60.0):
        while run_id in world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.05)
    return run_id


async def a_run(world: World, gateway: Gateway, **given: Any) -> str:
    """One that has ended."""
    return await ended(world, (await gateway.trigger(TENANT, Trigger(dag_id="d", **given), None)).run_id)


async def a_backfill(world: World, gateway: Gateway, **given: Any) -> str:
    span = {"run_type": "backfill", "start": DAY, "end": "2025-02-03"}
    return await a_run(world, gateway, **(span | given))


def as_here(view: RunView) -> RunView:
    assert view.archived
    return msgspec.structs.replace(view, archived=False, windows_per_s=None, eta=None)


def store(world: World) -> ArchiveStore:
    return ArchiveStore(world.settings.home)


async def follower(world: World, **changes: Any) -> Gateway:
    """A gateway of a world in which DAG `f` follows `d`, window by window."""
    gateway = await defined(world)
    work = (TaskSpec(id="a", type="core.sleep"),)
    await world.clients.define(Definition("f", "team", tasks=work, after=("d",), **changes))
    return gateway


def runs_of(world: World, dag_id: str) -> list[tuple[str, str, int]]:
    return [(run.run_id, run.state, run.attempts) for run in world.journal.runs.values() if run.dag_id == dag_id]


async def streamed(gateway: Gateway, run_id: str, after: int | None) -> list[tuple[int | None, str, Any]]:
    """Everything until the end of the stream."""
    found: list[tuple[int | None, str, Any]] = []
    opened: AsyncIterator[Sequence[Frame]] | None = await gateway.open_events(TENANT, run_id, after)
    if opened is not None:
        async for frames in opened:
            found += [(frame.seq, frame.kind, frame.data) for frame in frames]
    return found


def span(**changes: Any) -> Trigger:
    return Trigger(**({"dag_id": "d", "run_type": "backfill", "start": DAY, "end": DAY} | changes))


def segments(world: World) -> list[Path]:
    return sorted(Path(world.settings.home, "archive", "segments").iterdir())
