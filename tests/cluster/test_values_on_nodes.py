"""Two nodes with artifact directories of their own: what one makes the other reads, and tasks rather run at their data.

Then a node is killed with the values that only it has, and they are computed again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from actors import embedded, memory_values
from actors.journal import Journal
from orchestrator import codec
from orchestrator import events as e
from orchestrator.client import Client
from orchestrator.ids import run_id as new_run_id
from tests import live
from tests.cluster.load import until
from tests.cluster.nodes import CONTROL, Cluster, Shape, ray_cluster
from tests.dags_api import fresh, task
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CPUS = 2
TASKS = Path(__file__).with_name("array_tasks.py")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifact directory of each node."""
    return {name: tmp_path_factory.mktemp(name) / "values" for name in ("left", "right")}


@pytest.fixture(scope="module")
def cluster(folders: dict[str, Path]) -> Iterator[Cluster]:
    shapes = [Shape(n, CPUS, environ={"ORCHESTRATOR_ARTIFACTS_DIR": str(path)}) for n, path in folders.items()]
    with ray_cluster(Shape("head", 0, CONTROL), *shapes) as started:
        yield started
    for path in folders.values():
        memory_values.clear(path)


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    joined = ("--address", cluster.address)
    with live.serving(joined, environ=cluster.environ, code=(TASKS,)) as started:
        until(lambda: sum(each["state"] == "idle" for each in workers(started)) == 2 * CPUS, 60)
        yield started


def workers(server: Server) -> list[dict[str, str]]:
    items: list[dict[str, str]] = server.api().get("/workers").json()["items"]
    return items


def code(name: str, function: str, *needs: str, takes: str = "", **params: object) -> dict[str, object]:
    """A task of `array_tasks`; `takes` what that task returned."""
    more: dict[str, object] = {"inputs": {"values": takes}} if takes else {}
    return task(name, *needs, entrypoint=f"array_tasks:{function}", params=params, **more)


def events_of(server: Server, run_id: str) -> list[e.Event]:
    async def load() -> list[e.Event]:
        journal = Journal(embedded.ensure_running(server.home).url)
        try:
            [found] = await journal.load([run_id])
        finally:
            await journal.close()
        return [event for batch in found.batches for event in codec.decode_events(batch.events, batch.schema)]

    return asyncio.run(load())


def ends(server: Server, run_id: str) -> dict[str, e.TaskSucceeded]:
    return {event.task: event for event in events_of(server, run_id) if isinstance(event, e.TaskSucceeded)}


def seen(done: e.TaskSucceeded) -> dict[str, object]:
    """What `look` saw."""
    assert done.value is not None
    told: dict[str, object] = msgspec.json.decode(done.value.inline)
    return told


def fetched_bytes(server: Server, dag_id: str) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=10).text
    found = re.search(rf'^orchestrator_value_fetched_bytes_total{{dag="{dag_id}"}} (\S+)$', text, re.M)
    return float(found[1]) if found else 0.0


def run(server: Server, name: str, *tasks: dict[str, object], timeout_s: float = 60) -> tuple[str, str]:
    """(DAG, run) once it has succeeded."""
    api, dag_id = server.api(), fresh(name)
    api.define(dag_id, *tasks)
    run_id = str(api.trigger(dag_id)["run_id"])
    ended = api.wait(run_id, timeout_s=timeout_s)
    assert ended["state"] == "success", ended
    return dag_id, run_id


def test_a_value_of_one_node_is_read_on_the_other_after_one_transfer(
    server: Server, cluster: Cluster, folders: dict[str, Path]
) -> None:
    looks = [code(f"look{n}", "look", takes="make", seconds=1.5) for n in range(2 * CPUS)]
    dag_id, run_id = run(server, "both", code("make", "make", megabytes=40), *looks)
    done = ends(server, run_id)
    made = done["make"].value
    assert made is not None
    there = Counter(str(seen(done[f"look{n}"])["node"]) for n in range(2 * CPUS))
    assert len(there) == 2, "each look takes longer than all of them need to start"
    assert {seen(done[f"look{n}"])["sum"] for n in range(2 * CPUS)} == {40 * 2.0**17}
    assert not any(seen(done[f"look{n}"])["writeable"] for n in range(2 * CPUS))
    [maker] = [name for name, node in cluster.nodes.items() if node.node_id == made.node]
    [other] = folders.keys() - {maker}
    assert (folders[maker] / str(made.artifact)).stat().st_size == made.size_bytes
    assert not (folders[other] / str(made.artifact)).exists()
    got = folders[other].with_name("values-fetched") / str(made.artifact)
    assert got.stat().st_size == made.size_bytes
    assert fetched_bytes(server, dag_id) == made.size_bytes, "once, for both workers of the node"


@pytest.mark.parametrize("needs", [{}, {"limits": ["near"]}], ids=["plain", "with a permit"])
def test_tasks_rather_run_where_their_value_is(server: Server, needs: dict[str, object]) -> None:
    makes = [code(f"make{n}", "make", megabytes=4, seconds=0.5) for n in range(2 * CPUS)]
    looks = [code(f"look{n}_{i}", "look", takes=f"make{n}", seconds=0.05) for i in range(8) for n in range(2 * CPUS)]
    barrier = [task("all", *(f"make{n}" for n in range(2 * CPUS)), kind="core.noop")]
    for each in looks:
        each["depends_on"] = [*each["depends_on"], "all"]  # type: ignore[misc]  # a list
        each.update(needs)
    _, run_id = run(server, "near", *makes, *barrier, *looks)
    done = ends(server, run_id)
    nodes = {name: event.value.node for name, event in done.items() if event.value is not None}
    assert len({nodes[f"make{n}"] for n in range(2 * CPUS)}) == 2
    at_home = [seen(done[f"look{n}_{i}"])["node"] == nodes[f"make{n}"] for i in range(8) for n in range(2 * CPUS)]
    print(f"{sum(at_home)} of {len(at_home)} tasks ran where their value was")
    assert sum(at_home) >= 0.8 * len(at_home), "by chance it would be half"


