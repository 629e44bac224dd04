"""status.json: made, read, changed, merged with its plan, and shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from orchestrator.plan_entry import (
    Completed,
    Failed,
    Reset,
    Retried,
    Skipped,
    Started,
    TriedAgain,
    entry_view,
    instant_in,
    time_text,
)
from orchestrator.plan_progress import current_phase, progress, totals
from orchestrator.plan_status import PlanStatus, RunEnded, RunStarted, apply, merge, new, read, to_bytes, view
from tests.builders import Story
from tests.plans import DEMO, compiled, phases, plan

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NOW = "2026-01-02T03:04:05.678Z"
LATER = "2026-01-02T03:04:06.912Z"
PATH = "docs/plans/demo.md"


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def fresh(text: str = DEMO) -> PlanStatus:
    return new(plan(text), PATH, AT)


def entry(status: PlanStatus, task_id: str) -> dict[str, Any]:
    (found,) = [task for task in status.raw["tasks"] if task["id"] == task_id]
    return found


def written(**changes: object) -> bytes:
    """A minimal file, as another program may write it."""
    least = {"planPath": PATH, "planName": "Demo", "createdAt": "2026-01-01T00:00:00.000Z", "tasks": []}
    return msgspec.json.encode(least | changes)


def known(**changes: object) -> PlanStatus:
    status = read(written(**changes))
    assert status is not None
    return status


def states(status: PlanStatus) -> dict[str, str]:
    return {task["id"]: task["status"] for task in status.raw["tasks"]}


# ── a new one ──


def test_a_new_status_has_the_shape_of_the_contract() -> None:
    raw = fresh().raw
    assert list(raw) == [
        "_comment",
        "planPath",
        "planName",
        "createdAt",
        "lastUpdatedAt",
        "currentPhase",
        "tasks",
        "sequentialGroups",
        "dependencyGraph",
        "runs",
        "summary",
    ]
    assert (raw["planPath"], raw["planName"]) == (PATH, "Demo")
    assert raw["createdAt"] == raw["lastUpdatedAt"] == NOW
    assert raw["currentPhase"] == "Phase 1: Setup"
    assert raw["runs"] == []
    assert raw["summary"] == {
        "totalTasks": 4,
        "completed": 1,
        "pending": 3,
        "in_progress": 0,
        "failed": 0,
        "skipped": 0,
    }
    assert raw["dependencyGraph"]["1.3"] == {"dependencies": ["1.1", "1.2"], "dependents": ["2.1"], "inDegree": 2}
    assert list(raw["dependencyGraph"]) == ["1.1", "1.2", "1.3", "2.1"]
    assert raw["sequentialGroups"] == [{"taskRange": "1.2-1.3", "taskIds": ["1.2", "1.3"], "reason": "same file"}]


def test_the_entry_of_a_task_is_that_of_the_contract() -> None:
    assert entry(fresh(), "1.3") == {
        "id": "1.3",
        "phase": "Phase 1: Setup",
        "description": "Write the file",
        "status": "pending",
        "startedAt": None,
        "completedAt": None,
        "duration": None,
        "findingsPath": None,
        "error": None,
        "notes": None,
        "retryCount": 0,
        "lastError": None,
        "lastErrorAt": None,
        "stuckDetected": False,
        "dependencies": ["1.1", "1.2"],
        "dependents": ["2.1"],
        "executionConstraints": {"sequential": True, "sequentialGroup": "1.2-1.3", "reason": "same file"},
    }
    assert entry(fresh(), "1.1")["executionConstraints"] is None


def test_a_ticked_task_is_completed_since_nobody_knows_when() -> None:
    assert states(fresh()) == {"1.1": "pending", "1.2": "completed", "1.3": "pending", "2.1": "pending"}
    assert entry(fresh(), "1.2")["completedAt"] is None


def test_the_file_is_json_of_two_spaces_and_reads_back() -> None:
    data = to_bytes(fresh("# Größe\n"))
    assert data.startswith(b'{\n  "_comment": "')
    assert b'\n  "planName": "Gr\xc3\xb6\xc3\x9fe",\n' in data
    assert data.endswith(b"}\n")
    assert read(to_bytes(fresh())) == fresh()


def test_times_are_utc_with_three_digits() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=-5)))
    assert time_text(elsewhere) == NOW
    assert time_text(AT.replace(microsecond=0)) == "2026-01-02T03:04:05.000Z"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        (NOW, AT.replace(microsecond=678000)),
        ("2026-01-02T04:04:05.678901+01:00", AT),
        ("2026-01-02T03:04:05.678901", AT),
        ("soon", None),
        ("0001-01-01T00:00:00+23:59", None),
        (1767323045, None),
        (None, None),
    ],
)
def test_times_of_others_are_read_in_any_iso_form(text: object, instant: datetime | None) -> None:
    assert instant_in(text) == instant


# ── reading ──


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"planPath":"\xff"}',
        b"[" * 100_000,
        b"{}",
        *(written(**{key: None}) for key in ("planPath", "planName", "createdAt", "tasks")),
        written(tasks={}),
        written(tasks=["1.1"]),
        written(tasks=[{"status": "pending"}]),
        written(tasks=[{"id": 1.1}]),
    ],
)
def test_a_malformed_file_is_no_status(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize("key", ["planPath", "planName", "createdAt", "tasks"])
def test_a_file_without_a_required_key_is_malformed(key: str) -> None:
    raw = msgspec.json.decode(written())
    del raw[key]
    assert read(msgspec.json.encode(raw)) is None


def test_a_byte_order_mark_is_no_fault() -> None:
    assert read(b"\xef\xbb\xbf" + written()) == known()


def test_the_current_phase_is_read_from_either_place() -> None:
    assert known(currentPhase="A", summary={"currentPhase": "B"}).current_phase == "A"
    assert known(summary={"currentPhase": "B"}).current_phase == "B"
    assert known(summary=[]).current_phase is None


def test_what_others_leave_out_or_get_wrong_has_a_default() -> None:
    rough = known(
        tasks=[
            {"id": "1.1"},
            {"id": "1.2", "status": "done?", "retryCount": "3", "startedAt": 5, "phase": 7, "description": None},
            {"id": "1.1", "status": "failed"},
            {"id": "1.3", "status": "failed", "error": "Boom", "retryCount": 2, "completedAt": NOW},
        ]
    )
    first, second, third = view(rough, "demo", "/srv/demo.md").tasks
    assert (first.status, first.description, first.phase, first.retry_count) == ("pending", "", None, 0)
    assert (second.status, second.retry_count, second.started_at, second.phase) == ("pending", 0, None, None)
    assert (third.task_id, third.status, third.last_error, third.retry_count) == ("1.3", "failed", "Boom", 2)


# ── changes ──


def test_a_task_that_completes_has_its_times_and_its_finding() -> None:
    status = apply(fresh(), Started("1.1", AT))
    assert entry(status, "1.1")["startedAt"] == NOW
    assert states(status)["1.1"] == "in_progress"
    status = apply(status, Completed("1.1", after(1.234), "docs/plan-outputs/demo/findings/1-1.md"))
    done = entry(status, "1.1")
    assert (done["status"], done["completedAt"], done["duration"]) == ("completed", LATER, 1234)
    assert done["findingsPath"] == "docs/plan-outputs/demo/findings/1-1.md"
    assert status.raw["lastUpdatedAt"] == LATER


def test_a_task_that_fails_says_why_and_when() -> None:
    failed = entry(apply(fresh(), Started("1.1", AT), Failed("1.1", after(1.234), "Boom", stuck=True)), "1.1")
    assert (failed["status"], failed["error"], failed["lastError"]) == ("failed", "Boom", "Boom")
    assert (failed["lastErrorAt"], failed["completedAt"], failed["duration"]) == (LATER, LATER, 1234)
    assert failed["stuckDetected"] is True


def test_a_task_that_is_tried_again_by_itself_keeps_its_last_error() -> None:
    failed = apply(fresh(), Started("1.1", AT), Failed("1.1", after(1), "Boom", stuck=True))
    again = entry(apply(failed, TriedAgain("1.1", after(2), 1)), "1.1")
    assert (again["status"], again["retryCount"], again["lastError"]) == ("pending", 1, "Boom")
    assert [again[key] for key in ("error", "startedAt", "completedAt", "duration")] == [None] * 4
    assert again["stuckDetected"] is False
    done = entry(
        apply(failed, TriedAgain("1.1", after(2), 1), Started("1.1", after(3)), Completed("1.1", after(4))), "1.1"
    )
    assert (done["status"], done["error"], done["lastError"], done["duration"]) == ("completed", None, "Boom", 1000)


@pytest.mark.parametrize("ended", [Failed("1.1", after(1), "Boom"), Skipped("1.1", after(1), "later")])
def test_a_task_that_a_person_retries_is_as_if_nothing_had_been(ended: Failed | Skipped) -> None:
    again = apply(fresh(), Started("1.1", AT), ended, Retried("1.1", after(2), 1))
    assert entry(again, "1.1") == entry(fresh(), "1.1") | {"retryCount": 1}


def test_a_skipped_task_has_its_reason() -> None:
    skipped = entry(apply(fresh(), Skipped("2.1", AT, "later")), "2.1")
    assert (skipped["status"], skipped["reason"], skipped["completedAt"]) == ("skipped", "later", NOW)
    assert skipped["duration"] is None
    assert entry(apply(fresh(), Skipped("2.1", AT)), "2.1")["reason"] is None


def test_what_was_in_progress_may_be_pending_as_before() -> None:
    assert entry(apply(fresh(), Started("1.1", AT), Reset("1.1", after(1))), "1.1") == entry(fresh(), "1.1")


def test_figures_follow_every_change() -> None:
    status = apply(fresh(), Started("2.1", AT), Skipped("1.1", AT), Started("1.3", AT), Failed("1.3", AT, "x"))
    assert status.raw["summary"] == {
        "totalTasks": 4,
        "completed": 1,
        "pending": 0,
        "in_progress": 1,
        "failed": 1,
        "skipped": 1,
    }
    assert status.raw["currentPhase"] == "Phase 2: Check"


def test_a_summary_that_names_the_current_phase_goes_on_to_do_so() -> None:
    others = known(tasks=[{"id": "1.1", "phase": "Phase 1: A"}], summary={"currentPhase": "old", "extra": 1})
    assert apply(others, Started("1.1", AT)).raw["summary"]["currentPhase"] == "Phase 1: A"
    assert "currentPhase" not in fresh().raw["summary"]


def test_a_change_leaves_the_status_before_it_alone() -> None:
    before = fresh()
    apply(before, Started("1.1", AT), RunStarted("run-1", AT))
    assert before == fresh()


def test_changes_told_twice_change_nothing_more() -> None:
    told = (
        RunStarted("run-1", AT),
        Started("1.1", AT),
        Failed("1.1", after(1), "Boom"),
        TriedAgain("1.1", after(2), 1),
        Started("1.1", after(3)),
        Completed("1.1", after(4)),
        RunEnded("run-1", after(5)),
    )
    once = apply(fresh(), *told)
    assert apply(once, *told) == once


def test_a_change_about_an_unknown_task_changes_no_task() -> None:
    assert apply(fresh(), Started("9.9", after(1))).raw["tasks"] == fresh().raw["tasks"]


def test_no_change_is_no_update() -> None:
    assert apply(fresh()) == fresh()


# ── runs ──


def test_a_run_counts_at_its_end_what_ended_since_it_started() -> None:
    status = apply(fresh(), Started("1.1", AT), Completed("1.1", after(1)), RunStarted("run-2", after(2)))
    run = {
        "runId": "run-2",
        "startedAt": time_text(after(2)),
        "completedAt": None,
        "tasksCompleted": 0,
        "tasksFailed": 0,
    }
    assert status.raw["runs"] == [run]
    status = apply(status, Completed("1.3", after(3)), Failed("2.1", after(4), "Boom"), RunEnded("run-2", after(5)))
    ended = run | {"completedAt": time_text(after(5)), "tasksCompleted": 1, "tasksFailed": 1}
    assert status.raw["runs"] == [ended]
    assert apply(status, Retried("2.1", after(6), 1)).raw["runs"] == [ended]


def test_runs_of_others_stay_as_they_are() -> None:
    theirs = {"runId": "run-1", "startedAt": NOW, "tasksCompleted": 7, "tasksFailed": 0, "by": "cli"}
    others = merge(known(runs=[theirs]), plan(DEMO), AT)
    status = apply(others, RunStarted("run-2", after(1)), Completed("1.1", after(2)), RunEnded("run-2", after(3)))
    assert status.raw["runs"][0] == theirs
    assert status.raw["runs"][1]["tasksCompleted"] == 1
    assert apply(others, RunEnded("run-9", after(1))).raw["runs"] == [theirs]


# ── merging ──


def test_a_changed_plan_adds_tasks_drops_tasks_and_keeps_what_is_known() -> None:
    status = apply(fresh(), Started("1.1", AT), Failed("1.1", after(1), "Boom"), TriedAgain("1.1", after(2), 1))
    changed = plan(
        "# Next\n## Phase 4: Late\n- [ ] 1.1 Create it (depends: 4.1)\n- [x] 4.1 New\n- [ ] 1.2 Already done"
    )
    merged = merge(status, changed, after(3))
    assert states(merged) == {"1.1": "pending", "4.1": "completed", "1.2": "completed"}
    assert entry(merged, "1.1")["retryCount"] == 1
    assert entry(merged, "1.1")["lastError"] == "Boom"
    assert (entry(merged, "1.1")["phase"], entry(merged, "1.1")["description"]) == ("Phase 4: Late", "Create it")
    assert merged.raw["dependencyGraph"] == {
        "1.1": {"dependencies": ["4.1"], "dependents": [], "inDegree": 1},
        "4.1": {"dependencies": [], "dependents": ["1.1"], "inDegree": 0},
        "1.2": {"dependencies": [], "dependents": [], "inDegree": 0},
    }
    assert merged.raw["sequentialGroups"] == []
    assert (merged.raw["planName"], merged.raw["createdAt"]) == ("Next", NOW)
    assert merged.raw["summary"]["totalTasks"] == 3


@pytest.mark.parametrize(
    "before", [Started("1.1", AT), Failed("1.1", AT, "Boom"), Skipped("1.1", AT, "later"), Reset("1.1", AT)]
)
def test_a_box_that_was_ticked_meanwhile_means_completed(before: Started | Failed | Skipped | Reset) -> None:
    merged = merge(apply(fresh(), before), plan(DEMO.replace("[ ] 1.1", "[x] 1.1")), after(1.234))
    done = entry(merged, "1.1")
    assert (done["status"], done["error"], done["completedAt"]) == ("completed", None, LATER)
    assert "reason" not in done


def test_a_completed_task_stays_completed_whatever_its_box_says() -> None:
    done = apply(fresh(), Started("1.1", AT), Completed("1.1", after(1)))
    assert entry(merge(done, plan(DEMO), after(2)), "1.1") == entry(done, "1.1")


def test_merging_with_the_same_plan_changes_the_time_alone() -> None:
    merged = merge(fresh(), plan(DEMO), after(1.234))
    assert merged.raw == fresh().raw | {"lastUpdatedAt": LATER}


def test_keys_of_others_are_kept_at_every_level() -> None:
    others = known(
        tasks=[{"id": "1.2", "status": "failed", "mine": 1, "executionConstraints": {"mine": 2}}],
        sequentialGroups=[{"taskRange": "1.2-1.3", "mine": 3}],
        dependencyGraph={"1.2": {"mine": 4}},
        runs=[{"runId": "run-1", "mine": 5}],
        summary={"mine": 6},
        mine=7,
    )
    merged = apply(merge(others, plan(DEMO), AT), Started("1.1", AT), RunStarted("run-2", AT))
    raw = msgspec.json.decode(to_bytes(merged))
    assert raw["mine"] == 7
    assert raw["summary"]["mine"] == 6
    assert raw["runs"][0]["mine"] == 5
    assert raw["dependencyGraph"]["1.2"]["mine"] == 4
    assert raw["sequentialGroups"][0]["mine"] == 3
    assert entry(merged, "1.2")["executionConstraints"]["mine"] == 2
    assert entry(merged, "1.2")["mine"] == 1


# ── views ──


def test_a_view_has_descriptions_as_written_when_it_has_the_plan() -> None:
    shown = view(apply(fresh(), RunStarted("run-1", AT)), "demo", "/srv/app/docs/plans/demo.md", plan(DEMO))
    assert (shown.instance_id, shown.plan_name, shown.status) == ("", "demo", "stopped")
    assert shown.plan_path == "/srv/app/docs/plans/demo.md"
    assert shown.started_at == AT.replace(microsecond=678000)
    assert [(task.task_id, task.description) for task in shown.tasks] == [
        ("1.1", "Create the folder"),
        ("1.2", "Already done"),
        ("1.3", "Write the file (depends: 1.1, 1.2)"),
        ("2.1", "Run the checks (depends: 1.3)"),
    ]
    assert view(fresh(), "demo", "/x").tasks[2].description == "Write the file"
    assert view(fresh(), "demo", "/x").started_at is None


def test_a_view_of_a_task_has_its_times_retries_and_last_error() -> None:
    failed = apply(fresh(), Started("1.1", AT), Failed("1.1", after(1), "Boom"), TriedAgain("1.1", after(2), 3))
    shown = entry_view(entry(failed, "1.1"))
    assert (shown.status, shown.retry_count, shown.last_error, shown.started_at) == ("pending", 3, "Boom", None)
    done = entry_view(entry(apply(fresh(), Started("1.1", AT), Completed("1.1", after(1))), "1.1"))
    assert (done.started_at, done.completed_at) == (
        AT.replace(microsecond=678000),
        AT.replace(second=6, microsecond=678000),
    )


# ── acceptance ──


def test_the_demo_worked_through_is_four_tasks_completed_and_the_checks_came_after_the_file() -> None:
    """Example 3 of section 9, without a server: the core's order, one second per task."""
    story = Story(*compiled(DEMO).tasks).start()
    status, seconds = apply(fresh(), RunStarted("run-1", AT)), 0
    while story.ready:
        task_id = story.ready[0]
        story.ok(task_id)
        status = apply(status, Started(task_id, after(seconds)), Completed(task_id, after(seconds + 1)))
        seconds += 1
    status = apply(status, RunEnded("run-1", after(seconds)))
    shown = view(status, "demo", "/x").tasks
    assert totals(shown).completed == 4
    assert progress(shown) == 100.0
    assert current_phase(shown) is None
    assert set(states(status).values()) == {"completed"}
    assert entry(status, "2.1")["startedAt"] >= entry(status, "1.3")["completedAt"]
    assert status.raw["runs"][0]["completedAt"] == time_text(after(seconds))


def test_a_task_skipped_and_retried_is_pending_with_one_retry() -> None:
    """Examples 7 and 8 of section 9, without a server."""
    status = apply(fresh(), Skipped("2.1", AT, "later"), Retried("2.1", after(1), 1))
    shown = view(status, "demo", "/x").tasks[3]
    assert (shown.status, shown.retry_count, shown.completed_at) == ("pending", 1, None)


def test_a_plan_of_no_tasks_has_a_status_too() -> None:
    empty = fresh(phases())
    assert empty.raw["currentPhase"] is None
    assert read(to_bytes(empty)) == empty
