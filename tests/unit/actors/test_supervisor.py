"""actors.supervisor: which actors ought to exist, and who may end those that are there for one run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import supervisor as supervision
from actors.peers import WorkerGone
from actors.settings import Settings
from actors.supervisor import Supervisor
from orchestrator import actor_codec
from orchestrator.errors import Unavailable
from orchestrator.streams import inbox
from tests.supervisor_stage import (
    OWN,
    FakeFacts,
    FakeStage,
    HeldStage,
    NoPeers,
    Scheduler,
    asked,
    rounds,
    supervisor,
)


async def test_the_cast_is_the_scheduler_the_run_actors_and_the_workers() -> None:
    stage = FakeStage()
    await supervisor(stage).ensure(asked(1))
    assert stage.names == {OWN, "scheduler", "run-actor-0", "run-actor-1", "worker-default-0"}


async def one_round(made: Supervisor) -> None:
    """It looks for work outside the cluster, and then for gaps."""
    await made._find_outside_work()
    await made.ensure(asked(1))


@pytest.mark.parametrize(
    "journal",
    [FakeFacts(epochs={"gateway-0.jobs": 1}), FakeFacts(newest={inbox("gateway-0.pipelines"): "7-0"})],
    ids=["it was there before", "something waits for it"],
)
async def test_the_gateway_is_there_once_the_journal_knows_of_work_for_it(journal: FakeFacts) -> None:
    stage = FakeStage()
    await one_round(supervisor(stage, journal))
    assert "gateway-0" in stage.names


async def test_nothing_but_dags_needs_no_gateway() -> None:
    stage = FakeStage()
    await one_round(supervisor(stage))
    assert "gateway-0" not in stage.names


async def test_the_rest_of_the_cast_comes_while_the_journal_is_down() -> None:
    stage, journal = FakeStage(), FakeFacts()
    journal.down = True
    await one_round(supervisor(stage, journal))
    assert "scheduler" in stage.names
    assert "gateway-0" not in stage.names


async def test_the_gateway_comes_when_asked_for_and_is_kept_from_then_on() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.open_gateway(b"")
    assert "gateway-0" in stage.names
    stage.end("gateway-0")
    await made.ensure(asked(1))
    assert "gateway-0" in stage.names


async def test_a_new_supervisor_keeps_the_gateway_that_lives() -> None:
    stage = FakeStage("gateway-0", "scheduler")
    made = supervisor(stage)
    await made.ensure(asked(1))
    stage.end("gateway-0")
    await made.ensure(asked(1))
    assert "gateway-0" in stage.names


@pytest.mark.parametrize("settings", [{"blueprints_dir": "/b"}, {"pipelines_incluster_runners": 1}])
async def test_blueprints_and_runners_need_the_gateway_from_the_start(settings: dict[str, Any]) -> None:
    stage = FakeStage()
    await supervisor(stage, **settings).ensure(asked(1))
    assert "gateway-0" in stage.names


@pytest.mark.parametrize("there", [True, False])
async def test_the_kubernetes_actor_is_there_when_a_cluster_is(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(supervision, "configured", lambda _: there)
    stage = FakeStage()
    await supervisor(stage).ensure(asked(1))
    assert ("kubernetes" in stage.names) is there


async def test_an_actor_for_one_run_comes_and_goes() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(1))
    assert {OWN, "scheduler", "run-actor-0", "run-actor-1", "worker-default-0"} <= stage.names
    await made.release(asked(1))
    assert OWN not in stage.names
    await made.ensure(asked(1, "run:x"))
    assert OWN not in stage.names


async def test_a_former_scheduler_neither_starts_nor_ends_one() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(2))
    await made.release(asked(1))
    assert OWN in stage.names
    await made.tell_roster(asked(3, ""))
    await made.release(asked(2))
    await made.ensure(asked(2, "run:x"))
    assert OWN in stage.names
    assert "run:x" not in stage.names


async def test_an_order_that_was_overtaken_has_no_effect() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(1, number=1))
    await made.ensure(asked(1, number=3))
    await made.release(asked(1, number=2))
    assert OWN in stage.names


async def test_a_standing_actor_is_never_released() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    await made.ensure(asked(1))
    await made.release(asked(1, "run-actor-0"))
    assert "run-actor-0" in stage.names


@pytest.mark.parametrize("name", [OWN, "run:x"])
async def test_a_new_supervisor_keeps_those_that_live(name: str) -> None:
    stage = FakeStage(name)
    made = supervisor(stage)
    await made.tell_roster(asked(1, ""))
    stage.names.clear()  # it crashed for good
    await made.ensure(asked(1, "run:another"))
    assert name in stage.names


async def test_actors_of_single_runs_end_although_nobody_told_that_these_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "LEFTOVERS_S", 0.0)
    stage, journal = FakeStage("run:gone", "run:ended", "run:retried", "run:at-work", OWN), FakeFacts()
    journal.runs = {"run_ended": (7, "failed"), "run_retried": (7, "failed"), "run_at-work": (3, "running")}
    made = supervisor(stage, journal, Scheduler())
    await rounds(made)
    journal.down = True
    await made._phase(made._end_leftovers)
    journal.down = False
    await made._phase(made._end_leftovers)
    assert {"run:gone", "run:ended"} <= stage.names, "one look is not enough: the scheduler may tell yet"
    journal.runs["run_retried"] = (9, "failed")  # it is queued no more, but was
    await made._phase(made._end_leftovers)
    assert stage.names & {"run:gone", "run:ended", "run:retried", "run:at-work", OWN} == {
        "run:retried",
        "run:at-work",
        OWN,
    }


async def test_a_run_that_is_retried_while_its_actor_ends_gets_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LEFTOVERS_S", 0.0)
    journal = FakeFacts()

    class Retried(FakeStage):
        def end(self, name: str) -> None:
            super().end(name)
            journal.runs["run_x"] = (8, "queued")

    stage = Retried("run:x")
    journal.runs = {"run_x": (7, "failed")}
    made = supervisor(stage, journal, Scheduler())
    await rounds(made)
    for _ in range(2):
        await made._phase(made._end_leftovers)
    assert "run:x" not in stage.names
    await rounds(made)
    assert "run:x" in stage.names


async def test_an_actor_for_one_run_that_could_not_be_ended_is_ended_in_the_next_round() -> None:
    stage = HeldStage()
    made = supervisor(stage, peers=Scheduler())
    await made.ensure(asked(1))
    with pytest.raises(RuntimeError):
        await made.release(asked(1))
    stage.away = False
    await rounds(made)
    assert OWN not in stage.names


async def test_an_actor_that_is_needed_again_while_another_one_ends_is_kept() -> None:
    loop, ends = asyncio.get_running_loop(), list[str]()

    class Stage(HeldStage):
        def end(self, name: str) -> None:
            super().end(name)
            ends.append(name)
            again = asyncio.run_coroutine_threadsafe(made.ensure(asked(2, "run:b")), loop)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
            assert not again.done(), "a phase is under way"

    stage = Stage()
    made = supervisor(stage, peers=Scheduler())
    for name in ("run:a", "run:b"):
        await made.ensure(asked(1, name))
        with pytest.raises(RuntimeError):
            await made.release(asked(1, name))
    stage.away = False
    await made._phase(made._retire)
    assert ends == ["run:a"]
    await rounds(made)
    assert "run:b" in stage.names
    assert "run:a" not in stage.names


async def test_a_supervisor_that_stands_by_starts_nobody() -> None:
    stage = FakeStage()
    made = supervisor(stage)
    made.stands_by = True
    await made.ensure(asked(1))
    assert stage.names == set()
    with pytest.raises(Unavailable, match="stands by"):
        await made.open_gateway(b"")
    with pytest.raises(Unavailable, match="stands by"):
        await made.scale(actor_codec.encode_scale("default", 2))
    with pytest.raises(Unavailable, match="stands by"):
        await made.drain(b"worker-default-0")
    with pytest.raises(Unavailable, match="stands by"):
        await made.pools(b"")
    with pytest.raises(Unavailable, match="stands by"):
        await made.tell_roster(asked(1, ""))  # of a cast that is about to end: what is known now may be old later
    assert actor_codec.decode_workers(await made.workers(b"")) == []
    made.stands_by = False
    await made.ensure(asked(2))
    assert "scheduler" in stage.names


async def test_a_supervisor_that_steps_down_starts_nobody_again_whom_it_ends() -> None:
    stage = FakeStage()
    made = supervisor(stage, peers=Scheduler())
    await rounds(made)
    assert "scheduler" in stage.names
    ending = asyncio.get_running_loop().create_task(made.step_down(stage.names.clear))
    await asyncio.sleep(0)
    await rounds(made, 2)
    await ending
    assert stage.names == set()


class OneWorker(NoPeers):
    """A worker that answers while it is there."""

    def __init__(self) -> None:
        self.there = False

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        if not self.there:
            raise WorkerGone(worker, "no room")
        return "host-1", 42, "a1b2"


async def test_a_worker_that_never_answered_is_starting_and_one_that_did_is_lost() -> None:
    peers: Any = OneWorker()
    made = Supervisor(FakeStage(), peers, FakeFacts(), Settings(redis_url="redis://x", workers=1))
    await made.ensure(asked(1))

    async def shown() -> tuple[str, str, str]:
        [view] = actor_codec.decode_workers(await made.workers(b""))
        return view.state, view.node, view.node_id

    assert await shown() == ("starting", "", "")
    peers.there = True
    assert (await shown())[1:] == ("host-1", "a1b2")
    peers.there = False
    assert await shown() == ("lost", "", "")
