"""SIGKILL of each kind of process in the middle of a 1,000-task run, a backfill and a stream of triggers.

After the dust: the final state equals an undisturbed one, no result was applied twice, no event is lost, no
accepted command is lost or done twice, and a subscriber who reconnects sees each event once, in order. The seed
is printed; `CHAOS_SEED=<n>` repeats it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.monkey import KINDS, Monkey
from tests.dags_api import Api, Frame, Json, frames_of, fresh, fresh_noop, instant, task
from tests.live import Server, kill_all, serving

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
WIDTH, DEPTH = 37, 27
WINDOWS = 40
KILLS, WITHIN_S = 2, 4.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: other tests should not meet one that was shot at."""
    with serving() as started:
        yield started


def lattice() -> list[Json]:
    """1,000 tasks: `WIDTH` chains of `DEPTH` that cross over, and a join; some of them take a few milliseconds."""
    sleep: dict[str, Any] = {"kind": "core.sleep", "params": {"seconds": 0.01}}
    tasks = []
    for level in range(DEPTH):
        for column in range(WIDTH):
            needs = {f"t{level - 1}-{column}", f"t{level - 1}-{(column * 7 + 3) % WIDTH}"} if level else set()
            tasks.append(task(f"t{level}-{column}", *sorted(needs), **(sleep if (level + column) % 3 else {})))
    return [*tasks, task("join", *(f"t{DEPTH - 1}-{column}" for column in range(WIDTH)))]


