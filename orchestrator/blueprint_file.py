"""A blueprint as YAML or JSON, read into the blueprint it describes.

    text ──YAML or JSON──▶ body ──▶ keys known? actions, conditions, placeholders right? ──▶ states ──check──▶ Blueprint

Whatever is wrong raises `Invalid`, whose details name each place by its path, as in `states/review/when/0/if`. Unknown
keys are wrong. Source: jobs contract, section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from orchestrator.action_form import ACTIONS, read_action, read_object
from orchestrator.blueprint import (
    END_STATES,
    Action,
    Approval,
    Blueprint,
    Dispatch,
    Guarded,
    Parallel,
    State,
    SubBlueprint,
    sealed,
)
from orchestrator.blueprint_checks import check
from orchestrator.conditions import parse_condition
from orchestrator.errors import Invalid
from orchestrator.faults import Fault, json_fault, refusal
from orchestrator.templates import check_templates
from orchestrator.yaml_json import read_yaml

API_VERSION = "orchestrator/v1"
KIND = "Blueprint"

_TOP = {"apiVersion": True, "kind": True, "name": True, "states": True, "api_endpoint": False, "api_version": False}
_STATE = {"start": False, "end": False, "set": False, "when": False, **dict.fromkeys(ACTIONS, False)}
_GUARDED = {"if": True, **dict.fromkeys(ACTIONS, False)}


def from_yaml(text: str) -> Blueprint:
    """The blueprint in a YAML text. Raises Invalid."""
    return parse_blueprint(read_yaml(text))


def from_json(text: str | bytes) -> Blueprint:
    """The blueprint in a JSON text. Raises Invalid."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"malformed JSON: {error}") from None
    return parse_blueprint(body)


def parse_blueprint(body: Any) -> Blueprint:
    """The blueprint that `body` describes. Raises Invalid."""
    if found := json_fault(body):
        raise refusal([found])
    faults: list[Fault] = []
    top = read_object(body, _TOP, "", faults)
    if top is None:
        raise refusal(faults)
    faults += _head(top)
    states = _states(top["states"], faults)
    if faults:
        raise refusal(faults)
    blueprint = Blueprint(top["name"], states, top.get("api_endpoint"), top.get("api_version"))
    check(blueprint)
    return sealed(blueprint)


def _head(top: dict[str, Any]) -> Iterator[Fault]:
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if top[key] != expected:
            yield key, f"must be {expected!r}"
    for key in ("name", "api_endpoint", "api_version"):
        if key in top and not isinstance(top[key], str):
            yield key, "must be text"


def _states(written: Any, faults: list[Fault]) -> dict[str, State]:
    if not isinstance(written, dict) or not written:
        faults.append(("states", "must be an object with at least one state"))
        return {}
    return {name: _state(name, body, f"states/{name}", faults) for name, body in written.items()}


def _state(name: str, written: Any, path: str, faults: list[Fault]) -> State:
    body = read_object(written, _STATE, path, faults)
    if body is None:
        return State(name)
    start, end = (_flag(body, key, path, faults) for key in ("start", "end"))
    first = _set(body.get("set", {}), f"{path}/set", faults)
    kinds = [kind for kind in ACTIONS if kind in body]
    if end or (name in END_STATES and not kinds):
        if kinds or "when" in body:
            faults.append((path, "is an end: it cannot act"))
        return State(name, start=start, end=True, set=first)
    if name in END_STATES:
        faults.append((path, f"{name} is an end state: it cannot act"))
    action = _one_action(body, kinds, path, " or `end: true`", faults)
    return State(
        name, start=start, set=first, when=_guards(body.get("when", []), f"{path}/when", faults), action=action
    )


def _flag(body: dict[str, Any], key: str, path: str, faults: list[Fault]) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        faults.append((f"{path}/{key}", "must be true or false"))
    return value is True


def _set(written: Any, path: str, faults: list[Fault]) -> dict[str, Any]:
    if not isinstance(written, dict):
        faults.append((path, "must be an object"))
        return {}
    _try(check_templates, written, path, faults)
    return written


def _guards(written: Any, path: str, faults: list[Fault]) -> tuple[Guarded, ...]:
    if not isinstance(written, list):
        faults.append((path, "must be a list"))
        return ()
    guards = [_guarded(one, f"{path}/{place}", faults) for place, one in enumerate(written)]
    return tuple(one for one in guards if one is not None)


def _guarded(written: Any, path: str, faults: list[Fault]) -> Guarded | None:
    body = read_object(written, _GUARDED, path, faults)
    if body is None:
        return None
    condition = body["if"]
    if not isinstance(condition, str):
        faults.append((f"{path}/if", "must be text"))
        return None
    _try(parse_condition, condition, f"{path}/if", faults)
    action = _one_action(body, [kind for kind in ACTIONS if kind in body], path, "", faults)
    return Guarded(condition, action)


def _one_action(body: dict[str, Any], kinds: list[str], path: str, other: str, faults: list[Fault]) -> Action | None:
    if len(kinds) != 1:
        have = f"not {' and '.join(kinds)}" if kinds else f"one of {', '.join(ACTIONS)}{other}"
        faults.append((path, f"must have exactly one action: {have}"))
        return None
    where = f"{path}/{kinds[0]}"
    action = read_action(kinds[0], body[kinds[0]], where, faults)
    if action is not None:
        _try(check_templates, _templated(action), where, faults)
    return action


def _templated(action: Action) -> Any:
    """The parts of an action that may hold placeholders."""
    match action:
        case Dispatch(params=params, resource_requirements=requirements):
            return [params, requirements]
        case Parallel(tasks=tasks):
            return [_templated(task) for task in tasks]
        case Approval(message=message):
            return message
        case SubBlueprint(initial_data=data):
            return data
        case _:
            return None


def _try(attempt: Callable[[Any], Any], value: Any, path: str, faults: list[Fault]) -> None:
    try:
        attempt(value)
    except Invalid as invalid:
        faults.append((path, invalid.message))
