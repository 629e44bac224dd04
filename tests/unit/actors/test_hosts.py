"""actors.hosts: where runs live, what is told again, and that nothing is kept of runs that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from actors.hosts import ACTED_AFTER_S, Host
from orchestrator.control import Admission
from tests.hosting_stage import EPOCH, HostingStage
from tests.virtual_time import virtually

A, B, OWN = "run-actor-0", "run-actor-1", "run:r1"


def told(story: Callable[[HostingStage], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A story with two RunActors, in virtual time."""

    async def play() -> None:
        scene = HostingStage()
        scene.hosts.stand([A, B])
        for name in (A, B):
            scene.hosts.by_name[name].epoch = 1
        await story(scene)

    return lambda: virtually(play())


def admissions(host: Host) -> list[tuple[str, bool]]:
    """Of what is due to it: (run, is it only to be hosted)."""
    return [(admission.run_id, admission.only_host) for admission in host.admissions]


@told
async def test_a_run_goes_to_the_run_actor_with_the_fewest(stage: HostingStage) -> None:
    for run_id in ("r1", "r2", "r3"):
        stage.hosts.admit(run_id, "", since=1, lane="")
    assert [sorted(stage.hosts.by_name[name].runs) for name in (A, B)] == [["r1", "r3"], ["r2"]]
    stage.hosts.unplace("r1")
    stage.hosts.unplace("r3")
    assert stage.hosts.some_run_actor() == A


@told
async def test_numbers_of_admissions_grow_and_are_above_those_of_a_former_scheduler(stage: HostingStage) -> None:
    for run_id in ("r1", "r2"):
        stage.hosts.admit(run_id, A, since=1, lane="")
    assert [given.number for given in stage.hosts.by_name[A].admissions] == [(EPOCH << 32) + 1, (EPOCH << 32) + 2]


def test_nobody_has_to_be_there_until_a_run_is_placed() -> None:
    async def story() -> None:
        stage = HostingStage()
        assert (stage.hosts.ready, stage.hosts.some_run_actor()) == (False, None)
        stage.hosts.wake("r1")
        stage.hosts.stand([A])
        stage.hosts.host_woken()
        assert admissions(stage.hosts.by_name[A]) == [("r1", True)]

    virtually(story())


@told
async def test_a_run_that_has_ended_leaves_nothing_behind(stage: HostingStage) -> None:
    stage.hosts.admit("r1", OWN, since=1, lane="")
    stage.hosts.admit("r2", A, since=1, lane="")
    stage.hosts.wake("r3")
    stage.hosts.host_woken()
    for run_id in ("r1", "r2", "r3"):
        assert stage.hosts.knows(run_id)
        stage.hosts.ended(run_id)
        stage.hosts.ended(run_id)
    assert not any(stage.hosts.knows(run_id) or stage.hosts.given(run_id) for run_id in ("r1", "r2", "r3"))
    assert (sorted(stage.hosts.by_name), stage.released) == ([A, B], [OWN])
    assert not stage.hosts.by_name[A].runs | stage.hosts.by_name[B].runs


@told
async def test_an_admission_holds_until_the_run_is_placed_otherwise(stage: HostingStage) -> None:
    stage.hosts.admit("r1", A, since=1, lane="")
    first = stage.hosts.given("r1")
    assert first is not None
    assert stage.hosts.holds(first)
    stage.hosts.unplace("r1")
    assert not stage.hosts.holds(first)
    stage.hosts.admit("r1", B, since=2, lane="")
    assert not stage.hosts.holds(first)


@told
async def test_a_run_that_moves_is_with_nobody_else_any_more(stage: HostingStage) -> None:
    stage.hosts.wake("r1", A)
    stage.hosts.host_woken()
    stage.hosts.moved("r1", B)
    assert (stage.hosts.by_name[A].runs, stage.hosts.by_name[B].runs) == (set(), {"r1"})
    stage.hosts.moved("r1", "")
    assert not stage.hosts.knows("r1")


@told
async def test_what_a_run_was_woken_for_is_told_to_who_owns_it_since(stage: HostingStage) -> None:
    stage.hosts.wake("r1")
    stage.hosts.moved("r1", B)
    stage.hosts.host_woken()
    assert (admissions(stage.hosts.by_name[A]), admissions(stage.hosts.by_name[B])) == ([], [("r1", True)])


@told
async def test_a_run_actor_that_was_replaced_is_told_everything_again(stage: HostingStage) -> None:
    stage.slots.add("w0", "default", "i1")
    stage.hosts.admit("r1", A, since=1, lane="")
    stage.hosts.wake("r2", A)
    stage.hosts.host_woken()
    lease = stage.lease(A)
    await stage.send()
    host = stage.hosts.by_name[A]
    host.yields.append(("w0", lease))
    assert stage.hosts.heard(A, 2) is host
    given = stage.hosts.given("r1")
    assert host.admissions == [given, Admission("r2", only_host=True)]
    assert (host.arrived, host.weights_due, host.competing) == ({"w0": "i1"}, True, False)
    assert (host.yields, stage.slots.held(A)) == ([], 0)


