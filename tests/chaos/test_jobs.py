"""1,000 jobs by remote workers while somebody is killed or stopped: workers, the gateway, the API replica, Valkey.

After the dust every job has ended right, with the result of one worker, once; what comes late is answered `ignored` and
changes nothing. The seed is printed; `CHAOS_SEED=<n>` repeats it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.monkey import titled
from tests.chaos.test_chaos import SEED, Patient
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.slow]

BLUEPRINT = """
apiVersion: orchestrator/v1
kind: Blueprint
name: chaos
api_endpoint: /chaos
api_version: v1
states:
  start:
    start: true
    dispatch_task: {type: work, params: {n: "${initial_data.n}"}, transitions: {success: check}}
  check:
    when:
      - {if: "context.state_history.n >= 0", transition_to: finished}
    transition_to: failed
"""
JOBS, WORKERS = 1000, 6
VICTIMS: dict[str, Callable[[Server], list[Any]]] = {
    "gateway": titled("ray::GatewayProcess"),
    "API replica": titled("ray::ServeReplica"),
    "journal": titled("valkey-server"),
}
#: seconds that what is stopped stays stopped: longer than a worker's TTL
STOPPED_S = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Workers are lost after two silent seconds."""
    folder = tmp_path_factory.mktemp("blueprints")
    (folder / "chaos.yaml").write_text(BLUEPRINT)
    environ = {
        "BLUEPRINTS_DIR": str(folder),
        "WORKER_HEALTH_CHECK_INTERVAL_SECONDS": "1",
        "JOB_MAX_REDELIVERIES": "1000",
        "WORKER_TIMEOUT_SECONDS": "60",
    }
    with serving(environ=environ) as started:
        yield started


class Crew:
    """Worker processes, made anew when they die."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._made = 0
        self._script = Path(__file__).with_name("pull_worker.py")
        self.processes = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._made += 1
        arguments = [self._server.url, self._server.tokens["worker"], f"pull-{self._made}", str(SEED + self._made)]
        return subprocess.Popen([sys.executable, str(self._script), *arguments])

    def kill(self, number: int) -> None:
        """SIGKILL, and somebody new in its place."""
        self.processes[number].kill()
        self.processes[number].wait(10)
        self.processes[number] = self._start()

    def stop(self, number: int) -> None:
        """SIGSTOP for a while: its tasks go to others, and it comes back with old results."""
        pid = self.processes[number].pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait(10)


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("kind", ["worker", *VICTIMS])
def test_every_job_ends_right_and_late_results_change_nothing(server: Server, kind: str, how: str) -> None:
    seed = SEED + 10 * list(["worker", *VICTIMS]).index(kind) + (how == "stopped")
    print(f"seed {seed}")
    crew = Crew(server)
    try:
        with misfortune(server, crew, kind, how, seed):
            jobs = create(server, JOBS)
            found = side_by_side(server, "client", ended, jobs)
        history = side_by_side(server, "client", history_of, jobs)
    finally:
        crew.end()
    for number, (job, events) in enumerate(zip(found, history, strict=True)):
        assert (job["status"], job["state_history"]["n"]) == ("finished", number), job
        finished = [event for event in events if event["event_type"] == "task_finished"]
        assert len(finished) == 1, events
        assert finished[0]["worker_id"] == job["state_history"]["by"], events
    inject_stale_results(server, found, history)


def inject_stale_results(server: Server, jobs: list[dict[str, Any]], history: list[Any]) -> None:
    """One late result for each job, from somebody whom its task was taken away from."""
    tasks = [(job["id"], task_of(events)) for job, events in zip(jobs, history, strict=True)]
    for answer in side_by_side(server, "worker", late_result, tasks):
        assert answer == {"status": "ignored", "reason": "stale_task"}
    ids = [job["id"] for job in jobs]
    assert side_by_side(server, "client", ended, ids) == jobs
    assert side_by_side(server, "client", history_of, ids) == history


def late_result(worker: httpx.Client, task: tuple[str, str]) -> dict[str, Any]:
    """What a zombie is told that reports on a task of somebody else."""
    body = {"job_id": task[0], "task_id": task[1], "worker_id": "zombie", "status": "success", "data": {"n": -1}}
    answer: dict[str, Any] = worker.post("/_worker/tasks/result", json=body).json()
    return answer


def history_of(api: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    """The job's history."""
    answer = api.get(f"/api/v1/jobs/{job_id}/history")
    assert answer.status_code == 200, answer.text
    events: list[dict[str, Any]] = answer.json()
    return events


def side_by_side(server: Server, who: str, ask: Callable[[httpx.Client, Any], Any], items: Sequence[Any]) -> list[Any]:
    """What `ask` answers for each item, some at a time."""
    header = "X-Worker-Token" if who == "worker" else "X-Client-Token"
    with client(server, who, header) as http, ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda item: ask(http, item), items))


def task_of(events: list[dict[str, Any]]) -> str:
    """Id of the task that the job had."""
    [task_id] = {e["context_snapshot"]["task_id"] for e in events if e["event_type"] == "task_finished"}
    return str(task_id)


@contextlib.contextmanager
def misfortune(server: Server, crew: Crew, kind: str, how: str, seed: int) -> Iterator[None]:
    """Three times something happens to one of the kind while the block runs."""
    chance = random.Random(seed)
    struck: list[int] = []

    def strike() -> None:
        for _ in range(3):
            time.sleep(chance.uniform(0.3, 1.5))
            if kind == "worker":
                number = chance.randrange(WORKERS)
                struck.append(crew.processes[number].pid)
                (crew.kill if how == "killed" else crew.stop)(number)
                continue
            victim = next((each for each in VICTIMS[kind](server) if each.pid not in struck or how == "stopped"), None)
            if victim is None:
                continue
            struck.append(victim.pid)
            if how == "killed":
                victim.kill()
                continue
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(STOPPED_S)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGCONT)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert struck, f"no {kind} was there"


def create(server: Server, count: int) -> list[str]:
    """Ids of jobs, each created under a key of its own until it was accepted."""

    run = f"{time.time_ns()}"

    def one(http: httpx.Client, number: int) -> str:
        time.sleep(number % 8 * 0.005)
        body = {"initial_data": {"n": number}}
        answer = http.post("/api/v1/chaos", json=body, headers={"Idempotency-Key": f"{run}-{number}"})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    return side_by_side(server, "client", one, range(count))


def ended(api: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = time.monotonic() + 120
    while True:
        answer = api.get(f"/api/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        if job["finished_at"]:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


def client(server: Server, who: str, header: str = "X-Client-Token") -> httpx.Client:
    """One that does not give up."""
    return httpx.Client(base_url=server.url, headers={header: server.tokens[who]}, timeout=15, transport=Patient())
