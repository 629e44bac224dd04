"""Rates, limits, pools and metrics through the gateway."""

from __future__ import annotations

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import LimitUse, TaskResources, TaskSpec
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.limits import Limit, Rate
from orchestrator.pools import POOLS, PoolSpec
from orchestrator.steps import Append
from orchestrator.task_shapes import pool_for, pool_spec
from serve_app.gateway import Gateway
from tests.conformance.journal_builders import Owner
from tests.gateway_stage import NOW, SetClock, World


@pytest.fixture
def world() -> World:
    return World()


# rates


async def test_replicas_count_the_requests_of_a_caller_together(world: World) -> None:
    replicas = [world.gateway, Gateway(world.journal, world.stage, SetClock())]
    waits = [await replica.live_runs.ask_leave("k", 3, 60.0) for _ in range(2) for replica in replicas]
    assert waits[:3] == [0, 0, 0]
    assert 59 <= waits[3] <= 60
    assert await world.gateway.live_runs.ask_leave("other", 3, 60.0) == 0


async def test_a_request_is_not_held_up_when_the_journal_cannot_tell(world: World) -> None:
    assert await world.gateway.live_runs.ask_leave("k", 1, 60.0) == 0
    world.journal.failing = [False]
    assert await world.gateway.live_runs.ask_leave("k", 1, 60.0) == 0
    assert await world.gateway.live_runs.ask_leave("k", 1, 60.0) > 0


async def test_limits_are_what_is_defined_and_what_is_in_use() -> None:
    world = World()
    book = world.gateway.limit_book
    await book.set_limit("t", "two", Limit(3, Rate(10, 60.0)))
    assert [(v.name, v.kind, v.defined, v.max_running, v.running, v.waiting) for v in await book.limits("t")] == [
        ("one", "limit", False, None, 2, 5),
        ("two", "limit", True, 3, 0, 0),
        ("d", "dag", True, None, 1, 0),
    ]
    world.stage.hangs = True
    assert [view.name for view in await book.limits("t")] == ["two"], "what is defined, though nobody says what runs"
    await book.delete_limit("t", "two")
    assert await book.limits("t") == []


async def test_a_limit_out_of_bounds_or_of_another_tenant_is_refused() -> None:
    book = World().gateway.limit_book
    with pytest.raises(Invalid):
        await book.set_limit("t", "one", Limit(-1))
    with pytest.raises(Invalid):
        await book.set_limit("t", "one", Limit(rate=Rate(0)))
    await book.set_limit("t", "one", Limit(1))
    with pytest.raises(NotFound):
        await book.limit("other", "one")
    with pytest.raises(NotFound):
        await book.delete_limit("other", "one")


async def test_metrics_tell_limits_and_pools() -> None:
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in await World().gateway.metrics()
        for sample in family.samples
    }
    assert samples["limit_running", "t", "one"] == 2
    assert samples["limit_waiting", "t", "one"] == 5
    assert samples["limit_running", "t", "dag:d"] == 1
    assert (samples["pool_queue_length", "default"], samples["pool_queue_length", "gpu"]) == (2, 3)


async def test_pools_are_the_supervisors_to_define() -> None:
    book = World().gateway.pool_book
    assert [view.name for view in await book.pools()] == ["gpu"]
    assert (await book.pool("gpu")).wanted == 3
    assert (await book.set_pool("big", PoolSpec(max=2))).spec.max == 2
    await book.delete_pool("gpu")
    for refused in (book.pool("none"), book.delete_pool("none")):
        with pytest.raises(NotFound):
            await refused
    with pytest.raises(Invalid):
        await book.set_pool("big", PoolSpec(max=-1))


async def test_a_dag_whose_tasks_ask_for_resources_brings_the_pool_and_leaves_one_that_is_there() -> None:
    world = World()
    gpu = TaskResources(num_gpus=1.0)
    name = pool_for(gpu)
    await world.define(tasks=(TaskSpec(id="a", pool=name, resources=gpu),))
    kept = await world.journal.record(POOLS, name)
    assert kept is not None
    assert codec.decode_pool(kept) == pool_spec(gpu)
    await world.journal.put_records(POOLS, {name: codec.encode_pool(PoolSpec(num_gpus=1.0, max=99))})
    await world.define(tasks=(TaskSpec(id="b", pool=name, resources=gpu),))
    assert codec.decode_pool(await world.journal.record(POOLS, name) or b"").max == 99


async def test_definitions_make_no_pools_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.pool_book.POOLS_MAX", 2)
    world = World()
    for number in (1.0, 2.0, 3.0):
        gpu = TaskResources(num_gpus=number)
        tasks = (TaskSpec(id="a", pool=pool_for(gpu), resources=gpu),)
        if number < 3:
            await world.define(tasks=tasks)
        else:
            with pytest.raises(Conflict, match="at most 2 pools"):
                await world.define(tasks=tasks)
    assert len(await world.journal.records(POOLS)) == 2
    await world.define(tasks=())


async def test_metrics_tell_how_many_workers_a_pool_has_should_have_and_how_often_that_changed() -> None:
    world = World()
    await world.journal.count([("pool_scale_events_total|gpu|up", 2)])
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in await world.gateway.metrics()
        for sample in family.samples
    }
    names = {"wanted": 3, "ready": 2, "busy": 2, "max": 4}
    assert {name: samples[f"orchestrator_pool_workers_{name}", "gpu"] for name in names} == names
    assert samples["orchestrator_pool_scale_events_total", "gpu", "up"] == 2


async def test_a_ready_task_tells_what_it_waits_for() -> None:
    world = World()
    tasks = (
        TaskSpec(id="a"),
        TaskSpec(id="b", pool="gpu", limits=(LimitUse("one"),)),
        TaskSpec(id="c", depends_on=("a",)),
    )
    await world.define(tasks=tasks, max_active_tasks=1)
    run_id = (await world.trigger()).run_id
    book = world.gateway.limit_book
    await book.set_limit("t", "one", Limit(2))
    told = await book.waiting("t", run_id)
    assert told.tasks == (), "it has not started"
    assert (told.waiting_for, told.share) == ("slot", 0.25), "as the scheduler says"
    owner = await Owner(world.journal).start()
    started = codec.encode_events([e.RunStarted(NOW, 1)])
    step = Append(run_id=run_id, expected=1, count=1, events=started, state="running", attempts=1)
    assert await owner.commit(step) == ["ok"]
    reasons = {view.task: view.reasons for view in (await book.waiting("t", run_id)).tasks}
    assert set(reasons) == {"a", "b"}
    assert reasons["b"][0] == "pool gpu has no workers"
    assert "limit one: 2 of 2 in use" in reasons["b"]
    assert reasons["a"][-1] == "a worker slot of pool default"
    with pytest.raises(NotFound):
        await book.waiting("other", run_id)
