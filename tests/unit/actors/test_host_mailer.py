"""actors.host_mailer: RunActors hear all that is due, one message at a time, and again what they have not heard."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from actors.host_mailer import AGAIN_S
from orchestrator import codec
from orchestrator.control import Hosting
from tests.hosting_stage import EPOCH, HostingStage
from tests.virtual_time import virtually

A, B, OWN = "run-actor-0", "run-actor-1", "run:r1"
HERE = (("w0", "i1"), ("w1", "i1"))
POOLS = {"w0": "default", "w1": "default"}
SCHEDULED, BACKFILL = ("acme", "scheduled", "d"), ("acme", "backfill", "d")


def told(story: Callable[[HostingStage], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A story with a RunActor and two workers that it has heard of, in virtual time."""

    async def play() -> None:
        scene = HostingStage()
        scene.hosts.stand([A])
        scene.hosts.heard(A, 1)
        scene.workers.want(POOLS, ())
        await scene.pass_()
        await scene.send()
        assert [message.workers for message in scene.peers.heard_by(A)] == [HERE]
        scene.peers.told.clear()
        await story(scene)

    return lambda: virtually(play())


@told
async def test_all_that_is_due_goes_in_one_message_of_this_scheduler(stage: HostingStage) -> None:
    stage.hosts.admit("r1", A, since=1, lane="")
    lease = stage.lease(A)
    stage.hosts.by_name[A].yields.append(("w1", 3))
    stage.hosts.worker_there("w1", "i2")
    await stage.send()
    given = stage.hosts.given("r1")
    assert given is not None
    assert stage.peers.heard_by(A) == [
        Hosting(EPOCH, (given,), (("w0", "i1", lease),), (("w1", 3),), workers=(("w1", "i2"),))
    ]
    await stage.send()
    assert len(stage.peers.told) == 1


@told
async def test_what_becomes_due_while_a_message_is_under_way_goes_in_the_next(stage: HostingStage) -> None:
    stage.peers.takes_s = 1.0
    for run_id in ("r1", "r2", "r3"):
        stage.hosts.admit(run_id, A, since=1, lane="")
        await stage.send()
    await stage.pass_(3.0)
    assert [[each.run_id for each in message.admissions] for message in stage.peers.heard_by(A)] == [
        ["r1"],
        ["r2", "r3"],
    ]


@told
async def test_what_was_not_delivered_is_told_again_before_what_came_since(stage: HostingStage) -> None:
    stage.peers.deaf = 1
    stage.hosts.admit("r1", A, since=1, lane="")
    stage.hosts.by_name[A].yields.append(("w1", 3))
    stage.hosts.worker_there("w1", "i2")
    stage.hosts.worker_there("w0", "i2")
    await stage.send()
    stage.hosts.admit("r2", A, since=1, lane="")
    stage.hosts.by_name[A].yields.append(("w1", 4))
    stage.hosts.worker_there("w1", "i3")
    await stage.send(AGAIN_S)
    (message,) = stage.peers.heard_by(A)
    assert [each.run_id for each in message.admissions] == ["r1", "r2"]
    assert (message.yields, message.workers) == ((("w1", 3), ("w1", 4)), (("w1", "i3"), ("w0", "i2")))


@told
async def test_a_lease_that_was_not_delivered_is_free_for_anybody(stage: HostingStage) -> None:
    stage.peers.deaf = 1
    stage.lease(A)
    assert stage.slots.held(A) == 1
    await stage.send()
    assert (stage.slots.held(A), stage.hosts.by_name[A].grants) == (0, [])


@told
async def test_an_admission_that_holds_no_longer_is_not_told(stage: HostingStage) -> None:
    stage.peers.deaf = 1
    stage.hosts.admit("r1", A, since=1, lane="")
    stage.hosts.admit("r2", A, since=1, lane="")
    await stage.send()
    stage.hosts.ended("r1")
    await stage.pass_(AGAIN_S)
    (message,) = stage.peers.heard_by(A)
    assert [each.run_id for each in message.admissions] == ["r2"]


