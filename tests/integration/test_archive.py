"""The archive on a real server: what left is read as before, comes back, and outlives restarts and kills of a sweep.

200 runs of several kinds leave; then 400 more do while the supervisor, in whose process the sweep is, is killed again
and again. The seed of the kills is printed; `CHAOS_SEED=<n>` repeats them.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.monkey import Monkey
from tests.dags_api import Api, Frame, Json, answered, refused, task
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
STATES = ("queued", "running", "success", "failed", "cancelled")
BATCH = 50
ALONE, WINDOWS, FAILING, SPEAKING, CALLING = 100, 30, 30, 10, 5
#: with the backfill itself, and the runs that others call
ALL = ALONE + WINDOWS + 1 + FAILING + SPEAKING + 2 * CALLING + 1
KILLS, WITHIN_S = 3, 4.0

#: run, frames of its stream, output of its tasks
Seen = tuple[Json, list[Frame], list[Json]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: a sweep takes the runs of everybody."""
    with serving() as started:
        yield started


def test_what_left_is_read_as_before_and_comes_back(server: Server) -> None:
    api = server.api()
    runs = made(api)
    assert len(runs) == ALL
    known = {run_id: seen(api, run_id) for run_id in runs}
    states = {state: [run["run_id"] for run in api.runs(state=state, limit=2)] for state in STATES}
    newest_first = sorted(runs, reverse=True)
    first = answered(api.get("/runs", params={"limit": 20}))
    assert [run["run_id"] for run in first["items"]] == newest_first[:20]

    sweep = swept(server)
    assert (sweep["state"], sweep["error"], sweep["left"]) == ("done", None, 0)
    assert (sweep["runs"], sweep["backfills"]) == (ALL - 1, 1)
    assert sweep["size_bytes"] > 0

    assert api.runs() == []
    rest = answered(api.get("/runs", params={"cursor": first["next_cursor"]}))
    assert (rest["items"], rest["next_cursor"]) == ([], None), "the list of the journal ends where the sweep came by"
    behind = api_runs_from(api, first["next_cursor"])
    assert behind == newest_first[20:], "and goes on in the archive's from the same place"
    for state in STATES:
        assert [run["run_id"] for run in api.runs(archived="true", state=state, limit=2)] == states[state]
    assert [run["run_id"] for run in api.runs(archived="true", dag_id="failing", limit=7)] == [
        run_id for run_id in newest_first if known[run_id][0]["dag_id"] == "failing"
    ]
    check_read(api, known)
    check_cli(server, known)
    check_windows(api, known)
    check_retry(server, known)

    server.down()
    server.up()
    api = server.api()
    check_read(api, {run_id: told for run_id, told in known.items() if told[0]["dag_id"] != "failing"})
    assert len(api.runs(archived="true", limit=200)) == ALL


def made(api: Api) -> list[str]:
    """Runs of all kinds, which have ended."""
    api.define("alone", task("a"), task("b", "a"))
    api.define("failing", task("a", kind="core.fail", params={"permanent": True, "message": "boom"}), task("b", "a"))
    api.define("speaking", {"id": "a", "entrypoint": "live_tasks:speak"})
    api.define("below", task("a"))
    api.define("calling", task("call", kind="core.dag", params={"dag_id": "below"}), task("b", "call"))
    api.define("long", task("a", kind="core.sleep", params={"seconds": 600}))
    wanted = {"alone": ALONE, "failing": FAILING, "speaking": SPEAKING, "calling": CALLING}
    runs = [run_id for dag_id, count in wanted.items() for run_id in batch(api, dag_id, count)]
    backfill = api.trigger("alone", run_type="backfill", start="2024-01-01", end="2024-01-30")["run_id"]
    cancelled = api.trigger("long")["run_id"]
    answered(api.post(f"/runs/{cancelled}/cancel"))
    for run_id in (*runs, backfill, cancelled):
        api.wait(run_id, timeout_s=60)
    windows = [run["run_id"] for run in api.runs(parent_run_id=backfill)]
    called = [run["run_id"] for run in api.runs(dag_id="below")]
    return [*runs, backfill, cancelled, *windows, *called]


def batch(api: Api, dag_id: str, count: int) -> list[str]:
    """So many runs, started together."""
    found: list[str] = []
    for first in range(0, count, BATCH):
        body = {"runs": [{"dag_id": dag_id}] * min(BATCH, count - first)}
        found += [run["run_id"] for run in answered(api.post("/runs/batch", body))["runs"]]
    return found


def seen(api: Api, run_id: str) -> Seen:
    """All that is told of a run, but for where it is."""
    run = api.run(run_id)
    printed = [log for name in run["tasks"] for log in logs(api, run_id, name)]
    return {key: value for key, value in run.items() if key != "archived"}, api.events(run_id), printed


def logs(api: Api, run_id: str, name: str) -> list[Json]:
    return answered(api.get(f"/runs/{run_id}/tasks/{name}/logs"))["items"]  # type: ignore[no-any-return]  # a list


