"""A visit of a declared state: what it comes to, without any code of the author's.

    set ─▶ when, in order: the first that holds acts ─▶ else the state's own action ─▶ Outcome

`set` is filled in from what the job came with; conditions and actions then see what it wrote. An end state has no
action, and its visit none in its outcome. Source: jobs contract, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.blueprint import Action, Approval, Blueprint, Dispatch, Outcome, Parallel, State, SubBlueprint, Visit
from orchestrator.blueprint import refused as refused_visit
from orchestrator.conditions import parse_condition
from orchestrator.faults import json_fault
from orchestrator.templates import fill, fill_text

#: bytes of `state_history`, and of an action, as JSON
OUTCOME_MAX_BYTES = 16 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


def visit(blueprint: Blueprint, visit: Visit) -> Outcome:
    """What the visit comes to. Raises nothing: what is wrong is in the outcome."""
    state = blueprint.states.get(visit.state)
    if state is None or state.code:
        what = "state" if state is None else "declared state"
        return refused_visit(f"Blueprint {blueprint.name!r} has no {what} {visit.state!r}")
    scope = areas_of(visit) | {"job_id": visit.job_id}
    if not state.set:
        return Outcome(action=_action(state, scope), state_history=visit.state_history)
    scope["state_history"] = visit.state_history | fill(state.set, scope)
    return kept(_action(state, scope), scope["state_history"])


def areas_of(visit: Visit) -> dict[str, Any]:
    """What conditions look into."""
    return {
        "initial_data": visit.initial_data,
        "state_history": visit.state_history,
        "aggregation_results": visit.aggregation_results,
        "client": visit.client,
    }


def kept(action: Action | None, state_history: Any) -> Outcome:
    """The outcome, if a journal can keep it; else one that says why not."""
    if not isinstance(state_history, dict):
        return refused_visit(f"state_history must be an object, not {type(state_history).__name__}")
    if found := json_fault(state_history):
        return refused_visit(f"{'/'.join(filter(None, ('state_history', found[0])))} {found[1]}")
    for what, value in (("state_history", state_history), ("the action", action)):
        if (size_bytes := len(_encode(value))) > OUTCOME_MAX_BYTES:
            return refused_visit(f"{what} has {size_bytes} bytes, more than {OUTCOME_MAX_BYTES}")
    return Outcome(action=action, state_history=state_history)


def _action(state: State, scope: Mapping[str, Any]) -> Action | None:
    action = _chosen(state, scope)
    return None if action is None else _filled(action, scope)


def _chosen(state: State, scope: Mapping[str, Any]) -> Action | None:
    for guarded in state.when:
        if parse_condition(guarded.condition).holds(scope):
            return guarded.action
    return state.action


def _filled(action: Action, scope: Mapping[str, Any]) -> Action:
    match action:
        case Dispatch():
            return _filled_task(action, scope)
        case Parallel(tasks=tasks):
            return msgspec.structs.replace(action, tasks=tuple(_filled_task(task, scope) for task in tasks))
        case Approval(message=message):
            return msgspec.structs.replace(action, message=fill_text(message, scope))
        case SubBlueprint(initial_data=data):
            return msgspec.structs.replace(action, initial_data=fill(data, scope))
        case _:
            return action


def _filled_task(task: Dispatch, scope: Mapping[str, Any]) -> Dispatch:
    return msgspec.structs.replace(
        task, params=fill(task.params, scope), resource_requirements=fill(task.resource_requirements, scope)
    )
