"""Conditions, placeholders and checks of blueprints against oracles that know nothing of how they are made."""

from __future__ import annotations

import json
import operator
from typing import Any

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import outside_codec
from orchestrator.blueprint import END_STATES, Blueprint, Dispatch, Guarded, State, Transition
from orchestrator.blueprint_checks import check
from orchestrator.blueprint_graph import to_dot
from orchestrator.conditions import parse_condition
from orchestrator.declared_state import visit
from orchestrator.errors import Invalid
from orchestrator.templates import fill
from tests.blueprint_builders import a_machine, a_visit

OPS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
texts = st.text(st.characters(exclude_characters="'\0", exclude_categories=["Cs"]), max_size=5)
numbers = st.integers(-100, 100) | st.floats(-100, 100, allow_subnormal=False)
scalars = st.booleans() | numbers | texts | st.sampled_from(["true", "10", "1"])
values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
paths = st.lists(st.sampled_from(["a", "b", "c", "0", "1"]), max_size=4)


def written(value: bool | float | str) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "text"}.get(type(value), "none")


def strictly(op: str, found: Any, value: Any) -> bool:
    """Section 9a, read aloud."""
    kinds = (type_of(found), type_of(value))
    if kinds[0] == "none":
        return False
    if op == "!=":
        return kinds[0] != kinds[1] or bool(found != value)
    if kinds[0] != kinds[1] or (kinds[0] == "boolean" and op != "=="):
        return False
    return bool(OPS[op](found, value))


@given(st.sampled_from(sorted(OPS)), scalars, values)
def test_conditions_compare_strictly_by_type(op: str, value: bool | float | str, found: Any) -> None:
    condition = parse_condition(f"context.initial_data.a {op} {written(value)}")
    assert (type(condition.value), condition.value) == (type(value), value)
    assert condition.holds({"initial_data": {"a": found}}) is strictly(op, found, value)


def walked(value: Any, path: list[str]) -> Any:
    for step in path:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return value


@given(values, paths)
def test_a_placeholder_alone_gives_the_value_with_its_type(value: Any, path: list[str]) -> None:
    found = fill("${" + ".".join(["initial_data", *path]) + "}", {"initial_data": value})
    expected = walked(value, path)
    assert json.dumps(found) == json.dumps(expected)


@given(values, paths)
def test_a_placeholder_in_a_text_gives_text(value: Any, path: list[str]) -> None:
    found = fill("<${" + ".".join(["initial_data", *path]) + "}>", {"initial_data": value})
    expected = walked(value, path)
    assert found[0] + found[-1] == "<>"
    assert found[1:-1] == expected if isinstance(expected, str) else json.loads(found[1:-1]) == expected


@given(values)
def test_what_holds_no_placeholder_is_filled_with_nothing(value: Any) -> None:
    assert fill(value, {}) == value


@st.composite
def machines(draw: st.DrawFn) -> Blueprint:
    """States with actions that may lead nowhere, starts that may be none or several."""
    names = [f"s{n}" for n in range(draw(st.integers(1, 6)))]
    targets = st.sampled_from([*names, *END_STATES, "nowhere"] if draw(st.booleans()) else [*names, "finished"])
    states = []
    for name in names:
        if draw(st.integers(0, 4)) == 0:
            states.append(State(name, start=draw(st.integers(0, 9)) == 0, end=True))
            continue
        ways = {f"r{n}": draw(targets) for n in range(draw(st.integers(0, 2)))}
        guards = tuple(
            Guarded("context.client.plan == x", Transition(draw(targets)))
            for _ in range(draw(st.sampled_from([0, 0, 1])))
        )
        action = draw(st.sampled_from([Transition(draw(targets)), Dispatch("t", {}, ways)]))
        states.append(State(name, start=name == "s0" or draw(st.integers(0, 9)) == 0, when=guards, action=action))
    return a_machine(*states)


def edges(machine: Blueprint) -> list[tuple[str, str]]:
    found = []
    for state in machine.states.values():
        for action in (*(guard.action for guard in state.when), state.action):
            if isinstance(action, Transition):
                found.append((state.name, action.state))
            elif isinstance(action, Dispatch):
                found += [(state.name, target) for target in action.transitions.values()]
    return found


@given(machines())
def test_a_blueprint_passes_exactly_when_it_has_one_start_and_all_is_there_and_reached(machine: Blueprint) -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from(machine.states)
    graph.add_edges_from(edges(machine))
    starts = [name for name, state in machine.states.items() if state.start]
    good = len(starts) == 1
    good &= all(target in machine.states or target in END_STATES for _, target in edges(machine))
    good &= good and set(machine.states) <= {starts[0], *nx.descendants(graph, starts[0])}
    try:
        assert check(machine) == ()
        passed = True
    except Invalid:
        passed = False
    assert passed is good


@given(machines())
def test_the_graph_draws_every_transition(machine: Blueprint) -> None:
    text = to_dot(machine)
    for source, target in edges(machine):
        assert f"    {source} -> {target}" in text


@given(machines(), values)
def test_documents_and_outcomes_survive_the_wire(machine: Blueprint, value: Any) -> None:
    assert outside_codec.decode_blueprint(outside_codec.encode_blueprint(machine)) == machine
    visits = [a_visit(name, initial_data={"a": value}) for name in machine.states]
    assert outside_codec.decode_visits(outside_codec.encode_visits(visits)) == visits
    outcomes = [visit(machine, one) for one in visits]
    assert outside_codec.decode_outcomes(outside_codec.encode_outcomes(outcomes)) == outcomes
