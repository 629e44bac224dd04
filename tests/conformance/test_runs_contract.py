"""The runs contract against a real server: the acceptance examples of its section 8, by their numbers.

Black box: only HTTP, anonymous on loopback. Every Run, Checkpoint and Event is held to the schema that the server
itself publishes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.dags_api import Api, at_once, fresh, task
from tests.live import Server, serving
from tests.runs_api import Runs, answered, in_order, refused, take

pytestmark = pytest.mark.ray

KEY = "k3y-for-tests-0001"
#: of somebody without it, and of two who have it
KEY_HEADERS: tuple[dict[str, str], ...] = ({}, {"x-api-key": KEY}, {"Authorization": f"bearer {KEY}"})
RUN_KEYS = {"id", "mode", "createdAt", "status", "owner", "metadata"}
#: an id that no run has
UNKNOWN = "zzzzzzzzzzzz"


@pytest.fixture(scope="module")
def runs(live: Server) -> Runs:
    """The shared server as somebody on this machine sees it."""
    return Runs(live.url)


@pytest.fixture(scope="module")
def keyed() -> Iterator[Server]:
    """A server of its own that wants a key of everybody, and may be restarted."""
    with serving(environ={"ORCHESTRATOR_API_KEY": KEY}) as server:
        yield server


# ---------------------------------------------------------------- 1: a bare run


def test_a_bare_post_creates_a_run_that_is_running_within_80_ms(runs: Runs) -> None:
    run_id = runs.create()
    time.sleep(0.08)
    run = runs.run(run_id)
    assert (run["id"], run["status"], run["mode"]) == (run_id, "running", "redis")
    assert set(run) <= RUN_KEYS
    (started,) = runs.checkpoints(run_id)
    assert started["type"] == "started"
    assert "data" not in started


# ---------------------------------------------------------------- 2, 3, 4: plans, modes, cycles


def test_a_plan_of_nothing_has_three_steps(runs: Runs) -> None:
    answer = answered(runs.http.post("/runs?mode=plan"))
    assert answer == {"mode": "plan", "plan": {"steps": ["validate", "schedule", "execute"]}}


def test_a_plan_groups_its_nodes_by_generation(runs: Runs) -> None:
    edges = [{"from": "a", "to": "c"}, {"from": "b.out", "to": "c.in"}]
    graph = {"nodes": [{"id": "a"}, {"id": "b"}, {"id": "c"}], "edges": edges}
    for body in ({"plan": graph}, {"flow": {"kind": "Flow", "graph": graph}}):
        assert answered(runs.http.post("/runs?mode=plan", json=body))["plan"]["steps"] == [["a", "b"], ["c"]]


def test_an_unknown_mode_and_a_cycle_are_refused(runs: Runs) -> None:
    refused(runs.http.post("/runs?mode=bogus"), 400, "invalid mode")
    refused(runs.http.post("/runs?mode="), 400, "invalid mode")
    edges = [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]
    answer = answered(
        runs.http.post("/runs", json={"plan": {"nodes": [{"id": "a"}, {"id": "b"}], "edges": edges}}), 400
    )
    assert answer["error"] == "validation failed"
    assert any("cycle" in detail for detail in answer["details"])


# ---------------------------------------------------------------- 5: owner and metadata


def test_owner_and_metadata_are_echoed(runs: Runs) -> None:
    run = runs.run(runs.create({"metadata": {"k": [1]}}, headers={"x-actor-id": "u1"}, params={"owner": "u2"}))
    assert (run["owner"], run["metadata"]) == ("u1", {"k": [1]})


def test_numbers_come_back_with_the_value_they_had_or_not_at_all(runs: Runs) -> None:
    for text in (
        '{"n":9007199254740993}',
        '{"n":-9223372036854775808}',
        '{"x":0.1,"y":1e300}',
        '{"n":18446744073709551616}',
    ):
        response = runs.http.post("/runs", content=f'{{"metadata":{text}}}'.encode())
        if response.status_code == 201:
            answer = runs.http.get(f"/runs/{response.json()['runId']}")
            assert answer.text.endswith(f'"metadata":{text}}}}}')
        else:
            assert response.status_code == 400


# ---------------------------------------------------------------- 6, 7: checkpoints


def test_a_checkpoint_is_listed_with_its_type_trimmed(runs: Runs) -> None:
    run_id = runs.create()
    answer = answered(runs.post(run_id, " step ", data={"n": 1}), 201)
    (step,) = [each for each in runs.checkpoints(run_id) if each["type"] == "step"]
    assert (step["id"], step["data"]) == (answer["checkpointId"], {"n": 1})
    for body in ({"type": "  "}, [], {}):
        response = runs.http.post(f"/runs/{run_id}/checkpoints", json=body)
        refused(response, 400, "invalid checkpoint type")
    for path, body in ((UNKNOWN, {"type": "x"}), ("nope", {})):
        refused(runs.http.post(f"/runs/{path}/checkpoints", json=body), 404, "run not found")


def test_checkpoints_of_many_clients_get_distinct_ascending_times(runs: Runs) -> None:
    run_id = runs.create()
    clients = [Runs(runs.url) for _ in range(20)]
    at_once(20, lambda n: [answered(clients[n].post(run_id, "t", data=[n, k]), 201) for k in range(10)])
    every = runs.checkpoints(run_id)
    times = [each["ts"] for each in every]
    assert sum(each["type"] == "t" for each in every) == 200
    assert times == sorted(set(times))
    assert {len(each) for each in times} == {24}
    for client in range(20):
        assert [each["data"][1] for each in every if each["type"] == "t" and each["data"][0] == client] == list(
            range(10)
        )


# ---------------------------------------------------------------- 8: cancel


def test_a_run_is_canceled_at_once_and_once(runs: Runs) -> None:
    run_id = runs.create()
    assert answered(runs.cancel(run_id)) == {"ok": True, "status": "canceled"}
    assert runs.run(run_id)["status"] == "canceled"
    refused(runs.cancel(run_id), 409, "invalid status transition", **{"from": "canceled", "to": "canceled"})
    refused(runs.cancel("nope"), 404, "run not found")
    assert runs.kinds(run_id)[-1] == "canceled"
    assert answered(runs.post(run_id, "late"), 201)


# ---------------------------------------------------------------- 9: a stream


def test_a_stream_tells_what_happens_and_outlives_the_run(runs: Runs) -> None:
    run_id = runs.create()
    runs.until(lambda: runs.kinds(run_id) == ["started"])
    with runs.stream(run_id, params={"replay": 0}) as blocks:
        hello = next(blocks)
        assert hello.lines == ("event: hello", f'data: {{"runId":"{run_id}"}}')
        posted_s = time.monotonic()
        posted = answered(runs.post(run_id, "step", data={"n": 1}), 201)
        step = next(blocks)
        assert time.monotonic() - posted_s < runs.prompt_s
        assert (step.names, step.event, step.data["id"]) == (
            ["id", "event", "data"],
            "checkpoint",
            posted["checkpointId"],
        )
        assert step.id == step.data["ts"]
        answered(runs.cancel(run_id))
        status, canceled = take(blocks, 2)
        assert (status.names, status.event) == (["event", "data"], "status")
        assert status.data == {"runId": run_id, "status": "canceled"}
        assert (canceled.event, canceled.data["type"]) == ("checkpoint", "canceled")
        quiet_s = time.monotonic()
        comment = next(blocks)
        assert re.fullmatch(r": keep-alive \d{13}", comment.lines[0])
        assert time.monotonic() - quiet_s < 16


# ---------------------------------------------------------------- 10: resume


def ten(runs: Runs) -> str:
    """A run with ten checkpoints."""
    run_id = runs.create()
    runs.until(lambda: runs.kinds(run_id) == ["started"])
    for number in range(9):
        answered(runs.post(run_id, f"t{number}"), 201)
    return run_id


def resumes(runs: Runs, run_id: str, third: str) -> None:
    """After the third checkpoint come exactly the later ones, whatever else the request says, and then what is new."""
    queries = [{}, {"replay": "1"}, {"replay": "1", "lastEventId": runs.checkpoints(run_id)[6]["ts"]}]
    for headers, query in [*(({"Last-Event-ID": third}, query) for query in queries), ({}, {"lastEventId": third})]:
        rest = runs.checkpoints(run_id)[3:]
        with runs.stream(run_id, headers=headers, params=query) as blocks:
            hello, *later = take(blocks, 1 + len(rest))
            assert (hello.event, hello.id) == ("hello", None)
            assert [each.data for each in later] == rest
            assert [each.id for each in later] == [each["ts"] for each in rest]
            posted = answered(runs.post(run_id, "next"), 201)
            assert take(blocks, 1)[0].data["id"] == posted["checkpointId"]


def test_a_stream_is_resumed_after_the_last_id(runs: Runs) -> None:
    run_id = ten(runs)
    with runs.stream(run_id, params={"replay": 100}) as blocks:
        third = take(blocks, 4)[3]
    assert third.data == runs.checkpoints(run_id)[2]
    assert len(runs.checkpoints(run_id)) == 10
    resumes(runs, run_id, third.id or "")


@pytest.mark.slow
def test_a_stream_is_resumed_after_a_restart_of_the_server(keyed: Server) -> None:
    runs = Runs(keyed.url, {"x-api-key": KEY})
    run_id = ten(runs)
    before = runs.checkpoints(run_id)
    keyed.down()
    keyed.up()
    again = Runs(keyed.url, {"x-api-key": KEY})
    assert again.checkpoints(run_id) == before
    assert again.run(run_id)["status"] == "running"
    resumes(again, run_id, before[2]["ts"])
    times = [each["ts"] for each in again.checkpoints(run_id)]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("query", "count"), [("0", 0), ("3", 3), ("abc", 10), ("-5", 0), ("250", 10), ("0x10", 0)])
def test_replay_is_read_like_parse_int(runs: Runs, query: str, count: int) -> None:
    run_id = ten(runs)
    with runs.stream(run_id, params={"replay": query}) as blocks:
        events = take(blocks, 1 + count)
        assert [each.data for each in events[1:]] == runs.checkpoints(run_id)[10 - count :]
        answered(runs.post(run_id, "next"), 201)
        assert take(blocks, 1)[0].data["type"] == "next"


# ---------------------------------------------------------------- 11: what is not there


def test_there_is_no_list_and_an_unknown_run_has_an_empty_stream(runs: Runs) -> None:
    refused(runs.http.get("/runs"), 404, "not found")
    for run_id in ("nope", UNKNOWN):
        response = runs.http.get(f"/runs/{run_id}/events")
        assert (response.status_code, len(response.content)) == (404, 0)
        refused(runs.http.get(f"/runs/{run_id}"), 404, "run not found")
        refused(runs.http.get(f"/runs/{run_id}/checkpoints"), 404, "run not found")
    wrong = runs.http.put("/runs")
    refused(wrong, 405, "method not allowed")
    assert wrong.headers["allow"] == "POST"


# ---------------------------------------------------------------- 12: a key


@pytest.mark.slow
def test_with_a_key_set_everybody_needs_it(keyed: Server) -> None:
    everybody_needs_the_key(*(Runs(keyed.url, headers) for headers in KEY_HEADERS))


def everybody_needs_the_key(nobody: Runs, somebody: Runs, bearer: Runs) -> None:
    refused(nobody.http.post("/runs"), 401, "unauthorized")
    run_id = somebody.create()
    health = answered(nobody.http.get("/health"))
    assert (health["ok"], health["service"]) == (True, "orchestrator")
    assert nobody.http.get("/ready").status_code == 200
    assert bearer.run(run_id)["id"] == run_id
    refused(nobody.http.get(f"/runs/{run_id}?api_key={KEY}"), 401, "unauthorized")
    for options in ({"params": {"api_key": KEY}}, {"headers": {"Cookie": f"orchestrator_api_key={KEY}"}}):
        with nobody.stream(run_id, **options) as blocks:
            assert next(blocks).event == "hello"


# ---------------------------------------------------------------- 13: a rate


@pytest.mark.slow
def test_the_fourth_request_of_three_is_refused() -> None:
    with serving(environ={"RATE_LIMIT_MAX": "3"}) as server:
        only_three_pass(Runs(server.url))


def only_three_pass(runs: Runs) -> None:
    """Of a server that lets three requests a minute pass."""
    statuses = [runs.http.post("/runs").status_code for _ in range(3)]
    fourth = runs.http.post("/runs")
    assert statuses == [201, 201, 201]
    refused(fourth, 429, "rate_limited")
    assert int(fourth.headers["retry-after"]) >= 1
    assert runs.http.get("/health").status_code == 200


# ---------------------------------------------------------------- 14, 15: runs with tasks


def test_a_plan_runs_its_tasks_with_retries(runs: Runs) -> None:
    flaky = {"id": "a", "type": "core.fail", "params": {"times": 1}, "retries": 1, "retry_delay_s": 0}
    plan = {"nodes": [flaky, {"id": "b", "type": "core.echo"}], "edges": [{"from": "a", "to": "b"}]}
    run_id = runs.create({"plan": plan})
    assert runs.ended(run_id, timeout_s=10)["status"] == "completed"
    every = runs.checkpoints(run_id)
    kinds = [each["type"] for each in every]
    assert in_order(["started", "task.retrying", "task.completed", "completed"], kinds)
    assert every[0]["data"] == {"definition": None, "version": None, "tasks": ["a", "b"]}
    assert [each["data"]["task"] for each in every if each["type"] == "task.completed"] == ["a", "b"]


def test_what_comes_after_a_cancel_has_no_effect(runs: Runs) -> None:
    plan = {"nodes": [{"id": "a", "type": "core.sleep", "params": {"seconds": 60}}], "edges": []}
    run_id = runs.create({"plan": plan})
    runs.until(lambda: "task.started" in runs.kinds(run_id))
    began_s = time.monotonic()
    answered(runs.cancel(run_id))
    assert time.monotonic() - began_s < runs.prompt_s
    at_cancel = runs.kinds(run_id)
    time.sleep(3)
    kinds = runs.kinds(run_id)
    assert kinds[: len(at_cancel)] == at_cancel
    assert "task.completed" not in kinds
    assert runs.run(run_id)["status"] == "canceled"


def test_after_a_final_failure_independent_branches_finish(runs: Runs) -> None:
    nodes = [{"id": "a", "type": "core.fail"}, {"id": "b"}, {"id": "c", "type": "core.sleep", "params": {"seconds": 1}}]
    run_id = runs.create({"plan": {"nodes": nodes, "edges": [{"from": "a", "to": "b"}]}})
    assert runs.ended(run_id)["status"] == "failed"
    told = {
        (each["type"], each["data"]["task"]): each["data"]
        for each in runs.checkpoints(run_id)
        if "task." in each["type"]
    }
    assert ("task.failed", "a") in told
    assert told["task.skipped", "b"]["reason"] == "upstream_failed"
    assert ("task.completed", "c") in told


def test_a_taskless_run_is_ended_by_its_owner(runs: Runs) -> None:
    for kind, status in (("run.completed", "completed"), ("run.failed", "failed")):
        run_id = runs.create()
        runs.until(lambda run_id=run_id: runs.run(run_id)["status"] == "running")  # type: ignore[misc] # mypy infers no lambda with a default
        answered(runs.post(run_id, kind), 201)
        assert runs.ended(run_id)["status"] == status
        assert runs.kinds(run_id) == ["started", kind, status]


# ---------------------------------------------------------------- beside the examples


def test_a_run_of_a_dag_is_seen_on_both_surfaces(runs: Runs, api: Api) -> None:
    name = fresh("shared")
    api.define(name, task("a"))
    run_id = runs.create({"dag_id": name})
    assert runs.ended(run_id)["status"] == "completed"
    run = api.run(run_id)
    assert (run["dag_id"], run["run_type"], run["window"], run["state"]) == (name, "manual", None, "success")
    refused(runs.http.post("/runs", json={"dag_id": "no_such_dag"}), 404, "dag not found")
    of_dags = api.trigger(name)["run_id"]
    refused(runs.http.get(f"/runs/{of_dags}"), 404, "run not found")


def test_the_same_request_under_a_key_is_one_run(runs: Runs) -> None:
    headers = {"Idempotency-Key": fresh("key")}
    ids = set(at_once(10, lambda _: runs.create({"metadata": {"a": 1}}, headers=headers)))
    assert len(ids) == 1
    refused(runs.http.post("/runs", json={"metadata": {"a": 2}}, headers=headers), 409, "idempotency key reused")


def test_tasks_in_mode_k8s_are_refused_without_a_cluster(runs: Runs) -> None:
    refused(runs.http.post("/runs?mode=k8s", json={"plan": {"nodes": [{"id": "a"}]}}), 503, "k8s unavailable")
    assert runs.run(runs.create(params={"mode": "k8s"}))["mode"] == "k8s"
