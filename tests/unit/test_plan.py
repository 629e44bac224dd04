"""What a trigger would do: actions, counts, hash, order."""

from __future__ import annotations

import hashlib
from datetime import date

import msgspec
import pytest

from orchestrator.definition import Definition, TaskSpec, Window
from orchestrator.plan import RESTARTS, plan, plan_window, start_order
from orchestrator.run_state import ENDED, RunState
from orchestrator.starts import Plan, Trigger
from orchestrator.windows import backfill_windows, manual_window

SALES = Definition(
    dag_id="sales_gdp",
    owner="team-data",
    tasks=(TaskSpec(id="extract"), TaskSpec(id="transform", depends_on=("extract",)), TaskSpec(id="other")),
)
WINDOW = Window("2025-10-01", "2025-10-01")
ACTIVE = [state for state in RunState if state not in ENDED]


def october(first: int, last: int) -> list[Window]:
    return backfill_windows(None, "UTC", date(2025, 10, first), date(2025, 10, last), 100)


def trigger(**changes: object) -> Trigger:
    asked = Trigger(dag_id="sales_gdp", run_type="backfill", start="2025-10-03", end="2025-10-05")
    return msgspec.structs.replace(asked, **changes)


def planned(existing: dict[str, tuple[str, str]] | None = None, version: int = 1, **changes: object) -> Plan:
    return plan(SALES, version, trigger(**changes), october(3, 5), existing or {})


def standing(*states: str) -> dict[str, tuple[str, str]]:
    """Runs in those states for October 3, 4, …"""
    return {w.key(): (f"run_{i}", state) for i, (w, state) in enumerate(zip(october(3, 31), states, strict=False))}


def test_a_window_without_a_run_is_created_whatever_the_policy() -> None:
    for reprocess in RESTARTS:
        assert plan_window(WINDOW, None, reprocess).action == "create"
        assert plan_window(WINDOW, None, reprocess).run_id is None


@pytest.mark.parametrize("state", ACTIVE)
@pytest.mark.parametrize("reprocess", sorted(RESTARTS))
def test_an_active_run_is_adopted_whatever_the_policy(state: RunState, reprocess: str) -> None:
    assert plan_window(WINDOW, ("run_1", state.value), reprocess).action == "adopt"


@pytest.mark.parametrize(
    ("reprocess", "restarted"),
    [
        ("none", set()),
        ("failed", {"failed", "timed_out", "cancelled"}),
        ("completed", {state.value for state in ENDED}),
    ],
)
def test_the_policy_says_which_ended_runs_restart(reprocess: str, restarted: set[str]) -> None:
    actions = {state.value: plan_window(WINDOW, ("run_1", state.value), reprocess) for state in ENDED}
    assert {state for state, window in actions.items() if window.action == "restart"} == restarted
    assert {state for state, window in actions.items() if window.action == "skip"} == set(actions) - restarted
    assert {window.run_id for window in actions.values()} == {"run_1"}


def test_acceptance_example_5() -> None:
    answer = planned(standing("succeeded", "succeeded"))
    assert answer.counts == {"total": 3, "create": 1, "restart": 0, "skip": 2}
    assert [(w.window.start, w.action, w.run_id) for w in answer.windows] == [
        ("2025-10-03", "skip", "run_0"),
        ("2025-10-04", "skip", "run_1"),
        ("2025-10-05", "create", None),
    ]
    assert answer.plan_hash.startswith("sha256:")
    assert len(answer.plan_hash) == len("sha256:") + 64
    assert [set(group) for group in answer.task_groups] == [{"extract", "other"}, {"transform"}]


def test_an_adopted_window_counts_as_skip() -> None:
    answer = planned(standing("running", "failed"), reprocess="failed")
    assert [window.action for window in answer.windows] == ["adopt", "restart", "create"]
    assert answer.counts == {"total": 3, "create": 1, "restart": 1, "skip": 1}


def test_the_same_plan_has_the_same_hash_and_any_other_another() -> None:
    some = standing("failed")
    reference = planned(some).plan_hash
    assert planned(some).plan_hash == reference
    others = [
        planned(some, version=2),
        planned(some, reprocess="failed"),
        planned(some, reprocess="completed"),
        planned(some, run_backwards=True),
        planned(some, start="2025-10-02"),
        planned(some, end="2025-10-06"),
        planned(standing()),
        plan(msgspec.structs.replace(SALES, dag_id="other"), 1, trigger(), october(3, 5), some),
        plan(SALES, 1, trigger(), october(3, 4), some),
    ]
    assert len({reference, *(other.plan_hash for other in others)}) == len(others) + 1


def test_a_plan_outlives_the_end_of_a_run_that_it_leaves_alone() -> None:
    assert planned(standing("running")).plan_hash == planned(standing("failed")).plan_hash
    before = planned(standing("running"), reprocess="failed")
    assert before.plan_hash == planned(standing("succeeded"), reprocess="failed").plan_hash
    assert before.plan_hash != planned(standing("failed"), reprocess="failed").plan_hash


def test_the_hash_is_over_canonical_json() -> None:
    text = (
        '{"dag_id":"sales_gdp","from":"2025-10-03","reprocess":"none","run_backwards":false,"to":"2025-10-05","version":1,'
        '"windows":[["2025-10-03","2025-10-03","create"],["2025-10-04","2025-10-04","create"],["2025-10-05","2025-10-05","create"]]}'
    )
    assert planned().plan_hash == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_windows_are_listed_by_date_and_start_in_the_order_asked_for() -> None:
    answer = planned(run_backwards=True)
    assert [window.window for window in answer.windows] == october(3, 5)
    assert [w.window for w in start_order(answer.windows, False)] == october(3, 5)
    assert [w.window for w in start_order(answer.windows, True)] == october(3, 5)[::-1]


def test_a_manual_run_without_a_window_is_one_creation() -> None:
    answer = plan(SALES, 1, Trigger(dag_id="sales_gdp"), [], {})
    assert answer.windows == ()
    assert answer.counts == {"total": 1, "create": 1, "restart": 0, "skip": 0}
    assert answer.run_type == "manual"


def test_a_manual_run_meets_the_run_of_its_window() -> None:
    window = manual_window("2025-10-03", "2025-10-03")
    assert window is not None
    asked = Trigger(dag_id="sales_gdp", start=window.start, end=window.end, reprocess="completed")
    answer = plan(SALES, 1, asked, [window], standing("succeeded"))
    assert [(w.action, w.run_id) for w in answer.windows] == [("restart", "run_0")]
    assert answer.counts == {"total": 1, "create": 0, "restart": 1, "skip": 0}
