"""Actions as they are written, in a file or as arguments of `actions`, and the actions they make.

    {"type": "video", "params": {…}, "transitions": {…}}  ──fields known? values right?──▶  Dispatch(…)  or faults

One table per action says which fields there are and what each may hold, so that Python, YAML and JSON have the same
bounds. Everything in an action is JSON that a journal can keep. Source: jobs contract, section 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from orchestrator.blueprint import Action, Approval, Dispatch, Parallel, SubBlueprint, Transition
from orchestrator.faults import DEPTH_MAX, VALUES_MAX, Fault, json_fault

#: the five actions, by the names of the contract
ACTIONS = ("transition_to", "dispatch_task", "dispatch_parallel", "await_human_approval", "run_blueprint")
STRATEGIES = ("default", "round_robin", "least_connections", "cheapest", "best_value")
#: characters of a state, a task type, a result status
NAME_MAX = 250
#: tasks of one dispatch_parallel
BRANCHES_MAX = 10_000
#: seconds
TIMEOUT_MAX_S = 10 * 366 * 86_400
_NUMBER_MAX = 1e15


def read_action(kind: str, written: Any, path: str, faults: list[Fault]) -> Action | None:
    """The action of that kind; None when it is at fault, which `faults` then tell below `path`."""
    if found := json_fault(written):
        faults.append((_below(path, found[0]), found[1]))
        return None
    if kind == "transition_to":
        return _transition(written, path, faults)
    if kind == "dispatch_parallel":
        return _parallel(written, path, faults)
    made, fields = _FORMS[kind]
    values = _values(written, fields, path, faults)
    return None if values is None else cast(Action, made(**values))


def read_object(value: Any, allowed: Mapping[str, bool], path: str, faults: list[Fault]) -> dict[str, Any] | None:
    """`value` as an object with these keys (name -> is it required?); None when it is none, or lacks one."""
    if not isinstance(value, dict):
        faults.append((path, "must be an object"))
        return None
    for key in value:
        if key not in allowed:
            faults.append((_below(path, key), f"unknown key; expected {', '.join(allowed)}"))
    missing = [key for key, required in allowed.items() if required and key not in value]
    faults += [(_below(path, key), "is required") for key in missing]
    return None if missing else {key: item for key, item in value.items() if key in allowed}


def plain(value: Any) -> Any:
    """`value` with tuples as lists and subclasses of dict, list and str as those; anything else stays what it is.

    What is too deep or too much for `json_fault` is left alone, for that to tell: a value may hold itself.
    """
    return _plain(value, 0, [VALUES_MAX])


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth > DEPTH_MAX or budget[0] < 0:
        return value
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1, budget): _plain(item, depth + 1, budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1, budget) for item in value]
    return str.__str__(value) if isinstance(value, str) and type(value) is not str else value


Check = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of an action: what it may hold, "" from `check` meaning that it may."""

    check: Check
    required: bool = False


def _values(written: Any, fields: Mapping[str, _Field], path: str, faults: list[Fault]) -> dict[str, Any] | None:
    values = read_object(written, {name: field.required for name, field in fields.items()}, path, faults)
    if values is None:
        return None
    sound = [_sound(_below(path, name), fields[name].check(value), faults) for name, value in values.items()]
    return values if all(sound) else None


def _transition(written: Any, path: str, faults: list[Fault]) -> Transition | None:
    """The name of the state alone, or `{"state": name}`."""
    if isinstance(written, dict):
        values = _values(written, {"state": _Field(_name, True)}, path, faults)
        return None if values is None else Transition(values["state"])
    return Transition(written) if _sound(path, _name(written), faults) else None


def _parallel(written: Any, path: str, faults: list[Fault]) -> Parallel | None:
    values = _values(written, {"tasks": _Field(_branches, True), "aggregate_into": _Field(_name, True)}, path, faults)
    if values is None:
        return None
    branches = [
        _values(branch, _BRANCH, _below(path, f"tasks/{place}"), faults) for place, branch in enumerate(values["tasks"])
    ]
    if None in branches:
        return None
    return Parallel(tuple(Dispatch(**branch) for branch in branches if branch is not None), values["aggregate_into"])


def _sound(path: str, problem: str, faults: list[Fault]) -> bool:
    if problem:
        faults.append((path, problem))
    return not problem


def _below(path: str, step: str) -> str:
    return "/".join(part for part in (path, step[:NAME_MAX]) if part)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        return "must be a name"
    if "${" in value:
        return "cannot hold a placeholder"
    return f"is longer than {NAME_MAX} characters" if len(value) > NAME_MAX else ""


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be text"


def _object(value: Any) -> str:
    return "" if isinstance(value, dict) else "must be an object"


def _object_or_none(value: Any) -> str:
    return "" if value is None else _object(value)


def _strategy(value: Any) -> str:
    return "" if value in STRATEGIES else f"must be one of {', '.join(STRATEGIES)}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number"
    return "" if math.fabs(value) <= _NUMBER_MAX else "is too large"


def _timeout(value: Any) -> str:
    if value is None or (problem := _number(value)):
        return "" if value is None else problem
    return "" if 0 < value <= TIMEOUT_MAX_S else f"must be above 0 and at most {TIMEOUT_MAX_S}"


def _cost(value: Any) -> str:
    if value is None or (problem := _number(value)):
        return "" if value is None else problem
    return "" if value >= 0 else "must not be negative"


def _branches(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return "must be a list of tasks"
    return f"has more than {BRANCHES_MAX} tasks" if len(value) > BRANCHES_MAX else ""


def _transitions(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be an object of states"
    for status, state in value.items():
        if problem := _name(status) or _name(state):
            return f"{status[:NAME_MAX]!r} leads to {str(state)[:NAME_MAX]!r}: {problem}"
    return ""


def _decisions(value: Any) -> str:
    return _transitions(value) or ("" if value else "must have at least one decision")


def _outcomes(value: Any) -> str:
    return _transitions(value) or ("" if "success" in value else "must say where 'success' leads")


_BRANCH: dict[str, _Field] = {
    "type": _Field(_name, True),
    "params": _Field(_object),
    "dispatch_strategy": _Field(_strategy),
    "resource_requirements": _Field(_object_or_none),
    "timeout_seconds": _Field(_timeout),
    "max_cost": _Field(_cost),
    "priority": _Field(_number),
}
_FORMS: dict[str, tuple[Callable[..., Any], dict[str, _Field]]] = {
    "dispatch_task": (Dispatch, {**_BRANCH, "transitions": _Field(_transitions, True)}),
    "await_human_approval": (
        Approval,
        {"integration": _Field(_text, True), "message": _Field(_text, True), "transitions": _Field(_decisions, True)},
    ),
    "run_blueprint": (
        SubBlueprint,
        {"name": _Field(_name, True), "initial_data": _Field(_object), "transitions": _Field(_outcomes, True)},
    ),
}
