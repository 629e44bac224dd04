"""What happens when an attempt finds that something its dependencies returned is gone: who made that runs again.

    attempt reports `missing` ──▶ TaskReturned(missing) of itself, TaskReset(lost) of each producer
                                  the producer succeeds with a new value ──▶ the attempt's task starts

It costs the task no retry: none of its code has begun. Values are lost with a node or a reboot when they are kept in
memory, and stored ones when somebody removes files. Only the producers of what is missing run again, in the state in
which they are `succeeded`; should one find what *it* needs missing, the same happens a step further up, so a chain of
lost values is computed again from the last one that is there. Who has read its inputs already is not disturbed.

`Run.lost` remembers per producer which of its values were lost, so that tasks that report the same loss later just wait
with the others; after LOST_MAX losses nobody is run again for it, and the attempt has failed like any other. So the
attempts that losses cause are at most LOST_MAX for each task of the run, plus one per dependent and loss; a person who
retries a task that failed of it starts the count anew.

It is an ordinary failure, too, where running a producer again could do harm or would not help: in a run that only
cleans up, for a teardown or a compensation, for a setup whose teardown is under way, for the list of a mapped task
(its instances were made from that list; `durability.py` has such lists stored).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.expansion import host_of
from orchestrator.messages import Report, Value
from orchestrator.run_state import Run, RunState, winds_up
from orchestrator.task import TaskState

#: values of one task that are computed again
LOST_MAX = 3


def producers(run: Run, position: int, report: Report) -> dict[int, str] | None:
    """Who is to run again for the attempt at `position`, and which artifact is lost; None = it has failed instead.

    Empty when it has only to wait, or to be started with what is there by now.
    """
    if not _may(run, position):
        return None
    known = {value.artifact: (at, value) for at, value in _inputs(run, position) if value.artifact is not None}
    again: dict[int, str] = {}
    for name in report.missing:
        if name in known and run.tasks[known[name][0]].state is TaskState.SUCCEEDED:
            at = known[name][0]
            if len(run.lost.get(at, ())) >= LOST_MAX:
                return None
            again[at] = name
        elif not _superseded(run, position, name):
            return None
    return again


def _may(run: Run, position: int) -> bool:
    if run.agenda is not None or run.state not in (RunState.RUNNING, RunState.PAUSED) or winds_up(run) or run.undoing:
        return False
    return run.compiled.advances(host_of(run, position))


def _superseded(run: Run, position: int, name: str) -> bool:
    """Is it a value of a dependency that is known to be lost, or that a later attempt has replaced?"""
    for at in _sources(run, position):
        if name in run.lost.get(at, ()):
            return True
        task, attempt = run.compiled.graph.names[at], run.tasks[at].attempt
        head, _, number = name.rpartition(".")
        if head == f"{run.run_id}/{task}" and number.isdecimal() and int(number) < attempt:
            return True
    return False


def _sources(run: Run, position: int) -> Iterator[int]:
    """Tasks, and instances of mapped ones, whose values it takes."""
    index = run.compiled.graph.index
    for producer in run.compiled.specs[position].inputs.values():
        at = index[producer]
        yield at
        if at in run.maps:
            yield from run.maps[at].live


def _inputs(run: Run, position: int) -> Iterable[tuple[int, Value]]:
    return ((at, run.values[at]) for at in _sources(run, position) if at in run.values)
