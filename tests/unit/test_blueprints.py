"""Blueprints as Python classes: what they compile to, and which handler a visit gets."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from orchestrator.blueprint import Blueprint, Guarded, Lead, State
from orchestrator.blueprints import StateMachineBlueprint, blueprints_in
from orchestrator.errors import Invalid
from tests.blueprint_builders import a_visit, python_blueprint


def simple_flow() -> StateMachineBlueprint:
    """The example of the contract."""
    bp = StateMachineBlueprint(
        name="simple_flow", api_endpoint="/jobs/simple_flow", api_version="v1", data_stores={"prefs": {"a": 1}}
    )

    @bp.handler_for("start", is_start=True)
    async def start(initial_data: Any, actions: Any) -> None:
        actions.dispatch_task(
            task_type="video_processing",
            params=initial_data,
            transitions={"success": "finished", "needs_review": "review"},
        )

    @bp.handler_for("review").when("context.initial_data.urgent == 'yes'")
    async def urgent(actions: Any) -> None:
        actions.transition_to("finished")

    @bp.handler_for("review")
    async def review(actions: Any) -> None:
        actions.await_human_approval(
            integration="mail", message="ok?", transitions={"approved": "finished", "rejected": "failed"}
        )

    return bp


def goes(to: str) -> Callable[[Any], None]:
    def handler(actions: Any) -> None:
        actions.transition_to(to)

    return handler


def test_the_example_of_the_contract_compiles() -> None:
    bp = simple_flow()
    compiled = bp.compile()
    assert bp.validate() == ()
    assert compiled.path == "/api/v1/jobs/simple_flow"
    assert compiled.states["start"] == State(
        "start", start=True, code=True, leads=(Lead("finished", "success"), Lead("review", "needs_review"))
    )
    urgent = "context.initial_data.urgent == 'yes'"
    assert compiled.states["review"] == State(
        "review",
        code=True,
        when=(Guarded(urgent),),
        leads=(Lead("finished", urgent), Lead("finished", "approved"), Lead("failed", "rejected")),
    )


def test_the_same_blueprint_has_the_same_hash_each_time() -> None:
    assert simple_flow().compile() == simple_flow().compile()


def test_a_changed_handler_store_or_path_is_another_content() -> None:
    def hash_of(change: Callable[[StateMachineBlueprint], Any]) -> str:
        bp = python_blueprint()
        bp.handler_for("s", is_start=True)(goes("finished"))
        change(bp)
        return bp.compile().content_hash

    def other_path(bp: StateMachineBlueprint) -> None:
        bp.api_endpoint = "/x"

    def longer(actions: Any) -> None:
        print("more")
        actions.transition_to("finished")

    changes = [
        lambda bp: None,
        other_path,
        lambda bp: bp.add_data_store("prefs", {}),
        lambda bp: bp.handler_for("s").when("context.client.plan == 1")(goes("finished")),
        lambda bp: bp.handler_for("s").when("context.client.plan == 2")(goes("finished")),
        lambda bp: bp.handler_for("s").when("context.client.plan == 2")(longer),
    ]
    hashes = [hash_of(change) for change in changes]
    assert len(set(hashes)) == len(changes)


def test_a_handler_stays_the_function_it_is() -> None:
    def handler(actions: Any) -> str:
        return "called"

    bp = python_blueprint()
    assert bp.handler_for("s")(handler) is handler
    assert bp.handler_for("s").when("context.client.plan == 1")(handler) is handler
    assert bp.aggregator_for("t")(handler) is handler


def test_the_first_condition_that_holds_chooses_the_handler_else_the_default() -> None:
    bp = python_blueprint()
    default, big, middle = goes("a"), goes("b"), goes("c")
    bp.handler_for("s", is_start=True)(default)
    bp.handler_for("s").when("context.initial_data.n > 5")(big)
    bp.handler_for("s").when("context.initial_data.n > 1")(middle)
    chosen = [bp.handler(a_visit("s", initial_data={"n": n}))[0] for n in (9, 3, 0)]
    assert chosen == [big, middle, default]


def test_conditions_look_into_what_the_job_has() -> None:
    bp = python_blueprint()
    handler = goes("a")
    bp.handler_for("s").when("context.state_history.ok == true")(handler)
    assert bp.handler(a_visit("s", state_history={"ok": True})) == (handler, False)
    with pytest.raises(Invalid, match="State 's' has no handler without a condition, and no condition holds"):
        bp.handler(a_visit("s"))
    with pytest.raises(Invalid, match="Blueprint 'b' has no state 'x'"):
        bp.handler(a_visit("x"))


def test_an_aggregator_is_the_handler_of_its_state() -> None:
    bp = python_blueprint()
    bp.handler_for("s", is_start=True)(lambda actions: actions.dispatch_parallel([{"type": "t"}], aggregate_into="m"))
    merge = goes("finished")
    bp.aggregator_for("m")(merge)
    assert bp.handler(a_visit("m"))[0] is merge
    assert bp.compile().states["m"].code


def test_end_states_are_declared_or_known_by_name() -> None:
    bp = python_blueprint()
    bp.handler_for("s", is_start=True)(lambda actions: actions.transition_to("done" if actions else "failed"))
    bp.handler_for("done", is_end=True)(lambda state_history: None)
    bp.handler_for("failed")(lambda state_history: None)
    compiled = bp.compile()
    assert (compiled.states["done"].end, compiled.states["failed"].end) == (True, True)
    assert (compiled.status_at("done"), compiled.status_at("failed")) == ("finished", "failed")
    assert bp.handler(a_visit("failed"))[1] is True


def test_a_blueprint_that_is_none_says_why() -> None:
    bp = python_blueprint()
    bp.handler_for("a", is_start=True)(goes("b"))
    with pytest.raises(Invalid, match="states/a: leads to the unknown state 'b'"):
        bp.validate()
    with pytest.raises(Invalid, match="states/a: leads to the unknown state 'b'"):
        bp.compile()
    bp.handler_for("b")
    with pytest.raises(Invalid, match="states/b: has no handler"):
        bp.validate()


def test_a_state_that_only_dynamic_code_can_lead_to_is_warned_about() -> None:
    bp = python_blueprint()
    bp.handler_for("a", is_start=True)(lambda actions, initial_data: actions.transition_to(initial_data["next"]))
    bp.handler_for("b")(goes("finished"))
    assert bp.validate() == ("state 'b' is reached only if the code of 'a' leads there",)
    assert bp.compile().states["a"].dynamic


def test_a_state_has_one_handler_without_a_condition() -> None:
    bp = python_blueprint()
    bp.handler_for("a", is_start=True)(goes("finished"))
    with pytest.raises(Invalid, match="state 'a' has two handlers without a condition"):
        bp.aggregator_for("a")(goes("finished"))


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda bp: bp.handler_for("a").when("initial_data.x == 1"), "condition 'initial_data.x == 1': expected"),
        (lambda bp: bp.handler_for("a")(5), "the handler of state 'a' must be a function"),
        (lambda bp: bp.handler_for(5), "a state is named by text, not by 5"),
        (lambda bp: bp.add_data_store("prefs", {}) or bp.add_data_store("prefs", {}), "must have a name of its own"),
        (lambda bp: bp.add_data_store("a b", {}), "must have a name of its own"),
        (lambda bp: bp.add_data_store("x", {"a": {1, 2}}), "data_stores/x/a: is not JSON but a set"),
        (lambda bp: bp.add_data_store("x", [1]), "data store 'x' must have an object of initial values"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(declare: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        declare(python_blueprint())


def test_blueprints_of_a_module_are_found_once_each() -> None:
    module = ModuleType("m")
    one, two = python_blueprint("one"), python_blueprint("two")
    vars(module).update(one=one, alias=one, two=two, other=Blueprint("x", {}))
    assert blueprints_in(module) == [one, two]
