"""Room that is requested of Ray's autoscaler comes as a node, and goes when it is released; so it does for a pool.

The first autoscaler knows nothing of labels in such a request, and takes any kind of node with what is asked for.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster.autoscaled import autoscaled
from tests.cluster.load import marks_in, until
from tests.cluster.nodes import serving
from tests.dags_api import Api, answered, fresh, task

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_a_node_comes_when_room_is_requested_and_goes_when_it_is_released(second: bool) -> None:
    with autoscaled(second) as cluster:
        assert cluster.tiers() == []
        begun_s = time.monotonic()
        cluster.request((({"big": 1.0},), ({"tier": "spot"},)))
        until(lambda: len(cluster.tiers()) == 1, 60, 1.0)
        came_s = time.monotonic()
        assert not second or cluster.tiers() == ["spot"]
        cluster.request(((), ()))
        until(lambda: cluster.tiers() == [], 60, 1.0)
        print(f"\na node {came_s - begun_s:.0f} s after the request, gone {time.monotonic() - came_s:.0f} s after")


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_a_pool_gets_the_node_that_its_worker_needs_leaves_it_and_gets_another(second: bool, tmp_path: Path) -> None:
    with autoscaled(second) as cluster, serving(cluster, ("--workers", "1")) as server:
        api, name = server.api(), fresh("room")
        begun_s = time.monotonic()
        labels = {"tier": "spot"} if second else {}
        answered(api.http.put("/pools/big", json={"min": 1, "max": 1, "resources": {"big": 1}, "labels": labels}))
        until(lambda: states(api) == ["idle"], 90, 0.5)
        ready_s = time.monotonic()
        params = {"folder": str(tmp_path), "seconds": 0.1}
        api.define(name, task("one", entrypoint="marking_tasks:mark", pool="big", params=params))
        assert api.wait(api.trigger(name)["run_id"], timeout_s=60)["state"] == "success"
        assert len(cluster.tiers()) == 1
        assert not second or cluster.tiers() == ["spot"]

        scaled_s = time.monotonic()
        assert server.cli("workers", "scale", "0", "--pool", "big").returncode == 0
        until(lambda: cluster.tiers() == [], 60, 1.0)
        assert states(api) == []
        gone_s = time.monotonic()
        assert server.cli("workers", "scale", "1", "--pool", "big").returncode == 0
        assert api.wait(api.trigger(name)["run_id"], timeout_s=90)["state"] == "success"
        assert [mark.attempt for mark in marks_in(tmp_path)] == [1, 1], "its worker has the name of the former one"
        print(f"\na worker {ready_s - begun_s:.0f} s after the pool, no node {gone_s - scaled_s:.0f} s after scale 0")


def states(api: Api) -> list[str]:
    """Of the workers of the pool."""
    return [each["state"] for each in answered(api.get("/workers"))["items"] if each["pool"] == "big"]
