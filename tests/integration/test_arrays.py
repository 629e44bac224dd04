"""An array of 1 GiB that eight tasks take at the same time: what it adds to the memory, and to the journal.

Memory is counted whole: the proportional set size (PSS) of every process of the server, in which what several share
counts once, and beside it all pages of the value's file that the page cache has, mapped or not. To count nothing twice,
what processes have mapped of that file is taken off their PSS. Everything is warm before: the same tasks have run
with a small array.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy
import pytest
import redis

from actors import embedded, memory_values
from tests.cluster.load import until
from tests.dags_api import fresh, task
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TASKS = Path(__file__).parents[1] / "cluster" / "array_tasks.py"
CONSUMERS = 8
GIB = 2**30


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(("--workers", str(CONSUMERS)), code=(TASKS,)) as started:
        yield started


def pss_bytes(server: Server, without: str) -> int:
    """Of all processes of the server, without what they have mapped of files with that in their names."""
    total = 0
    for process in server.processes():
        try:
            text = Path(f"/proc/{process.pid}/smaps").read_text()
        except OSError:
            continue
        for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.M):
            found = re.search(r"^Pss:\s+(\d+) kB", mapping, re.M)
            if found and without not in mapping.partition("\n")[0]:
                total += int(found[1]) * 1024
    return total


def cached_bytes(path: Path) -> int:
    """Of the file, what is in memory."""
    mapped = numpy.memmap(path, dtype=numpy.uint8, mode="r")
    pages = numpy.zeros(-(-mapped.size // mmap.PAGESIZE), dtype=numpy.uint8)
    where, size, into = (ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(mapped.size), pages.ctypes.data)
    assert ctypes.CDLL(None).mincore(where, size, ctypes.c_void_p(into)) == 0
    return int((pages & 1).sum()) * mmap.PAGESIZE


def journal_bytes(server: Server) -> int:
    """What the journal's server has been sent and has sent, of everybody."""
    with redis.Redis.from_url(embedded.ensure_running(server.home).url) as client:
        info = client.info("stats")
    return int(info["total_net_input_bytes"]) + int(info["total_net_output_bytes"])


def begin(server: Server, megabytes: int, durability: str, seconds: float) -> tuple[str, Path]:
    """(run, folder) once eight tasks hold the array."""
    api, dag_id = server.api(), fresh("array")
    folder = server.home / dag_id
    folder.mkdir()
    holds = [
        task(
            f"hold{n}",
            entrypoint="array_tasks:hold",
            params={"folder": str(folder), "name": f"held{n}", "seconds": seconds},
            inputs={"values": "make"},
        )
        for n in range(CONSUMERS)
    ]
    make = task("make", entrypoint="array_tasks:make", params={"megabytes": megabytes}, durability=durability)
    api.define(dag_id, make, *holds)
    run_id = str(api.trigger(dag_id)["run_id"])
    until(lambda: len(list(folder.iterdir())) == CONSUMERS, 120)
    return run_id, folder


def finish(server: Server, run_id: str, folder: Path) -> None:
    (folder / "go").touch()
    assert server.api().wait(run_id, timeout_s=60)["state"] == "success"


def artifact(server: Server, run_id: str, durability: str) -> Path:
    artifacts = server.home / "artifacts"
    return (artifacts if durability == "stored" else memory_values.folder_of(artifacts)) / run_id / "make.1"


@pytest.mark.parametrize("durability", ["memory", "stored"])
def test_a_gibibyte_for_eight_tasks_is_one_gibibyte(server: Server, durability: str) -> None:
    finish(server, *begin(server, 2, durability, 60.0))
    time.sleep(2.0)
    before, told_before = pss_bytes(server, "/make.1"), journal_bytes(server)
    began_s = time.monotonic()
    run_id, folder = begin(server, 1024, durability, 60.0)
    took_s, told = time.monotonic() - began_s, journal_bytes(server) - told_before
    path = artifact(server, run_id, durability)
    added = pss_bytes(server, "/make.1") - before + cached_bytes(path)
    path_bytes = path.stat().st_size
    finish(server, run_id, folder)
    print(f"{durability}: {added / GIB:.3f} GiB in memory, {told / 1e3:.0f} kB through the journal, {took_s:.1f} s")
    assert path_bytes >= GIB
    assert added < 1.3 * GIB
    assert told < 100_000
    text = httpx.get(f"{server.url}/metrics", timeout=10).text
    read = re.search(rf'^orchestrator_value_read_bytes_total{{dag="{folder.name}"}} (\S+)$', text, re.M)
    assert read is not None
    assert float(read[1]) == CONSUMERS * path_bytes


def test_memory_is_given_back_when_the_run_has_ended(server: Server) -> None:
    run_id, folder = begin(server, 64, "memory", 60.0)
    path = artifact(server, run_id, "memory")
    assert path.exists()
    finish(server, run_id, folder)
    took_s = until(lambda: not path.parent.exists(), 20)
    print(f"gone {took_s:.1f} s after the end")


def test_what_a_called_run_came_to_waits_in_memory_for_who_takes_it(server: Server) -> None:
    api, called, calling = server.api(), fresh("called"), fresh("calling")
    made = {"entrypoint": "array_tasks:make", "params": {"megabytes": 4}, "durability": "memory"}
    api.define(called, task("spare", **made), task("make", "spare", **made))
    api.define(
        calling,
        task("call", kind="core.dag", params={"dag_id": called}),
        task("rest", "call", kind="core.sleep", params={"seconds": 2.5 * memory_values.SWEEP_S}),
        task("look", "rest", entrypoint="array_tasks:look", inputs={"values": "call"}),
    )
    run = api.wait(api.trigger(calling)["run_id"], timeout_s=60)
    assert (run["state"], run["attempts"]) == ("success", 1)
    [below] = [each["run_id"] for each in api.runs(dag_id=called)]
    folder = artifact(server, below, "memory").parent
    until(lambda: not folder.exists(), 20)


def test_down_leaves_nothing_in_memory(server: Server) -> None:
    run_id, _ = begin(server, 64, "memory", 1.0)
    folder = artifact(server, run_id, "memory").parents[1]
    assert folder.exists()
    server.down()
    assert not folder.exists()
    assert list(Path("/dev/shm").glob(f"{folder.name}*")) == []
