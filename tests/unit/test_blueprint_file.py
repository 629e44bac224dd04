"""Blueprints in YAML and JSON: what they become, and what is refused, by its path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.blueprint import Approval, Dispatch, Guarded, Parallel, State, SubBlueprint, Transition
from orchestrator.blueprint_file import from_json, from_yaml, parse_blueprint
from orchestrator.errors import Invalid
from tests.blueprint_builders import SIMPLE_FLOW

END = {"start": True, "transition_to": "finished"}


def body(*, states: Any = None, **changes: Any) -> dict[str, Any]:
    plain = {"apiVersion": "orchestrator/v1", "kind": "Blueprint", "name": "b"}
    return plain | {"states": {"s": END} if states is None else states} | changes


def state(**written: Any) -> dict[str, Any]:
    """A body whose only state, the start, is this."""
    return body(states={"s": {"start": True, **written}})


def fault(written: object) -> str:
    with pytest.raises(Invalid) as caught:
        parse_blueprint(written)
    return str(caught.value)


def test_the_example_of_the_contract_is_read() -> None:
    blueprint = from_yaml(SIMPLE_FLOW)
    assert (blueprint.name, blueprint.path, blueprint.start) == ("simple_flow", "/api/v1/jobs/simple_flow", "start")
    assert blueprint.states["start"].action == Dispatch(
        "video_processing",
        {"clip": "${initial_data.clip}"},
        {"success": "finished", "needs_review": "review"},
        timeout_seconds=300,
    )
    assert blueprint.states["review"] == State(
        "review",
        when=(Guarded("context.initial_data.urgent == 'yes'", Transition("finished")),),
        action=Approval("mail", "ok?", {"approved": "finished", "rejected": "failed"}),
    )


def test_json_and_yaml_give_the_same() -> None:
    text = json.dumps(state(transition_to="finished", set={"a": "${job_id}"}))
    assert from_json(text) == from_yaml(text)


def test_every_action_has_its_form() -> None:
    states = {
        "a": {
            "start": True,
            "dispatch_parallel": {
                "tasks": [{"type": "x", "params": {"n": 1}, "priority": 2, "max_cost": 0}, {"type": "y"}],
                "aggregate_into": "b",
            },
        },
        "b": {
            "run_blueprint": {
                "name": "child",
                "initial_data": {"r": "${aggregation_results}"},
                "transitions": {"success": "c"},
            }
        },
        "c": {"end": True, "set": {"done": True}},
    }
    found = parse_blueprint(body(states=states)).states
    assert found["a"].action == Parallel((Dispatch("x", {"n": 1}, priority=2, max_cost=0), Dispatch("y")), "b")
    assert found["b"].action == SubBlueprint("child", {"r": "${aggregation_results}"}, {"success": "c"})
    assert found["c"] == State("c", end=True, set={"done": True})


def test_a_transition_may_be_written_short_or_in_full() -> None:
    short, full = state(transition_to="finished"), state(transition_to={"state": "finished"})
    assert parse_blueprint(short) == parse_blueprint(full)
    assert fault(state(transition_to={"to": "finished"})) == (
        "states/s/transition_to/to: unknown key; expected state (and 1 more)"
    )


def test_an_implicit_end_may_be_declared_and_is_an_end() -> None:
    states = {"s": {"start": True, "transition_to": "failed"}, "failed": {"set": {"why": "x"}}}
    found = parse_blueprint(body(states=states))
    assert found.states["failed"].end
    assert found.status_at("failed") == "failed"


def test_a_declared_end_gives_finished() -> None:
    states = {"s": {"start": True, "transition_to": "done"}, "done": {"end": True}}
    blueprint = parse_blueprint(body(states=states))
    assert [blueprint.status_at(name) for name in ("s", "done", "quarantined", "nowhere")] == [
        None,
        "finished",
        "quarantined",
        None,
    ]


def test_the_hash_is_of_the_content() -> None:
    one = parse_blueprint(state(transition_to="finished", set={"a": 1, "b": 2}))
    same = parse_blueprint(state(set={"b": 2, "a": 1}, transition_to="finished"))
    other = parse_blueprint(state(set={"b": 2, "a": 2}, transition_to="finished"))
    assert one.content_hash == same.content_hash
    assert len({one.content_hash, other.content_hash}) == 2


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ([], "must be an object"),
        (body(kind="Pipeline"), "kind: must be 'Blueprint'"),
        (body(apiVersion="v2"), "apiVersion: must be 'orchestrator/v1'"),
        (body(name=5), "name: must be text"),
        (body(api_endpoint=["x"]), "api_endpoint: must be text"),
        (body(colour="red"), "colour: unknown key; expected apiVersion, kind, name"),
        ({"kind": "Blueprint"}, "apiVersion: is required (and 2 more)"),
        (body(states={}), "states: must be an object with at least one state"),
        (body(states=[]), "states: must be an object with at least one state"),
        (body(states={"s": None}), "states/s: must be an object"),
        (body(states={"s": {"transition_to": "finished"}}), "states: none is the start"),
        (state(), "states/s: must have exactly one action: one of transition_to"),
        (state(transition_to="a", dispatch_task={}), "states/s: must have exactly one action: not transition_to and"),
        (state(transition_to="finished", wait=5), "states/s/wait: unknown key"),
        (state(end=True, transition_to="finished"), "states/s: is an end: it cannot act"),
        (state(end=True, when=[]), "states/s: is an end: it cannot act"),
        (body(states={"s": END | {"start": "yes"}}), "states/s/start: must be true or false"),
        (state(transition_to="finished", set=[1]), "states/s/set: must be an object"),
        (state(transition_to="finished", set={"a": "${x}"}), "states/s/set: ${x} must begin with"),
        (state(transition_to="${state_history.next}"), "states/s/transition_to: cannot hold a placeholder"),
        (state(transition_to=5), "states/s/transition_to: must be a name"),
        (state(transition_to="nowhere"), "states/s: leads to the unknown state 'nowhere'"),
        (state(transition_to="finished", when={"if": "x"}), "states/s/when: must be a list"),
        (state(transition_to="finished", when=[{"transition_to": "failed"}]), "states/s/when/0/if: is required"),
        (
            state(transition_to="finished", when=[{"if": "x > 5", "transition_to": "failed"}]),
            "states/s/when/0/if: condition 'x > 5': expected context",
        ),
        (
            state(transition_to="finished", when=[{"if": "context.client.plan == x"}]),
            "states/s/when/0: must have exactly one action",
        ),
        (
            state(transition_to="finished", when=[{"if": "context.client.plan == x", "end": True}]),
            "states/s/when/0/end: unknown key",
        ),
        (state(dispatch_task={"transitions": {}}), "states/s/dispatch_task/type: is required"),
        (state(dispatch_task={"type": "x"}), "states/s/dispatch_task/transitions: is required"),
        (
            state(dispatch_task={"type": "x", "transitions": {"success": 5}}),
            "states/s/dispatch_task/transitions: 'success' leads to '5': must be a name",
        ),
        (
            state(dispatch_task={"type": "x", "transitions": {}, "params": {"a": "${b}"}}),
            "states/s/dispatch_task: ${b} must begin with",
        ),
        (
            state(dispatch_task={"type": "x", "transitions": {}, "timeout_seconds": 0}),
            "states/s/dispatch_task/timeout_seconds: must be above 0",
        ),
        (
            state(dispatch_task={"type": "x", "transitions": {}, "timeout_seconds": 1e300}),
            "states/s/dispatch_task/timeout_seconds: is too large",
        ),
        (
            state(dispatch_task={"type": "x", "transitions": {}, "priority": True}),
            "states/s/dispatch_task/priority: must be a number",
        ),
        (
            state(dispatch_task={"type": "x", "transitions": {}, "max_cost": -1}),
            "states/s/dispatch_task/max_cost: must not be negative",
        ),
        (
            state(dispatch_task={"type": "x", "transitions": {}, "dispatch_strategy": "fastest"}),
            "states/s/dispatch_task/dispatch_strategy: must be one of default, round_robin",
        ),
        (
            state(dispatch_task={"task_type": "x", "transitions": {}}),
            "states/s/dispatch_task/task_type: unknown key; expected type",
        ),
        (
            state(dispatch_parallel={"tasks": [], "aggregate_into": "finished"}),
            "states/s/dispatch_parallel/tasks: must be a list of tasks",
        ),
        (
            state(dispatch_parallel={"tasks": [{"type": "x", "transitions": {}}], "aggregate_into": "finished"}),
            "states/s/dispatch_parallel/tasks/0/transitions: unknown key",
        ),
        (
            state(await_human_approval={"integration": "mail", "message": "?", "transitions": {}}),
            "states/s/await_human_approval/transitions: must have at least one decision",
        ),
        (
            state(run_blueprint={"name": "x", "transitions": {"failure": "failed"}}),
            "states/s/run_blueprint/transitions: must say where 'success' leads",
        ),
        (
            body(states={"s": END, "finished": {"transition_to": "failed"}}),
            "states/finished: finished is an end state: it cannot act",
        ),
        (state(transition_to="finished", set={"a": 2**70}), "states/s/set/a: does not fit in 64 bits"),
    ],
)
def test_what_is_wrong_is_told_by_its_path(written: object, told: str) -> None:
    assert fault(written).startswith(told)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse_blueprint(body(states={"a": {"start": 1, "transition_to": 2}, "b": {"x": 3, "end": True}}, kind="X"))
    assert [path for path, _ in caught.value.details] == [
        "kind",
        "states/a/start",
        "states/a/transition_to",
        "states/b/x",
    ]


def test_yaml_words_are_the_text_they_look_like() -> None:
    text = """
