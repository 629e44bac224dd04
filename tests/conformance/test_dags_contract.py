"""The dags contract against a real server: the acceptance examples of its section 10, by their numbers.

Black box: only HTTP. Example 14 (rate limit) needs settings of its own and is checked on the application
without a cluster, in `test_dags_rate_limit.py`. What sections 2 to 9a say beyond the examples is in
`test_dags_requests.py` and `test_dags_runs.py`.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from datetime import datetime, timedelta

import pytest

from tests.dags_api import TERMINAL, Api, Json, answered, at_once, failing, fresh, instant, refused, task
from tests.live import Server

pytestmark = pytest.mark.ray
BACKFILL = {"run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"}
RUN_KEYS = {
    *("run_id", "dag_id", "dag_version", "run_type", "state", "window", "attempts", "sla_deadline", "tasks"),
    *("created_at", "started_at", "finished_at", "parent_run_id", "error"),
}


# ---------------------------------------------------------------- 1: definitions


def test_a_dag_gets_a_new_version_only_when_it_changes(api: Api) -> None:
    dag = {"dag_id": fresh("sales_gdp"), "schedule": "0 2 * * *", "owner": "team-data"}
    first = answered(api.post("/dags", dag))
    assert (first["dag_id"], first["status"], first["version"]) == (dag["dag_id"], "active", 1)
    assert answered(api.post("/dags", dag))["version"] == 1
    assert answered(api.post("/dags", {**dag, "sla_s": 60}))["version"] == 2
    refused(api.post("/dags", {**dag, "version": 1}), 409, "version_conflict")
    assert answered(api.post("/dags", {**dag, "version": 2}))["version"] == 3


# ---------------------------------------------------------------- 2: who may do what


def test_without_a_token_nothing_is_answered(live: Server) -> None:
    nobody = live.api("nobody")
    for response in (nobody.get("/dags"), nobody.post("/dags", {}), nobody.get("/runs/run_0/events")):
        refused(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
    wrong = Api(live.url, "x" * 43)
    refused(wrong.get("/dags"), 401, "unauthorized")


def test_a_worker_token_is_forbidden(live: Server) -> None:
    worker = live.api("worker")
    refused(worker.post("/dags", {"dag_id": "x", "owner": "y"}), 403, "forbidden")
    refused(worker.get("/dags"), 403, "forbidden")
    refused(worker.post("/runs", {"dag_id": "x"}), 403, "forbidden")


def test_a_token_counts_until_it_is_revoked_while_the_server_runs(live: Server) -> None:
    made = live.cli("token", "create", "--tenant", fresh("acme"), "--scope", "client", "--json")
    assert made.returncode == 0, made.stderr
    entry = json.loads(made.stdout)
    theirs = Api(live.url, entry["token"])
    answered_soon(theirs, 200)
    assert answered(theirs.get("/dags"))["items"] == []
    assert live.cli("token", "revoke", entry["id"]).returncode == 0
    answered_soon(theirs, 401)


def answered_soon(theirs: Api, status: int) -> None:
    """A list is answered so within seconds."""
    deadline = time.monotonic() + 5
    while (found := theirs.get("/dags").status_code) != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


# ---------------------------------------------------------------- 3: what is malformed


CYCLE = [task("extract", "load"), task("load", "extract")]
MALFORMED_DAGS: dict[str, Json] = {
    "minute 61": {"schedule": "61 * * * *"},
    "six fields": {"schedule": "0 0 2 * * *"},
    "last day": {"schedule": "0 0 L * *"},
    "nearest weekday": {"schedule": "0 0 15W * *"},
    "nth weekday": {"schedule": "0 0 * * 1#2"},
    "question mark": {"schedule": "0 0 ? * *"},
    "never fires": {"schedule": "0 0 31 2 *"},
    "unknown zone": {"schedule": "0 2 * * *", "timezone": "Europe/Atlantis"},
    "cycle": {"tasks": CYCLE},
    "self": {"tasks": [task("a", "a")]},
    "unknown dependency": {"tasks": [task("a"), task("b", "zz")]},
    "twice the same id": {"tasks": [task("a"), task("a")]},
    "bad task id": {"tasks": [task("a b")]},
    "unknown core type": {"tasks": [task("a", kind="core.magic")]},
    "too long a sleep": {"tasks": [task("a", kind="core.sleep", params={"seconds": 3601})]},
    "sleep of words": {"tasks": [task("a", kind="core.sleep", params={"seconds": "long"})]},
    "type and entrypoint": {
        "tasks": [
            {"id": "a", "type": "python", "entrypoint": "live_tasks:fail_on"},
            {"id": "b", "type": "core.noop", "entrypoint": "live_tasks:fail_on"},
        ]
    },
    "shell over HTTP": {"tasks": [task("a", kind="bash", params={"command": "true"})]},
    "entrypoint not allowed": {"tasks": [{"id": "a", "entrypoint": "os:getcwd"}]},
    "too many retries": {"tasks": [task("a", retries=21)]},
    "negative delay": {"tasks": [task("a", retry_delay_s=-1)]},
    "no timeout": {"tasks": [task("a", timeout_s=0)]},
    "priority": {"tasks": [task("a", priority=101)]},
    "no owner": {"owner": None},
    "empty owner": {"owner": ""},
    "dag id": {"dag_id": "a/b"},
    "too few active": {"max_active_runs": 0},
    "too many active": {"max_active_runs": 1001},
    "sla": {"sla_s": 0},
    "callback": {"callback_url": "ftp://example.org"},
    "tasks no list": {"tasks": {"a": {}}},
    "number for a string": {"owner": 7},
}


@pytest.mark.parametrize("change", MALFORMED_DAGS.values(), ids=MALFORMED_DAGS.keys())
def test_a_malformed_dag_is_refused(api: Api, change: Json) -> None:
    dag_id = fresh("malformed")
    body = {"dag_id": dag_id, "owner": "tests", **change}
    refused(api.post("/dags", {k: v for k, v in body.items() if v is not None}), 400, "invalid_request")
    refused(api.get(f"/dags/{dag_id}"), 404, "not_found")


def test_a_refusal_names_the_field_and_the_cycle(api: Api) -> None:
    cycle = api.post("/dags", {"dag_id": "x", "owner": "y", "tasks": CYCLE})
    assert refused(cycle, 400, "invalid_request")["message"] == "dependency cycle: extract -> load -> extract"
    unknown = api.post("/dags", {"dag_id": "x", "owner": "y", "tasks": [task("a"), task("b", "x")]})
    assert refused(unknown, 400, "invalid_request")["details"] == [
        {"field": "tasks/1/depends_on/0", "message": "unknown task 'x'"}
    ]


@pytest.mark.parametrize("path", ["/dags", "/runs", "/runs/batch"])
def test_only_json_objects_are_read(api: Api, path: str) -> None:
    json_header = {"content-type": "application/json"}
    body = b'{"dag_id":"sales_gdp","owner":"team-data"}'
    refused(api.http.post(path, content=body, headers={"content-type": "text/plain"}), 400, "invalid_request")
    refused(api.http.post(path, content=body), 400, "invalid_request")
    for content in (b'{"dag_id":', b"", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"dag_id": NaN}'):
        refused(api.http.post(path, content=content, headers=json_header), 400, "invalid_request")


# ---------------------------------------------------------------- 4: backfills


def test_a_backfill_is_one_run_however_often_it_is_posted(api: Api) -> None:
    name = fresh("sales_gdp")
    api.define(name, schedule="0 2 * * *")
    first = api.trigger(name, **BACKFILL)
    assert first["counts"]["total"] == 4
    assert first["state"] in {"queued", "running", "success"}
    assert api.trigger(name, **BACKFILL)["run_id"] == first["run_id"]
    again = at_once(20, lambda _: api.trigger(name, **BACKFILL)["run_id"])
    assert set(again) == {first["run_id"]}

    run = api.wait(first["run_id"])
    assert run["state"] == "success"
    assert [w["window"] for w in run["windows"]] == [
        {"from": f"2025-10-0{d}", "to": f"2025-10-0{d}"} for d in range(1, 5)
    ]
    assert run["counts"] == {
        "total": 4,
        "queued": 0,
        "running": 0,
        "success": 4,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
    }
    assert run["window"] == {"from": "2025-10-01", "to": "2025-10-04"}
    assert (run["run_type"], run["parent_run_id"], run["attempts"]) == ("backfill", None, 1)
    children = api.runs(parent_run_id=first["run_id"])
    assert {child["run_id"] for child in children} == {w["run_id"] for w in run["windows"]}
    assert all(child["parent_run_id"] == first["run_id"] for child in children)


# ---------------------------------------------------------------- 5: dry runs


def test_a_plan_hash_pins_what_was_planned(api: Api) -> None:
    name = fresh("planned")
    api.define(name, task("extract"), task("transform", "extract"), schedule="0 2 * * *")
    api.wait(api.trigger(name, **BACKFILL)["run_id"])
    before = len(api.runs(dag_id=name))
    body = {"dag_id": name, "run_type": "backfill", "from": "2025-10-03", "to": "2025-10-05"}

    plan = answered(api.post("/runs", {**body, "dry_run": True}))
    assert plan["counts"] == {"total": 3, "create": 1, "restart": 0, "skip": 2}
    assert plan["plan_hash"].startswith("sha256:")
    assert "run_id" not in plan
    assert [w["action"] for w in plan["windows"]] == ["skip", "skip", "create"]
    assert [("run_id" in w) for w in plan["windows"]] == [True, True, False]
    assert plan["task_groups"] == [["extract"], ["transform"]]
    assert len(api.runs(dag_id=name)) == before

    api.define(name, task("extract"), schedule="0 2 * * *")
    refused(api.post("/runs", {**body, "plan_hash": plan["plan_hash"]}), 409, "version_conflict")
    assert len(api.runs(dag_id=name)) == before

    renewed = answered(api.post("/runs", {**body, "dry_run": True}))["plan_hash"]
    assert renewed != plan["plan_hash"]
    created = answered(api.post("/runs", {**body, "plan_hash": renewed}))
    assert created["counts"]["skipped"] == 2
    assert answered(api.post("/runs", {**body, "plan_hash": renewed}))["run_id"] == created["run_id"]


# ---------------------------------------------------------------- 6: triggers that make no sense


MALFORMED_TRIGGERS: dict[str, Json] = {
    "from after to": {**BACKFILL, "from": "2025-10-05"},
    "month 13": {**BACKFILL, "from": "2025-13-01"},
    "no such day": {**BACKFILL, "to": "2025-02-29"},
    "no to": {"run_type": "backfill", "from": "2025-10-01"},
    "no from": {"run_type": "backfill", "to": "2025-10-01"},
    "scheduled from outside": {"run_type": "scheduled"},
    "unknown type": {"run_type": "sometimes"},
    "half a window": {"from": "2025-10-01"},
    "instants in a backfill": {"run_type": "backfill", "from": "2025-10-01T00:00:00Z", "to": "2025-10-02T00:00:00Z"},
    "date and instant": {"from": "2025-10-01", "to": "2025-10-02T00:00:00Z"},
    "empty instant window": {"from": "2025-10-01T00:00:00Z", "to": "2025-10-01T00:00:00Z"},
    "params no object": {"params": [1]},
    "dry_run no bool": {"dry_run": "yes"},
    "reprocess": {**BACKFILL, "reprocess": "everything"},
    "max_active_runs 0": {**BACKFILL, "max_active_runs": 0},
    "max_active_runs 1001": {**BACKFILL, "max_active_runs": 1001},
    "a number for a date": {**BACKFILL, "from": 20251001},
    "too many windows": {"run_type": "backfill", "from": "1600-01-01", "to": "2025-10-01"},
}


@pytest.mark.parametrize("body", MALFORMED_TRIGGERS.values(), ids=MALFORMED_TRIGGERS.keys())
def test_a_malformed_trigger_is_refused(api: Api, plain: str, body: Json) -> None:
    refused(api.post("/runs", {"dag_id": plain, **body}), 400, "invalid_request")


def test_unknown_things_are_not_found(api: Api) -> None:
    refused(api.post("/runs", {"dag_id": "nobody_defined_this"}), 404, "not_found")
    refused(api.post("/runs", {}), 400, "invalid_request")
    for path in ("/dags/nobody_defined_this", "/runs/run_99", "/runs/run_99/events"):
        refused(api.get(path), 404, "not_found")
    for path in (
        "/dags/nope/pause",
        "/dags/nope/resume",
        "/runs/run_99/cancel",
        "/runs/run_99/tasks/a/retry",
        "/runs/run_99/tasks/a/skip",
    ):
        refused(api.post(path), 404, "not_found")


# ---------------------------------------------------------------- 7: a manual run


def test_a_manual_run_goes_from_task_to_task(api: Api) -> None:
    name = fresh("manual")
    api.define(name, task("extract"), task("transform", "extract", kind="core.sleep", params={"seconds": 2}))
    run_id = api.trigger(name)["run_id"]
    assert re.fullmatch(r"run_[0-9A-Za-z]+", run_id)
    middle = api.until(run_id, lambda run: run["tasks"] == {"extract": "done", "transform": "running"})
    assert (middle["state"], middle["attempts"], middle["run_type"], middle["window"]) == ("running", 1, "manual", None)
    assert middle.keys() >= RUN_KEYS
    assert middle["finished_at"] is None
    end = api.wait(run_id)
    assert (end["state"], end["tasks"], end["attempts"]) == ("success", {"extract": "done", "transform": "done"}, 1)
    assert instant(end["created_at"]) <= instant(end["started_at"]) <= instant(end["finished_at"])
    assert instant(end["finished_at"]) - instant(end["started_at"]) >= timedelta(seconds=2)


# ---------------------------------------------------------------- 8: idempotency keys


def test_a_request_id_makes_a_trigger_repeatable(api: Api, plain: str) -> None:
    key = fresh("q1")
    first = api.post("/runs", {"dag_id": plain}, X_Request_Id=key)
    assert "idempotent-replay" not in first.headers
    again = api.http.post(
        "/runs",
        content=f'{{ "dag_id" : "{plain}" }}',
        headers={"X-Request-Id": key, "content-type": "application/json"},
    )
    assert again.headers["idempotent-replay"] == "true"
    assert answered(again) == answered(first)
    assert again.headers["x-request-id"] == key
    refused(api.post("/runs", {"dag_id": plain, "params": {"x": 1}}, X_Request_Id=key), 409, "version_conflict")
    assert (
        answered(api.post("/runs", {"dag_id": plain}))["run_id"]
        != answered(api.post("/runs", {"dag_id": plain}))["run_id"]
    )


# ---------------------------------------------------------------- 9: failure, skip, retry


def test_a_skipped_failure_lets_the_run_end_well(api: Api) -> None:
    _, run_id = failing(api)
    refused(api.post(f"/runs/{run_id}/tasks/c/retry"), 409, "version_conflict")
    refused(api.post(f"/runs/{run_id}/tasks/zz/retry"), 404, "not_found")
    refused(api.post(f"/runs/{run_id}/tasks/zz/skip"), 404, "not_found")
    skipped = answered(api.post(f"/runs/{run_id}/tasks/a/skip"))
    assert (skipped["run_id"], skipped["task"], skipped["state"]) == (run_id, "a", "skipped")
    run = api.wait(run_id, "success")
    assert run["tasks"] == {"a": "skipped", "b": "done", "c": "done"}
    assert answered(api.post(f"/runs/{run_id}/tasks/a/skip"))["state"] == "skipped"


# ---------------------------------------------------------------- 10: pause, resume, cancel


def test_a_paused_dag_starts_nothing_until_it_is_resumed(api: Api) -> None:
    name = fresh("paused")
    api.define(name, task("a"))
    for _ in range(2):
        assert answered(api.post(f"/dags/{name}/pause", {"reason": "maintenance"}))["status"] == "paused"
    assert api.define(name, task("a"), description="changed")["status"] == "paused"
    run_id = api.trigger(name)["run_id"]
    until = time.monotonic() + 3
    while time.monotonic() < until:
        run = api.run(run_id)
        assert (run["state"], run["attempts"], run["started_at"]) == ("queued", 0, None)
        time.sleep(0.25)
    for _ in range(2):
        assert answered(api.post(f"/dags/{name}/resume"))["status"] == "active"
    assert api.wait(run_id)["state"] == "success"


def test_cancel_is_final_and_repeatable(api: Api, plain: str) -> None:
    name = fresh("cancelled")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 60}), task("b", "a"))
    run_id = api.trigger(name)["run_id"]
    api.until(run_id, lambda run: run["tasks"]["a"] == "running")
    for _ in range(2):
        answer = answered(api.post(f"/runs/{run_id}/cancel"))
        assert (answer["run_id"], answer["state"]) == (run_id, "cancelled")
    run = api.wait(run_id)
    assert (run["state"], run["tasks"]) == ("cancelled", {"a": "cancelled", "b": "cancelled"})
    done = api.trigger(plain)["run_id"]
    api.wait(done, "success")
    assert "already succe" in refused(api.post(f"/runs/{done}/cancel"), 409, "version_conflict")["message"]


# ---------------------------------------------------------------- 11: reprocess


def test_reprocess_restarts_what_it_says(api: Api) -> None:
    name = fresh("reprocess")
    api.define(
        name, {"id": "a", "entrypoint": "live_tasks:fail_on", "params": {"day": "{{ from }}", "bad": "2025-10-02"}}
    )
    run_id = api.trigger(name, **BACKFILL)["run_id"]
    first = api.wait(run_id)
    assert first["state"] == "failed"
    assert (first["counts"]["failed"], first["counts"]["success"]) == (1, 3)
    ids = [w["run_id"] for w in first["windows"]]
    assert api.trigger(name, **BACKFILL)["run_id"] == run_id
    assert api.run(run_id)["attempts"] == 1

    assert api.trigger(name, **BACKFILL, reprocess="failed")["run_id"] == run_id
    second = api.until(run_id, lambda run: run["attempts"] == 2 and run["state"] in TERMINAL)
    assert second["state"] == "failed"
    assert [api.run(child)["attempts"] for child in ids] == [1, 2, 1, 1]

    assert api.trigger(name, **BACKFILL, reprocess="completed")["run_id"] == run_id
    api.until(run_id, lambda run: run["attempts"] == 3 and run["state"] in TERMINAL)
    assert [api.run(child)["attempts"] for child in ids] == [2, 3, 2, 2]


# ---------------------------------------------------------------- 12: limits and order of a backfill


def lives(api: Api, backfill: str) -> list[tuple[datetime, datetime, str]]:
    """(started, finished, day) of each window, in the order in which they started."""
    runs = api.runs(parent_run_id=backfill)
    return sorted((instant(r["started_at"]), instant(r["finished_at"]), r["window"]["from"]) for r in runs)


@pytest.mark.parametrize("backwards", [False, True], ids=["oldest first", "latest first"])
def test_a_backfill_with_one_slot_runs_one_window_at_a_time(api: Api, backwards: bool) -> None:
    name = fresh("one_slot")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 1}))
    run_id = api.trigger(name, **BACKFILL, max_active_runs=1, run_backwards=backwards)["run_id"]
    while (run := api.run(run_id))["state"] not in TERMINAL:
        assert sum(w["state"] == "running" for w in run["windows"]) <= 1
        time.sleep(0.1)
    assert run["state"] == "success"
    spans = lives(api, run_id)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    days = ["2025-10-01", "2025-10-02", "2025-10-03", "2025-10-04"]
    assert [day for _, _, day in spans] == (days[::-1] if backwards else days)
    assert [w["window"]["from"] for w in run["windows"]] == days


# ---------------------------------------------------------------- 13: events


def test_a_stream_is_resumed_without_a_gap(api: Api) -> None:
    name = fresh("events")
    api.define(name, task("a"), task("b", "a", kind="core.sleep", params={"seconds": 1}), task("c", "b"))
    run_id = api.trigger(name)["run_id"]
    head = []
    with api.stream(run_id) as frames:
        for frame in frames:
            head.append(frame)
            if frame.id == 3:
                break
    rest = api.events(run_id, after=3)
    assert rest[0].id == 4
    whole = head + rest
    assert [f.id for f in whole[:-1]] == list(range(1, len(whole)))
    assert (whole[-1].event, whole[-1].id, whole[-1].data) == ("end", None, {"run_id": run_id, "state": "success"})
    assert all(f.data["seq"] == f.id and f.data["run_id"] == run_id and instant(f.data["ts"]) for f in whole[:-1])
    assert [(f.data["from"], f.data["to"]) for f in whole if f.event == "run_state"] == [
        (None, "queued"),
        ("queued", "running"),
        ("running", "success"),
    ]
    steps = [(f.data["task"], f.data["from"], f.data["to"]) for f in whole if f.event == "task_state"]
    assert steps == [step for t in "abc" for step in ((t, "pending", "running"), (t, "running", "done"))]
    assert api.events(run_id) == whole

    last = len(whole) - 1
    for beyond in (last, last + 1, 10**9):
        assert api.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": str(beyond)}).status_code == 204
        assert api.get(f"/runs/{run_id}/events", params={"after": beyond}).status_code == 204
    both = api.get(f"/runs/{run_id}/events", params={"after": last}, headers={"Last-Event-ID": "0"})
    assert both.status_code == 200
    assert "id: 1\n" in both.text
    garbage = api.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": "x1"})
    assert "id: 1\n" in garbage.text
    assert garbage.headers["cache-control"] == "no-cache"
    assert garbage.headers["x-accel-buffering"] == "no"


# ---------------------------------------------------------------- 15: schedules


@pytest.mark.parametrize(
    ("day", "fire"),
    [("2026-03-29", "2026-03-29T01:00:00Z"), ("2026-10-25", "2026-10-25T00:30:00Z")],
    ids=["spring", "autumn"],
)
def test_a_fixed_hour_fires_once_when_clocks_change(api: Api, day: str, fire: str) -> None:
    daily, twice = fresh("fixed_hour"), fresh("fixed_hours")
    body = {"run_type": "backfill", "from": day, "to": day, "dry_run": True}
    api.define(daily, schedule="30 2 * * *", timezone="Europe/Berlin")
    plan = answered(api.post("/runs", {"dag_id": daily, **body}))
    assert [w["window"] for w in plan["windows"]] == [{"from": day, "to": day}]
    # a second fire a day makes the windows instants, which shows when the first one is
    api.define(twice, schedule="30 2,12 * * *", timezone="Europe/Berlin")
    starts = [instant(w["window"]["from"]) for w in answered(api.post("/runs", {"dag_id": twice, **body}))["windows"]]
    assert len(starts) == 2
    assert starts[0] == instant(fire)


def test_every_half_hour_follows_real_time_through_a_repeated_hour(api: Api) -> None:
    name = fresh("half_hours")
    api.define(name, schedule="*/30 * * * *", timezone="Europe/Berlin")
    plan = answered(
        api.post(
            "/runs", {"dag_id": name, "run_type": "backfill", "from": "2026-10-25", "to": "2026-10-25", "dry_run": True}
        )
    )
    spans = [(instant(w["window"]["from"]), instant(w["window"]["to"])) for w in plan["windows"]]
    assert len(spans) == 50
    assert all(end - start == timedelta(minutes=30) for start, end in spans)
