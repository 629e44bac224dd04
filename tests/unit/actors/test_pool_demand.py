"""actors.pool_demand: the supervisor hears once that tasks have begun to wait in a pool that may grow."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from actors.pool_demand import PoolDemand
from orchestrator import actor_codec
from orchestrator.control import PoolLoad
from orchestrator.errors import ActorUnreachable
from orchestrator.slots import Slots

LEAF = ("t", "manual", "d")


class Hearing:
    """A supervisor that remembers, or is away."""

    def __init__(self) -> None:
        self.heard: list[list[PoolLoad]] = []
        self.away = False

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        if self.away:
            raise ActorUnreachable(actor, "told to fail")
        assert (actor, method) == ("supervisor", "demand")
        self.heard.append(actor_codec.decode_pool_loads(blob))


class Scene:
    """The scheduler's slots, and who hears of them."""

    def __init__(self, *elastic: str) -> None:
        self.slots, self.supervisor = Slots(), Hearing()
        self.tasks: list[asyncio.Task[None]] = []
        peers: Any = self.supervisor
        self.demand = PoolDemand(peers, self.slots, self.spawn)
        self.demand.watch(elastic)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def look(self, now_s: float) -> list[list[PoolLoad]]:
        """What was heard because of this decision."""
        self.slots.grants(now_s)
        self.demand.look(now_s)
        await asyncio.sleep(0)
        heard, self.supervisor.heard = self.supervisor.heard, []
        return heard


async def test_it_is_told_once_for_each_time_that_tasks_wait() -> None:
    scene = Scene("gpu")
    scene.slots.demand("A\nneed", {LEAF: 3}, "gpu")
    assert await scene.look(1.0) == [[PoolLoad("gpu", waiting=3)]]
    assert await scene.look(2.0) == []
    scene.slots.demand("A\nneed", {}, "gpu")
    assert await scene.look(3.0) == []
    scene.slots.demand("A\nneed", {LEAF: 1}, "gpu")
    assert await scene.look(4.0) == [[PoolLoad("gpu", waiting=1)]]


async def test_what_gets_a_slot_does_not_wait() -> None:
    scene = Scene("gpu")
    scene.slots.add("worker-gpu-0", "gpu", "i")
    scene.slots.demand("A\nneed", {LEAF: 1}, "gpu")
    assert await scene.look(1.0) == []
    assert scene.demand.loads(1.0) == [PoolLoad("gpu", busy=1, slots=1)]


async def test_a_fixed_pool_is_told_of_only_while_it_has_no_workers_not_even_some_that_start() -> None:
    scene = Scene()
    scene.demand.watch((), ["default"])
    scene.slots.demand("A", {LEAF: 5})
    scene.slots.demand("A\nneed", {LEAF: 5}, "unknown")
    assert [[load.pool for load in loads] for loads in await scene.look(1.0)] == [["unknown"]]


async def test_a_pool_without_workers_is_told_of_again_after_a_while_since_somebody_may_have_defined_it() -> None:
    scene = Scene()
    scene.demand.watch((), ["default"])
    scene.slots.demand("A\nneed", {LEAF: 5}, "shape-1")
    assert await scene.look(1.0) == [[PoolLoad("shape-1", waiting=5)]]
    assert await scene.look(9.0) == []
    assert await scene.look(11.0) == [[PoolLoad("shape-1", waiting=5, waiting_s=10.0)]]
    assert await scene.look(12.0) == []
    scene.demand.watch((), ["default", "shape-1"])
    assert await scene.look(99.0) == []


async def test_a_pool_that_becomes_elastic_is_told_of_although_tasks_wait_already() -> None:
    scene = Scene()
    scene.slots.add("worker-default-0", "default", "i")
    scene.demand.watch((), ["default"])
    scene.slots.demand("A", {LEAF: 5})
    assert await scene.look(1.0) == []
    scene.demand.watch(["default"], ["default"])
    assert await scene.look(3.5) == [[PoolLoad("default", waiting=4, waiting_s=2.5, busy=1, slots=1)]]
    scene.demand.watch(["default"], ["default"])
    assert await scene.look(4.0) == []


async def test_what_was_not_heard_is_said_again_as_long_as_it_is_so(monkeypatch: Any) -> None:
    monkeypatch.setattr("actors.pool_demand.AGAIN_S", 0.0)
    scene = Scene("gpu")
    scene.supervisor.away = True
    scene.slots.demand("A\nneed", {LEAF: 3}, "gpu")
    assert await scene.look(1.0) == []
    scene.supervisor.away = False
    await asyncio.gather(*scene.tasks)
    assert len(scene.supervisor.heard) == 1
    scene.supervisor.away = True
    scene.slots.demand("A\nneed", {}, "gpu")
    await scene.look(2.0)
    scene.slots.demand("A\nneed", {LEAF: 3}, "gpu")
    await scene.look(3.0)
    scene.slots.demand("A\nneed", {}, "gpu")
    await scene.look(4.0)
    await asyncio.wait_for(asyncio.gather(*scene.tasks), 1.0)


async def test_a_supervisor_that_is_away_is_asked_by_one_at_a_time(monkeypatch: Any) -> None:
    monkeypatch.setattr("actors.pool_demand.AGAIN_S", 0.001)
    scene = Scene("gpu", "cpu")
    scene.supervisor.away = True
    for n in range(20):
        scene.slots.demand("A\nneed", {LEAF: 3} if n % 2 else {}, "gpu")
        await scene.look(float(n))
    scene.slots.demand("B\nneed", {LEAF: 2}, "cpu")
    await scene.look(20.0)
    assert sum(not task.done() for task in scene.tasks) == 1
    scene.supervisor.away = False
    await asyncio.wait_for(asyncio.gather(*scene.tasks), 1.0)
    told = [load.pool for loads in scene.supervisor.heard for load in loads]
    assert sorted(told) == ["cpu", "gpu"]


async def test_a_worker_that_is_about_to_end_is_no_slot() -> None:
    scene = Scene("gpu")
    scene.slots.add("worker-gpu-0", "gpu", "i")
    scene.slots.drain("worker-gpu-0")
    scene.slots.demand("A\nneed", {LEAF: 1}, "gpu")
    assert await scene.look(1.0) == [[PoolLoad("gpu", waiting=1)]]
