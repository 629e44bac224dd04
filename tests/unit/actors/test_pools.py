"""actors.pools: which workers ought to exist, and what Ray is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from actors.pools import Pools, shaped
from orchestrator import codec
from orchestrator.control import PoolLoad
from orchestrator.errors import Conflict, JournalUnavailable, NotFound
from orchestrator.pools import POOLS, PoolSpec


class Records:
    """The journal's records of pools."""

    def __init__(self, **specs: PoolSpec) -> None:
        self.kept = {name: codec.encode_pool(spec) for name, spec in specs.items()}
        self.counts: list[tuple[str, int]] = []
        self.down = False

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        self._check(kind)
        self.kept = {k: r for k, r in {**self.kept, **records}.items() if r is not None}

    async def record(self, kind: str, key: str) -> bytes | None:
        self._check(kind)
        return self.kept.get(key)

    async def records(self, kind: str) -> dict[str, bytes]:
        self._check(kind)
        return dict(self.kept)

    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        self.counts += counts

    def _check(self, kind: str) -> None:
        assert kind == POOLS
        if self.down:
            raise JournalUnavailable("told to fail")


async def opened(records: Records, *present: str, standing: int = 2) -> Pools:
    pools = Pools(records, standing)
    pools.find(present)
    await pools.open()
    settle(pools)
    return pools


def settle(pools: Pools, states: Mapping[str, str] | None = None) -> None:
    """What a round does."""
    pools.fill()
    pools.shed(states or {})


def of(pools: Pools, pool: str) -> list[str]:
    """Workers of the pool that are not draining."""
    return sorted(n for n, where in pools.workers.items() if where == pool and n not in pools.draining)


ELASTIC = PoolSpec(max=4, idle_timeout_s=10.0)


async def test_the_default_pool_is_as_the_settings_say_unless_somebody_defined_it() -> None:
    assert of(await opened(Records()), "default") == ["worker-default-0", "worker-default-1"]
    # others may be on their way: the server that starts this process starts them, too
    assert of(await opened(Records(), "worker-default-1"), "default") == ["worker-default-0", "worker-default-1"]
    assert len(of(await opened(Records(), *(f"worker-default-{n}" for n in range(3))), "default")) == 2
    assert len(of(await opened(Records(default=PoolSpec(min=5, max=5)), "worker-default-0"), "default")) == 5


async def test_nothing_is_settled_before_it_is_known_what_is_defined() -> None:
    pools = Pools(Records(), 2)
    pools.find(["worker-gpu-0"])
    settle(pools)
    assert (pools.workers, pools.draining) == ({"worker-gpu-0": "gpu"}, set())


async def test_a_definition_that_is_not_durable_does_not_count() -> None:
    records = Records()
    pools = await opened(records)
    records.down = True
    with pytest.raises(JournalUnavailable):
        await pools.fix("gpu", 3)
    settle(pools)
    assert of(pools, "gpu") == []


async def test_a_change_whose_answer_was_lost_is_read_back() -> None:
    class Lossy(Records):
        lossy = False

        async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
            await super().put_records(kind, records)
            if self.lossy:
                raise JournalUnavailable("the answer was lost")

    records = Lossy(old=PoolSpec(min=1, max=1))
    pools = await opened(records)
    assert len(of(pools, "old")) == 1
    records.lossy = True
    for change in (pools.fix("gpu", 2), pools.forget("old")):
        with pytest.raises(JournalUnavailable):
            await change
    await pools.open()
    settle(pools)
    assert (len(of(pools, "gpu")), of(pools, "old")) == (2, [])


async def test_there_are_only_so_many_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pools.POOLS_MAX", 2)
    records = Records(one=ELASTIC)
    pools = await opened(records)
    await pools.define("two", ELASTIC)
    for more in (pools.define("three", ELASTIC), pools.fix("three", 1)):
        with pytest.raises(Conflict, match="pools rm"):
            await more
    assert set(records.kept) == {"one", "two"}
    await pools.define("two", PoolSpec(max=1))
    await pools.forget("one")
    await pools.fix("three", 1)
    assert set(records.kept) == {"two", "three"}


async def test_demand_gives_a_pool_at_zero_its_first_workers_and_idleness_takes_them() -> None:
    records = Records(gpu=ELASTIC)
    pools = await opened(records)
    assert of(pools, "gpu") == []
    await pools.take_demand([PoolLoad("gpu", waiting=2)], 100.0)
    settle(pools)
    assert of(pools, "gpu") == ["worker-gpu-0", "worker-gpu-1"]
    assert pools.restless
    await pools.steer([PoolLoad("gpu", slots=2)], 101.0)
    await pools.steer([PoolLoad("gpu", slots=2)], 111.0)
    settle(pools)
    assert pools.draining == {"worker-gpu-0", "worker-gpu-1"}
    assert not pools.restless
    assert records.counts == [("pool_scale_events_total|gpu|up", 1), ("pool_scale_events_total|gpu|down", 1)]


async def test_a_pool_that_was_defined_since_is_learnt_when_tasks_wait_for_it() -> None:
    records = Records()
    pools = await opened(records)
    await pools.take_demand([PoolLoad("late", waiting=1), PoolLoad("nobody", waiting=1)], 0.0)
    records.kept["late"] = codec.encode_pool(ELASTIC)
    await pools.take_demand([PoolLoad("late", waiting=1)], 0.0)
    settle(pools)
    assert (of(pools, "late"), of(pools, "nobody")) == (["worker-late-0"], [])


