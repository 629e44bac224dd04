"""From rows of the journal to what people look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from actors.hosted import instant
from orchestrator import codec
from orchestrator.caching import mark_of
from orchestrator.calls import CALL
from orchestrator.deadlines import reason_of
from orchestrator.definition import Definition, RunType, Window
from orchestrator.events import Counts
from orchestrator.rows import TASK_LETTERS, TASK_STATES, TERMINAL, ChildRow, DagRow, RunRow
from orchestrator.views import CalledView, DagView, LastDropped, RunView, WindowView

#: windows a backfill shows; the rest is listed by `parent_run_id`
WINDOWS_SHOWN = 1000
_FAILED = ("failed", "timed_out", "quarantined")
#: letters of tasks that wait without a worker
_WAITING = frozenset({TASK_LETTERS["waiting"], TASK_LETTERS["suspended"]})
_LIVE = ("running", "paused", "waiting", "cancelling")


def _instant(ms: int | None) -> datetime | None:
    return None if ms is None else instant(ms)


def dag_view(row: DagRow) -> DagView:
    """A DAG; while it is paused nothing is next."""
    return DagView(
        definition=codec.decode_definition(row.definition),
        version=row.version,
        paused=row.paused,
        created_at=instant(row.created_ms),
        updated_at=instant(row.updated_ms),
        next_run_at=None if row.paused else _instant(row.next_due_ms),
        run_counts=row.run_counts,
        dropped_fires=row.dropped,
        last_dropped=LastDropped(instant(row.dropped_ms), row.dropped_why) if row.dropped_ms is not None else None,
    )


def run_view(row: RunRow) -> RunView:
    """A run as lists show it."""
    return RunView(
        run_id=row.run_id,
        dag_id=row.dag_id,
        dag_version=row.dag_version,
        run_type=cast(RunType, row.run_type),
        state=row.state,
        window=row.window,
        attempts=row.attempts,
        created_at=instant(row.created_ms),
        started_at=_instant(row.started_ms),
        finished_at=_instant(row.finished_ms),
        sla_deadline=_instant(row.sla_ms),
        parent_run_id=row.parent or (row.caller[0] if row.caller else None),
        parent_task=row.caller[1] if row.caller else None,
        error=row.error or None,
        triggered_by=codec.decode_causes(row.because),
        max_active_runs=row.max_active_runs,
        sla_missed="" in row.sla_missed,
        tasks_sla_missed=tuple(filter(None, row.sla_missed)),
        timed_out=reason_of(row.error) if row.state == "timed_out" else None,
        actor=row.owner,
    )


def calls(definition: Definition) -> int:
    """How many of its tasks call other DAGs."""
    return sum(task.type == CALL for task in definition.tasks)


def called_views(rows: Mapping[str, RunRow]) -> dict[str, CalledView]:
    """The runs that tasks called, by task."""
    return {task: CalledView(row.run_id, row.dag_id, row.state) for task, row in rows.items()}


def counts_view(counts: Mapping[str, int]) -> Counts:
    """Windows by core state, in the words of a backfill's counts; each window counts once."""
    return Counts(
        total=sum(counts.values()),
        queued=counts.get("queued", 0),
        running=sum(counts.get(state, 0) for state in _LIVE),
        succeeded=counts.get("succeeded", 0),
        failed=sum(counts.get(state, 0) for state in _FAILED),
        cancelled=counts.get("cancelled", 0),
        skipped=counts.get("skipped", 0),
    )


def window_views(children: Sequence[ChildRow]) -> tuple[WindowView, ...]:
    """The first windows by date."""
    return tuple(
        WindowView(Window.of_key(child.window_key), child.run_id, "skipped" if child.kept else child.state)
        for child in children[:WINDOWS_SHOWN]
    )


def task_states(names: Sequence[str], letters: Mapping[str, str]) -> dict[str, str]:
    """Every task of a run, in the author's order."""
    return {name: TASK_STATES[letters.get(name, "p")] for name in names}


def cached(names: Sequence[str], letters: Mapping[str, str]) -> dict[str, str]:
    """Task -> the run that computed its result, of those tasks that use one."""
    found = ((name, letters.get(mark_of(name), "")) for name in names if letters.get(name) == "d")
    return {name: run_id for name, run_id in found if run_id}


def waits(letters: Mapping[str, str]) -> bool:
    """Does some task wait without a worker?"""
    return not _WAITING.isdisjoint(letters.values())


def backfill_tasks(
    names: Sequence[str], letters: Mapping[str, Mapping[str, int]], counts: Counts, state: str
) -> dict[str, str]:
    """Each task over all windows that were not kept."""
    windows = counts.total - counts.skipped
    return {name: _over_windows(letters.get(name, {}), windows, state in TERMINAL) for name in names}


def _over_windows(letters: Mapping[str, int], windows: int, ended: bool) -> str:
    done = letters.get("d", 0) + letters.get("s", 0)
    if letters.get("f") or letters.get("t"):
        return "failed"
    if any(letters.get(letter) for letter in "rezw"):
        return "running"
    if done >= windows:
        return "succeeded"
    if ended:  # nothing is running any more: say why it is not done everywhere
        return "upstream_failed" if letters.get("u") else "cancelled"
    return "running" if done else "pending"
