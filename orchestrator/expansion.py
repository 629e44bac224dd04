"""What becomes of a map: when it expands, when it ends and how, and what a retry or a skip of its instances means.

    it may start ──▶ TaskExpanded(count)          its last instance ended ──▶ TaskSucceeded | TaskFailed
    the list cannot be mapped over ──▶ TaskExpanded(0, error), TaskFailed      (a retry of the map looks again)

`proceed` is asked after every step until it says nothing more: one map ends, the next one expands, all in one commit.
An empty list makes a map that succeeds at once, with the value `[]`: a reduce over nothing is well defined, and a run
with no work to do ends like one with a little. (Airflow skips the map, and with it what comes after.)

A map fails when more instances failed than it tolerates; before it says so all of them have ended. A person may retry
or skip the map, or one of its instances; the map of an instance that goes on goes on as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from orchestrator import events as e
from orchestrator import mapped
from orchestrator.errors import Conflict
from orchestrator.mapped import RUN_INSTANCES_MAX, Table, WrongList
from orchestrator.run_state import Run, RunState
from orchestrator.task import FAILURES, TERMINAL, TaskState
from orchestrator.trigger import holds

#: instances named in an error
_NAMES_MAX = 5
#: an instance in these runs again when its map is retried
_AGAIN = FAILURES | {TaskState.CANCELLED, TaskState.UPSTREAM_FAILED}


def next_step(run: Run, now: datetime) -> e.Event | None:
    """The next event of a map that may expand, or whose instances have all ended."""
    for position in sorted(run.unfolding):
        state = run.tasks[position].state
        if state is TaskState.PENDING and _expands(run) and holds(run, position):
            return _expanded(run, position, now)
        if state is TaskState.RUNNING and not run.maps[position].open:
            return _closed(run, position, run.maps[position], now)
    return None


def _expands(run: Run) -> bool:
    """Also while it is paused: that starts nothing."""
    return run.state in (RunState.RUNNING, RunState.PAUSED) and run.overdue is None


def _expanded(run: Run, position: int, now: datetime) -> e.TaskExpanded:
    name, attempt = run.compiled.graph.names[position], run.tasks[position].attempt + 1
    table = run.maps.get(position)
    try:
        items = mapped.items_of(run, position)
        _check_room(run, table, items.count)
    except WrongList as wrong:
        return e.TaskExpanded(at=now, task=name, attempt=attempt, error=f"WrongList: {wrong}")
    kept = table is not None and not table.error and (table.count, table.items.origin) == (items.count, items.origin)
    return e.TaskExpanded(at=now, task=name, attempt=attempt, count=items.count, kept=kept)


def _check_room(run: Run, table: Table | None, count: int) -> None:
    new = max(0, count - len(table.positions) if table else count)
    if len(run.hosts) + new > RUN_INSTANCES_MAX:
        raise WrongList(
            f"all maps of a run can have {RUN_INSTANCES_MAX} instances; with {count} more there would be more"
        )


def _closed(run: Run, position: int, table: Table, now: datetime) -> e.Event:
    name, attempt = run.compiled.graph.names[position], run.tasks[position].attempt
    error = table.error or _failure(run, position, table)
    if error is None:
        return e.TaskSucceeded(at=now, task=name, attempt=attempt)
    return e.TaskFailed(at=now, task=name, attempt=attempt, error=error)


def _failure(run: Run, position: int, table: Table) -> str | None:
    """Why it fails, its instances having ended."""
    failed = [i for i in table.live if run.tasks[i].state in FAILURES]
    if len(failed) <= tolerated(run.compiled.specs[position].tolerated_failures, table.count):
        return None
    names = [run.compiled.graph.names[i] for i in failed[:_NAMES_MAX]]
    more = f" and {len(failed) - _NAMES_MAX} more" if len(failed) > _NAMES_MAX else ""
    return f"MapFailed: {len(failed)} of {table.count} instances failed: {', '.join(names)}{more}"


def tolerated(limit: int | str, count: int) -> int:
    """How many of `count` instances may fail; `limit` is a number, or a percentage such as `5%`."""
    return limit if isinstance(limit, int) else int(count * float(limit.removesuffix("%")) / 100 + 1e-9)


# ── by hand ──


def host_of(run: Run, position: int) -> int:
    """The map of an instance; any other task itself."""
    return run.hosts[position - run.compiled.size] if position >= run.compiled.size else position


def cut_off(run: Run, position: int) -> bool:
    """Was a cancelled task cancelled with the run? (An instance also with its map.)"""
    return run.tasks[host_of(run, position)].state is TaskState.CANCELLED


def failed_in_run(run: Run) -> set[int]:
    """Tasks that a retry of the whole run is about: instances whose failure counts, or may still."""
    size = run.compiled.size
    again = FAILURES | {TaskState.CANCELLED}
    return {
        i
        for i, task in enumerate(run.tasks)
        if task.state in again and (i < size or run.tasks[run.hosts[i - size]].state is TaskState.RUNNING)
    }


def with_maps(run: Run, positions: set[int]) -> set[int]:
    """`positions` of tasks to be reset, with the failed instances of maps, and maps of instances. Raises Conflict."""
    out = set(positions)
    for host, table in run.maps.items():
        if host in positions:
            out.update(i for i in table.live if run.tasks[i].state in _AGAIN)
        elif not positions.isdisjoint(table.live) and run.tasks[host].state in TERMINAL:
            _must_not_be_skipped(run, host)
            out.add(host)
    return out


def _must_not_be_skipped(run: Run, host: int) -> None:
    if run.tasks[host].state is TaskState.SKIPPED:
        raise Conflict(f"task {run.compiled.graph.names[host]} of run {run.run_id} was skipped, with its instances")


def set_up_anew(run: Run, positions: Iterable[int]) -> set[int]:
    """All instances of those of `positions` that are maps: what they set up is gone."""
    return {i for host in positions if host in run.maps for i in run.maps[host].live}


def judged_again(run: Run, position: int) -> int | None:
    """The map that has failed, when `position` is one of its instances: a skip of that may change it."""
    host = host_of(run, position)
    return host if host != position and run.tasks[host].state in FAILURES else None