async def test_a_new_supervisor_asks_about_elastic_pools_until_it_has_heard_once() -> None:
    pools = await opened(Records(gpu=ELASTIC))
    assert pools.restless
    await pools.steer([], 0.0)
    assert not pools.restless


async def test_surplus_workers_end_in_the_order_in_which_they_are_missed_least() -> None:
    pools = await opened(Records(), standing=4)
    await pools.fix("default", 1)
    settle(pools, {"worker-default-0": "busy", "worker-default-1": "idle", "worker-default-3": "busy"})
    assert of(pools, "default") == ["worker-default-0"]
    pools = await opened(Records(), standing=4)
    await pools.fix("default", 2)
    settle(pools, {"worker-default-0": "idle", "worker-default-2": "busy", "worker-default-3": "busy"})
    assert of(pools, "default") == ["worker-default-2", "worker-default-3"]


async def test_workers_of_a_former_shape_are_replaced_also_by_a_later_supervisor() -> None:
    records = Records()
    pools = await opened(records)
    await pools.define("gpu", PoolSpec(min=1, max=1))
    settle(pools)
    assert of(pools, "gpu") == ["worker-gpu-0"]
    await pools.define("gpu", PoolSpec(min=1, max=1, num_gpus=1.0))
    after = await opened(records, "worker-gpu-0")
    for each in (pools, after):
        settle(each)
        assert of(each, "gpu") == ["worker-gpu-10000"]
        assert "worker-gpu-0" in each.draining
    assert records.kept["gpu"] == codec.encode_pool(PoolSpec(min=1, max=1, num_gpus=1.0, generation=1))


async def test_bounds_that_change_leave_workers_as_they_are() -> None:
    pools = await opened(Records(gpu=PoolSpec(min=2, max=2, num_gpus=1.0)))
    await pools.define("gpu", PoolSpec(min=3, max=3, num_gpus=1.0))
    settle(pools)
    assert of(pools, "gpu") == ["worker-gpu-0", "worker-gpu-1", "worker-gpu-2"]


async def test_a_pool_that_was_forgotten_and_comes_again_uses_no_worker_that_is_about_to_end() -> None:
    pools = await opened(Records(gpu=PoolSpec(min=1, max=1)))
    await pools.forget("gpu")
    settle(pools)
    assert pools.draining == {"worker-gpu-0"}
    await pools.define("gpu", PoolSpec(min=1, max=1, num_gpus=1.0))
    settle(pools)
    assert of(pools, "gpu") == ["worker-gpu-10000"]
    with pytest.raises(NotFound):
        await pools.forget("none")


async def test_others_take_the_place_of_workers_whose_node_is_about_to_go() -> None:
    pools = await opened(Records())
    assert pools.leave({"worker-default-1", "run-actor-0"}) == ["worker-default-1"]
    assert pools.leave({"worker-default-1"}) == []
    settle(pools)
    assert of(pools, "default") == ["worker-default-0", "worker-default-2"]
    pools.ended("worker-default-1")
    settle(pools)
    assert of(pools, "default") == ["worker-default-0", "worker-default-2"]


async def test_a_worker_that_somebody_drains_is_not_replaced_but_in_an_elastic_pool_that_needs_it() -> None:
    pools = await opened(Records(gpu=PoolSpec(min=1, max=2)))
    for worker in ("worker-default-0", "worker-gpu-0"):
        pools.lower(worker)
        pools.lower(worker)
    settle(pools)
    assert (of(pools, "default"), of(pools, "gpu")) == (["worker-default-1"], ["worker-gpu-1"])


async def test_room_is_requested_for_each_worker_that_there_should_be() -> None:
    big = PoolSpec(min=2, max=2, num_cpus=1.0, memory_bytes=1024, resources={"tpu": 4.0}, labels={"tier": "a"})
    pools = await opened(Records(big=big), standing=1)
    bundle = {"CPU": 1.0, "memory": 1024.0, "tpu": 4.0}
    assert pools.request() == ((bundle, bundle, {"CPU": 1.0}), ({"tier": "a"}, {"tier": "a"}, {}))
    await pools.fix("big", 0)
    await pools.fix("default", 0)
    assert pools.request() == ((), ())


def test_ray_is_told_the_shape_and_else_what_holds_of_all_workers() -> None:
    placed = {"num_cpus": 1, "label_selector": {"role": "!control"}, "fallback_strategy": [], "more": 1}
    assert shaped(placed, PoolSpec()) == placed
    assert shaped(placed, PoolSpec(num_gpus=0.5)) == {**placed, "num_cpus": 0.0, "num_gpus": 0.5}
    assert shaped(placed, PoolSpec(memory_bytes=7, resources={"x": 1.0}, labels={"a": "!b"})) == {
        "num_cpus": 0.0,
        "memory": 7,
        "resources": {"x": 1.0},
        "label_selector": {"a": "!b"},
        "more": 1,
    }


async def test_what_a_former_supervisor_wanted_to_end_ends_and_others_take_its_place() -> None:
    pools = await opened(Records(), "worker-default-0", "worker-default-1")
    pools.adopt({"worker-default-0": "draining_busy", "worker-default-1": "idle"})
    settle(pools)
    assert of(pools, "default") == ["worker-default-1", "worker-default-2"]
    assert pools.draining == {"worker-default-0"}
