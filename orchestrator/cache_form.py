"""Keys of a task that say how its result is used again; what they mean is told in `caching.py`.

    "cache_ttl_s": 3600            for so long, in seconds of wall time, counted from when it was accepted
    "cache_key": "rates-{{ from }}" shared by all DAGs of the tenant that say the same; without it: by the DAG's runs
    "cache_version": "2"           of what the task does: another one, another result
    "cache_window": true           the window, partition and index in a map are part of the key

Here is which tasks may have them.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.definition import IN_CLUSTER_TYPES, WAITING_TYPES, Definition, TaskSpec
from orchestrator.faults import Fault

#: keys of a task beside `cache_ttl_s`, without which they mean nothing
MORE = ("cache_key", "cache_version", "cache_window")


def faults(definition: Definition) -> Iterator[Fault]:
    """What is wrong with these keys."""
    tasks = definition.tasks
    if not any(task.cache_ttl_s is not None or _more(task) for task in tasks):
        return
    undone = {name for task in tasks for name in (*task.teardown_of, *filter(None, (task.compensates,)))}
    for position, task in enumerate(tasks):
        where = f"tasks/{position}"
        if task.cache_ttl_s is None:
            yield from ((f"{where}/{key}", "needs cache_ttl_s") for key in _more(task))
        elif problem := _unusable(task, undone):
            yield f"{where}/cache_ttl_s", problem


def _more(task: TaskSpec) -> list[str]:
    return [key for key in MORE if getattr(task, key)]


def _unusable(task: TaskSpec, undone: set[str]) -> str | None:
    """Why its result cannot stand for its work."""
    if task.type in WAITING_TYPES:
        return "a task that waits has no result to keep"
    if task.type not in IN_CLUSTER_TYPES:
        return f"is for tasks that workers of the cluster run, not for type {task.type!r}"
    if task.teardown_of or task.compensates is not None:
        return "a teardown or a compensation has to run"
    return "another task undoes what it does, so it has to run" if task.id in undone else None
