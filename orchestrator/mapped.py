"""Mapped tasks in a run: one instance per element of a list that is known when the map starts.

    work = {expand: {item: "listed"}}        listed ──▶ work ──▶ reduce
                                                         ├ work[0] … work[n-1]     tasks of the run like any other

    map:  pending ──expanded──▶ running ──its last instance ended──▶ succeeded | failed
             ▲                                                           │
             └──────────────────────reset────────────────────────────────┘   (its instances keep what they came to)

Two designs were open. (1) Instances become tasks of the run when the map expands. (2) The map is one task that holds
a compact table of instances. This is (1): an instance has a position, a `Task` and a `TaskSpec` of its own, behind
those of the definition, in a copy of `Compiled` that belongs to the run (`Compiled.with_instances`). So attempts,
fences, retries, losses, checkpoints, logs, skip, cancel and replay hold for an instance because they hold for a task,
and no step of a run without maps costs anything. Price: about 0.7 KB of memory per instance while its run is in memory.

An instance waits for nothing but its map: it may start while that is `running`. It has no dependents but its map, which
decides when all have ended (`expansion.py`). A map that is reset expands anew: when the list is the same its instances
keep what they came to (only those that were reset as well run again), otherwise all begin afresh. The positions of
instances are never given to others, and attempts of an instance never repeat, whatever becomes of the list.

Elements are never looked at here: a list is split into JSON texts, or stays in its artifact and workers pick from it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from orchestrator import aside
from orchestrator.definition import IN_CLUSTER_TYPES
from orchestrator.messages import MapPart, Value
from orchestrator.task import STARTABLE, TERMINAL, Task, TaskState
from orchestrator.task import apply as apply_to_task

if TYPE_CHECKING:
    from orchestrator import events as e
    from orchestrator.run_state import Run

#: elements of a list that is mapped over
INSTANCES_MAX = 10_000
#: instances of all maps of one run
RUN_INSTANCES_MAX = 50_000

_NOTHING = Value()
_texts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class WrongList(ValueError):
    """What a task is to be mapped over is no list that it can be mapped over."""


@dataclass(frozen=True, slots=True)
class Items:
    """A list to map over, as it travels."""

    count: int
    #: lists with equal origins are the same list
    origin: object
    #: element by element: JSON texts, or values of the instances of another map; empty when `whole` is given
    each: Sequence[msgspec.Raw] | Sequence[Value] = ()
    #: it stays in its artifact
    whole: Value | None = None

    def value(self, index: int) -> Value:
        """What the worker of instance `index` is sent."""
        if self.whole is not None:
            return self.whole
        element = self.each[index]
        return element if isinstance(element, Value) else Value(element, None, len(bytes(element)))


_EMPTY = Items(0, None)


class Table:
    """One map of one run, since it expanded first."""

    __slots__ = ("active", "count", "error", "items", "max_active", "open", "positions", "runnable", "waiting")

    def __init__(self, max_active: int | None, runnable: bool) -> None:
        self.max_active = max_active
        #: is there anybody who can run its type?
        self.runnable = runnable
        self.count = 0
        #: index -> position in the run; of a longer list before, more than `count`
        self.positions: list[int] = []
        self.items = _EMPTY
        #: why it cannot be mapped over
        self.error: str | None = None
        #: instances that are not terminal
        self.open = 0
        #: with `max_active`: positions that are offered or run, and a heap of those that wait for one of these to end
        self.active: set[int] = set()
        self.waiting: list[int] = []

    @property
    def live(self) -> Sequence[int]:
        """Positions of its instances."""
        return self.positions if len(self.positions) == self.count else self.positions[: self.count]


def name_of(task: str, index: int) -> str:
    """The id of an instance. No task of a definition can have such an id."""
    return f"{task}[{index}]"


def index_in(task: str) -> int | None:
    """The index that the id of an instance ends with; None for the id of another task."""
    return int(task[task.rindex("[") + 1 : -1]) if task.endswith("]") else None


def map_of(task: str) -> str:
    """The task of the definition that `task` is, or is an instance of."""
    return task[: task.rindex("[")] if task.endswith("]") else task


# ── the list ──


def items_of(run: Run, position: int) -> Items:
    """The list that the map at `position` goes over now. Raises WrongList."""
    if run.kubernetes:
        raise WrongList("a mapped task does not run as Kubernetes Jobs")
    source = next(iter(run.compiled.specs[position].expand.values()))
    if isinstance(source, str):
        items = _produced(run, source)
    elif isinstance(source, list):
        items = _split(source, None)
    else:
        items = _given(run, source)
    if items.count > INSTANCES_MAX:
        raise WrongList(f"the list has {items.count} elements; at most {INSTANCES_MAX} can be mapped over")
    return items


def _produced(run: Run, producer: str) -> Items:
    at = run.compiled.graph.index[producer]
    if at in run.compiled.maps:
        values = gathered(run, at)
        return Items(len(values), ("map", run.tasks[at].attempt), values)
    value = run.values.get(at, _NOTHING)
    if value.artifact is not None:
        if (length := run.lengths.get(at)) is None:
            raise WrongList(f"task {producer!r} returned something else than a list")
        return Items(length, value.artifact, whole=value)
    text = bytes(value.inline)
    if not text.startswith(b"["):
        raise WrongList(f"task {producer!r} returned something else than a list")
    texts = _texts(text)
    return Items(len(texts), text, texts)


def _given(run: Run, source: dict[str, object]) -> Items:
    """By a param of the run."""
    name = source["$param"]
    given = run.params.get(str(name), source.get("default"))
    if not isinstance(given, list):
        raise WrongList(f"the run's param {name!r} is no list")
    return _split(given, None)


def _split(elements: list[object], origin: object) -> Items:
    texts = [msgspec.Raw(_encode(element)) for element in elements]
    return Items(len(texts), origin, texts)


def gathered(run: Run, position: int) -> tuple[Value, ...]:
    """The value of a map: what its instances returned, in the order of the list; null for those that did not."""
    table = run.maps.get(position)
    if table is None:
        return ()
    tasks, values = run.tasks, run.values
    return tuple(values.get(i, _NOTHING) if tasks[i].state is TaskState.SUCCEEDED else _NOTHING for i in table.live)


# ── what a run keeps of its maps, event by event ──


def expand(run: Run, event: e.TaskExpanded) -> None:
    """The map runs: its instances are tasks of the run, and offered."""
    position = run.compiled.graph.index[event.task]
    apply_to_task(run.tasks[position], event)
    run.unfolding.discard(position)
    table = run.maps.get(position)
    if table is None:
        spec = run.compiled.specs[position]
        table = run.maps[position] = Table(spec.max_active, spec.type in IN_CLUSTER_TYPES)
    table.error = event.error
    table.items = _EMPTY if event.error else items_of(run, position)
    if not event.kept:
        _renew(run, position, table, event.count)
    for i in table.live:
        if run.tasks[i].state is TaskState.PENDING:
            _propose(run, i)
    if not table.open:
        run.unfolding.add(position)


def _renew(run: Run, position: int, table: Table, count: int) -> None:
    """All of its instances begin afresh; there are `count` now."""
    task, index = run.compiled.graph.names[position], run.compiled.graph.index
    before = table.live
    run.open -= sum(run.tasks[i].state not in TERMINAL for i in before)
    for i in before[count:]:
        del index[run.compiled.graph.names[i]]
        run.tasks[i].state = TaskState.SKIPPED  # nobody sees it any more; its last attempt is remembered
    for i in table.positions[:count]:
        index[run.compiled.graph.names[i]] = i
        _refresh(run.tasks[i])
        run.values.pop(i, None)
    if count > len(table.positions):
        _add(run, position, table, [name_of(task, k) for k in range(len(table.positions), count)])
    table.count = table.open = count
    run.open += count


def _refresh(task: Task) -> None:
    attempt = task.attempt
    task.__init__()  # type: ignore[misc]  # as it was made, in its place
    task.attempt = attempt


def _add(run: Run, position: int, table: Table, names: Sequence[str]) -> None:
    first = len(run.tasks)
    table.positions.extend(range(first, first + len(names)))
    run.hosts.extend([position] * len(names))
    run.waits.extend([0] * len(names))
    run.compiled = run.compiled.with_instances(position, names, table.runnable and table.max_active is None)
    if run.aside is not None:
        run.aside.extend(position, len(names))
    for name in names:
        task = Task()
        task.attempt = run.past_attempts.get(name, 0)
        run.tasks.append(task)


def keep(run: Run, position: int, before: TaskState, event: e.Event) -> None:
    """What a step of an instance means for its map."""
    host = run.hosts[position - run.compiled.size]
    table, after = run.maps[host], run.tasks[position].state
    table.open -= (after in TERMINAL) - (before in TERMINAL)
    if run.tasks[host].state is TaskState.RUNNING:
        if table.open:
            run.unfolding.discard(host)
        else:
            run.unfolding.add(host)
    value: Value | None = getattr(event, "value", None)
    if value is not None and run.compiled.graph.children[host]:
        run.values[position] = value
    if position in table.active and (after in STARTABLE or after in TERMINAL):
        table.active.discard(position)
        _let_next(run, table)


def _propose(run: Run, position: int) -> None:
    if run.compiled.runnable[position]:
        aside.line_up(run, position)
    else:
        offer(run, position)


def _let_next(run: Run, table: Table) -> None:
    while table.waiting and len(table.active) < (table.max_active or 1):
        position = heapq.heappop(table.waiting)
        if goes(run, position) and run.tasks[position].state in STARTABLE:
            offer(run, position)


def goes(run: Run, position: int) -> bool:
    """Does the map of an instance run?"""
    return run.tasks[run.hosts[position - run.compiled.size]].state is TaskState.RUNNING


def offer(run: Run, position: int) -> None:
    """A map may expand; an instance of one with `max_active` may start as soon as that allows it."""
    compiled = run.compiled
    if position < compiled.size:
        run.unfolding.add(position)
        return
    table = run.maps[run.hosts[position - compiled.size]]
    if not table.runnable or table.max_active is None:
        return
    if position in table.active or len(table.active) < table.max_active:
        table.active.add(position)
        aside.line_up(run, position)
    else:
        heapq.heappush(table.waiting, position)


def begin_sorting(run: Run) -> None:
    """Nothing is offered, for a moment."""
    run.unfolding = {m for m, table in run.maps.items() if not table.open and run.tasks[m].state is TaskState.RUNNING}
    for table in run.maps.values():
        table.waiting.clear()
        table.active.clear()
        if table.max_active is not None:
            table.active.update(i for i in table.live if run.tasks[i].state is TaskState.RUNNING)


# ── what others ask ──


def part_of(run: Run, position: int, inputs: dict[str, Value]) -> MapPart | None:
    """What the worker of a task is told about maps; the element of an instance is put among `inputs`."""
    compiled = run.compiled
    index = compiled.graph.index
    lists = {
        path: gathered(run, index[producer])
        for path, producer in compiled.specs[position].inputs.items()
        if index[producer] in compiled.maps
    }
    for path in lists:
        del inputs[path]
    if position < compiled.size:
        return MapPart(lists=lists) if lists else None
    host = run.hosts[position - compiled.size]
    items, name = run.maps[host].items, compiled.graph.names[position]
    path, number = next(iter(compiled.specs[host].expand)), index_in(name)
    assert number is not None, "an instance is called so"
    inputs[path] = items.value(number)
    return MapPart(map_of(name), number, path if items.whole is not None else None, lists)


def letters(run: Run, event: e.TaskExpanded) -> dict[str, str]:
    """What a row is told of a map that has just expanded: how many instances it has, and which of them are afresh."""
    told = {f"{event.task}[]": str(event.count)}
    if not event.kept:
        table = run.maps[run.compiled.graph.index[event.task]]
        told |= {name_of(event.task, k): "p" for k, i in enumerate(table.positions) if run.tasks[i].attempt}
    return told
