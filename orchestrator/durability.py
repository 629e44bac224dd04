"""Which tasks may keep what they return in memory: `"durability": "memory"`.

What it means is told in `actors/artifacts.py` (where values are) and `lost_values.py` (what happens when one is gone).
Refused is what could not be computed again by running one task: a list that others were made from, a result that
stands for those of other runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.definition import IN_CLUSTER_TYPES, WAITING_TYPES, Definition, TaskSpec
from orchestrator.faults import Fault


def faults(definition: Definition) -> Iterator[Fault]:
    """What is wrong with this key."""
    if all(task.durability == "stored" for task in definition.tasks):
        return
    lists = {source for task in definition.tasks for source in task.expand.values() if isinstance(source, str)}
    for position, task in enumerate(definition.tasks):
        if task.durability != "stored" and (problem := _unusable(task, lists)) is not None:
            yield f"tasks/{position}/durability", problem


def _unusable(task: TaskSpec, lists: set[str]) -> str | None:
    if task.type in WAITING_TYPES:
        return "a task that waits returns nothing large"
    if task.type not in IN_CLUSTER_TYPES:
        return f"is for tasks that workers of the cluster run, not for type {task.type!r}"
    if task.cache_ttl_s is not None:
        return "other runs may use its result, so it has to be stored"
    return "a mapped task goes over what it returns, so it has to be stored" if task.id in lists else None