apiVersion: orchestrator/v1
kind: Blueprint
name: b
states:
  ask:
    start: true
    set: {at: 12:30, day: 2026-01-02, mode: 0777, flag: on, no: 1, big: 1e3, none: ~, empty: , x: 1_000}
    await_human_approval: {integration: mail, message: ok, transitions: {yes: finished, no: failed}}
"""
    state = from_yaml(text).states["ask"]
    assert state.action == Approval("mail", "ok", {"yes": "finished", "no": "failed"})
    assert state.set == {
        "at": "12:30",
        "day": "2026-01-02",
        "mode": "0777",
        "flag": "on",
        "no": 1,
        "big": 1000.0,
        "none": None,
        "empty": None,
        "x": "1_000",
    }


def test_yaml_shares_what_it_anchors() -> None:
    text = SIMPLE_FLOW.replace(
        "      type: video_processing", "      <<: &d {priority: 5}\n      type: video_processing"
    )
    action = from_yaml(text).states["start"].action
    assert isinstance(action, Dispatch)
    assert (action.priority, action.type) == (5, "video_processing")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [1", "malformed YAML"),
        ("a: 1\na: 2", "the key 'a' comes twice"),
        ("--- 1\n--- 2", "malformed YAML"),
        ("!!python/object/apply:os.system ['x']", "malformed YAML"),
        ("1: x", "has a key that is not a string: 1"),
        ("", "must be an object"),
    ],
)
def test_yaml_that_is_no_document_of_ours_is_refused(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        from_yaml(text)


def test_json_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="malformed JSON"):
        from_json("{")
