"""actors.batched: many requests in one call, each answered on its own."""

from __future__ import annotations

import asyncio

import pytest

from actors.batched import UNDER_WAY, Batched, answer_all
from orchestrator.errors import ActorUnreachable, Broken


class Road:
    """The way to an actor that answers with what it was asked; calls end when they are let through."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.broken = False

    async def call(self, blob: bytes) -> bytes:
        self.calls += 1
        await self.gate.wait()
        if self.broken:
            raise ActorUnreachable("gateway", "gone")
        return await answer_all(blob, self._ask)

    async def _ask(self, request: bytes) -> bytes:
        if request == b"lost":
            raise ActorUnreachable("a part", "fenced")
        if request == b"bug":
            raise KeyError("x")
        return request + b"!"


async def asked(batched: Batched, *requests: bytes) -> list[asyncio.Task[bytes]]:
    tasks = [asyncio.create_task(batched.ask(request)) for request in requests]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_calls_are_under_way_goes_together() -> None:
    road = Road()
    batched = Batched(road.call)
    tasks = [task for n in range(50) for task in await asked(batched, b"%d" % n)]
    road.gate.set()
    assert await asyncio.gather(*tasks) == [b"%d!" % n for n in range(50)]
    assert road.calls == UNDER_WAY + 1


async def test_one_that_finds_nobody_does_not_take_the_others_along() -> None:
    road = Road()
    batched = Batched(road.call)
    tasks = await asked(batched, b"a", b"b", b"c", b"lost", b"d")
    road.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[:3] + found[4:] == [b"a!", b"b!", b"c!", b"d!"]
    assert isinstance(found[3], ActorUnreachable)


async def test_one_that_meets_a_bug_does_not_take_the_others_along() -> None:
    road = Road()
    road.gate.set()
    batched = Batched(road.call)
    found = await asyncio.gather(*await asked(batched, b"a", b"b", b"bug", b"c"), return_exceptions=True)
    assert (found[:2], found[3]) == ([b"a!", b"b!"], b"c!")
    assert isinstance(found[2], Broken)


async def test_whatever_breaks_a_call_nobody_waits_for_ever() -> None:
    async def call(blob: bytes) -> bytes:
        return b"no answers"

    with pytest.raises(Broken):
        await Batched(call).ask(b"a")


async def test_all_of_a_call_that_failed_are_told_and_later_ones_go_on() -> None:
    road = Road()
    batched = Batched(road.call)
    tasks = await asked(batched, b"a", b"b", b"c")
    road.broken = True
    road.gate.set()
    for task in tasks:
        with pytest.raises(ActorUnreachable):
            await task
    road.broken = False
    assert await batched.ask(b"d") == b"d!"


async def test_whoever_goes_away_takes_nobody_along() -> None:
    road = Road()
    batched = Batched(road.call)
    first, second, third, fourth = await asked(batched, b"a", b"b", b"c", b"d")
    first.cancel()
    third.cancel()
    await asyncio.sleep(0)
    road.gate.set()
    assert await asyncio.gather(second, fourth) == [b"b!", b"d!"]


async def test_a_call_of_its_own_waits_for_nobody() -> None:
    road, own = Road(), Road()
    own.gate.set()
    batched = Batched(road.call)
    tasks = await asked(batched, b"a", b"b", b"c")
    assert await batched.alone(b"late", own.call) == b"late!"
    assert own.calls == 1
    road.gate.set()
    assert await asyncio.gather(*tasks) == [b"a!", b"b!", b"c!"]
