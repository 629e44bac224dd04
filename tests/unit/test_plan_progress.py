"""Figures of a plan, from its tasks."""

from __future__ import annotations

import pytest

from orchestrator.instance_views import PlanTaskView
from orchestrator.plan_progress import PhaseTotals, Totals, current_phase, phase_totals, progress, totals


def tasks(*listed: str) -> list[PlanTaskView]:
    """`tasks("1.1 completed", "2.1 pending")`; the phase is that of the id."""
    return [task(*one.split()) for one in listed]


def task(task_id: str, status: str, phase: str | None = "") -> PlanTaskView:
    number = task_id.split(".")[0]
    return PlanTaskView(
        task_id=task_id, description="", status=status, phase=f"Phase {number}: P{number}" if phase == "" else phase
    )


def test_totals_count_every_status() -> None:
    counted = totals(
        tasks("1.1 completed", "1.2 pending", "1.3 in_progress", "1.4 failed", "1.5 skipped", "1.6 failed")
    )
    assert counted == Totals(total=6, completed=1, pending=1, in_progress=1, failed=2, skipped=1)


@pytest.mark.parametrize(
    ("listed", "percent"),
    [
        ([], 0.0),
        (["1.1 skipped"], 0.0),
        (["1.1 completed", "1.2 pending"], 50.0),
        (["1.1 completed", "1.2 skipped", "1.3 failed"], 1 / 3 * 100),
        (["1.1 completed", "1.2 completed"], 100.0),
    ],
)
def test_progress_is_the_share_of_completed_tasks_unrounded(listed: list[str], percent: float) -> None:
    assert progress(tasks(*listed)) == percent


@pytest.mark.parametrize(
    ("listed", "phase"),
    [
        (["1.1 pending", "2.1 pending"], "Phase 1: P1"),
        (["1.1 pending", "2.1 in_progress"], "Phase 2: P2"),
        (["10.1 in_progress", "9.1 in_progress"], "Phase 9: P9"),
        (["1.1 completed", "2.1 pending"], "Phase 2: P2"),
        (["1.1 failed", "2.1 skipped"], None),
        ([], None),
    ],
)
def test_the_current_phase_is_the_earliest_in_progress_else_the_earliest_pending(
    listed: list[str], phase: str | None
) -> None:
    assert current_phase(tasks(*listed)) == phase


def test_the_status_of_the_contract_shows_its_phases() -> None:
    shown = phase_totals(
        [
            task("1.1", "completed", "Phase 1: Setup"),
            task("1.2", "completed", "Phase 1: Setup"),
            task("1.3", "pending", "Phase 1: Setup"),
            task("2.1", "pending", "Phase 2: Check"),
        ]
    )
    assert shown == (
        PhaseTotals(1, "Setup", total=3, completed=2, pending=1, failed=0, is_current=True),
        PhaseTotals(2, "Check", total=1, completed=0, pending=1, failed=0),
    )


def test_phases_are_shown_by_number_and_have_no_place_for_what_is_in_progress_or_skipped() -> None:
    shown = phase_totals(tasks("10.1 pending", "2.1 in_progress", "2.2 skipped", "2.3 failed"))
    assert shown == (PhaseTotals(2, "P2", 3, 0, 0, 1, True), PhaseTotals(10, "P10", 1, 0, 1, 0))


def test_a_phase_that_another_program_named_has_the_number_of_its_tasks() -> None:
    named = [task("3.1", "pending", "Setup"), task("x", "pending", "Misc"), task("1.1", "pending", None)]
    assert [(phase.number, phase.title) for phase in phase_totals(named)] == [(0, "Misc"), (3, "Setup")]
    assert current_phase(named) == "Misc"


def test_no_phase_is_current_when_all_is_done() -> None:
    assert [phase.is_current for phase in phase_totals(tasks("1.1 completed", "2.1 failed"))] == [False, False]
