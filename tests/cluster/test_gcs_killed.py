"""Ray's GCS is killed while tasks run: on a cluster that keeps what it knows in RocksDB, and on `up`'s own.

Also without that: then the Ray cluster is lost, and the next `up` goes on with what was accepted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cluster.load import TASKS, Load, begin, until
from tests.cluster.nodes import CONTROL, Cluster, Shape, ray_cluster, serving
from tests.cluster.nodes import TASKS as CODE
from tests.dags_api import fresh, fresh_noop, task
from tests.live import Server, kill_all, processes
from tests.live import serving as serving_alone

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CPUS = 3
#: seconds that GCS is away: longer than calls and control messages are waited for (3 to 5 s)
AWAY_S = 8.0


@pytest.fixture(scope="module")
def storage() -> Iterator[dict[str, str]]:
    with TemporaryDirectory(prefix="gcs-") as folder:
        yield {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": folder}


@pytest.fixture(scope="module")
def cluster(storage: dict[str, str]) -> Iterator[Cluster]:
    shapes = Shape("head", 0, CONTROL), Shape("left", CPUS), Shape("right", CPUS)
    with ray_cluster(*shapes, **storage) as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    with serving(cluster) as started:
        yield started


def at_work(server: Server, number: int) -> bool:
    items = server.api().get("/workers").json()["items"]
    return sum(each["state"] in ("idle", "busy") for each in items) == number


def check(load: Load) -> None:
    """All runs have ended right, nearly all tasks with their first attempt."""
    accepted = load.check()
    first = sum(attempt == 1 for attempt in accepted.values())
    again = sum(len(marks) > 1 for marks in load.executions().values())
    print(f"{first} of {TASKS} tasks ended with their first attempt; {again} ran twice")
    assert len(accepted) == TASKS
    assert first >= 0.99 * TASKS


def test_tasks_go_on_while_gcs_is_away_and_after_it_came_back(cluster: Cluster, server: Server) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    load = begin(server)
    load.until_begun(TASKS // 4)
    gcs = cluster.nodes["head"].gcs
    assert gcs is not None
    os.kill(gcs, signal.SIGKILL)
    before, gone_s = len(load.marks()), time.monotonic()
    time.sleep(AWAY_S)
    meanwhile = len(load.marks()) - before
    cluster.start_gcs()
    load.until_ended()
    print(
        f"{meanwhile} tasks began in the {AWAY_S:.0f} s without GCS; all ended {time.monotonic() - gone_s:.1f} s after"
    )
    assert meanwhile > 0
    check(load)


def test_checkpoints_are_taken_while_gcs_is_away(cluster: Cluster, server: Server, tmp_path: Path) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    api, name, file = server.api(), fresh("noting"), tmp_path / "checkpoints"
    params = {"folder": str(tmp_path), "seconds": AWAY_S + 5.0}
    api.define(name, task("note", entrypoint="marking_tasks:note_often", params=params))
    run_id = api.trigger(name)["run_id"]
    until(lambda: file.exists() and file.read_text().count("\n") >= 5, 30)
    gcs = cluster.nodes["head"].gcs
    assert gcs is not None
    os.kill(gcs, signal.SIGKILL)
    gone_s = time.monotonic()
    time.sleep(AWAY_S)
    cluster.start_gcs()
    assert api.wait(run_id)["state"] == "success"
    taken = [[float(word) for word in line.split()] for line in file.read_text().splitlines()]
    meanwhile = [took_s for begun_s, took_s in taken if gone_s <= begun_s <= gone_s + AWAY_S]
    print(f"{len(meanwhile)} checkpoints in the {AWAY_S:.0f} s without GCS, the slowest took {max(meanwhile):.3f} s")
    assert len(meanwhile) >= AWAY_S
    assert max(meanwhile) < AWAY_S / 2, "it has waited for GCS"


def test_what_had_to_be_started_meanwhile_is_there_in_the_end(cluster: Cluster, server: Server) -> None:
    until(lambda: at_work(server, 2 * CPUS), 60)
    load = begin(server)
    load.until_begun(TASKS // 4)
    gcs = cluster.nodes["head"].gcs
    assert gcs is not None
    os.kill(gcs, signal.SIGKILL)
    [victim, *_] = cluster.processes("ray::WorkerProcess")
    victim.kill()
    cluster.processes("ray::SchedulerProcess")[0].kill()
    time.sleep(AWAY_S)
    cluster.start_gcs()
    began_s = time.monotonic()
    load.until_ended()
    took_s = until(lambda: at_work(server, 2 * CPUS), 60)
    print(f"worker and scheduler were back, and all runs ended, {took_s + time.monotonic() - began_s:.1f} s after GCS")
    accepted = load.check()
    assert len(accepted) == TASKS


def test_a_server_on_its_own_starts_its_gcs_again() -> None:
    environ = {"ORCHESTRATOR_GCS_STORAGE": "rocksdb"}
    with serving_alone(("--workers", str(CPUS), "--no-dashboard"), environ=environ, code=(CODE,)) as server:
        load = begin(server)
        load.until_begun(TASKS // 4)
        [gcs] = server.processes("gcs_server")
        gcs.kill()
        load.until_ended()
        check(load)
        [again] = server.processes("gcs_server")
        assert again.pid != gcs.pid
        assert "starting it again" in (server.home / "logs" / "up.log").read_text()
        answer = server.api().post("/workers/scale", {"pool": "default", "n": CPUS + 1})
        assert answer.status_code == 200, answer.text  # GCS places actors again
        until(lambda: at_work(server, CPUS + 1), 30)
        server.down()
        until(lambda: processes(server.home) == [], 10)


def test_without_it_the_cluster_ends_and_the_next_server_goes_on() -> None:
    environ = {"RAY_gcs_rpc_server_reconnect_timeout_s": "15"}  # a minute by default
    with serving_alone(("--workers", str(CPUS), "--no-dashboard"), environ=environ, code=(CODE,)) as server:
        load = begin(server)
        load.until_begun(TASKS // 4)
        done = fresh_noop(server.api())
        [gcs] = server.processes("gcs_server")
        gcs.kill()
        took_s = until(lambda: not Path(f"/proc/{server_pid(server)}").exists(), 60)
        print(f"`up` ended {took_s:.1f} s after GCS")
        time.sleep(5.0)
        print(f"left then: {[p.title[:60] for p in processes(server.home) if 'valkey' not in p.title]}")
        kill_all(server.home)  # as whoever keeps services does before the next start
        server.up()
        load.until_ended()
        accepted = load.check()
        assert len(accepted) == TASKS
        assert server.api().wait(server.api().trigger(done)["run_id"])["state"] == "success"


def server_pid(server: Server) -> int:
    text = (server.home / "server.json").read_text()
    return int(text.partition('"pid":')[2].partition(",")[0])
