"""How far a plan is, as figures: everything here follows from the tasks of an `InstanceStatus`.

Skipped tasks do not count as completed. The current phase is the earliest one, by number, with a task in
progress; failing that, the earliest with a pending task. Source: contracts/instances.md, section 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.instance_views import PlanTaskView

_PHASE = re.compile(r"Phase\s+([0-9]{1,9})(?::\s*(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Totals:
    """Tasks by status."""

    total: int = 0
    completed: int = 0
    pending: int = 0
    in_progress: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class PhaseTotals:
    """Tasks of one phase."""

    number: int
    #: without `Phase N: `
    title: str
    total: int
    completed: int
    pending: int
    failed: int
    is_current: bool = False


def totals(tasks: Sequence[PlanTaskView]) -> Totals:
    """How many tasks are in which status."""
    by_status = Counter(task.status for task in tasks)
    return Totals(
        total=len(tasks),
        completed=by_status["completed"],
        pending=by_status["pending"],
        in_progress=by_status["in_progress"],
        failed=by_status["failed"],
        skipped=by_status["skipped"],
    )


def progress(tasks: Sequence[PlanTaskView]) -> float:
    """Completed tasks in percent, unrounded; 0.0 when there are none at all."""
    return totals(tasks).completed / len(tasks) * 100 if tasks else 0.0


def current_phase(tasks: Iterable[PlanTaskView]) -> str | None:
    """The phase string of the phase that is worked on, or that is next."""
    current = _current(tasks)
    return None if current is None else current.phase


def phase_totals(tasks: Iterable[PlanTaskView]) -> tuple[PhaseTotals, ...]:
    """The phases that have tasks, by number. Tasks without a phase are in none."""
    by_number: dict[int, list[PlanTaskView]] = {}
    for task in tasks:
        if task.phase is not None:
            by_number.setdefault(_number(task), []).append(task)
    current = _current(task for members in by_number.values() for task in members)
    number = None if current is None else _number(current)
    return tuple(_phase_totals(n, by_number[n], n == number) for n in sorted(by_number))


def phase_order(phase: str) -> tuple[int, str]:
    """Sort key of phase strings: by number."""
    found = _PHASE.match(phase)
    return (int(found[1]) if found else 0), phase


def _phase_totals(number: int, tasks: Sequence[PlanTaskView], is_current: bool) -> PhaseTotals:
    counts = totals(tasks)
    title = _title(tasks[0].phase or "")
    return PhaseTotals(number, title, counts.total, counts.completed, counts.pending, counts.failed, is_current)


def _current(tasks: Iterable[PlanTaskView]) -> PlanTaskView | None:
    """The first task of the current phase that makes it the current one."""
    open_tasks = [task for task in tasks if task.phase is not None and task.status in ("in_progress", "pending")]
    return min(open_tasks, key=lambda task: (task.status == "pending", _number(task)), default=None)


def _number(task: PlanTaskView) -> int:
    """Of its phase; a phase string without one has the number that its tasks' ids begin with."""
    found = _PHASE.match(task.phase or "")
    first = found[1] if found else task.task_id.split(".")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) < 10 else 0


def _title(phase: str) -> str:
    found = _PHASE.fullmatch(phase)
    return found[2] if found and found[2] else phase
