"""The graph of a DAG: who waits for whom, by position.

    depends_on + inputs ──check──▶ refused, naming the field or the path of the cycle
                        ──compile_graph──▶ Graph(names, index, parents, children, roots)

`Graph` is what a run needs to advance: tuples of positions, in the author's order, nothing else. It
costs O(tasks + dependencies) to make and is shared by all runs of a version. networkx only names the
cycle of a graph that has one, and is imported then: neither an actor that runs graphs nor the check of a
good graph pays for it.

A task waits for what its `depends_on` lists, for every producer its `inputs` name, for the one whose list it is mapped
over, and for the setups that it tears down, or the task that it compensates; a teardown also for its scope: whatever
lies between it and its setups, on any path, and the compensations of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.definition import TaskSpec
from orchestrator.errors import Invalid
from orchestrator.faults import Fault, refusal

if TYPE_CHECKING:
    import networkx as nx

#: names of a cycle that are written out
_CYCLE_NAMES_MAX = 20


@dataclass(frozen=True, slots=True)
class Graph:
    """Tasks by position. Positions in `parents` and `children` are distinct."""

    #: position -> task id, in the author's order
    names: tuple[str, ...]
    #: task id -> position
    index: dict[str, int]
    #: position -> positions it waits for
    parents: tuple[tuple[int, ...], ...]
    #: position -> positions that wait for it
    children: tuple[tuple[int, ...], ...]
    #: positions that wait for nothing
    roots: tuple[int, ...]


def needs(task: TaskSpec) -> tuple[str, ...]:
    """The ids `task` waits for, each once."""
    undone = () if task.compensates is None else (task.compensates,)
    if not task.inputs and not task.teardown_of and not undone and not task.expand and len(task.depends_on) < 2:
        return task.depends_on
    named = (*task.depends_on, *task.inputs.values(), *_listed(task), *task.teardown_of, *undone)
    return tuple(dict.fromkeys(named))


def _listed(task: TaskSpec) -> list[str]:
    """The task whose list it is mapped over."""
    return [source for source in task.expand.values() if isinstance(source, str)]


def compile_graph(tasks: Sequence[TaskSpec]) -> Graph:
    """The graph of tasks that `check` accepted."""
    graph = _as_written(tasks)
    teardowns = [position for position, task in enumerate(tasks) if task.teardown_of]
    if not teardowns:
        return graph
    parents = list(graph.parents)
    undone = {graph.index[task.compensates]: i for i, task in enumerate(tasks) if task.compensates is not None}
    for position in teardowns:
        setups = [graph.index[name] for name in tasks[position].teardown_of]
        scope = _scope(graph, position, setups)
        between = (scope | {undone[i] for i in scope & undone.keys()}).difference(parents[position])
        parents[position] = (*parents[position], *sorted(between))
    return _of(graph.names, graph.index, tuple(parents))


def _as_written(tasks: Sequence[TaskSpec]) -> Graph:
    names = tuple(task.id for task in tasks)
    index = {name: position for position, name in enumerate(names)}
    return _of(names, index, tuple(tuple(index[name] for name in needs(task)) for task in tasks))


def _of(names: tuple[str, ...], index: dict[str, int], parents: tuple[tuple[int, ...], ...]) -> Graph:
    children: list[list[int]] = [[] for _ in names]
    for position, above in enumerate(parents):
        for parent in above:
            children[parent].append(position)
    return Graph(
        names=names,
        index=index,
        parents=parents,
        children=tuple(tuple(below) for below in children),
        roots=tuple(position for position, above in enumerate(parents) if not above),
    )


def _scope(graph: Graph, teardown: int, setups: Sequence[int]) -> set[int]:
    """What lies on a path from one of `setups` to `teardown`, the setups among it."""
    above = reached(graph.parents, [teardown])
    found: set[int] = set(setups)
    stack = list(found)
    while stack:
        below = [child for child in graph.children[stack.pop()] if child in above and child not in found]
        found.update(below)
        stack += below
    return found


def reached(steps: Sequence[Sequence[int]], starts: Sequence[int]) -> set[int]:
    """Positions to which one or more `steps` lead from one of `starts`."""
    found: set[int] = set()
    stack = [after for start in starts for after in steps[start]]
    while stack:
        position = stack.pop()
        if position not in found:
            found.add(position)
            stack.extend(steps[position])
    return found


def ranks(graph: Graph) -> list[int]:
    """Per position: every task ranks above all it waits for."""
    out = [0] * len(graph.names)
    for rank, layer in enumerate(_layers(graph)):
        for position in layer:
            out[position] = rank
    return out


def check(tasks: Sequence[TaskSpec]) -> None:
    """`tasks` make a graph: ids are unique, dependencies exist, nothing waits for itself. Raises Invalid."""
    faults = _duplicates(tasks) + _unknown(tasks)
    if faults:
        raise refusal(faults)
    if path := cycle(tasks):
        raise Invalid(f"dependency cycle: {written(path)}", (("tasks", "cycle"),))


def cycle(tasks: Sequence[TaskSpec]) -> list[str]:
    """The ids along a cycle of tasks whose dependencies exist, from the first task on one back to it; or nothing.

    Each is waited for by the next.
    """
    graph = _as_written(tasks)
    return _cycle(graph) if sum(len(layer) for layer in _layers(graph)) < len(graph.names) else []


def written(path: Sequence[str]) -> str:
    """A cycle as people read it; a long one by its ends."""
    if len(path) > _CYCLE_NAMES_MAX:
        half = _CYCLE_NAMES_MAX // 2
        path = [*path[:half], f"({len(path) - 2 * half} more)", *path[-half:]]
    return " -> ".join(path)


def generations(tasks: Sequence[TaskSpec]) -> tuple[tuple[str, ...], ...]:
    """Tasks that `check` accepted, in groups: each needs only tasks of groups before its own, and one of the last."""
    graph = _as_written(tasks)
    return tuple(tuple(graph.names[position] for position in sorted(layer)) for layer in _layers(graph))


def _duplicates(tasks: Sequence[TaskSpec]) -> list[Fault]:
    seen: set[str] = set()
    faults = []
    for position, task in enumerate(tasks):
        if task.id in seen:
            faults.append((f"tasks/{position}/id", f"duplicate task {task.id!r}"))
        seen.add(task.id)
    return faults


def _unknown(tasks: Sequence[TaskSpec]) -> list[Fault]:
    known = {task.id for task in tasks}
    return [
        (f"tasks/{position}/{field}", f"unknown task {name!r}")
        for position, task in enumerate(tasks)
        for field, name in _references(task)
        if name not in known
    ]


def _references(task: TaskSpec) -> list[tuple[str, str]]:
    listed = [(f"depends_on/{place}", name) for place, name in enumerate(task.depends_on)]
    listed += [(f"teardown_of/{place}", name) for place, name in enumerate(task.teardown_of)]
    listed += [(f"expand/{path}", source) for path, source in task.expand.items() if isinstance(source, str)]
    listed += [("compensates", task.compensates)] if task.compensates is not None else []
    return listed + [(f"inputs/{parameter}", name) for parameter, name in task.inputs.items()]


def _layers(graph: Graph) -> Iterator[list[int]]:
    """Positions by generation; those on a cycle, or below one, are in none."""
    waits = [len(above) for above in graph.parents]
    layer = list(graph.roots)
    while layer:
        yield layer
        below = []
        for position in layer:
            for child in graph.children[position]:
                waits[child] -= 1
                if not waits[child]:
                    below.append(child)
        layer = below


def _digraph(graph: Graph) -> nx.DiGraph[int]:
    import networkx as nx

    digraph: nx.DiGraph[int] = nx.DiGraph()
    digraph.add_nodes_from(range(len(graph.names)))
    digraph.add_edges_from((parent, child) for child, above in enumerate(graph.parents) for parent in above)
    return digraph


def _cycle(graph: Graph) -> list[str]:
    """The shortest cycle through the first task (in the author's order) that is on one.

    Only one strongly connected component is searched: `nx.find_cycle` is quadratic on some graphs, and
    graphs come from strangers.
    """
    import networkx as nx

    digraph = _digraph(graph)
    knots = [knot for knot in nx.strongly_connected_components(digraph) if _is_knot(digraph, knot)]
    start, knot = min((min(knot), knot) for knot in knots)
    if digraph.has_edge(start, start):
        return [graph.names[start]] * 2
    came_from = dict(nx.bfs_predecessors(digraph.subgraph(knot), start))
    path = [start]
    here = next(position for position in came_from if digraph.has_edge(position, start))
    while here != start:
        path.append(here)
        here = came_from[here]
    path.append(start)
    return [graph.names[position] for position in reversed(path)]


def _is_knot(digraph: nx.DiGraph[int], component: set[int]) -> bool:
    first = next(iter(component))
    return len(component) > 1 or digraph.has_edge(first, first)
