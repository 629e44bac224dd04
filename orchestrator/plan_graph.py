"""From a plan file to what the core runs: who waits for whom, and how it is worked through.

    explicit dependencies          depends_on
    none, and a pipeline-start     depends_on that one task
    none                           the gate: depends_on every task of all earlier phases, parallel ones left out
    non-blocking phases            their tasks are among `tolerates` of who waits for them by gate
    sequential groups              Conduct.sequences, in run order

Tasks stand in run order (phase number, then numeric id), which is the order in which the core starts ready
tasks of one priority.

A gate is written out in full: a task of phase 3 depends on the tasks of phase 1 too, although all of phase 2
waited for them. Nothing less says the same, since any task may be skipped by hand before its own
dependencies are done, or made pending again after its dependents are: take S out of T's dependencies, skip
the rest, and T starts before S. (A gate as a task of its own could not be skipped, but would be one that the
plan does not have.) All tasks behind one gate share one tuple, so 50 phases of 40 tasks compile in
milliseconds; as JSON their 2 million ids are 14 MB, hence WAITS_MAX.

Cycles are looked for in a smaller graph that implies the same order: gates are nodes of their own, and each
member of a sequential group waits for the one before. Source: contracts/instances.md, sections 3 and 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from orchestrator import graph
from orchestrator.definition import Conduct, Definition, TaskSpec
from orchestrator.errors import Invalid
from orchestrator.plan_file import PlanDocument, PlanTask, run_order

#: of a plan that can be run
TASKS_MAX = 5_000
PHASES_MAX = 1_000
#: dependencies of all its tasks together
WAITS_MAX = 2_500_000
#: in the names of nodes that stand for phases, and in no task id
_NODE = " "


@dataclass(frozen=True, slots=True)
class Executor:
    """How the tasks of a plan are carried out."""

    name: str
    #: task type of the core
    type: str
    #: params of the core's task for a task of the plan
    params: Callable[[PlanTask], dict[str, Any]]
    #: of one attempt
    timeout_s: float = 1800.0
    #: `module:function`, for type `python` only
    entrypoint: str | None = None


@dataclass(frozen=True, slots=True)
class _Gate:
    """What the tasks of a phase wait for when they do not say."""

    task_ids: tuple[str, ...] = ()
    tolerated: tuple[str, ...] = ()
    #: the same for the search of cycles: ids of tasks, or of nodes that stand for phases
    nodes: tuple[str, ...] = ()


def compile_plan(
    document: PlanDocument,
    executor: Executor,
    *,
    dag_id: str,
    owner: str,
    batch_size: int = 5,
    max_iterations: int = 50,
    max_retries: int = 2,
) -> Definition:
    """The definition that carries out `document`. Raises Invalid for a cycle, and for a plan that is too large."""
    _refuse_size("tasks", len(document.tasks), TASKS_MAX)
    _refuse_size("phases", len(document.phases), PHASES_MAX)
    tasks = sorted(document.tasks, key=run_order)
    members = _members(tasks)
    gates = _gates(document, tasks, members)
    sequences = tuple(dict.fromkeys(group.task_ids for group in document.groups if len(group.task_ids) > 1))
    _refuse_cycle(_order(tasks, members, gates, sequences))
    return Definition(
        dag_id=dag_id,
        owner=owner,
        tasks=tuple(_spec(task, gates[task.phase_number], executor, max_retries) for task in tasks),
        conduct=Conduct(batch_size, max_iterations, sequences),
    )


def _refuse_size(what: str, count: int, most: int) -> None:
    if count > most:
        raise Invalid(f"the plan has {count} {what}; at most {most} can be run")


def _spec(task: PlanTask, gate: _Gate, executor: Executor, max_retries: int) -> TaskSpec:
    return TaskSpec(
        id=task.task_id,
        type=executor.type,
        entrypoint=executor.entrypoint,
        depends_on=task.depends_on or gate.task_ids,
        params=executor.params(task),
        retries=max_retries,
        retry_delay_s=0.0,
        timeout_s=executor.timeout_s,
        tolerates=() if task.depends_on else gate.tolerated,
    )


# ── gates ─────────────────────────────────────────────────────────────────────────────────────────


def _members(tasks: Sequence[PlanTask]) -> dict[int, list[str]]:
    """The tasks of each phase that has some, ascending."""
    members: dict[int, list[str]] = {}
    for task in tasks:
        members.setdefault(task.phase_number, []).append(task.task_id)
    return members


def _gates(document: PlanDocument, tasks: Sequence[PlanTask], members: Mapping[int, list[str]]) -> dict[int, _Gate]:
    """The gate of each phase. Raises Invalid when the tasks wait for too much in all."""
    starts = {phase.number: phase.starts_after for phase in document.phases}
    lenient = {phase.number for phase in document.phases if phase.non_blocking}
    companions = _companions(document)
    waits = sum(len(task.depends_on) for task in tasks)
    behind = Counter(task.phase_number for task in tasks if not task.depends_on)
    gates = {}
    for number in members:
        if not behind[number]:
            gates[number] = _Gate()
        elif start := starts[number]:
            gates[number] = _Gate((start,), nodes=(start,))
        else:
            gates[number] = _full_gate(number, members, companions.get(number, frozenset()), lenient)
        waits += behind[number] * len(gates[number].task_ids)
        if waits > WAITS_MAX:
            raise Invalid(f"the tasks of the plan wait for more than {WAITS_MAX} others in all; merge phases")
    return gates


def _full_gate(number: int, members: Mapping[int, list[str]], companions: frozenset[int], lenient: set[int]) -> _Gate:
    before = [phase for phase in members if phase < number]
    awaited = [phase for phase in before if phase not in companions]
    whole = len(awaited) == len(before)
    return _Gate(
        task_ids=tuple(task_id for phase in awaited for task_id in members[phase]),
        tolerated=tuple(task_id for phase in awaited if phase in lenient for task_id in members[phase]),
        nodes=tuple(map(_until, before[-1:])) if whole else tuple(map(_all_of, awaited)),
    )


def _companions(document: PlanDocument) -> dict[int, frozenset[int]]:
    """Phase -> phases it runs in parallel with, itself included."""
    companions: dict[int, frozenset[int]] = {}
    for numbers in dict.fromkeys(document.parallel):
        group = frozenset(numbers)
        companions |= {number: companions[number] | group if number in companions else group for number in numbers}
    return companions


# ── cycles ────────────────────────────────────────────────────────────────────────────────────────


def _order(
    tasks: Sequence[PlanTask],
    members: Mapping[int, list[str]],
    gates: Mapping[int, _Gate],
    sequences: Sequence[tuple[str, ...]],
) -> Iterator[TaskSpec]:
    """A graph of tasks, and of nodes that stand for phases, in which the same tasks precede each other."""
    previous: dict[str, list[str]] = {}
    for sequence in sequences:
        for earlier, later in pairwise(sequence):
            previous.setdefault(later, []).append(earlier)
    for task in tasks:
        above = task.depends_on or gates[task.phase_number].nodes
        yield TaskSpec(task.task_id, depends_on=(*above, *previous.get(task.task_id, ())))
    for number, ids in members.items():
        yield TaskSpec(_all_of(number), depends_on=tuple(ids))
    for before, number in zip((None, *members), members, strict=False):
        above = (_all_of(number),) if before is None else (_all_of(number), _until(before))
        yield TaskSpec(_until(number), depends_on=above)


def _refuse_cycle(order: Iterable[TaskSpec]) -> None:
    # read backwards, each task waits for the next: that is how authors write dependencies
    path = [name for name in reversed(graph.cycle(tuple(order))) if _NODE not in name]
    if path:
        raise Invalid(f"Dependency cycle detected: {graph.written(path)}", (("tasks", "cycle"),))


def _all_of(phase: int) -> str:
    return f"all{_NODE}{phase}"


def _until(phase: int) -> str:
    return f"until{_NODE}{phase}"
