"""actors.spawn: how a replica reaches the control actors."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.names import SCHEDULER, SUPERVISOR
from actors.settings import Settings
from actors.spawn import RayControlPlane
from orchestrator.errors import ActorUnreachable


class Cast:
    """Peers of which some do not answer."""

    def __init__(self, *silent: str) -> None:
        self.silent = set(silent)
        self.called: list[str] = []

    async def ask(self, actor: str, method: str, _blob: bytes) -> bytes:
        if actor in self.silent:
            raise ActorUnreachable(actor, method)
        return b""

    async def reaches(self, actor: str) -> bool:
        self.called.append(actor)
        return actor not in self.silent


def plane_of(cast: Any) -> RayControlPlane:
    plane = RayControlPlane(Settings(run_actors_max=2))
    plane._peers = cast
    return plane


async def look(plane: RayControlPlane) -> bool:
    alive = await plane.alive()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return alive


async def test_everybody_is_called_once_ahead_and_who_was_silent_again() -> None:
    cast = Cast("run-actor-1")
    plane = plane_of(cast)
    assert await look(plane)
    assert cast.called == ["run-actor-0", "run-actor-1", SUPERVISOR]
    assert await look(plane)
    cast.silent.clear()
    assert [await look(plane) for _ in range(3)] == [True] * 3
    assert cast.called[3:] == ["run-actor-1"] * 2


async def test_nobody_is_called_before_the_scheduler_answers() -> None:
    cast = Cast(SCHEDULER)
    assert not await look(plane_of(cast))
    assert cast.called == []