@told
async def test_an_actor_of_a_single_run_is_started_before_it_is_told_and_again_when_it_does_not_answer(
    stage: HostingStage,
) -> None:
    stage.peers.deaf = 1
    stage.hosts.admit("r1", OWN, since=1, lane="")
    await stage.send()
    first = (EPOCH << 32) + 1
    assert stage.peers.orders == [("ensure", OWN, first), ("ensure", OWN, first + 1)]
    await stage.pass_(AGAIN_S)
    assert len(stage.peers.heard_by(OWN)) == 1
    stage.hosts.ended("r1")
    await stage.pass_()
    assert stage.peers.orders[2:] == [("release", OWN, first + 2)]


@told
async def test_an_actor_whose_run_ended_before_it_answered_is_not_started_again(stage: HostingStage) -> None:
    stage.peers.deaf = 100
    stage.hosts.admit("r1", OWN, since=1, lane="")
    await stage.send()
    before = list(stage.peers.orders)
    stage.hosts.ended("r1")
    await stage.pass_(5 * AGAIN_S)
    assert stage.peers.orders == [*before, ("release", OWN, (EPOCH << 32) + len(before) + 1)]


@told
async def test_an_actor_whose_run_ended_before_it_was_ordered_is_not_started(stage: HostingStage) -> None:
    stage.hosts.admit("r1", OWN, since=1, lane="")
    stage.mailer.send(0.0)
    stage.hosts.ended("r1")
    await stage.pass_(AGAIN_S)
    assert (stage.peers.orders, stage.peers.heard_by(OWN)) == ([("release", OWN, (EPOCH << 32) + 1)], [])


@told
async def test_an_actor_of_a_single_run_that_has_told_where_it_stands_is_there(stage: HostingStage) -> None:
    stage.hosts.place("r1", OWN).epoch = 1
    stage.hosts.wake("r1")
    stage.hosts.host_woken()
    await stage.send()
    assert (len(stage.peers.heard_by(OWN)), stage.peers.orders) == (1, [])


@told
async def test_nodes_of_leases_are_for_who_tells_where_tasks_are_at_home(stage: HostingStage) -> None:
    stage.lease(A)
    await stage.send()
    stage.slots.forget(A)
    stage.hosts.by_name[A].tells_homes = True
    stage.lease(A)
    await stage.send()
    assert [message.nodes for message in stage.peers.heard_by(A)] == [(), (("w0", "node-1"),)]


# ── shares ──


@told
async def test_a_weight_that_was_taken_back_is_told_once(stage: HostingStage) -> None:
    for records in ({"acme": codec.encode_share(2.0)}, {}, {}):
        stage.mailer.weigh(records)
        await stage.send()
    assert [message.weights for message in stage.peers.heard_by(A)] == [(("acme", 2.0),), (("acme", 1.0),)]


@told
async def test_weights_that_were_not_delivered_are_told_again(stage: HostingStage) -> None:
    stage.peers.deaf = 1
    stage.mailer.weigh({"acme": codec.encode_share(2.0)})
    await stage.send(AGAIN_S)
    assert [(message.weights, message.leads) for message in stage.peers.heard_by(A)] == [((("acme", 2.0),), ())]


@told
async def test_a_run_actor_that_was_replaced_is_told_the_weights_again(stage: HostingStage) -> None:
    stage.mailer.weigh({"acme": codec.encode_share(2.0)})
    await stage.send()
    stage.hosts.heard(A, 2)
    await stage.send()
    assert [message.weights for message in stage.peers.heard_by(A)] == [(("acme", 2.0),)] * 2


@told
async def test_how_everybody_stands_is_told_when_leaves_begin_to_compete_and_when_they_stop(
    stage: HostingStage,
) -> None:
    stage.slots.demand(A, {SCHEDULED: 1, BACKFILL: 1})
    await stage.send()
    await stage.send()
    stage.slots.demand(A, {})
    await stage.send(2.0)
    await stage.send()
    leads = [message.leads for message in stage.peers.heard_by(A)]
    assert [bool(each) for each in leads] == [True, False]
    assert leads[-1] == ()


# ── workers ──


@told
async def test_workers_are_told_once_and_again_to_another_incarnation(stage: HostingStage) -> None:
    await stage.send()
    assert stage.peers.heard_by(A) == []
    stage.hosts.heard(A, 2)
    await stage.send()
    assert [message.workers for message in stage.peers.heard_by(A)] == [HERE]


@told
async def test_a_run_actor_that_comes_later_is_told_of_all_workers(stage: HostingStage) -> None:
    stage.hosts.stand([A, B])
    await stage.send()
    assert [(name, message.workers) for name, message in stage.peers.told] == [(B, HERE)]
