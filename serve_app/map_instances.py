"""The instances of a mapped task, as the journal's row of its run tells them: no actor is asked, no event read.

A row has a letter per task and instance that has had an event, and under `task[]` how many instances there are now;
letters of indexes beyond that are of a longer list before.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.caching import mark_of
from orchestrator.definition import Definition
from orchestrator.errors import Invalid, NotFound
from orchestrator.mapped import index_in, map_of, name_of
from orchestrator.rows import TASK_STATES
from orchestrator.views import MapInstance, MapView


def check_task(definition: Definition, task: str) -> None:
    """There may be such a task in a run: one of the definition, or an instance of a mapped one. Raises NotFound."""
    of = map_of(task)
    if not any(spec.id == of and (spec.expand or of == task) for spec in definition.tasks):
        raise NotFound("task", task)


def check_mapped(definition: Definition, task: str) -> None:
    """Raises Invalid for a task that has no instances."""
    if index_in(task) is not None or not any(spec.id == task and spec.expand for spec in definition.tasks):
        raise Invalid(f"task {task} is not mapped", (("task", "has no instances"),))


def view(
    run_id: str, task: str, letters: Mapping[str, str], states: tuple[str, ...] | None, after: int, limit: int
) -> MapView:
    """Instances in one of `states` (None = any) whose index is above `after`, at most `limit`."""
    told = letters.get(f"{task}[]")
    total = int(told) if told is not None else None
    all_states = [TASK_STATES[letters.get(name_of(task, index), "p")] for index in range(total or 0)]
    counts: dict[str, int] = {}
    for state in all_states:
        counts[state] = counts.get(state, 0) + 1
    wanted = [i for i in range(after + 1, len(all_states)) if states is None or all_states[i] in states]
    page = wanted[:limit]
    return MapView(
        run_id=run_id,
        task=task,
        state=TASK_STATES[letters.get(task, "p")],
        total=total,
        counts=counts,
        items=tuple(_instance(name_of(task, i), i, all_states[i], letters) for i in page),
        next_cursor=str(page[-1]) if len(wanted) > limit else None,
    )


def _instance(name: str, index: int, state: str, letters: Mapping[str, str]) -> MapInstance:
    return MapInstance(index, name, state, letters.get(mark_of(name), "") if state == "succeeded" else "")
