"""One replica's polls and sockets over a gateway that comes and goes, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from orchestrator import remote as r
from orchestrator.errors import ActorUnreachable
from serve_app.gateway_line import GatewayLine, OpenPoll, OpenSocket
from tests.fakes_remote import FakeRemote
from tests.virtual_time import VirtualLoop, WorldClock, virtually

TASK = {"task_id": "t1"}
CANCEL = {"command": "cancel_task"}


class Stage:
    """One line and the gateway at its other end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.clock = WorldClock(loop, Random(0))
        self.gateway = FakeRemote(self.clock)
        self.draining = asyncio.Event()
        self.line = GatewayLine(self.gateway, self.clock, self.draining)  # type: ignore[arg-type] # a part of the port

    def poll(self, worker: str = "w1", timeout_s: float = 30.0, *skills: str) -> OpenPoll:
        return self.line.poll("default", worker, timeout_s, skills, ())

    def asked(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.gateway.asked if isinstance(each, kind)]


async def settled(seconds: float = 0.01) -> None:
    await asyncio.sleep(seconds)


def play(story: Callable[[Stage], Awaitable[None]]) -> None:
    """The story, on virtual time, and everything comes to rest afterwards."""

    async def whole() -> None:
        stage = Stage()
        async with asyncio.timeout(600):
            await story(stage)

    virtually(whole())


# -- polls


def test_a_poll_gets_its_task_and_the_push_is_acknowledged() -> None:
    async def story(stage: Stage) -> None:
        poll = stage.poll("w1", 30.0, "a", "b")
        await settled()
        opened = stage.asked(r.Poll)[0]
        assert (opened.tenant, opened.worker_id, opened.available_skills) == ("default", "w1", ("a", "b"))
        assert 29.9 < opened.timeout_s <= 30.0
        stage.gateway.assign(poll.poll_id, **TASK)
        assert await poll.outcome == TASK
        await settled()
        assert stage.gateway.unacknowledged() == 0
        listens = stage.gateway.listens
        await settled(60)
        assert stage.gateway.listens == listens, "nothing is open: nobody listens"
        assert stage.asked(r.Withdraw) == []

    play(story)


def test_polls_that_come_while_a_call_is_under_way_travel_together() -> None:
    async def story(stage: Stage) -> None:
        stage.gateway.gate.clear()
        polls = [stage.poll(f"w{n}") for n in range(5)]
        await settled()
        polls += [stage.poll(f"w{n}") for n in range(5, 100)]
        stage.gateway.gate.set()
        await settled()
        batches = [len(each.polls) if isinstance(each, r.Polls) else 1 for each in stage.gateway.asked]
        assert sum(batches[:2]) == 100
        for poll in reversed(polls):
            stage.gateway.assign(poll.poll_id, task_id=poll.wanted.worker_id)
        assert [await poll.outcome for poll in polls] == [{"task_id": f"w{n}"} for n in range(100)]

    play(story)


def test_one_listen_at_a_time_serves_every_poll() -> None:
    async def story(stage: Stage) -> None:
        for n in range(50):
            stage.poll(f"w{n}")
        await settled(10.5)
        assert stage.gateway.listens <= 4  # 5 s each

    play(story)


def test_a_poll_expires_when_the_gateway_says_so() -> None:
    async def story(stage: Stage) -> None:
        poll = stage.poll()
        await settled(3)
        stage.gateway.expire(poll.poll_id)
        assert await poll.outcome is None
        assert stage.loop.time() < 3.1
        poll.withdraw()
        await settled()
        assert stage.asked(r.Withdraw) == []

    play(story)


def test_a_withdrawn_poll_is_told_once() -> None:
    async def story(stage: Stage) -> None:
        poll = stage.poll()
        await settled()
        poll.withdraw()
        poll.withdraw()
        await settled()
        assert [each.poll_ids for each in stage.asked(r.Withdraw)] == [(poll.poll_id,)]
        assert (stage.gateway.open, poll.outcome.result()) == ({}, None)

    play(story)


