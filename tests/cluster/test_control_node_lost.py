"""Control actors on a node of their own, which is lost: they go on elsewhere. The journal is a server that is given.

The head has neither CPUs nor a label, so that what starts anew may be anywhere but on the lost node.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import embedded
from tests.cluster.load import TASKS, begin, until
from tests.cluster.nodes import CONTROL, Cluster, Shape, ray_cluster, serving
from tests.cluster.test_nodes_lost import CONTROL_ACTORS, at_work
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CPUS = 3


@pytest.fixture(scope="module")
def journal_url() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="orc-"))
    yield embedded.ensure_running(folder).tcp_url
    embedded.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(Shape("head"), Shape("control", 0, CONTROL), Shape("workers", CPUS)) as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: Cluster, journal_url: str) -> Iterator[Server]:
    with serving(cluster, ("--redis-url", journal_url)) as started:
        yield started


def test_when_the_node_of_the_control_actors_is_lost_they_go_on_elsewhere_and_no_task_is_redone(
    cluster: Cluster, server: Server, journal_url: str
) -> None:
    until(lambda: at_work(server, CPUS), 60)
    load = begin(server, journal_url)
    load.until_begun(TASKS // 4)
    found = cluster.processes(*CONTROL_ACTORS, "ray::ServeReplica")
    assert {cluster.node_of(process) for process in found} == {"control"}
    cluster.nodes["control"].kill()
    killed_s = time.monotonic()
    load.until_ended()
    print(f"all runs ended {time.monotonic() - killed_s:.1f} s after the loss of the node with the control actors")
    accepted = load.check()
    first = sum(attempt == 1 for attempt in accepted.values())
    again = sum(len(marks) > 1 for marks in load.executions().values())
    print(f"{first} of {TASKS} tasks ended with their first attempt; {again} ran twice")
    assert len(accepted) == TASKS
    assert first >= 0.99 * TASKS
    assert again <= 0.01 * TASKS
    found = cluster.processes(*CONTROL_ACTORS)
    assert {cluster.node_of(process) for process in found} <= {"head", "workers"}
    assert {process.title.split()[0] for process in found} == set(CONTROL_ACTORS)
