"""A node that was told to drain: its worker finishes what it does, another one does the rest, nothing is redone.

The pool's workers need a label that two nodes have; the notice is that of a cloud which takes a spot instance back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.load import until
from tests.cluster.nodes import CONTROL, Cluster, Node, Shape, ray_cluster, serving
from tests.dags_api import Api, answered, fresh, task

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SPOT = {"tier": "spot"}
HEAD, LEFT, RIGHT = Shape("head", 0, CONTROL), Shape("left", 2, SPOT), Shape("right", 2, SPOT)
#: of the task that is at work when the notice comes; seconds until the node is gone
TAKES_S, DEADLINE_S = 8.0, 60


def test_workers_of_a_node_that_drains_finish_while_others_take_their_place(tmp_path: Path) -> None:
    with ray_cluster(HEAD, LEFT) as cluster, serving(cluster, ("--workers", "1")) as server:
        api, name = server.api(), fresh("spot")
        answered(api.http.put("/pools/spot", json={"min": 1, "max": 1, "num_cpus": 0.5, "labels": SPOT}))
        work = {"entrypoint": "marking_tasks:mark", "pool": "spot"}
        api.define(
            name,
            task("long", **work, params={"folder": str(tmp_path), "seconds": TAKES_S}),
            task("next", **work, params={"folder": str(tmp_path), "seconds": 0.1}),
        )
        run_id = api.trigger(name)["run_id"]
        until(lambda: len(marks(tmp_path)) >= 1, 60)
        right = cluster.start(RIGHT)

        drain(cluster, cluster.nodes["left"])
        told_s = time.monotonic()
        until(lambda: elsewhere(workers(api), right), 40)
        print(f"\na worker elsewhere {time.monotonic() - told_s:.1f} s after the notice")
        run = api.wait(run_id, timeout_s=60)

        assert run["state"] == "success"
        begun = [(name, attempt, node) for _, name, attempt, node, _ in marks(tmp_path)]
        assert {(name, attempt) for name, attempt, _ in begun} == {("long", "1"), ("next", "1")}
        assert len(begun) == 2
        assert begun[0][2] == cluster.nodes["left"].node_id
        until(lambda: [each["node_id"] for each in workers(api)] == [right.node_id], 40)
        again = api.trigger(name)["run_id"]
        assert api.wait(again, timeout_s=60)["state"] == "success"
        assert {mark[3] for mark in marks(tmp_path) if mark[0] == again} == {right.node_id}


def workers(api: Api) -> list[dict[str, str]]:
    """Those of the pool."""
    found: list[dict[str, str]] = answered(api.get("/workers"))["items"]
    return [each for each in found if each["pool"] == "spot"]


def elsewhere(found: list[dict[str, str]], node: Node) -> bool:
    """One drains, one on that node is ready."""
    return any(each["state"] == "draining" for each in found) and any(
        each["node_id"] == node.node_id and each["state"] in ("idle", "busy") for each in found
    )


def marks(folder: Path) -> list[list[str]]:
    """Run, task, attempt, node and process of each execution."""
    file = folder / "marks"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def drain(cluster: Cluster, node: Node) -> None:
    """The notice that precedes the loss of a spot instance."""
    notice = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--node-id", node.node_id)
    when = ("--address", cluster.address, "--deadline-remaining-seconds", str(DEADLINE_S))
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", *notice, *when]
    done = subprocess.run(command, env={**os.environ, **cluster.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
