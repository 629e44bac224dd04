"""How a task says that it is mapped, as JSON has it: what is checked beyond its form.

    "expand": {"item": "listed"}                   one instance per element of what task `listed` returns
    "expand": {"item": ["a", "b"]}                 ... of this list
    "expand": {"item": {"$param": "names"}}        ... of this param of the run, else of its `default`
    "max_active": 4                                instances that run at a time
    "tolerated_failures": 10 | "5%"                instances that may fail

The key of `expand` is the path of a parameter, as in `inputs`. There is one: a product of lists is made by a task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.binding import PARAM
from orchestrator.definition import WAITING_TYPES, TaskSpec
from orchestrator.faults import Fault
from orchestrator.mapped import INSTANCES_MAX

#: mapped tasks of a DAG
MAPS_MAX = 100
_PERCENTAGE = re.compile(r"(100|\d{1,2})(\.\d{1,3})?%")


def misused(tasks: Sequence[TaskSpec]) -> Iterator[Fault]:
    """What is wrong with the mapped tasks among `tasks`."""
    maps = [task.id for task in tasks if task.expand]
    if len(maps) > MAPS_MAX:
        yield "tasks", f"at most {MAPS_MAX} of them may be mapped"
    for position, task in enumerate(tasks):
        for field, problem in _faults(task):
            yield f"tasks/{position}/{field}", problem


def _faults(task: TaskSpec) -> Iterator[Fault]:
    if not task.expand:
        if task.max_active is not None:
            yield "max_active", "is for mapped tasks: it needs expand"
        if task.tolerated_failures:
            yield "tolerated_failures", "is for mapped tasks: it needs expand"
        return
    if len(task.expand) > 1:
        yield "expand", "can have one list only; a task can return the product of several"
    if task.type in WAITING_TYPES:
        yield "expand", "a task that waits cannot be mapped"
    if task.branch:
        yield "branch", "a mapped task cannot be a branch"
    if task.teardown_of:
        yield "teardown_of", "a mapped task cannot be a teardown"
    for path, source in task.expand.items():
        if path in task.inputs:
            yield f"expand/{path}", "is an input as well"
        if (problem := _wrong_source(source)) is not None:
            yield f"expand/{path}", problem
    if isinstance(task.tolerated_failures, str) and not _PERCENTAGE.fullmatch(task.tolerated_failures):
        yield "tolerated_failures", "must be a whole number or a percentage from 0% to 100%"


def _wrong_source(source: object) -> str | None:
    if isinstance(source, str):
        return None  # that there is such a task is checked with the graph
    if isinstance(source, list):
        return f"has {len(source)} elements; at most {INSTANCES_MAX} can be mapped over" if _too_many(source) else None
    if isinstance(source, dict) and isinstance(source.get(PARAM), str) and source.keys() <= {PARAM, "default"}:
        default = source.get("default", [])
        if not isinstance(default, list):
            return "must have a list as default"
        return f"has a default with more than {INSTANCES_MAX} elements" if _too_many(default) else None
    return f'must be the id of a task, a list, or {{"{PARAM}": name}}'


def _too_many(elements: list[object]) -> bool:
    return len(elements) > INSTANCES_MAX
