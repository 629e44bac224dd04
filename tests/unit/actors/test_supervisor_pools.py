"""actors.supervisor: pools are as large as somebody said, or as their load wants, and workers end only when idle."""

from __future__ import annotations

import pytest

from actors import supervisor as supervision
from actors.names import pool_of
from orchestrator import actor_codec, codec
from orchestrator.control import PoolLoad
from orchestrator.errors import ActorUnreachable, Invalid, JournalUnavailable, NotFound, Unavailable
from orchestrator.pools import PoolSpec
from tests.supervisor_stage import (
    ELASTIC,
    FakeFacts,
    FakeStage,
    HeldStage,
    Scheduler,
    asked,
    rounds,
    supervisor,
)


async def test_a_pool_of_any_good_name_is_scaled_and_its_size_outlives_everything() -> None:
    stage, journal = FakeStage(), FakeFacts()
    made = supervisor(stage, journal)
    with pytest.raises(Invalid):
        await made.scale(actor_codec.encode_scale("no good", 1))
    await made.scale(actor_codec.encode_scale("gpu-big", 2))
    assert {"worker-gpu-big-0", "worker-gpu-big-1", "worker-default-0"} <= stage.names
    stage.names.clear()  # down and up
    await supervisor(stage, journal).ensure(asked(1))
    assert {"worker-gpu-big-0", "worker-gpu-big-1", "worker-default-0"} <= stage.names
    assert pool_of("worker-gpu-big-2") == "gpu-big"


async def test_what_cannot_be_read_of_pools_is_not_overwritten() -> None:
    class Blinking(FakeFacts):
        reads = 0

        async def records(self, kind: str) -> dict[str, bytes]:
            self.reads += 1
            if self.reads == 1:
                raise JournalUnavailable("told to fail")
            return await super().records(kind)

    for change in ("scale", "set_pool"):
        stage, journal = FakeStage(), Blinking()
        former = PoolSpec(num_gpus=1.0, max=4, generation=2)
        journal.kept["gpu"] = codec.encode_pool(former)
        made = supervisor(stage, journal)
        if change == "scale":
            await made.scale(actor_codec.encode_scale("gpu", 3))
        else:
            await made.set_pool(actor_codec.encode_pool_change("gpu", PoolSpec(num_gpus=1.0, min=3, max=3)))
        assert codec.decode_pool(journal.kept["gpu"]) == PoolSpec(num_gpus=1.0, min=3, max=3, generation=2)


async def test_a_new_supervisor_tells_of_workers_and_pools_from_the_first_question_on() -> None:
    journal = FakeFacts()
    journal.kept["gpu"] = codec.encode_pool(PoolSpec(min=1, max=4))
    names = ("worker-default-0", "worker-gpu-0")
    [drained] = actor_codec.decode_workers(await supervisor(FakeStage(*names), journal).drain(b"worker-gpu-0"))
    assert (drained.worker_id, drained.state) == ("worker-gpu-0", "draining")
    workers = actor_codec.decode_workers(await supervisor(FakeStage(*names), journal).workers(b""))
    assert [each.worker_id for each in workers] == list(names)
    pools = actor_codec.decode_pool_views(await supervisor(FakeStage(*names), journal).pools(b""))
    assert [(each.name, each.defined, each.workers) for each in pools] == [("default", False, 1), ("gpu", True, 1)]


async def test_pools_that_cannot_be_read_are_not_told_to_be_undefined() -> None:
    journal = FakeFacts()
    journal.kept["gpu"], journal.down = codec.encode_pool(PoolSpec(max=4)), True
    with pytest.raises(JournalUnavailable):
        await supervisor(FakeStage(), journal).pools(b"")


