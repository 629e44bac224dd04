"""What contracts/dags.md says about runs beyond its examples (sections 4 to 6, 9 and 9a), against a real server.

Retries, timeouts, restarts and versions, cancellation, backfills, streams, fires of a schedule.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.dags_api import TERMINAL, Api, answered, at_once, failing, fresh, fresh_noop, instant, refused, task
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("every_minute")]
BACKFILL = {"run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"}


@pytest.fixture(scope="module")
def every_minute(api: Api) -> tuple[str, datetime]:
    """A DAG that fires every minute and the time it was created; asked for early, looked at late."""
    name = fresh("every_minute")
    api.define(name, task("a"), schedule="* * * * *")
    return name, datetime.now(UTC)


def test_a_backfill_of_one_day_is_another_run_than_that_days_window(api: Api) -> None:
    name = fresh("one_day")
    api.define(name, task("a"))
    day = {"start": "2025-10-02", "end": "2025-10-02"}
    backfill = api.trigger(name, run_type="backfill", **day)["run_id"]
    window = api.trigger(name, **day)["run_id"]
    assert backfill != window
    assert [w["run_id"] for w in api.run(backfill)["windows"]] == [window]


def test_a_backfill_shows_its_windows_as_tasks(api: Api) -> None:
    name = fresh("aggregate")
    api.define(name, task("extract"), task("transform", "extract", kind="core.sleep", params={"seconds": 1.5}))
    run_id = api.trigger(name, **BACKFILL)["run_id"]
    middle = api.until(run_id, lambda run: run["tasks"].get("transform") == "running")
    assert middle["state"] == "running"
    assert api.wait(run_id)["tasks"] == {"extract": "done", "transform": "done"}


def test_backfill_windows_follow_the_schedule(api: Api) -> None:
    weekly, twice = fresh("weekly"), fresh("twice")
    api.define(weekly, schedule="0 2 * * MON")
    plan = answered(
        api.post(
            "/runs",
            {"dag_id": weekly, "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-14", "dry_run": True},
        )
    )
    assert [w["window"]["from"] for w in plan["windows"]] == ["2025-10-06", "2025-10-13"]
    api.define(twice, schedule="0 6,18 * * *")
    plan = answered(
        api.post(
            "/runs",
            {"dag_id": twice, "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-01", "dry_run": True},
        )
    )
    assert [(instant(w["window"]["from"]).hour, instant(w["window"]["to"]).hour) for w in plan["windows"]] == [
        (6, 18),
        (18, 6),
    ]
    refused(
        api.post("/runs", {"dag_id": weekly, "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-02"}),
        400,
        "invalid_request",
    )


def test_what_was_planned_is_what_runs_over_a_change_of_clocks(api: Api) -> None:
    name = fresh("berlin")
    api.define(name, schedule="30 */6 * * *", timezone="Europe/Berlin")
    body = {"dag_id": name, "run_type": "backfill", "from": "2026-10-24", "to": "2026-10-26"}
    planned = [w["window"] for w in answered(api.post("/runs", {**body, "dry_run": True}))["windows"]]
    run = api.wait(answered(api.post("/runs", body))["run_id"])
    assert [w["window"] for w in run["windows"]] == planned
    assert len(planned) == 12


def test_user_code_sees_its_window_and_params(api: Api) -> None:
    name = fresh("params")
    api.define(
        name, {"id": "a", "entrypoint": "live_tasks:fail_on", "params": {"day": "{{ from }}", "bad": "2025-10-01"}}
    )
    day = {"start": "2025-10-01", "end": "2025-10-01"}
    failed = api.wait(api.trigger(name, **day)["run_id"])
    assert failed["state"] == "failed"
    assert "no data for 2025-10-01" in failed["error"]
    assert (
        api.wait(api.trigger(name, params={"bad": "never"}, start="2025-10-02", end="2025-10-02")["run_id"])["state"]
        == "success"
    )


def test_what_a_task_prints_is_kept_per_attempt(api: Api) -> None:
    name = fresh("speaks")
    api.define(name, {"id": "a", "entrypoint": "live_tasks:speak"}, task("quiet"))
    run_id = api.trigger(name)["run_id"]
    assert api.wait(run_id)["state"] == "success"
    items = answered(api.get(f"/runs/{run_id}/tasks/a/logs"))["items"]
    assert [(item["task"], item["attempt"], item["truncated"]) for item in items] == [("a", 1, False)]
    assert "hello from a" in items[0]["text"]
    assert answered(api.get(f"/runs/{run_id}/tasks/quiet/logs"))["items"] == []


def test_a_run_that_is_late_says_so_and_goes_on(api: Api) -> None:
    name = fresh("sla")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 2.5}), sla_s=1)
    run_id = api.trigger(name)["run_id"]
    run = api.wait(run_id)
    assert run["state"] == "success"
    assert instant(run["sla_deadline"]) - instant(run["created_at"]) == timedelta(seconds=1)
    missed = [frame for frame in api.events(run_id) if frame.event == "sla_missed"]
    assert len(missed) == 1
    assert instant(missed[0].data["deadline"]) == instant(run["sla_deadline"])


def test_a_task_that_takes_too_long_is_stopped_and_fails(api: Api) -> None:
    name = fresh("timeout")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 60}, timeout_s=1), task("b", "a"))
    run = api.wait(api.trigger(name)["run_id"], timeout_s=10)
    assert (run["state"], run["tasks"]) == ("failed", {"a": "failed", "b": "upstream_failed"})


def test_a_retried_failure_starts_the_run_again(api: Api) -> None:
    _, run_id = failing(api)
    ancestor = refused(api.post(f"/runs/{run_id}/tasks/b/retry"), 409, "version_conflict")
    assert re.search(r"\ba\b", ancestor["message"])
    retried = answered(api.post(f"/runs/{run_id}/tasks/a/retry"))
    assert (retried["task"], retried["state"], retried["attempts"]) == ("a", "pending", 2)
    run = api.wait(run_id)
    assert (run["state"], run["attempts"], run["tasks"]["c"]) == ("failed", 2, "done")
    starts = [
        f.data["attempt"]
        for f in api.events(run_id)
        if f.event == "task_state" and f.data["task"] == "a" and f.data["to"] == "running"
    ]
    assert starts == sorted(set(starts))
    assert len(starts) == 2


def test_retries_come_after_their_delay_and_attempts_never_repeat(api: Api) -> None:
    name = fresh("retries")
    api.define(name, task("a", kind="core.fail", params={"times": 2}, retries=2, retry_delay_s=0.2))
    run_id = api.trigger(name)["run_id"]
    assert api.wait(run_id)["state"] == "success"
    steps = [(f.data["to"], f.data["attempt"]) for f in api.events(run_id) if f.event == "task_state"]
    assert steps == [("running", 1), ("retrying", 1), ("running", 2), ("retrying", 2), ("running", 3), ("done", 3)]


def test_a_running_task_can_be_skipped(api: Api) -> None:
    name = fresh("skip_running")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 60}), task("b", "a"))
    run_id = api.trigger(name)["run_id"]
    api.until(run_id, lambda run: run["tasks"]["a"] == "running")
    answered(api.post(f"/runs/{run_id}/tasks/a/skip"))
    assert api.wait(run_id, timeout_s=10)["tasks"] == {"a": "skipped", "b": "done"}


def test_a_cancelled_task_frees_its_worker_within_a_second(api: Api, live: Server) -> None:
    name = fresh("freed")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 300}))
    ids = [api.trigger(name)["run_id"] for _ in range(8)]
    api.until(ids[0], lambda run: run["tasks"]["a"] == "running")
    at_once(8, lambda n: answered(api.post(f"/runs/{ids[n]}/cancel")))
    after = api.trigger(fresh_noop(api))["run_id"]
    assert api.wait(after, timeout_s=5)["state"] == "success"


def test_a_queued_run_can_be_cancelled(api: Api) -> None:
    name = fresh_noop(api)
    api.post(f"/dags/{name}/pause")
    run_id = api.trigger(name)["run_id"]
    assert answered(api.post(f"/runs/{run_id}/cancel"))["state"] == "cancelled"
    run = api.wait(run_id, "cancelled")
    assert (run["attempts"], run["started_at"]) == (0, None)
    api.post(f"/dags/{name}/resume")
    assert api.run(run_id)["state"] == "cancelled"


def test_only_a_retry_revives_a_cancelled_run(api: Api) -> None:
    name = fresh("revived")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 60}), task("b", "a"))
    run_id = api.trigger(name)["run_id"]
    api.until(run_id, lambda run: run["tasks"]["a"] == "running")
    api.post(f"/runs/{run_id}/cancel")
    refused(api.post(f"/runs/{run_id}/tasks/a/skip"), 409, "version_conflict")
    assert answered(api.post(f"/runs/{run_id}/tasks/a/retry"))["attempts"] == 2
    api.until(run_id, lambda run: (run["state"], run["tasks"]["a"]) == ("running", "running"))
    api.post(f"/runs/{run_id}/cancel")
    api.wait(run_id, "cancelled")


def test_a_cancelled_backfill_keeps_its_finished_windows(api: Api) -> None:
    name = fresh("cancel_backfill")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 1}), max_active_runs=1)
    run_id = api.trigger(name, **BACKFILL)["run_id"]
    api.until(run_id, lambda run: run["counts"]["success"] >= 1)
    assert answered(api.post(f"/runs/{run_id}/cancel"))["state"] == "cancelled"
    run = api.until(run_id, lambda run: run["counts"]["queued"] + run["counts"]["running"] == 0)
    assert run["state"] == "cancelled"
    assert run["counts"]["success"] >= 1
    assert run["counts"]["cancelled"] >= 1
    assert sum(v for k, v in run["counts"].items() if k != "total") == 4


def test_a_restart_runs_the_current_version_and_keeps_its_params(api: Api) -> None:
    name = fresh("restart")
    day = {"start": "2025-10-01", "end": "2025-10-01"}
    api.define(name, task("a", kind="core.fail"))
    run_id = api.trigger(name, **day)["run_id"]
    assert api.wait(run_id)["state"] == "failed"
    api.define(name, task("a"), task("b", "a"))
    assert api.trigger(name, **day)["run_id"] == run_id
    assert api.run(run_id)["state"] == "failed"
    assert api.trigger(name, **day, reprocess="failed")["run_id"] == run_id
    run = api.until(run_id, lambda run: run["attempts"] == 2 and run["state"] in TERMINAL)
    assert (run["state"], run["dag_version"], run["tasks"]) == ("success", 2, {"a": "done", "b": "done"})


def test_a_pinned_restart_keeps_the_version(api: Api) -> None:
    name = fresh("pinned")
    day = {"start": "2025-10-01", "end": "2025-10-01"}
    api.define(name, task("a"))
    run_id = api.trigger(name, **day)["run_id"]
    api.wait(run_id)
    api.define(name, task("b"))
    api.trigger(name, **day, reprocess="completed", on_version="pinned")
    run = api.until(run_id, lambda run: run["attempts"] == 2 and run["state"] in TERMINAL)
    assert (run["dag_version"], run["tasks"]) == (1, {"a": "done"})


def test_a_run_keeps_the_version_it_started_with(api: Api) -> None:
    name = fresh("versions")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 1}), task("b", "a"))
    run_id = api.trigger(name)["run_id"]
    api.define(name, task("z"))
    run = api.wait(run_id)
    assert (run["dag_version"], run["tasks"]) == (1, {"a": "done", "b": "done"})


def test_a_backfill_does_not_starve_manual_runs(api: Api) -> None:
    name = fresh("fair")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 0.5}), max_active_runs=1)
    backfill = api.trigger(name, run_type="backfill", start="2025-10-01", end="2025-10-31")["run_id"]
    api.until(backfill, lambda run: run["state"] == "running")
    manual = api.trigger(name)["run_id"]
    api.wait(manual, "success", timeout_s=10)
    assert api.run(backfill)["counts"]["queued"] > 20
    answered(api.post(f"/runs/{backfill}/cancel"))


def test_a_failure_is_told_in_the_stream(api: Api) -> None:
    _, run_id = failing(api)
    frames = api.events(run_id)
    (failure,) = [f for f in frames if f.event == "task_state" and f.data["to"] == "failed"]
    assert "boom" in failure.data["error"]
    assert frames[-1].data["state"] == "failed"


def test_a_restarted_run_goes_on_counting(api: Api) -> None:
    name, day = fresh("again"), {"start": "2025-10-01", "end": "2025-10-01"}
    api.define(name, task("a"))
    run_id = api.trigger(name, **day)["run_id"]
    api.wait(run_id)
    last = api.events(run_id)[-2].id
    assert last is not None
    api.trigger(name, **day, reprocess="completed")
    api.until(run_id, lambda run: run["attempts"] == 2 and run["state"] in TERMINAL)
    rest = api.events(run_id, after=last)
    assert [f.id for f in rest[:-1]] == list(range(last + 1, last + len(rest)))
    assert rest[0].event == "run_state"
    assert rest[0].data["to"] == "queued"


def test_a_backfill_streams_its_windows_and_not_their_tasks(api: Api) -> None:
    name = fresh("backfill_events")
    api.define(name, task("a"))
    run_id = api.trigger(name, **BACKFILL)["run_id"]
    frames = api.events(run_id)
    assert [f.id for f in frames[:-1]] == list(range(1, len(frames)))
    assert {f.event for f in frames} == {"run_state", "window_state", "end"}
    done = [f for f in frames if f.event == "window_state" and f.data["to"] == "success"]
    assert sorted(f.data["window"]["from"] for f in done) == [f"2025-10-0{d}" for d in range(1, 5)]
    assert {f.data["run_id"] for f in done} == {w["run_id"] for w in api.run(run_id)["windows"]}
    assert done[-1].data["counts"] == {
        "total": 4,
        "queued": 0,
        "running": 0,
        "success": 4,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
    }
    assert frames[-1].data == {"run_id": run_id, "state": "success"}


@pytest.mark.slow  # the next minute is up to 62 s away
def test_a_schedule_fires_on_its_minute_once(api: Api, every_minute: tuple[str, datetime]) -> None:
    name, created = every_minute
    due = created.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while datetime.now(UTC) < due + timedelta(seconds=2):
        time.sleep(0.2)
    fires = [run for run in api.runs(dag_id=name) if instant(run["window"]["from"]) == due]
    assert [run["run_type"] for run in fires] == ["scheduled"]
    assert instant(fires[0]["window"]["to"]) == due + timedelta(minutes=1)
    assert timedelta(0) <= instant(fires[0]["created_at"]) - due <= timedelta(seconds=2)
    first = min(instant(run["window"]["from"]) for run in api.runs(dag_id=name))
    assert first == due
    same = api.trigger(name, start=fires[0]["window"]["from"], end=fires[0]["window"]["to"])
    assert same["run_id"] == fires[0]["run_id"]


def test_a_task_of_a_type_nobody_has_waits(api: Api) -> None:
    name = fresh("foreign")
    api.define(name, task("a", kind="acme.render"))
    run_id = api.trigger(name)["run_id"]
    api.wait(run_id, "running")
    time.sleep(0.5)
    assert api.run(run_id)["tasks"] == {"a": "pending"}
    answered(api.post(f"/runs/{run_id}/cancel"))


def test_a_manual_run_may_have_an_instant_window(api: Api, plain: str) -> None:
    window = {"start": "2025-10-01T00:00:00Z", "end": "2025-10-01T06:00:00Z"}
    run_id = api.trigger(plain, **window)["run_id"]
    assert api.trigger(plain, **window)["run_id"] == run_id
    assert api.run(run_id)["window"] == {"from": "2025-10-01T00:00:00Z", "to": "2025-10-01T06:00:00Z"}


def test_days_are_counted_inclusively_over_a_year(api: Api) -> None:
    name = fresh("year")
    api.define(name, schedule="0 2 * * *", timezone="America/New_York")
    body = {"dag_id": name, "run_type": "backfill", "from": "2024-01-01", "to": "2024-12-31", "dry_run": True}
    days = [w["window"]["from"] for w in answered(api.post("/runs", body))["windows"]]
    assert days == [str(date(2024, 1, 1) + timedelta(days=n)) for n in range(366)]
