"""A node that was told to drain: its workers finish what they do, others do the rest elsewhere, nothing is redone.

The notice is that of a cloud which takes a spot instance back. Workers of the pool `spot` need a label, those of
`default` none; both are on the node when it comes. Sometimes the node goes before its deadline.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.load import Mark, marks_in, until
from tests.cluster.nodes import CONTROL, Cluster, Node, Shape, ray_cluster, serving
from tests.dags_api import Api, answered, fresh, task
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SPOT, FIRM = {"tier": "spot"}, {"tier": "firm"}
POOLS = ("default", "spot")
#: of the tasks that are at work when the notice comes; seconds until the node is to be gone
TAKES_S, DEADLINE_S = 10.0, 90


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and the one node that has its workers of `POOLS`."""

    cluster: Cluster
    api: Api
    node: Node


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(Shape("head", 0, CONTROL), Shape("spot-0", 2, SPOT)) as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    with serving(cluster, ("--workers", "1")) as started:
        answered(started.api().http.put("/pools/spot", json={"min": 1, "max": 1, "num_cpus": 0.5, "labels": SPOT}))
        yield started


@pytest.fixture
def place(cluster: Cluster, server: Server) -> Place:
    api = server.api()
    until(lambda: [each["state"] for each in workers(api, *POOLS)] == ["idle", "idle"], 60)
    [node_id] = {each["node_id"] for each in workers(api, *POOLS)}
    return Place(cluster, api, next(node for node in cluster.nodes.values() if node.node_id == node_id))


def test_workers_of_a_node_that_drains_finish_while_others_elsewhere_do_the_rest(place: Place, tmp_path: Path) -> None:
    api, name = place.api, fresh("drain")
    api.define(name, *(mark for pool in POOLS for mark in (at_work(pool, tmp_path), behind(pool, tmp_path))))
    run_id = api.trigger(name)["run_id"]
    until(lambda: len(marks_in(tmp_path)) == len(POOLS), 60)
    other = another(place.cluster)

    told_s = time.monotonic()
    drain(place.cluster, place.node)
    until(lambda: "draining" in {each["state"] for each in workers(api, *POOLS)}, 30)
    noticed_s = time.monotonic() - told_s
    until(lambda: len(ready_on(api, other)) == len(POOLS), 60)
    print(f"\nnoticed {noticed_s:.1f} s after the notice, others ready after {time.monotonic() - told_s:.1f} s")

    assert api.wait(run_id, timeout_s=90)["state"] == "success"
    found = marks_in(tmp_path)
    assert sorted((mark.task, mark.attempt) for mark in found) == sorted(
        (f"{each}_{pool}", 1) for pool in POOLS for each in ("long", "next")
    )
    assert {mark.node_id for mark in found if mark.task.startswith("long")} == {place.node.node_id}
    assert {mark.node_id for mark in found if mark.task.startswith("next")} == {other.node_id}

    until(lambda: {each["node_id"] for each in workers(api, *POOLS)} == {other.node_id}, 60)
    place.node.kill()
    again = api.trigger(name)["run_id"]
    assert api.wait(again, timeout_s=90)["state"] == "success"
    assert {(mark.node_id, mark.attempt) for mark in marks_in(tmp_path) if mark.run_id == again} == {(other.node_id, 1)}


def test_a_node_that_goes_before_its_tasks_are_done_costs_those_alone(place: Place, tmp_path: Path) -> None:
    api, name = place.api, fresh("lost")
    place.cluster.start(Shape("firm", 1, FIRM))
    answered(api.http.put("/pools/firm", json={"min": 1, "max": 1, "num_cpus": 0.5, "labels": FIRM}))
    pools = (*POOLS, "firm")
    api.define(name, *(mark for pool in pools for mark in (at_work(pool, tmp_path), behind(pool, tmp_path))))
    run_id = api.trigger(name)["run_id"]
    until(lambda: len(marks_in(tmp_path)) == len(pools), 60)
    another(place.cluster)

    drain(place.cluster, place.node)
    until(lambda: "draining" in {each["state"] for each in workers(api, *POOLS)}, 30)
    place.node.kill()

    assert api.wait(run_id, timeout_s=120)["state"] == "success"
    twice = {f"long_{pool}" for pool in POOLS}
    once = {f"next_{pool}" for pool in pools} | {"long_firm"}
    assert attempts(marks_in(tmp_path)) == {**dict.fromkeys(twice, (1, 2)), **dict.fromkeys(once, (1,))}
    assert {mark.task for mark in marks_in(tmp_path) if mark.node_id == place.node.node_id} == twice


def at_work(pool: str, folder: Path) -> dict[str, object]:
    """The task that its worker does when the notice comes."""
    return _mark(f"long_{pool}", pool, folder, TAKES_S, priority=1)


def behind(pool: str, folder: Path) -> dict[str, object]:
    """The one that waits for the same worker."""
    return _mark(f"next_{pool}", pool, folder, 0.1)


def _mark(name: str, pool: str, folder: Path, seconds: float, **more: object) -> dict[str, object]:
    params = {"folder": str(folder), "seconds": seconds}
    return task(name, entrypoint="marking_tasks:mark", pool=pool, params=params, **more)


def attempts(marks: list[Mark]) -> dict[str, tuple[int, ...]]:
    """Task -> the attempts that were begun, in order."""
    return {name: tuple(mark.attempt for mark in marks if mark.task == name) for name in {each.task for each in marks}}


def workers(api: Api, *pools: str) -> list[dict[str, str]]:
    """Those of the pools."""
    found: list[dict[str, str]] = answered(api.get("/workers"))["items"]
    return [each for each in found if each["pool"] in pools]


def ready_on(api: Api, node: Node) -> list[dict[str, str]]:
    """Workers there that take work."""
    return [w for w in workers(api, *POOLS) if w["node_id"] == node.node_id and w["state"] in ("idle", "busy")]


_numbers = itertools.count(1)


def another(cluster: Cluster) -> Node:
    """One more node like the one that will go."""
    return cluster.start(Shape(f"spot-{next(_numbers)}", 2, SPOT))


def drain(cluster: Cluster, node: Node) -> None:
    """The notice that precedes the loss of a spot instance."""
    notice = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--node-id", node.node_id)
    when = ("--address", cluster.address, "--deadline-remaining-seconds", str(DEADLINE_S))
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", *notice, *when]
    done = subprocess.run(command, env={**os.environ, **cluster.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