def test_a_task_that_was_not_delivered_goes_back() -> None:
    async def story(stage: Stage) -> None:
        poll = stage.poll()
        await settled()
        stage.gateway.assign(poll.poll_id, **TASK)
        await poll.outcome
        poll.withdraw()
        await settled()
        assert [each.poll_ids for each in stage.asked(r.Withdraw)] == [(poll.poll_id,)]

    play(story)


def test_a_task_that_crosses_a_withdrawal_has_no_effect_here() -> None:
    async def story(stage: Stage) -> None:
        poll, other = stage.poll(), stage.poll("w2")
        await settled()
        stage.gateway.assign(poll.poll_id, **TASK)
        poll.withdraw()
        assert poll.outcome.result() is None
        await settled()
        assert [each.poll_ids for each in stage.asked(r.Withdraw)] == [(poll.poll_id,)]
        stage.gateway.assign(other.poll_id, task_id="t2")
        assert await other.outcome == {"task_id": "t2"}

    play(story)


def test_pushes_about_what_nobody_knows_are_ignored() -> None:
    async def story(stage: Stage) -> None:
        poll = stage.poll()
        await settled()
        for push in (r.Assigned(999, TASK), r.Expired(998), r.Say(997, CANCEL), r.Close(996)):
            stage.gateway.push(push)
        stage.gateway.assign(poll.poll_id, **TASK)
        assert await poll.outcome == TASK

    play(story)


# -- when the gateway goes, and comes back


def test_a_poll_outlives_a_restart_of_the_gateway_with_the_time_that_is_left() -> None:
    async def story(stage: Stage) -> None:
        poll = stage.poll(timeout_s=30.0)
        await settled(10)
        stage.gateway.restart()
        await settled(6)
        assert set(stage.gateway.open) == {poll.poll_id}
        again = stage.gateway.open[poll.poll_id]
        assert 19 < again.timeout_s < 21
        stage.gateway.assign(poll.poll_id, **TASK)
        assert await poll.outcome == TASK

    play(story)


def test_a_poll_that_comes_while_the_gateway_is_away_is_told_when_it_is_back() -> None:
    async def story(stage: Stage) -> None:
        stage.gateway.away = True
        poll = stage.poll(timeout_s=30.0)
        await settled(5)
        stage.gateway.away = False
        await settled(1.1)
        assert 23 < stage.gateway.open[poll.poll_id].timeout_s < 26
        stage.gateway.assign(poll.poll_id, **TASK)
        assert await poll.outcome == TASK

    play(story)


def test_while_the_gateway_is_away_a_poll_waits_for_its_own_time_and_no_longer() -> None:
    async def story(stage: Stage) -> None:
        stage.gateway.away = True
        poll = stage.poll(timeout_s=5.0)
        assert await poll.outcome is None
        assert 5.0 <= stage.loop.time() < 7.0
        stage.gateway.away = False
        await settled(2)
        assert stage.gateway.open == {}

    play(story)


def test_a_poll_told_while_a_new_session_begins_is_told_again() -> None:
    """The call that told it was answered by the gateway that died right then."""

    async def story(stage: Stage) -> None:
        first = stage.poll("w1")
        await settled()
        stage.gateway.answers[r.Poll] = lambda _: (stage.gateway.restart(), r.Answer())[1]
        second = stage.poll("w2")
        await settled()
        del stage.gateway.answers[r.Poll]
        await settled(6)
        assert set(stage.gateway.open) == {first.poll_id, second.poll_id}

    play(story)


def test_what_was_lost_on_its_way_is_told_again() -> None:
    async def story(stage: Stage) -> None:
        first = stage.poll("w1")
        await settled(1)
        stage.gateway.loses = [r.Poll, r.Withdraw]
        second = stage.poll("w2")
        await settled(1)
        assert set(stage.gateway.open) == {first.poll_id, second.poll_id}
        first.withdraw()
        await settled(1)
        assert set(stage.gateway.open) == {second.poll_id}

    play(story)


