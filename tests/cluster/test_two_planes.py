"""Two servers, each with a Ray cluster of its own, on one Valkey: one schedules, the other stands by and takes over.

As when a cluster is replaced: the old one runs, the new one comes up beside it. What both accept, one does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.planes import LEASE_MS
from tests.cluster.load import until
from tests.cluster.nodes import TASKS
from tests.conformance.servers import Server as Valkey
from tests.conformance.servers import valkey_binary
from tests.dags_api import Json, fresh, task
from tests.live import Server, kill_all, start

pytestmark = [pytest.mark.ray, pytest.mark.slow]
RUNS, SECONDS = 30, 0.3
WORKERS = 2
#: an actor of ours that decides something
DECIDERS = ("ray::SchedulerProcess", "ray::RunActorProcess", "ray::WorkerProcess")


@pytest.fixture(scope="module")
def planes() -> Iterator[tuple[Server, Server]]:
    """The old one and the new one; the old one is in charge."""
    with ExitStack() as ends:
        valkey = Valkey(valkey_binary())
        ends.callback(valkey.stop)
        servers = []
        for _ in range(2):
            server = start(("--workers", str(WORKERS), "--redis-url", valkey.url, "--no-dashboard"), code=(TASKS,))
            ends.callback(server.stop)
            servers.append(server)
        old, new = servers
        yield old, new


def ready(server: Server) -> Json:
    answer: Json = server.api().http.get(f"{server.url}/ready").json()
    return answer


def stands_by(server: Server) -> bool:
    return ready(server).get("standby", False) is True


def gauge(server: Server, name: str) -> float:
    text = server.api().http.get(f"{server.url}/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def deciders(server: Server) -> list[str]:
    return [process.title for title in DECIDERS for process in server.processes(title)]


class Work:
    """Runs of `a -> b`, half of them asked of each server."""

    def __init__(self, servers: tuple[Server, Server]) -> None:
        self.folder = TemporaryDirectory(prefix="marks-")
        params = {"folder": self.folder.name, "seconds": SECONDS}
        tasks = [
            task(n, *needs, entrypoint="marking_tasks:mark", params=params) for n, needs in (("a", ()), ("b", "a"))
        ]
        name = fresh("planes")
        servers[0].api().define(name, *tasks, max_active_runs=RUNS)
        self.ids = [servers[n % 2].api().trigger(name)["run_id"] for n in range(RUNS)]

    def marks(self) -> list[tuple[str, str, str]]:
        """(run, task, node) of each execution."""
        file = Path(self.folder.name, "marks")
        words = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [(run_id, name, node) for run_id, name, _, node, _ in words]

    def check_ended(self, server: Server, timeout_s: float = 60) -> int:
        """Every run has succeeded; how many executions there were beyond one for each task."""
        api = server.api()
        for run_id in self.ids:
            assert api.wait(run_id, timeout_s=timeout_s, every_s=0.2)["state"] == "success"
        marks = Counter((run_id, name) for run_id, name, _ in self.marks())
        assert len(marks) == 2 * RUNS
        return marks.total() - 2 * RUNS


def test_the_second_stands_by_and_what_both_accept_the_first_does_once(planes: tuple[Server, Server]) -> None:
    old, new = planes
    assert stands_by(new)
    assert not stands_by(old)
    assert ready(new)["in_charge"]["url"] == old.url
    assert "in charge" in new.cli("status").stdout.replace("_", " ")
    assert deciders(new) == []
    work = Work(planes)
    refused = new.api().post(f"/runs/{work.ids[0]}/cancel", {})
    assert (refused.status_code, refused.headers["X-In-Charge"]) == (503, old.url)
    assert f"{old.url} is in charge" in refused.json()["message"]
    assert work.check_ended(new) == 0
    assert [gauge(server, "orchestrator_plane_in_charge") for server in planes] == [1, 0]
    assert max(gauge(server, "orchestrator_plane_lease_age_seconds") for server in planes) < LEASE_MS / 1000
    assert len({node for _, _, node in work.marks()}) == 1
    assert deciders(new) == []


def test_who_asks_takes_over_in_seconds_under_load(planes: tuple[Server, Server]) -> None:
    old, new = planes
    work = Work(planes)
    until(lambda: len(work.marks()) >= 8, 30)
    began = time.monotonic()
    done = new.cli("takeover", timeout_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
    before = len(work.marks())
    until(lambda: len(work.marks()) > before, 30)
    print(f"the new one decided {time.monotonic() - began:.1f} s after it was asked to take over")
    again = work.check_ended(old)
    print(f"{again} of {2 * RUNS} tasks were done twice")
    assert again <= WORKERS
    until(lambda: stands_by(old) and deciders(old) == [], 20)
    assert len({node for _, _, node in work.marks()}) == 2


def test_when_the_one_in_charge_is_killed_the_other_ends_all_runs(planes: tuple[Server, Server]) -> None:
    old, new = planes
    assert not stands_by(new), "the test before this one let it take over"
    work = Work(planes)
    until(lambda: len(work.marks()) >= 8, 30)
    kill_all(new.home)
    began, before = time.monotonic(), len(work.marks())
    until(lambda: len(work.marks()) > before, LEASE_MS / 1000 + 20)
    print(f"the other one decided {time.monotonic() - began:.1f} s after the one in charge was killed")
    again = work.check_ended(old)
    print(f"{again} of {2 * RUNS} tasks were done twice")
    assert again <= WORKERS
    assert not stands_by(old)


def test_one_that_starts_again_on_its_own_data_directory_does_not_wait(planes: tuple[Server, Server]) -> None:
    old, _ = planes
    kill_all(old.home)
    began = time.monotonic()
    old.up()
    assert not stands_by(old)
    work = Work((old, old))
    assert work.check_ended(old) == 0
    print(f"up and through {RUNS} runs {time.monotonic() - began:.1f} s after everything was killed")