async def test_an_elastic_pool_has_workers_while_tasks_wait_and_is_then_left_alone() -> None:
    stage, scheduler = FakeStage(), Scheduler()
    made = supervisor(stage, peers=scheduler)
    view = actor_codec.decode_pool_views(await made.set_pool(ELASTIC))[0]
    assert (view.name, view.wanted, view.spec.max) == ("gpu", 0, 4)
    assert scheduler.roster is not None
    assert scheduler.roster.elastic == ("gpu",)
    await made.demand(actor_codec.encode_pool_loads([PoolLoad("gpu", waiting=3)]))
    scheduler.loads = [PoolLoad("gpu", busy=3, slots=3)]
    await rounds(made)
    workers = {"worker-gpu-0", "worker-gpu-1", "worker-gpu-2"}
    assert workers <= stage.names
    assert stage.specs["worker-gpu-0"] == made._pools.spec("gpu")
    scheduler.loads, scheduler.states = [PoolLoad("gpu", slots=3)], dict.fromkeys(workers, "idle")
    await rounds(made, 3)
    assert not workers & stage.names
    scheduler.asked.clear()
    await rounds(made, 3)
    assert scheduler.asked == []


async def test_pools_follow_their_load_although_demand_for_another_one_comes_all_the_time() -> None:
    stage, scheduler = FakeStage(), Scheduler()
    made = supervisor(stage, peers=scheduler)
    await made.set_pool(actor_codec.encode_pool_change("busy", PoolSpec(min=1, max=4)))
    await made.set_pool(actor_codec.encode_pool_change("restless", PoolSpec(min=1, max=4)))
    scheduler.loads = [PoolLoad("busy", waiting=3, waiting_s=30.0, busy=1, slots=1)]
    for _ in range(3):
        await made.demand(actor_codec.encode_pool_loads([PoolLoad("restless", waiting=1)]))
        await rounds(made)
    assert {f"worker-busy-{n}" for n in range(4)} <= stage.names


async def test_what_was_said_of_a_pool_is_remembered_once() -> None:
    made = supervisor(FakeStage(), peers=Scheduler())
    for waiting in (1, 2, 3):
        await made.demand(actor_codec.encode_pool_loads([PoolLoad("gpu", waiting), PoolLoad("cpu", waiting)]))
    assert sorted(made._demand.values(), key=lambda load: load.pool) == [PoolLoad("cpu", 3), PoolLoad("gpu", 3)]


async def test_demand_that_cannot_be_looked_up_is_looked_up_in_the_next_round() -> None:
    stage, scheduler, journal = FakeStage(), Scheduler(), FakeFacts()
    made = supervisor(stage, journal, peers=scheduler)
    await rounds(made)
    journal.kept["late"] = codec.encode_pool(PoolSpec(max=1))
    journal.down = True
    await made.demand(actor_codec.encode_pool_loads([PoolLoad("late", waiting=1)]))
    await rounds(made)
    assert "worker-late-0" not in stage.names
    journal.down = False
    await rounds(made)
    assert "worker-late-0" in stage.names


async def test_workers_on_a_node_that_drains_finish_and_others_take_their_place() -> None:
    stage, scheduler = FakeStage(), Scheduler()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing = {"worker-default-0", "supervisor"}
    scheduler.states = {"worker-default-0": "busy"}
    await rounds(made, 2)
    assert {"worker-default-0", "worker-default-1"} <= stage.names
    assert scheduler.roster is not None
    assert scheduler.roster.draining == ("worker-default-0",)
    scheduler.states = {"worker-default-0": "idle"}
    await rounds(made)
    assert "worker-default-0" not in stage.names
    assert "worker-default-1" in stage.names


async def test_workers_that_are_to_end_stay_while_a_new_scheduler_does_not_know_who_works() -> None:
    class New(Scheduler):
        rebuilt = False

        async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
            if method == "pool_loads" and not self.rebuilt:
                raise Unavailable("the scheduler has not heard of everybody yet")
            return await super().ask(actor, method, blob)

    stage, scheduler = FakeStage(), New()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing = {"worker-default-0"}
    await rounds(made, 2)
    assert "worker-default-0" in stage.names
    scheduler.rebuilt = True
    await rounds(made)
    assert "worker-default-0" not in stage.names


