"""What the parts of a definition mean together: names that exist, rules that fit, a graph without cycles."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from orchestrator import awaited, cache_form, durability, graph, kinds, map_form, policies
from orchestrator.binding import own, place
from orchestrator.definition import WAITING_TYPES, Definition, TaskSpec
from orchestrator.errors import PermanentFailure
from orchestrator.faults import DEPTH_MAX, Fault, refusal
from orchestrator.grouping import within
from orchestrator.needs import template_fault

#: of a DAG
TEARDOWNS_MAX = 100
COMPENSATIONS_MAX = 1000


def check_meaning(definition: Definition) -> None:
    """Raises Invalid about everything that is wrong."""
    from orchestrator.fires import timetable_of

    timetable_of(definition, "")
    faults = [
        (f"tasks/{position}/{field}", problem)
        for position, task in enumerate(definition.tasks)
        for field, problem in (*kinds.faults(task), *_misplaced(task), *_misnamed(task))
    ]
    faults += _misused_teardowns(definition.tasks)
    faults += map_form.misused(definition.tasks)
    faults += policies.faults(definition)
    faults += cache_form.faults(definition)
    faults += awaited.faults(definition)
    faults += durability.faults(definition)
    faults += _misused_compensations(definition.tasks)
    faults = faults or list(_misnamed_ways(definition.tasks))
    if faults:
        raise refusal(faults)
    graph.check(definition.tasks)


def _misused_teardowns(tasks: tuple[TaskSpec, ...]) -> Iterator[Fault]:
    """Teardowns end what their setups began: they obey no other rule, and nothing else comes after them."""
    teardowns = {task.id for task in tasks if task.teardown_of}
    branches = {task.id for task in tasks if task.branch} if teardowns else set()
    if len(teardowns) > TEARDOWNS_MAX:
        yield "tasks", f"at most {TEARDOWNS_MAX} of them may be teardowns"
    for position, task in enumerate(tasks):
        where = f"tasks/{position}"
        if not task.teardown_of:
            if task.on_failure_fail_run:
                yield f"{where}/on_failure_fail_run", "is for teardowns: it needs teardown_of"
            if teardowns and (after := teardowns.intersection(graph.needs(task))):
                yield f"{where}/depends_on", f"{min(after)!r} is a teardown: only teardowns may come after it"
            continue
        if task.trigger_rule != "all_success":
            yield f"{where}/trigger_rule", "a teardown has a rule of its own"
        if task.branch:
            yield f"{where}/branch", "a teardown cannot be a branch"
        for number, name in enumerate(task.teardown_of):
            if name in teardowns or name in branches:
                kind = "teardown" if name in teardowns else "branch"
                yield f"{where}/teardown_of/{number}", f"{name!r} is a {kind} and cannot be a setup"


def _misnamed_ways(tasks: tuple[TaskSpec, ...]) -> Iterator[Fault]:
    """Choices of approvals lead to tasks that come directly after them."""
    for position, task in enumerate(tasks):
        if task.type != "core.approval" or "branches" not in task.params:
            continue
        below = {other.id for other in tasks if task.id in graph.needs(other)}
        named = {name: choice for choice, names in own(task.params["branches"]).items() for name in names}
        for name in (name for name in named if not below.intersection((name, within(task.group, name)))):
            yield f"tasks/{position}/params/branches/{named[name]}", f"{name!r} is not a direct dependent"


def _misused_compensations(tasks: tuple[TaskSpec, ...]) -> Iterator[Fault]:
    """A compensation undoes one task that nothing else undoes; the end of the run starts it, and nothing follows it."""
    undoes = {task.id: task.compensates for task in tasks if task.compensates is not None}
    if not undoes:
        return
    if len(undoes) > COMPENSATIONS_MAX:
        yield "tasks", f"at most {COMPENSATIONS_MAX} of them may be compensations"
    teardowns = {task.id for task in tasks if task.teardown_of}
    first: dict[str, str] = {}
    for position, task in enumerate(tasks):
        where, undone = f"tasks/{position}", task.compensates
        if after := undoes.keys() & set(graph.needs(task)) - {undone}:
            yield f"{where}/depends_on", f"{min(after)!r} is a compensation: no task may come after it"
        if undone is None:
            continue
        if task.trigger_rule != "all_success":
            yield f"{where}/trigger_rule", "a compensation has a rule of its own"
        if task.branch or task.teardown_of:
            yield f"{where}/compensates", f"a {'branch' if task.branch else 'teardown'} cannot be a compensation"
        if task.expand or task.type in WAITING_TYPES:
            kind = "mapped task" if task.expand else "task that waits"
            yield f"{where}/compensates", f"a {kind} cannot be a compensation"
        if undone in undoes or undone in teardowns:
            kind = "compensation" if undone in undoes else "teardown"
            yield f"{where}/compensates", f"{undone!r} is a {kind} and cannot be compensated"
        if first.setdefault(undone, task.id) != task.id:
            yield f"{where}/compensates", f"{undone!r} has a compensation already: {first[undone]!r}"


def _misnamed(task: TaskSpec) -> Iterator[Fault]:
    """Limits that could not be defined."""
    for number, use in enumerate(task.limits):
        if problem := template_fault(use.name):
            yield f"limits/{number}", problem


def _misplaced(task: TaskSpec) -> Iterator[Fault]:
    """Inputs whose path leads nowhere in the params, or through another input."""
    paths = (*task.inputs, *task.expand)
    if not any("/" in path for path in paths):
        return
    params = {name: copy.deepcopy(own(value)) for name, value in task.params.items()}
    for path in sorted(paths, key=lambda path: path.count("/")):
        if path.count("/") >= DEPTH_MAX:
            yield f"{_key(task, path)}/{path}", f"is deeper than {DEPTH_MAX} levels"
            return
        try:
            place(params, {path: ...})
        except PermanentFailure:
            yield f"{_key(task, path)}/{path}", "has no place in the params"


def _key(task: TaskSpec, path: str) -> str:
    return "inputs" if path in task.inputs else "expand"
