"""actors.worker_arrivals: a slot is there as soon as its worker answers, and as long as that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from actors.worker_arrivals import RETURN_CHECK_LATER_S, RETURN_CHECK_S, RETURN_LATER_AFTER_S
from tests.hosting_stage import HostingStage
from tests.virtual_time import virtually

A = "run-actor-0"


def told(story: Callable[[HostingStage], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A story with a RunActor, in virtual time."""

    async def play() -> None:
        scene = HostingStage()
        scene.hosts.stand([A])
        await story(scene)

    return lambda: virtually(play())


def slots(stage: HostingStage) -> dict[str, tuple[str, str, str, bool]]:
    """worker -> pool, incarnation, node, is it to end."""
    return {s.worker: (s.pool, s.incarnation, s.node, s.draining) for s in stage.slots.slots.values()}


@told
async def test_a_worker_that_answers_has_a_slot_and_everybody_hears_of_it(stage: HostingStage) -> None:
    stage.workers.want({"w0": "gpu"}, ())
    await stage.pass_()
    assert slots(stage) == {"w0": ("gpu", "i1", "node-1", False)}
    assert stage.hosts.by_name[A].arrived == {"w0": "i1"}


@told
async def test_a_worker_that_does_not_answer_yet_is_asked_until_it_does(stage: HostingStage) -> None:
    stage.peers.away = {"w0"}
    stage.workers.want({"w0": "default"}, ())
    await stage.pass_(3 * RETURN_CHECK_S)
    stage.workers.want({"w0": "default"}, ())
    assert (slots(stage), len(stage.tasks)) == ({}, 1)
    stage.peers.away = set()
    await stage.pass_(RETURN_CHECK_S)
    assert list(slots(stage)) == ["w0"]


@told
async def test_a_worker_that_is_away_for_long_is_asked_seldom(stage: HostingStage) -> None:
    stage.peers.away = {"w0"}
    stage.workers.want({"w0": "default"}, ())
    await stage.pass_(RETURN_LATER_AFTER_S + RETURN_CHECK_S)
    stage.peers.away = set()
    await stage.pass_(RETURN_CHECK_LATER_S / 2)
    assert slots(stage) == {}
    await stage.pass_(RETURN_CHECK_LATER_S / 2)
    assert list(slots(stage)) == ["w0"]


@told
async def test_a_lost_worker_has_a_slot_again_when_it_is_back(stage: HostingStage) -> None:
    stage.workers.want({"w0": "default"}, ())
    await stage.pass_()
    stage.peers.incarnations["w0"] = "i2"
    stage.workers.lost("w0", "i1")
    assert slots(stage) == {}
    await stage.pass_()
    assert slots(stage) == {"w0": ("default", "i2", "node-1", False)}
    assert stage.hosts.by_name[A].arrived == {"w0": "i2"}
    stage.workers.lost("w0", "i1")
    assert list(slots(stage)) == ["w0"]


@told
async def test_a_worker_that_is_to_end_is_given_nothing_more_also_when_it_was_started_anew(stage: HostingStage) -> None:
    stage.workers.want({"w0": "default"}, ())
    await stage.pass_()
    stage.workers.want({"w0": "default"}, ("w0",))
    assert slots(stage)["w0"][3]
    stage.workers.lost("w0", "i1")
    await stage.pass_()
    assert slots(stage)["w0"][3]


@told
async def test_a_worker_that_is_not_wanted_any_more_has_left(stage: HostingStage) -> None:
    stage.workers.want({"w0": "default", "w1": "default"}, ())
    await stage.pass_()
    assert set(stage.workers.want({"w1": "default"}, ())) == {"w0"}
    stage.workers.lost("w0", "i1")
    await stage.pass_()
    assert list(slots(stage)) == ["w1"]


@told
async def test_a_worker_that_leaves_before_it_answers_has_no_slot(stage: HostingStage) -> None:
    stage.peers.away = {"w0"}
    stage.workers.want({"w0": "default"}, ())
    await stage.pass_(RETURN_CHECK_S)
    stage.workers.want({}, ())
    stage.peers.away = set()
    await stage.pass_(1.0)
    assert (slots(stage), [task.done() for task in stage.tasks]) == ({}, [True])


@told
async def test_a_worker_that_leaves_while_it_answers_has_no_slot(stage: HostingStage) -> None:
    stage.peers.takes_s = 1.0
    stage.workers.want({"w0": "default"}, ())
    await stage.pass_(0.5)
    stage.workers.want({}, ())
    await stage.pass_(1.0)
    assert (slots(stage), stage.hosts.by_name[A].arrived) == ({}, {})