async def test_a_worker_that_works_stays_although_the_scheduler_is_replaced_between_two_questions() -> None:
    class Replaced(Scheduler):
        questions_left = 1_000

        async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
            self.questions_left -= 1
            if self.questions_left >= 0:
                return await super().ask(actor, method, blob)
            if method == "pool_loads":
                raise Unavailable("the scheduler has not heard of everybody yet")
            return actor_codec.encode_states({})

    stage, scheduler = FakeStage(), Replaced()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing, scheduler.states = {"worker-default-0"}, {"worker-default-0": "busy"}
    await rounds(made, 2)
    scheduler.questions_left = 1
    await made._phase(made._retire)
    assert "worker-default-0" in stage.names


async def test_a_worker_that_the_scheduler_may_still_give_work_is_not_ended() -> None:
    class Cut(Scheduler):
        reached = False

        async def tell(self, actor: str, method: str, blob: bytes) -> None:
            if not self.reached:
                raise ActorUnreachable(actor, "told to fail")
            await super().tell(actor, method, blob)

    stage, scheduler = FakeStage(), Cut()
    made = supervisor(stage, peers=scheduler, ray_address="auto")
    await rounds(made)
    stage.departing, scheduler.states = {"worker-default-0"}, {"worker-default-0": "idle"}
    await rounds(made, 2)
    assert "worker-default-0" in stage.names
    scheduler.reached = True
    await rounds(made)
    assert "worker-default-0" not in stage.names


async def test_a_worker_that_could_not_be_ended_is_ended_in_the_next_round() -> None:
    stage, scheduler = HeldStage(), Scheduler()
    made = supervisor(stage, peers=scheduler)
    await made.scale(actor_codec.encode_scale("default", 2))
    scheduler.states = dict.fromkeys(("worker-default-0", "worker-default-1"), "idle")
    await made.scale(actor_codec.encode_scale("default", 0))
    await rounds(made)
    assert {"worker-default-0", "worker-default-1"} <= stage.names
    assert await made.ping() == 2
    stage.away = False
    await rounds(made)
    assert not {"worker-default-0", "worker-default-1"} & stage.names
    assert await made.ping() == 0


async def test_rays_autoscaler_is_told_when_what_is_needed_changes_and_only_where_it_may_exist() -> None:
    rest, busy = (({"CPU": 1.0},), ({},)), (({"CPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}), ({}, {}, {}))
    for address, requests in (("", []), ("auto", [rest, busy, rest])):
        stage, scheduler = FakeStage(), Scheduler()
        made = supervisor(stage, peers=scheduler, ray_address=address)
        await made.set_pool(ELASTIC)
        await rounds(made, 2)
        await made.demand(actor_codec.encode_pool_loads([PoolLoad("gpu", waiting=2)]))
        scheduler.loads = [PoolLoad("gpu", busy=2)]
        await rounds(made, 2)
        await made.set_pool(actor_codec.encode_pool_change("gpu", None))
        await rounds(made, 2)
        assert stage.requests == requests


async def test_room_is_requested_again_after_a_while_since_a_gcs_that_was_replaced_knows_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = FakeStage()
    made = supervisor(stage, peers=Scheduler(), ray_address="auto")
    await rounds(made, 3)
    monkeypatch.setattr(supervision, "REQUEST_AGAIN_S", 0.0)
    await rounds(made, 2)
    assert stage.requests == [(({"CPU": 1.0},), ({},))] * 3


async def test_a_pool_that_cannot_be_so_is_refused_and_one_that_is_not_there_cannot_be_forgotten() -> None:
    made = supervisor(FakeStage(), peers=Scheduler())
    for name, spec in (("no good", PoolSpec(max=1)), ("gpu", PoolSpec(min=2, max=1))):
        with pytest.raises(Invalid):
            await made.set_pool(actor_codec.encode_pool_change(name, spec))
    with pytest.raises(NotFound):
        await made.set_pool(actor_codec.encode_pool_change("gpu", None))
