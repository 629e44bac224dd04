"""Blueprints and visits for tests; everything that is not under test has a default."""

from __future__ import annotations

from typing import Any

from orchestrator.blueprint import Blueprint, Lead, State, Visit
from orchestrator.blueprints import StateMachineBlueprint

#: the blueprint of the jobs contract, as YAML
SIMPLE_FLOW = """
apiVersion: orchestrator/v1
kind: Blueprint
name: simple_flow
api_endpoint: /jobs/simple_flow
api_version: v1
states:
  start:
    start: true
    dispatch_task:
      type: video_processing
      params: {clip: "${initial_data.clip}"}
      timeout_seconds: 300
      transitions: {success: finished, needs_review: review}
  review:
    when:
      - {if: "context.initial_data.urgent == 'yes'", transition_to: finished}
    await_human_approval: {integration: mail, message: "ok?", transitions: {approved: finished, rejected: failed}}
"""


def a_visit(state: str = "start", **changes: Any) -> Visit:
    """A visit of a state of blueprint `b`."""
    values: dict[str, Any] = {
        "job_id": "1c6c2d07-8110-4132-acd7-cf39dd403e49",
        "blueprint": "b",
        "version": 1,
        "state": state,
        "serial": 1,
        "initial_data": {},
        "state_history": {},
        "client": {"name": "default", "plan": None},
        "aggregation_results": {},
    }
    return Visit(**(values | changes))


def a_machine(*states: State, **changes: Any) -> Blueprint:
    """A blueprint of these states."""
    return Blueprint(**({"name": "b", "states": {state.name: state for state in states}} | changes))


def leading(name: str, *to: str, **changes: Any) -> State:
    """A state of code that leads to these states."""
    return State(name, code=True, leads=tuple(Lead(state) for state in to), **changes)


def python_blueprint(name: str = "b", **options: Any) -> StateMachineBlueprint:
    """A blueprint without states."""
    return StateMachineBlueprint(name, **options)
