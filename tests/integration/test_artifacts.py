"""Large values of runs that left for the archive: the disk comes back, the runs are read as before, and a retry works.

That an hour has passed since the runs ended is written into the archive's index, and into the times of the files.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from orchestrator.rows import RunRow
from tests.cluster.load import until
from tests.dags_api import answered, fresh, task
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TASKS = Path(__file__).parents[1] / "cluster" / "array_tasks.py"
RUNS, MEGABYTES, HOUR_S = 8, 8, 3600.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(code=(TASKS,)) as started:
        yield started


def kept_bytes(server: Server) -> int:
    return sum(path.stat().st_size for path in (server.home / "artifacts").rglob("*") if path.is_file())


def an_hour_passes(server: Server) -> None:
    """For what is in the archive, and for files."""
    with closing(sqlite3.connect(server.home / "archive/index.sqlite")) as index, index:
        for run_id, blob in index.execute("SELECT run_id, row FROM runs").fetchall():
            row = msgspec.json.decode(blob, type=RunRow)
            past = msgspec.structs.replace(row, finished_ms=(row.finished_ms or 0) - int(HOUR_S * 1000))
            index.execute("UPDATE runs SET row = ? WHERE run_id = ?", (msgspec.json.encode(past), run_id))
    files = [path for path in (server.home / "artifacts").rglob("*") if path.is_file()]
    for path in [*files, *(server.home / "artifacts").iterdir()]:
        os.utime(path, (time.time() - HOUR_S,) * 2)


def test_the_disk_comes_back_and_archived_runs_are_read_and_retried(server: Server) -> None:
    api, dag_id = server.api(), fresh("values")
    folder = server.home / dag_id  # without it `hold` fails
    make = task("make", entrypoint="array_tasks:make", params={"megabytes": MEGABYTES})
    hold = {"folder": str(folder), "name": "held", "seconds": 30.0}
    api.define(dag_id, make, task("hold", entrypoint="array_tasks:hold", params=hold, inputs={"values": "make"}))
    runs = [str(api.trigger(dag_id)["run_id"]) for _ in range(RUNS)]
    assert {api.wait(run_id, timeout_s=60)["state"] for run_id in runs} == {"failed"}
    assert kept_bytes(server) >= RUNS * MEGABYTES * 2**20
    assert server.cli("archive", "--older-than", "0s").returncode == 0
    shown, events = api.run(runs[0]), api.events(runs[0])
    assert shown["archived"]

    an_hour_passes(server)
    going_on = str(api.trigger(dag_id)["run_id"])
    assert api.wait(going_on, timeout_s=60)["state"] == "failed"
    asked = server.cli("artifacts", "sweep", "--older-than", "30m", "--json")
    assert asked.returncode == 0, asked.stderr
    sweep = json.loads(asked.stdout)
    assert (sweep["state"], sweep["runs"], sweep["files"], sweep["there_files"]) == ("done", RUNS, RUNS, 1)
    assert sweep["size_bytes"] >= RUNS * MEGABYTES * 2**20
    assert kept_bytes(server) < 1.1 * MEGABYTES * 2**20, "that of the run that ended just now"
    assert [path.name for path in (server.home / "artifacts").iterdir() if path.is_dir()] == [going_on]

    assert api.run(runs[0]) == shown
    assert api.events(runs[0]) == events
    folder.mkdir()
    (folder / "go").touch()
    answered(api.post(f"/runs/{runs[0]}/retry", {}))
    until(lambda: api.run(runs[0])["state"] == "success", 60)
    assert (server.home / "artifacts" / runs[0] / "make.2").exists(), "it was computed again"
