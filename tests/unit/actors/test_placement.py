"""actors.placement: where actors go on a cluster that is joined, and that nothing is asked on one of our own."""

from __future__ import annotations

from typing import Any

import pytest

from actors import placement
from actors.placement import Node
from actors.settings import Settings

OWN, JOINED = Settings(), Settings(ray_address="10.0.0.1:6379")
NAMES = ("supervisor", "scheduler", "run-actor-0", "run:1", "gateway-0", "handlers-0", "ray-1", "worker-default-0")
CONTROL = ("supervisor", "scheduler", "run-actor-0", "run:1", "orchestrator:orch-1", "gateway-0", "kubernetes", "")
USER_CODE = ("worker-default-0", "worker-gpu-3", "handlers-0", "ray-1")


def told(node_id: str, *, cpus: float | None = 2.0, alive: bool = True, **more: Any) -> dict[str, Any]:
    """A node as `ray.nodes()` tells of it; one without CPUs has no such resource."""
    resources = {"memory": 1e9} | ({"CPU": cpus} if cpus is not None else {}) | more.get("resources", {})
    labels = {"ray.io/node-id": node_id, **more.get("labels", {})}
    return {
        "NodeID": node_id,
        "Alive": alive,
        "NodeManagerAddress": "10.0.0.1",
        "Resources": resources,
        "Labels": labels,
    }


HEAD = {"labels": {"orc.role": "control"}, "resources": {"node:__internal_head__": 1.0}}


@pytest.mark.parametrize("name", NAMES)
def test_on_a_cluster_of_our_own_nothing_is_asked(name: str) -> None:
    assert placement.options(name, OWN) == {}


@pytest.mark.parametrize("name", CONTROL)
def test_control_actors_prefer_the_nodes_with_their_label_and_take_any_other(name: str) -> None:
    options = placement.options(name, JOINED)
    assert options == {
        "label_selector": {"orc.role": "control"},
        "fallback_strategy": [{"label_selector": {}}],
    }


@pytest.mark.parametrize("name", USER_CODE)
def test_user_code_keeps_away_from_them_and_is_spread_out(name: str) -> None:
    options = placement.options(name, JOINED)
    assert options["label_selector"] == {"orc.role": "!control"}
    assert options["fallback_strategy"] == [{"label_selector": {}}]
    assert options["scheduling_strategy"] == "SPREAD"


def test_only_workers_hold_a_cpu() -> None:
    assert placement.options("worker-default-0", JOINED)["num_cpus"] == 1
    assert all("num_cpus" not in placement.options(name, JOINED) for name in NAMES if not name.startswith("worker-"))


def test_ray_accepts_the_options() -> None:
    import ray

    for name in NAMES:
        ray.remote(object).options(**placement.options(name, JOINED))


def test_the_nodes_that_live_are_known_by_host_cpus_and_role() -> None:
    nodes = placement.alive([told("a", cpus=None, **HEAD), told("b"), told("c", alive=False)])
    assert nodes == [Node("a", "10.0.0.1", 0, True, True), Node("b", "10.0.0.1", 2, False, False)]


@pytest.mark.parametrize(
    ("nodes", "workers"),
    [
        ([told("head", cpus=None, **HEAD), told("a", cpus=4.0), told("b", cpus=8.0)], 12),
        ([told("head", cpus=2.0, **HEAD), told("a", cpus=4.0)], 4),
        ([told("head", cpus=2.0, **HEAD)], 2),
        ([told("head", cpus=None, **HEAD)], 1),
        ([told("head"), told("a"), told("gone", alive=False)], 4),
    ],
    ids=["head without CPUs", "its CPUs are for control", "there is no other", "none yet, but one asks", "no labels"],
)
def test_workers_are_one_per_cpu_of_the_nodes_that_are_for_them(nodes: list[dict[str, Any]], workers: int) -> None:
    assert placement.worker_cpus(placement.alive(nodes)) == workers
