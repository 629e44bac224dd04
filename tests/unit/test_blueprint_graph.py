"""The graph of a blueprint, and its DOT text."""

from __future__ import annotations

import re

from orchestrator.blueprint import Dispatch, Guarded, Lead, Parallel, State, SubBlueprint, Transition
from orchestrator.blueprint_file import from_yaml
from orchestrator.blueprint_graph import leads_of, reached, to_dot
from tests.blueprint_builders import SIMPLE_FLOW, a_machine, leading


def test_the_text_has_a_node_for_each_state_and_an_edge_for_each_transition() -> None:
    text = to_dot(from_yaml(SIMPLE_FLOW))
    assert text.startswith('digraph "simple_flow" {\n')
    assert text.endswith("}\n")
    assert re.findall(r"^    (\w+)(?: \[.*)?;$", text, re.M)[1:] == ["start", "review", "finished", "failed"]
    assert re.findall(r"^    (\w+ -> \w+)", text, re.M) == [
        "start -> finished",
        "start -> review",
        "review -> finished",
        "review -> finished",
        "review -> failed",
    ]
    assert 'start -> review [label="needs_review"];' in text


def test_names_that_are_no_plain_words_are_quoted() -> None:
    text = to_dot(a_machine(leading('a "b"', "node", start=True), leading("node", "a\\n\nb"), leading("a\\n\nb")))
    assert '"a \\"b\\"" -> "node"' in text
    assert '"node" -> "a\\\\n\\nb"' in text


def test_a_quote_in_a_label_ends_nothing() -> None:
    state = State("a", start=True, when=(Guarded('context.client.plan == "x"', Transition("finished")),))
    assert 'a -> finished [label="context.client.plan == \\"x\\""];' in to_dot(a_machine(state))


def test_parallel_tasks_lead_to_their_aggregator() -> None:
    state = State("a", action=Parallel((Dispatch("t"),), "merge"))
    assert leads_of(state) == (Lead("merge", "all results"),)


def test_a_sub_blueprint_leads_to_failed_unless_it_says_otherwise() -> None:
    quiet = State("a", action=SubBlueprint("x", {}, {"success": "b"}))
    assert leads_of(quiet) == (Lead("failed", "failure"), Lead("b", "success"))
    told = State("a", action=SubBlueprint("x", {}, {"success": "b", "failure": "c"}))
    assert set(leads_of(told)) == {Lead("c", "failure"), Lead("b", "success")}


def test_reached_is_what_the_start_leads_to() -> None:
    machine = a_machine(leading("a", "b", start=True), leading("b", "a", "finished"), leading("c", "a"))
    assert reached(machine) == {"a", "b", "finished"}


def test_code_whose_ways_are_not_known_looks_different() -> None:
    text = to_dot(a_machine(leading("a", start=True, dynamic=True)))
    assert 'tooltip="leads where its code decides"' in text