@told
async def test_a_replaced_run_actor_is_not_told_twice_of_what_is_due_anyhow(stage: HostingStage) -> None:
    stage.hosts.admit("r1", A, since=1, lane="")
    stage.hosts.heard(A, 2)
    assert len(stage.hosts.by_name[A].admissions) == 1


@told
async def test_a_former_incarnation_is_not_heard(stage: HostingStage) -> None:
    assert stage.hosts.heard(A, 2) is not None
    assert stage.hosts.heard(A, 1) is None
    assert stage.hosts.by_name[A].epoch == 2


@told
async def test_the_last_word_of_an_actor_whose_run_has_ended_does_not_bring_it_back(stage: HostingStage) -> None:
    stage.hosts.admit("r1", OWN, since=1, lane="")
    assert stage.hosts.heard(OWN, 1) is not None
    stage.hosts.ended("r1")
    assert stage.hosts.heard(OWN, 1) is None
    assert OWN not in stage.hosts.by_name


@told
async def test_workers_are_for_run_actors_that_are_always_there(stage: HostingStage) -> None:
    stage.hosts.admit("r1", OWN, since=1, lane="")
    stage.hosts.worker_there("w0", "i1")
    assert [stage.hosts.by_name[name].arrived for name in (A, OWN)] == [{"w0": "i1"}, {}]


# ── visitors: runs that had ended when they were woken ──


async def visit(stage: HostingStage) -> Host:
    """r1 has ended, and was told to A because a window of it goes on."""
    stage.hosts.wake_ended("r1")
    stage.hosts.host_woken()
    await stage.send()
    host = stage.hosts.by_name[A]
    assert (host.runs, list(host.visitors)) == ({"r1"}, ["r1"])
    return host


@told
async def test_a_visitor_is_forgotten_once_its_run_actor_must_have_acted(stage: HostingStage) -> None:
    host = await visit(stage)
    await stage.pass_(ACTED_AFTER_S / 2)
    stage.hosts.heard(A, 1)
    assert stage.hosts.knows("r1")
    await stage.pass_(ACTED_AFTER_S / 2)
    stage.hosts.heard(A, 1)
    assert not stage.hosts.knows("r1")
    assert (host.runs, host.visitors) == (set(), {})


@told
async def test_a_visitor_is_told_to_the_next_incarnation_and_stays_as_long_with_it(stage: HostingStage) -> None:
    host = await visit(stage)
    await stage.pass_(2 * ACTED_AFTER_S)
    stage.hosts.heard(A, 2)
    assert admissions(host) == [("r1", True)]
    await stage.send()
    stage.hosts.heard(A, 2)
    assert stage.hosts.knows("r1")
    await stage.pass_(ACTED_AFTER_S)
    stage.hosts.heard(A, 2)
    assert not stage.hosts.knows("r1")


@told
async def test_a_visitor_of_whom_its_run_actor_has_not_heard_stays(stage: HostingStage) -> None:
    stage.peers.deaf = 1_000
    host = await visit(stage)
    await stage.pass_(2 * ACTED_AFTER_S)
    stage.hosts.heard(A, 1)
    assert host.runs == {"r1"}


@told
async def test_a_visitor_that_is_woken_again_stays_as_long_from_then_on(stage: HostingStage) -> None:
    await visit(stage)
    await stage.pass_(ACTED_AFTER_S - 1)
    stage.hosts.wake("r1")
    stage.hosts.host_woken()
    await stage.send(2)
    stage.hosts.heard(A, 1)
    assert stage.hosts.knows("r1")
    await asyncio.sleep(ACTED_AFTER_S)
    stage.hosts.heard(A, 1)
    assert not stage.hosts.knows("r1")


@told
async def test_a_run_that_ends_after_it_was_woken_is_looked_at_and_then_forgotten(stage: HostingStage) -> None:
    stage.hosts.wake("r1", OWN)
    stage.hosts.ended("r1")
    stage.hosts.host_woken()
    host = stage.hosts.by_name[A]
    assert (admissions(host), list(host.visitors)) == ([("r1", True)], ["r1"])
    assert OWN not in stage.hosts.by_name


@told
async def test_a_visitor_that_ends_again_is_forgotten_at_once(stage: HostingStage) -> None:
    host = await visit(stage)
    stage.hosts.ended("r1")
    assert (host.runs, host.visitors, stage.hosts.knows("r1")) == (set(), {}, False)


@told
async def test_a_run_that_ended_and_goes_on_before_it_was_looked_at_is_no_visitor(stage: HostingStage) -> None:
    stage.hosts.wake("r1")
    stage.hosts.ended("r1")
    stage.hosts.moved("r1", OWN)
    stage.hosts.host_woken()
    host = stage.hosts.by_name[OWN]
    await stage.send()
    stage.hosts.heard(OWN, 1)
    await stage.pass_(2 * ACTED_AFTER_S)
    stage.hosts.heard(OWN, 1)
    assert (host.runs, host.visitors, stage.released) == ({"r1"}, {}, [])