BUNDLE = """
import os
import time

from orchestrator import dag, task


@task(durability=DURABILITY)
def make() -> bytes:
    return b"x" * 2**20


@task
def look(values: bytes) -> list:
    time.sleep(1.5)
    return [os.environ["ORCHESTRATOR_ARTIFACTS_DIR"], len(values)]


@dag(dag_id=DAG_ID)
def flow():
    made = make()
    for _ in range(LOOKS):
        look(made)
"""


@pytest.mark.parametrize("durability", ["memory", "stored"])
def test_the_process_of_a_bundle_reads_values_of_both_nodes(
    server: Server, cluster: Cluster, folders: dict[str, Path], tmp_path: Path, durability: str
) -> None:
    api, dag_id = server.api(), fresh("bundled")
    text = (
        BUNDLE.replace("DAG_ID", repr(dag_id)).replace("LOOKS", str(2 * CPUS)).replace("DURABILITY", repr(durability))
    )
    (tmp_path / "flow.py").write_text(text)
    with Client(server.url, server.tokens["admin"]) as client:
        client.dags.deploy_folder(tmp_path)
    run_id = str(api.trigger(dag_id)["run_id"])
    assert api.wait(run_id, timeout_s=60)["state"] == "success"
    done = ends(server, run_id)
    made = done["make"].value
    assert made is not None
    looks = [event.value for name, event in done.items() if name != "make" and event.value is not None]
    seen = [msgspec.json.decode(value.inline) for value in looks]
    assert {size for _, size in seen} == {2**20}
    assert {where for where, _ in seen} == {str(path) for path in folders.values()}
    assert fetched_bytes(server, dag_id) == made.size_bytes, "once, for both processes of the node"
    [maker] = [name for name, node in cluster.nodes.items() if node.node_id == made.node]
    assert (folders[maker] / str(made.artifact)).exists() == (durability == "stored")


def test_a_sweep_clears_what_each_node_has_of_its_own(server: Server, folders: dict[str, Path]) -> None:
    """Of runs that nobody knows, to which it is long ago."""
    _, run_id = run(server, "young", code("make", "make", megabytes=1), code("look", "look", takes="make"))
    unknown = [
        folder / new_run_id(0, 0, number) / "a.1"
        for number, root in enumerate(folders.values())
        for folder in (root, root.with_name("values-fetched"))
    ]
    for path in unknown:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 1000)
        for each in (path, path.parent):
            os.utime(each, (time.time() - 7200,) * 2)
    asked = server.cli("artifacts", "sweep", "--older-than", "1h", "--json")
    assert asked.returncode == 0, asked.stderr
    sweep = json.loads(asked.stdout)
    assert (sweep["state"], sweep["runs"], sweep["files"], sweep["size_bytes"]) == ("done", 2, 4, 4000)
    assert sweep["there_bytes"] > 2**20
    assert not any(path.parent.exists() for path in unknown)
    assert ends(server, run_id)["make"].value is not None
    assert any((root / run_id / "make.1").exists() for root in folders.values())


@pytest.mark.parametrize("durability", ["memory", "stored"])
def test_a_value_that_is_lost_with_its_node_is_computed_again_and_nothing_else(
    server: Server, cluster: Cluster, folders: dict[str, Path], durability: str
) -> None:
    api, dag_id = server.api(), fresh("lost")
    api.define(
        dag_id,
        code("first", "make", megabytes=2),
        {**code("big", "make", "first", megabytes=8), "durability": durability},
        task("go", "big", kind="core.signal", params={"name": "go"}),
        code("look", "look", "go", takes="big"),
    )
    run_id = str(api.trigger(dag_id)["run_id"])
    until(lambda: "go" in {event.task for event in events_of(server, run_id) if isinstance(event, e.TaskWaiting)}, 60)
    value = ends(server, run_id)["big"].value
    assert value is not None
    [lost] = [name for name, node in cluster.nodes.items() if node.node_id == value.node]
    cluster.nodes[lost].kill()
    memory_values.clear(folders[lost])  # a machine takes its memory along
    assert api.post(f"/runs/{run_id}/signals/go", {}).is_success
    took_s = until(lambda: api.run(run_id)["state"] == "success", 90)
    print(f"{durability}: ended {took_s:.1f} s after its value was lost")
    resets = [event for event in events_of(server, run_id) if isinstance(event, e.TaskReset)]
    assert [(event.task, event.lost) for event in resets] == [("big", value.artifact)]
    assert {name: event.attempt for name, event in ends(server, run_id).items()}["first"] == 1
    environ = {"ORCHESTRATOR_ARTIFACTS_DIR": str(folders[lost])}
    cluster.start(Shape(lost, CPUS, environ=environ))
    until(lambda: sum(each["state"] == "idle" for each in workers(server)) == 2 * CPUS, 120)