def chain() -> list[Json]:
    """Three tasks in a row."""
    return [
        task("extract"),
        task("transform", "extract", kind="core.sleep", params={"seconds": 0.02}),
        task("load", "transform"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_ends_as_if_nothing_had_happened(server: Server, kind: str) -> None:
    api = patient(server)
    big, daily, small = fresh("lattice"), fresh("daily"), fresh("small")
    api.define(big, *lattice())
    api.define(daily, *chain())
    api.define(small, task("a"))
    seed = SEED + list(KINDS).index(kind)
    with ThreadPoolExecutor(2) as pool:
        run_id = api.trigger(big)["run_id"]
        backfill = api.trigger(daily, run_type="backfill", start="2024-01-01", end=f"2024-02-{WINDOWS - 31:02d}")[
            "run_id"
        ]
        with Monkey(server, kind, seed).at_work(KILLS, WITHIN_S):
            follower = pool.submit(follow, patient(server), run_id)
            accepted: Future[list[str]] = pool.submit(keep_triggering, patient(server), small, seed, 30)
            api.wait(run_id, timeout_s=60, every_s=0.3)
            api.wait(backfill, timeout_s=60, every_s=0.3)
        seen, triggered = follower.result(60), accepted.result(60)

    run = api.wait(run_id)
    assert run["state"] == "success", (kind, seed, run["error"])
    assert run["tasks"] == {t["id"]: "done" for t in lattice()}
    frames = api.events(run_id)
    check_stream(frames, run, lattice())
    assert seen == frames, "a subscriber who reconnected saw something else than what happened"
    check_backfill(api, backfill)
    assert len(set(triggered)) == 30
    assert sorted(r["run_id"] for r in api.runs(dag_id=small)) == sorted(triggered)
    for one in triggered:
        assert api.wait(one, timeout_s=30)["state"] == "success"


def check_stream(frames: list[Frame], run: Json, tasks: list[Json]) -> None:
    """Gapless from 1; each task of `tasks` started after what it needs and was done once; nothing after the end."""
    assert [f.id for f in frames[:-1]] == list(range(1, len(frames)))
    assert (frames[-1].event, frames[-1].data["state"]) == ("end", run["state"])
    steps = [f.data for f in frames if f.event == "task_state"]
    done = Counter(step["task"] for step in steps if step["to"] == "done")
    assert done == Counter(dict.fromkeys(run["tasks"], 1))
    state = dict.fromkeys(run["tasks"], "pending")
    attempts: dict[str, int] = {}
    finished: set[str] = set()
    needs = {t["id"]: set(t["depends_on"]) for t in tasks}
    for step in steps:
        assert step["from"] == state[step["task"]], step
        if step["to"] == "running":
            assert step["attempt"] > attempts.get(step["task"], 0), step
            assert needs[step["task"]] <= finished, step
            attempts[step["task"]] = step["attempt"]
        elif step["to"] == "done":
            assert step["attempt"] == attempts[step["task"]], step
            finished.add(step["task"])
        state[step["task"]] = step["to"]
    assert [f.data["to"] for f in frames if f.event == "run_state"] == ["queued", "running", "success"]


def check_backfill(api: Api, backfill: str) -> None:
    """Every window once, all done, counters true, stream gapless."""
    parent = api.wait(backfill)
    assert parent["state"] == "success"
    assert parent["counts"] == {**dict.fromkeys(parent["counts"], 0), "total": WINDOWS, "success": WINDOWS}
    children = api.runs(parent_run_id=backfill, limit=200)
    assert len({child["window"]["from"] for child in children}) == len(children) == WINDOWS
    frames = api.events(backfill)
    assert [f.id for f in frames[:-1]] == list(range(1, len(frames)))
    ended = Counter(f.data["run_id"] for f in frames if f.event == "window_state" and f.data["to"] == "success")
    assert ended == Counter({child["run_id"]: 1 for child in children})
    for child in children[::8]:
        check_stream(api.events(child["run_id"]), api.run(child["run_id"]), chain())


# ---------------------------------------------------------------- how soon, and after everybody died


def test_the_task_of_a_killed_worker_runs_again_within_a_second(server: Server) -> None:
    api, name = server.api(), fresh("die_once")
    with tempfile.TemporaryDirectory() as folder:
        api.define(
            name, {"id": "a", "entrypoint": "live_tasks:die_once", "params": {"folder": folder, "name": "lives"}}
        )
        run_id = api.trigger(name)["run_id"]
        assert api.wait(run_id)["state"] == "success"
        died, again = map(int, Path(folder, "lives").read_text().split())
    steps = [f.data for f in api.events(run_id) if f.event == "task_state"]
    assert [(step["to"], step["attempt"]) for step in steps] == [
        ("running", 1),
        ("retrying", 1),
        ("running", 2),
        ("done", 2),
    ]
    took_s = (again - died) / 1e9
    after_report_s = (instant(steps[2]["ts"]) - instant(steps[1]["ts"])).total_seconds()
    print(f"started again {took_s:.2f} s after the kill, {after_report_s:.3f} s after Ray told")
    assert after_report_s < 1.0
    assert took_s < 5.0  # how soon Ray tells depends on the load of the machine


@pytest.mark.parametrize("kind", ["scheduler", "supervisor"])
def test_after_the_death_of_a_control_actor_runs_start_again_within_seconds(server: Server, kind: str) -> None:
    api = server.api()
    name = fresh_noop(api)
    api.wait(api.trigger(name)["run_id"])
    for process in KINDS[kind](server):
        process.kill()
    start = time.monotonic()
    assert api.wait(api.trigger(name)["run_id"], timeout_s=20)["state"] == "success"
    took_s = time.monotonic() - start
    print(f"the next run ended {took_s:.2f} s after the {kind} was killed")
    assert took_s < 4.0


@pytest.mark.parametrize("end", [pytest.param("in good order", marks=pytest.mark.slow), "by SIGKILL"])
def test_what_was_accepted_survives_the_end_of_every_process(server: Server, end: str) -> None:
    api, name = server.api(), fresh("restarted")
    tasks = [task("a"), task("b", "a", kind="core.sleep", params={"seconds": 2}), task("c", "b")]
    api.define(name, *tasks, max_active_runs=3)
    ids = [api.trigger(name)["run_id"] for _ in range(5)]
    api.until(ids[0], lambda run: run["tasks"]["b"] == "running")
    seen = {run_id: api.run(run_id)["tasks"] for run_id in ids}
    if end == "by SIGKILL":
        kill_all(server.home)
    else:
        server.down()
    server.up()
    for run_id in ids:
        run = api.wait(run_id, timeout_s=40)
        assert (run["state"], set(run["tasks"].values())) == ("success", {"done"})
        frames = api.events(run_id)
        check_stream(frames, run, tasks)
        again = Counter(f.data["task"] for f in frames if f.event == "task_state" and f.data["to"] == "running")
        assert all(again[name] == 1 for name, state in seen[run_id].items() if state == "done"), "done was done again"


# ---------------------------------------------------------------- clients that do not give up


class Patient(httpx.HTTPTransport):
    """Tries again while the server is not there, as a client that names its requests may: 503, 502, refused, cut."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + 30
        while True:
            try:
                response = super().handle_request(request)
                if not passing(response) or time.monotonic() > deadline:
                    return response
                response.close()
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)


def passing(response: httpx.Response) -> bool:
    """Will the same request succeed later? Serve's own proxy says 500, in plain text, when its replica dies."""
    ours = response.headers.get("content-type", "").startswith("application/json")
    return response.status_code in {502, 503, 504} or (response.status_code == 500 and not ours)


def patient(server: Server) -> Api:
    """The operator's client, for a server that is being shot at. Repeating our GETs and defined POSTs is safe."""
    api = server.api()
    api.http = httpx.Client(base_url=api.http.base_url, headers=api.http.headers, timeout=15, transport=Patient())
    return api


def keep_triggering(api: Api, dag_id: str, seed: int, count: int) -> list[str]:
    """Ids of `count` runs, each asked for under its own request id until it was accepted."""
    pause = random.Random(seed)
    ids = []
    for number in range(count):
        answer = api.post("/runs", {"dag_id": dag_id}, X_Request_Id=f"{dag_id}-{number}")
        assert answer.status_code == 200, answer.text
        ids.append(answer.json()["run_id"])
        time.sleep(pause.uniform(0, 2 * WITHIN_S / count))
    return ids


def follow(api: Api, run_id: str) -> list[Frame]:
    """Every frame of a run's stream, over as many connections as it takes."""
    seen: list[Frame] = []
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        headers = {"Last-Event-ID": str(seen[-1].id)} if seen else {}
        try:
            with api.http.stream("GET", f"/runs/{run_id}/events", headers=headers, timeout=20) as response:
                if response.status_code == 200:
                    for frame in frames_of(response.iter_lines()):
                        seen.append(frame)
                        if frame.event == "end":
                            return seen
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"no end of {run_id} after {len(seen)} frames")
