"""Laws of graphs, over any set of dependencies, with networkx as the oracle."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.definition import TaskSpec
from orchestrator.errors import Invalid
from orchestrator.graph import check, compile_graph, generations, needs

#: no deadline: two cores are shared with whatever else is tested at the time
LAWS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def acyclic(draw: st.DrawFn) -> list[TaskSpec]:
    """Tasks in any order, each depending on some that a hidden order has before it."""
    size = draw(st.integers(0, 12))
    hidden = draw(st.permutations(range(size)))
    specs = []
    for place, number in enumerate(hidden):
        above = draw(st.lists(st.sampled_from(hidden[:place]), max_size=4)) if place else []
        cut = draw(st.integers(0, len(above)))
        inputs = {f"p{i}": f"t{a}" for i, a in enumerate(above[cut:])}
        specs.append(TaskSpec(f"t{number}", depends_on=tuple(f"t{a}" for a in above[:cut]), inputs=inputs))
    return draw(st.permutations(specs))


@st.composite
def any_graph(draw: st.DrawFn) -> list[TaskSpec]:
    """Tasks depending on any of them, themselves included."""
    names = [f"t{i}" for i in range(draw(st.integers(1, 8)))]
    return [TaskSpec(name, depends_on=tuple(draw(st.lists(st.sampled_from(names), max_size=2)))) for name in names]


def oracle(specs: list[TaskSpec]) -> nx.DiGraph[str]:
    digraph: nx.DiGraph[str] = nx.DiGraph()
    digraph.add_nodes_from(spec.id for spec in specs)
    digraph.add_edges_from((above, spec.id) for spec in specs for above in needs(spec))
    return digraph


@LAWS
@given(acyclic())
def test_parents_and_children_are_each_others_mirror(specs: list[TaskSpec]) -> None:
    graph = compile_graph(specs)
    downwards = {(p, c) for p, below in enumerate(graph.children) for c in below}
    upwards = {(p, c) for c, above in enumerate(graph.parents) for p in above}
    assert downwards == upwards
    assert {(graph.names[p], graph.names[c]) for p, c in upwards} == set(oracle(specs).edges)
    assert sum(map(len, graph.children)) == len(downwards)
    assert list(graph.roots) == [i for i, above in enumerate(graph.parents) if not above]
    assert [graph.index[name] for name in graph.names] == list(range(len(specs)))


@LAWS
@given(acyclic())
def test_an_acyclic_graph_is_accepted_and_finishes_in_generations(specs: list[TaskSpec]) -> None:
    check(specs)
    groups = generations(specs)
    level = {name: number for number, group in enumerate(groups) for name in group}
    assert sorted(name for group in groups for name in group) == sorted(spec.id for spec in specs)
    for spec in specs:
        assert level[spec.id] == max((level[above] + 1 for above in needs(spec)), default=0)


@LAWS
@given(acyclic())
def test_generations_are_those_of_networkx_in_the_authors_order(specs: list[TaskSpec]) -> None:
    position = {spec.id: place for place, spec in enumerate(specs)}
    expected = [sorted(group, key=position.__getitem__) for group in nx.topological_generations(oracle(specs))]
    assert [list(group) for group in generations(specs)] == expected


@LAWS
@given(any_graph())
def test_exactly_cyclic_graphs_are_refused_and_the_path_told_is_a_cycle_of_theirs(specs: list[TaskSpec]) -> None:
    digraph = oracle(specs)
    path = cycle_told(specs)
    assert (path == []) == nx.is_directed_acyclic_graph(digraph)
    if path:
        assert path[0] == path[-1]
        assert len(set(path[:-1])) == len(path) - 1
        assert all(digraph.has_edge(above, below) for above, below in pairwise(path))
        knots = [knot for knot in nx.strongly_connected_components(digraph) if len(knot) > 1]
        loops = {node for node in digraph if digraph.has_edge(node, node)}
        assert path[0] == min(loops.union(*knots))


def cycle_told(specs: list[TaskSpec]) -> list[str]:
    """The cycle that the refusal names; empty when the graph is accepted."""
    try:
        check(specs)
    except Invalid as error:
        return str(error).removeprefix("dependency cycle: ").split(" -> ")
    return []
