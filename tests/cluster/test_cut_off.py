"""Nodes that hang, as behind a network that swallows everything: nothing refuses a connection, nobody reports a death.

And the process of `orchestrator up`, which on a cluster that was joined takes nothing along when it dies.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.cluster.load import TASKS, begin, until
from tests.cluster.nodes import CONTROL, Cluster, Shape, ray_cluster, serving
from tests.cluster.test_nodes_lost import at_work, nothing_redone_but_on
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CPUS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(Shape("head", 0, CONTROL), Shape("left", CPUS), Shape("right", CPUS)) as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    with serving(cluster) as started:
        yield started


def test_the_death_of_up_stops_nothing_and_the_next_one_takes_over(cluster: Cluster, server: Server) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    load = begin(server)
    load.until_begun(20)
    workers = {process.pid for process in cluster.processes("ray::WorkerProcess")}
    [up] = server.processes("serve_app.detached")
    up.kill()
    load.until_begun(TASKS // 2)
    server.up()
    load.until_ended()
    assert set(load.check().values()) == {1}
    assert all(len(marks) == 1 for marks in load.executions().values())
    assert {process.pid for process in cluster.processes("ray::WorkerProcess")} == workers


def test_the_attempts_of_a_node_that_is_cut_off_are_queued_again_within_ten_seconds(
    cluster: Cluster, server: Server
) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    load = begin(server)
    load.until_begun(TASKS // 4)
    node = cluster.nodes["left"]
    node.signal(signal.SIGSTOP)
    stopped = time.time()
    load.until_ended()
    again = [at - stopped for at in load.requeued()]
    print(f"attempts on the node that was cut off were queued again after {', '.join(f'{s:.1f}' for s in again)} s")
    accepted = load.check()
    nothing_redone_but_on(node, load)
    late = [key for key, attempt in accepted.items() if attempt > 1]
    assert 1 <= len(late) == len(again) <= CPUS
    assert max(again) < 10.0
    node.signal(signal.SIGCONT)
    node.kill()