def test_a_silent_replica_is_forgotten_and_told_nothing_twice() -> None:
    async def story(stage: Stage) -> None:
        for n in range(3):
            poll = stage.poll()
            await settled()
            stage.gateway.assign(poll.poll_id, n=n)
            assert await poll.outcome == {"n": n}
            await settled(30)
            assert [each.replica for each in stage.gateway._book.lost()] == [poll.wanted.replica]

    play(story)


def test_when_the_server_goes_away_polls_are_over_at_once() -> None:
    async def story(stage: Stage) -> None:
        polls = [stage.poll(f"w{n}") for n in range(3)]
        await settled()
        stage.draining.set()
        assert [await poll.outcome for poll in polls] == [None, None, None]
        assert await stage.poll().outcome is None
        await settled()
        assert stage.gateway.open == {}
        assert stage.loop.time() < 1

    play(story)


# -- sockets


async def take(texts: OpenSocket) -> dict[str, Any]:
    return await anext(texts)


def test_a_socket_hears_what_is_for_its_worker() -> None:
    async def story(stage: Stage) -> None:
        mine = await stage.line.socket("default", "w1")
        anyone = await stage.line.socket("default", "")
        await settled()
        assert stage.gateway.say(("default", "w1"), **CANCEL) == 1
        assert stage.gateway.say(("default", "w2"), command="other") == 1
        assert stage.gateway.say(("other", "w2"), command="other") == 0
        assert await take(mine) == CANCEL
        assert await take(anyone) == {"command": "other"}

    play(story)


def test_a_socket_ends_when_its_worker_has_another_one() -> None:
    async def story(stage: Stage) -> None:
        old = await stage.line.socket("default", "w1")
        new = await stage.line.socket("default", "w1")
        assert [each async for each in old] == []
        stage.gateway.say(("default", "w1"), **CANCEL)
        assert await take(new) == CANCEL

    play(story)


def test_a_closed_socket_is_told_and_hears_nothing_more() -> None:
    async def story(stage: Stage) -> None:
        texts = await stage.line.socket("default", "w1")
        stage.gateway.say(("default", "w1"), **CANCEL)
        assert await take(texts) == CANCEL
        stage.gateway.loses = [r.Sockets]
        await texts.aclose()
        await settled(1)
        assert stage.gateway.say(("default", "w1"), **CANCEL) == 0
        assert [len(each.closed) for each in stage.asked(r.Sockets)] == [0, 1]

    play(story)


def test_sockets_are_told_again_after_a_restart() -> None:
    async def story(stage: Stage) -> None:
        texts = [await stage.line.socket(*each) for each in (("default", "w1"), ("default", ""), ("other", "w1"))]
        await settled(1)
        stage.gateway.restart()
        await settled(6)
        for worker in (("default", "w1"), ("default", "w2"), ("other", "w1")):
            assert stage.gateway.say(worker, to=worker[0]) == 1
        assert [(await take(each))["to"] for each in texts] == ["default", "default", "other"]

    play(story)


def test_a_socket_that_cannot_be_told_is_no_socket() -> None:
    async def story(stage: Stage) -> None:
        stage.gateway.away = True
        with pytest.raises(ActorUnreachable):
            await stage.line.socket("default", "w1")
        stage.gateway.away = False
        await settled(2)
        assert stage.gateway.say(("default", "w1"), **CANCEL) == 0

    play(story)


def test_workers_with_open_sockets_are_alive() -> None:
    async def story(stage: Stage) -> None:
        texts = await stage.line.socket("default", "w1")
        for each in (("default", ""), ("default", "w2"), ("other", "w3")):
            await stage.line.socket(*each)
        await settled(21)
        told = {(each.tenant, each.worker_ids) for each in stage.asked(r.Alive)}
        assert told == {("default", ("w1", "w2")), ("other", ("w3",))}
        stage.gateway.say(("default", "w1"), **CANCEL)
        await take(texts)
        await texts.aclose()
        await settled(20)
        assert stage.asked(r.Alive)[-2].worker_ids == ("w2",)

    play(story)