def api_runs_from(api: Api, cursor: str) -> list[str]:
    """The rest of the archive's list."""
    found: list[str] = []
    at: str | None = cursor
    while at is not None:
        page = answered(api.get("/runs", params={"archived": "true", "limit": 30, "cursor": at}))
        found += [run["run_id"] for run in page["items"]]
        at = page["next_cursor"]
    return found


def check_read(api: Api, known: dict[str, Seen]) -> None:
    """Each of them is in the archive, and told as it was."""
    for run_id, told in known.items():
        assert api.run(run_id)["archived"] is True
        assert seen(api, run_id) == told


def check_cli(server: Server, known: dict[str, Seen]) -> None:
    [speaker, *_] = [run_id for run_id, told in known.items() if told[0]["dag_id"] == "speaking"]
    assert "hello from a" in cli(server, "runs", "logs", speaker)
    assert json.loads(cli(server, "runs", "show", speaker, "--json"))["archived"] is True
    listed = json.loads(cli(server, "runs", "list", "--archived", "--dag", "speaking", "--json"))
    assert len(listed["items"]) == SPEAKING
    assert json.loads(cli(server, "runs", "list", "--json"))["items"] == []
    [sweep] = json.loads(cli(server, "archive", "--status", "--json"))["items"]
    assert sweep["runs"] == ALL - 1


def check_windows(api: Api, known: dict[str, Seen]) -> None:
    """A window keeps its run, and its backfill its answer."""
    [backfill] = [run_id for run_id, told in known.items() if told[0]["run_type"] == "backfill"]
    again = api.trigger("alone", run_type="backfill", start="2024-01-01", end="2024-01-30")
    assert again["run_id"] == backfill
    windows = {run["run_id"] for run in api.runs(archived="true", parent_run_id=backfill, limit=200)}
    assert len(windows) == WINDOWS
    assert api.trigger("alone", start="2024-01-07", end="2024-01-07")["run_id"] in windows
    refused(api.post(f"/runs/{backfill}/retry"), 409, "version_conflict")


def check_retry(server: Server, known: dict[str, Seen]) -> None:
    """It goes on where it was, and leaves again with everything it had."""
    api = server.api()
    run_id = next(run_id for run_id, told in known.items() if told[0]["dag_id"] == "failing")
    answered(api.post(f"/runs/{run_id}/retry"))
    run = api.wait(run_id)
    assert (run["state"], run["attempts"]) == ("failed", 2)
    assert "archived" not in run
    frames, before = api.events(run_id), known[run_id][1]
    assert frames[: len(before) - 1] == before[:-1]
    assert len(frames) > len(before)
    assert [each["run_id"] for each in api.runs(dag_id="failing")] == [run_id]
    told = seen(api, run_id)
    assert swept(server)["left"] == 0
    assert api.run(run_id)["archived"] is True
    assert seen(api, run_id) == told


def test_a_sweep_whose_process_is_killed_loses_and_doubles_nothing(server: Server) -> None:
    api = server.api()
    before = {run["run_id"] for run in api.runs(archived="true", limit=200)}
    api.define("killed", task("a"), task("b", "a"))
    backfill = api.trigger("killed", run_type="backfill", start="2023-01-01", end="2023-04-10")["run_id"]
    runs = [*batch(api, "killed", 300), backfill]
    for run_id in runs:
        api.wait(run_id, timeout_s=90)
    windows = [run["run_id"] for run in api.runs(parent_run_id=backfill, limit=200)]
    assert len(windows) == 100
    runs += windows
    sample = random.Random(SEED).sample(runs, 40)
    known = {run_id: seen(api, run_id) for run_id in sample}
    with Monkey(server, "supervisor", SEED).at_work(KILLS, WITHIN_S):
        for _ in range(4):
            sweep = answered(api.post("/archive", {"older_than_s": 0}))
            for run_id in sample[:5]:
                assert seen(api, run_id) == known[run_id], "readable at any instant"
    done(api, sweep["sweep_id"])
    assert api.runs() == []
    listed = Counter(run["run_id"] for run in api.runs(archived="true", limit=200))
    assert set(listed.values()) == {1}
    assert listed.keys() - before == set(runs)
    check_read(api, known)
    assert sum(each["runs"] for each in answered(api.get("/archive"))["items"][:4]) >= len(runs) - 1 - 250 * KILLS
    again = api.trigger("killed", run_type="backfill", start="2023-01-01", end="2023-04-10")
    assert again["run_id"] == backfill
    assert api.runs() == []


def done(api: Api, sweep_id: str, timeout_s: float = 60) -> Json:
    """The sweep, and all before it, once it has ended well."""
    deadline = time.monotonic() + timeout_s
    while True:
        sweeps: list[Json] = answered(api.get("/archive"))["items"]
        if all(each["state"] == "done" for each in sweeps):
            return next(each for each in sweeps if each["sweep_id"] == sweep_id)
        assert time.monotonic() < deadline, sweeps
        assert not any(each["state"] == "failed" for each in sweeps), sweeps
        time.sleep(0.3)


def swept(server: Server) -> Json:
    """What has ended is in the archive; how the sweep ended."""
    told: Json = json.loads(cli(server, "archive", "--older-than", "0s", "--json"))
    return told


def cli(server: Server, *arguments: Any) -> str:
    ended = server.cli(*arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
