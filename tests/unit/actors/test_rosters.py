"""Rosters that come late or twice: the scheduler goes by the last one."""

from __future__ import annotations

import asyncio

from actors.names import SCHEDULER
from actors.roster_order import RosterOrder, first_number, numbered
from orchestrator import actor_codec
from orchestrator.control import Roster
from tests.unit.actors.test_small_worlds import a_task, defined, ends, triggered
from tests.world import World


def a_roster(*workers: str, began_s: float = 100.0, count: int = 1) -> Roster:
    return Roster(("run-actor-0",), tuple((w, "default") for w in workers), number=first_number(began_s) + count)


def test_a_roster_keeps_its_number_until_it_differs() -> None:
    first = numbered(Roster(("a",), ()), Roster((), (), number=first_number(7.0)))
    assert numbered(Roster(("a",), ()), first) == first
    assert numbered(Roster(("a", "b"), ()), first).number == first.number + 1


def test_what_is_late_is_not_taken_and_what_comes_twice_changes_nothing() -> None:
    order = RosterOrder()
    assert order.is_news(a_roster("w", count=2))
    assert not order.is_news(a_roster(count=1))
    assert order.is_news(a_roster("w", count=2))
    assert not order.is_so(a_roster(count=1)), "the answer was overtaken"


def test_a_supervisor_that_began_later_counts_and_a_former_one_does_not() -> None:
    order = RosterOrder()
    assert order.is_news(a_roster(began_s=100.0, count=9))
    assert order.is_news(a_roster(began_s=100.5, count=1))
    assert not order.is_news(a_roster(began_s=100.0, count=10))


def test_whoever_answers_counts_although_the_clock_was_set_back() -> None:
    order = RosterOrder()
    order.is_news(a_roster(began_s=100.0, count=9))
    assert not order.is_news(a_roster(began_s=50.0, count=1))
    assert order.is_so(a_roster(began_s=50.0, count=1))
    assert order.is_news(a_roster(began_s=50.0, count=2))


def test_a_worker_that_joined_stays_although_an_old_roster_comes_late() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a", pool="own"))
        old = world.supervisor._roster()
        world.supervisor.workers.append("worker-own-0")
        world.start("worker-own-0")
        await asyncio.sleep(3.0)
        await world.wire.tell(SCHEDULER, "roster", actor_codec.encode_control(old))
        assert await ends(world, await triggered(gateway), 2.0) == "succeeded"

    World(0).play_with(course)


def test_a_scheduler_that_was_told_by_a_former_supervisor_asks_within_a_minute() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a", pool="own"))
        world.supervisor.workers.append("worker-own-0")
        world.start("worker-own-0")
        await asyncio.sleep(3.0)
        former = a_roster(began_s=200.0)
        await world.wire.tell(SCHEDULER, "roster", actor_codec.encode_control(former))
        assert await ends(world, await triggered(gateway), 60.0) == "succeeded"

    World(0).play_with(course)
