"""Visits of declared states."""

from __future__ import annotations

from typing import Any

from orchestrator.blueprint import Approval, Blueprint, Dispatch, Guarded, Outcome, Parallel, State, SubBlueprint
from orchestrator.blueprint import Transition as To
from orchestrator.blueprint_file import from_yaml
from orchestrator.declared_state import OUTCOME_MAX_BYTES, visit
from tests.blueprint_builders import SIMPLE_FLOW, a_machine, a_visit, leading


def outcome(state: State, **changes: Any) -> Outcome:
    return visit(a_machine(state), a_visit(state.name, **changes))


def simple_flow() -> Blueprint:
    return from_yaml(SIMPLE_FLOW)


def test_placeholders_of_a_task_are_filled() -> None:
    found = visit(simple_flow(), a_visit("start", initial_data={"clip": ["a", 1]}))
    assert isinstance(found.action, Dispatch)
    assert found.action.params == {"clip": ["a", 1]}
    assert found.action.transitions == {"success": "finished", "needs_review": "review"}
    assert (found.error, found.state_history) == (None, {})


def test_the_first_condition_that_holds_acts_else_the_state_itself() -> None:
    assert visit(simple_flow(), a_visit("review", initial_data={"urgent": "yes"})).action == To("finished")
    assert isinstance(visit(simple_flow(), a_visit("review", initial_data={"urgent": "no"})).action, Approval)
    guards = (
        Guarded("context.initial_data.n > 5", To("big")),
        Guarded("context.initial_data.n > 1", To("middle")),
    )
    state = State("s", when=guards, action=To("small"))
    assert [outcome(state, initial_data={"n": n}).action for n in (9, 3, 0)] == [To("big"), To("middle"), To("small")]


def test_set_writes_first_and_all_at_once() -> None:
    state = State(
        "s",
        set={"n": "${initial_data.n}", "old": "${state_history.n}"},
        when=(Guarded("context.state_history.n == 2", To("two")),),
        action=To("other"),
    )
    found = outcome(state, initial_data={"n": 2}, state_history={"n": 1, "kept": True})
    assert found == Outcome(To("two"), {"n": 2, "old": 1, "kept": True})


def test_what_the_history_holds_is_not_filled() -> None:
    state = State("s", set={"a": "${initial_data.t}"}, action=To("finished"))
    found = outcome(state, initial_data={"t": "${job_id}"}, state_history={"old": "${job_id}"})
    assert found.state_history == {"a": "${job_id}", "old": "${job_id}"}


def test_a_visit_changes_nothing_that_it_was_given() -> None:
    history = {"a": 1}
    outcome(State("s", set={"a": 2}, action=To("finished")), state_history=history)
    assert history == {"a": 1}


def test_every_action_is_filled_where_it_may_be() -> None:
    scope: dict[str, Any] = {"initial_data": {"n": 3}, "aggregation_results": {"t": {"data": 7}}}
    task = Dispatch("x", {"n": "${initial_data.n}"}, resource_requirements={"gpu": "${initial_data.n}"})
    filled = Dispatch("x", {"n": 3}, resource_requirements={"gpu": 3})
    assert outcome(State("s", action=Parallel((task,), "m")), **scope).action == Parallel((filled,), "m")
    approval = State("s", action=Approval("mail", "${initial_data.n}", {"y": "f"}))
    assert outcome(approval, **scope).action == Approval("mail", "3", {"y": "f"})
    sub = State("s", action=SubBlueprint("c", {"r": "${aggregation_results.t.data}"}, {"success": "f"}))
    assert outcome(sub, **scope).action == SubBlueprint("c", {"r": 7}, {"success": "f"})


def test_an_end_state_only_writes() -> None:
    assert outcome(State("s", end=True, set={"a": "${job_id}"}), job_id="J") == Outcome(None, {"a": "J"})


def test_a_state_that_is_not_there_or_is_code_is_an_error_for_good() -> None:
    machine = a_machine(leading("a", start=True))
    assert visit(machine, a_visit("x")) == Outcome(error="Blueprint 'b' has no state 'x'")
    assert visit(machine, a_visit("a")) == Outcome(error="Blueprint 'b' has no declared state 'a'")


def test_a_history_that_grows_without_end_is_an_error_for_good() -> None:
    state = State("s", set={"a": ["${state_history.a}"]}, action=To("s"))
    history: dict[str, Any] = {}
    for _ in range(100):
        found = outcome(state, state_history=history)
        if found.error is not None:
            break
        history = found.state_history
    assert found.error is not None
    assert "nested deeper than 64 levels" in found.error
    doubling = State("s", set={"a": "${state_history.a}${state_history.a}"}, action=To("s"))
    found = outcome(doubling, state_history={"a": "x" * (OUTCOME_MAX_BYTES // 2)})
    assert (found.again, found.error) == (False, f"state_history has 16777224 bytes, more than {OUTCOME_MAX_BYTES}")
