"""The graph of a blueprint: which states lead where, who is reached from the start, and DOT text for people.

    start ──needs_review──▶ review ──approved──▶ finished
      └────success─────────────────────────────────▲

A state of code leads where its handlers are seen to lead (`handler_leads.py`). What the engine does by itself when
something goes wrong (failed, quarantined, cancelled) is no edge. networkx answers who is reached, as in `graph.py`.
Source: jobs contract, sections 3 (graph) and 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.blueprint import (
    END_STATES,
    Action,
    Approval,
    Blueprint,
    Dispatch,
    Lead,
    Parallel,
    State,
    SubBlueprint,
    Transition,
)

_PLAIN_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = {"node", "edge", "graph", "digraph", "subgraph", "strict"}


def leads_of(state: State) -> tuple[Lead, ...]:
    """The ways out of a state, each once, in the author's order."""
    return tuple(dict.fromkeys((*state.leads, *_declared(state))))


def reached(blueprint: Blueprint) -> set[str]:
    """The states that some known way leads to, and the start; END_STATES among them only when led to."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(blueprint.states)
    for state in blueprint.states.values():
        graph.add_edges_from((state.name, lead.state) for lead in leads_of(state))
    starts = [name for name, state in blueprint.states.items() if state.start]
    return {name for start in starts for name in (start, *nx.descendants(graph, start))}


def to_dot(blueprint: Blueprint) -> str:
    """DOT text: a node for each state, an edge for each possible transition."""
    lines = [f"digraph {_quoted(blueprint.name)} {{", "    rankdir=LR;", "    node [shape=box, style=rounded];"]
    lines += [_node(name, blueprint.states.get(name)) for name in _nodes(blueprint)]
    lines += [_edge(state.name, lead) for state in blueprint.states.values() for lead in leads_of(state)]
    return "\n".join([*lines, "}", ""])


def under(condition: str, lead: Lead) -> Lead:
    """The same way out where `condition` has to hold first; "" = none."""
    label = ": ".join(filter(None, (condition, lead.label)))
    return Lead(lead.state, label)


def _declared(state: State) -> Iterator[Lead]:
    for guarded in state.when:
        if guarded.action is not None:
            yield from _leads(guarded.action, guarded.condition)
    if state.action is not None:
        yield from _leads(state.action, "")


def _leads(action: Action, condition: str) -> Iterator[Lead]:
    match action:
        case Transition(state):
            yield Lead(state, condition)
        case Parallel(aggregate_into=state):
            yield under(condition, Lead(state, "all results"))
        case SubBlueprint(transitions=transitions):
            for status, state in ({"failure": "failed"} | transitions).items():
                yield under(condition, Lead(state, status))
        case Dispatch(transitions=transitions) | Approval(transitions=transitions):
            for status, state in transitions.items():
                yield under(condition, Lead(state, status))


def _nodes(blueprint: Blueprint) -> list[str]:
    """Declared states, then the implicit ends that something leads to."""
    led_to = {lead.state for state in blueprint.states.values() for lead in leads_of(state)}
    return [*blueprint.states, *(end for end in END_STATES if end in led_to and end not in blueprint.states)]


def _node(name: str, state: State | None) -> str:
    looks = []
    if state is None or state.end:
        looks.append("peripheries=2")
    if state is not None and state.start:
        looks.append("penwidth=2")
    if state is not None and state.dynamic:
        looks += ["style=dashed", f"tooltip={_quoted('leads where its code decides')}"]
    return f"    {_id(name)}{_attributes(looks)};"


def _edge(name: str, lead: Lead) -> str:
    return f"    {_id(name)} -> {_id(lead.state)}{_attributes([f'label={_quoted(lead.label)}'] if lead.label else [])};"


def _attributes(looks: list[str]) -> str:
    return f" [{', '.join(looks)}]" if looks else ""


def _id(name: str) -> str:
    return name if _PLAIN_ID.fullmatch(name) and name.lower() not in _KEYWORDS else _quoted(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")
    return f'"{escaped}"'
