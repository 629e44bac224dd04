"""Three nodes on one machine: a head without CPUs for control actors, and two for workers, of which either is lost.

A lost node is SIGKILL of its raylet and of every process below it. Then the control actors, all at once.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.cluster.load import TASKS, Load, begin, until
from tests.cluster.nodes import CONTROL, Cluster, Node, Shape, ray_cluster, serving
from tests.live import Server, processes

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CPUS = 3
HEAD, LEFT, RIGHT = Shape("head", 0, CONTROL), Shape("left", CPUS), Shape("right", CPUS)
CONTROL_ACTORS = ("ray::SupervisorProcess", "ray::SchedulerProcess", "ray::RunActorProcess", "ray::GatewayProcess")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(HEAD, LEFT, RIGHT) as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    with serving(cluster) as started:
        yield started


def workers(server: Server) -> list[dict[str, str]]:
    answer = server.api().get("/workers").json()
    items: list[dict[str, str]] = answer["items"]
    return items


def at_work(server: Server, number: int) -> bool:
    return sum(each["state"] in ("idle", "busy") for each in workers(server)) == number


def test_there_is_a_worker_per_cpu_of_the_worker_nodes_spread_over_them(cluster: Cluster, server: Server) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    where = Counter(each["node_id"] for each in workers(server))
    assert where == {cluster.nodes["left"].node_id: CPUS, cluster.nodes["right"].node_id: CPUS}


def test_control_actors_are_on_the_node_with_their_label(cluster: Cluster, server: Server) -> None:
    found = cluster.processes(*CONTROL_ACTORS, "ray::ServeReplica")
    assert {process.title.split()[0] for process in found} >= {
        *CONTROL_ACTORS[:3],
        "ray::ServeReplica:orchestrator:api",
    }
    assert {cluster.node_of(process) for process in found} == {"head"}


@pytest.mark.parametrize("lost", ["left", "right"])
def test_a_lost_node_costs_the_attempts_on_it_and_nothing_else(cluster: Cluster, server: Server, lost: str) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    load = begin(server)
    load.until_begun(TASKS // 4)
    node = cluster.nodes[lost]
    node.kill()
    killed = time.time()
    load.until_ended()
    print(f"all runs ended {time.time() - killed:.1f} s after the loss of {lost}")
    accepted = load.check()
    redone = nothing_redone_but_on(node, load)
    late = {key: attempt for key, attempt in accepted.items() if attempt > 1}
    assert len(accepted) == TASKS
    assert 1 <= len(late) <= 2 * CPUS, late
    again = [at - killed for at in load.requeued()]
    print(f"they were queued again after {', '.join(f'{s:.2f}' for s in again)} s")
    assert max(again) < 5.0  # how soon Ray tells depends on the load of the machine
    print(f"{len(late)} of {TASKS} tasks needed another attempt; {redone} had begun on the lost node")
    cluster.start(Shape(lost, CPUS))
    took_s = until(lambda: at_work(server, 2 * CPUS), 120)
    print(f"its workers were at work again {took_s:.1f} s after a new node came")
    assert {each["node_id"] for each in workers(server)} == {
        cluster.nodes["left"].node_id,
        cluster.nodes["right"].node_id,
    }


def nothing_redone_but_on(node: Node, load: Load) -> int:
    """Every execution that was repeated was on the lost node; how many were."""
    redone = 0
    for key, marks in load.executions().items():
        surviving = [mark for mark in marks if mark.node_id != node.node_id]
        assert len(surviving) <= 1, f"{key} ran {len(surviving)} times on nodes that live: {marks}"
        assert all(mark.node_id == node.node_id for mark in marks[:-1]), f"{key} was done, and done again: {marks}"
        redone += len(marks) - 1
    return redone


def test_no_task_is_redone_when_every_control_actor_is_killed_at_once(cluster: Cluster, server: Server) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    load = begin(server)
    load.until_begun(TASKS // 4)
    victims = cluster.processes(*CONTROL_ACTORS)
    assert {process.title.split()[0] for process in victims} == set(CONTROL_ACTORS)
    for process in victims:
        process.kill()
    load.until_ended()
    accepted = load.check()
    first = sum(attempt == 1 for attempt in accepted.values())
    again = sum(len(marks) > 1 for marks in load.executions().values())
    print(f"{first} of {TASKS} tasks ended with their first attempt; {again} ran twice")
    assert first >= 0.99 * TASKS
    assert again <= 0.01 * TASKS


def test_another_orchestrator_is_refused_and_leaves_the_first_alone(cluster: Cluster, server: Server) -> None:
    with pytest.raises(RuntimeError, match="another orchestrator runs on this cluster"), serving(cluster):
        pass
    assert at_work(server, 2 * CPUS)
    assert processes(server.home)


def test_a_wrong_token_is_told(cluster: Cluster, server: Server) -> None:
    file = server.home / "wrong.token"
    file.write_text("0" * 64)
    wrong = dataclasses.replace(cluster, environ={**cluster.environ, "RAY_AUTH_TOKEN_PATH": str(file)})
    with pytest.raises(RuntimeError, match="does it want a token"), serving(wrong):
        pass
