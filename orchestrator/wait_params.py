"""The params of tasks that wait: what may stand in them, and the wait that they describe.

    core.wait       until (RFC 3339 in Z, or a date: its first instant in UTC) | seconds          done then
    core.signal     name, timeout_s, on_timeout: fail | skip | {"value": …}                       the signal's data
    core.approval   prompt, choices, roles, quorum, expires_s, on_expiry: fail | skip | a choice | expired, branches

They are checked twice by the same rules: as far as they are written in a definition when it arrives, and when the task
begins to wait, with the values of params and inputs. Every wait ends within YEAR_S, whatever its params say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from orchestrator.dates import DATE, parse_instant
from orchestrator.definition import TaskSpec
from orchestrator.errors import Invalid, PermanentFailure
from orchestrator.events import Wait
from orchestrator.faults import Fault
from orchestrator.messages import NO_JSON

#: seconds after which every wait has ended
YEAR_S = 366 * 86_400
CHOICES = ("approve", "reject")
#: what an approval that expired may count as, beside its choices
EXPIRED = "expired"
#: characters of a signal's name, a choice, a role
NAME_MAX = 128
PROMPT_MAX = 10_000
LIST_MAX = 20

_ENDS = ("fail", "skip")
_JSON = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class _Rule:
    holds: Callable[[Any], bool]
    wording: str
    required: bool = False


def problems(task_type: str, params: Mapping[str, Any], later: Container[str] = ()) -> Iterator[Fault]:
    """What is wrong with `params`; nothing is said about those that come `later`."""
    rules = _RULES[task_type]
    for name, rule in rules.items():
        if name in later:
            continue
        if name not in params:
            if rule.required:
                yield name, f"is required: {rule.wording}"
        elif not rule.holds(params[name]):
            yield name, rule.wording
    yield from ((name, f"is no param of {task_type}") for name in params if name not in rules)
    if task_type == "core.wait" and ("until" in params) == ("seconds" in params):
        yield "until", "give either until or seconds"
    if task_type == "core.approval" and not {"choices", "on_expiry"}.intersection(_in(params, later)):
        yield from _of_choices(params)


def _in(params: Mapping[str, Any], later: Container[str]) -> set[str]:
    return {name for name in params if name in later}


def _of_choices(params: Mapping[str, Any]) -> Iterator[Fault]:
    choices, end = params.get("choices", CHOICES), params.get("on_expiry", "fail")
    if not isinstance(choices, list | tuple) or not isinstance(end, str):
        return  # told already
    ends = (*choices, EXPIRED)
    if end not in (*_ENDS, *ends):
        yield "on_expiry", f"must be fail, skip, {EXPIRED} or one of the choices"
    branches = params.get("branches", {})
    if isinstance(branches, dict) and (unknown := [name for name in branches if name not in ends]):
        yield f"branches/{unknown[0]}", "is no choice"


def misplaced(task: TaskSpec) -> Iterator[Fault]:
    """What a task that waits cannot have."""
    if task.retries:
        yield "retries", f"a {task.type} task is not tried again by itself"
    if task.timeout_s != TaskSpec(id="").timeout_s:
        yield "timeout_s", "a task that waits has a limit of its own among its params"
    if task.teardown_of:
        yield "teardown_of", "a task that waits cannot be a teardown"
    if task.branch and task.type == "core.wait":
        yield "branch", "time chooses no way"
    if "branches" in task.params and not task.branch:
        yield "params/branches", "needs branch: true"


def wait_of(task_type: str, params: Mapping[str, Any], now: datetime) -> Wait:
    """What a task with these params waits for from `now` on. Raises PermanentFailure."""
    for name, problem in problems(task_type, params):
        raise PermanentFailure(f"params.{name} {problem}")
    match task_type:
        case "core.wait":
            until = _until(params, now)
            if until > now + timedelta(seconds=YEAR_S):
                raise PermanentFailure(f"params.until is more than {YEAR_S} s away")
            return Wait("time", until, at_end="done")
        case "core.signal":
            at_end = params.get("on_timeout", "fail")
            default = msgspec.Raw(_JSON.encode(at_end["value"])) if isinstance(at_end, dict) else NO_JSON
            until = now + timedelta(seconds=params.get("timeout_s", YEAR_S))
            word = "value" if isinstance(at_end, dict) else at_end
            return Wait("signal", until, name=params["name"], at_end=word, default=default)
    return Wait(
        "approval",
        now + timedelta(seconds=params.get("expires_s", YEAR_S)),
        prompt=params["prompt"],
        choices=tuple(params.get("choices", CHOICES)),
        roles=tuple(params.get("roles", ())),
        quorum=params.get("quorum", 1),
        at_end=params.get("on_expiry", "fail"),
    )


def _until(params: Mapping[str, Any], now: datetime) -> datetime:
    if "seconds" in params:
        return now + timedelta(seconds=params["seconds"])
    try:
        return _instant(params["until"])
    except (Invalid, ValueError):  # with a template that a definition may have, and a run may not
        raise PermanentFailure(f"params.until {_RULES['core.wait']['until'].wording}") from None


def _instant(text: str) -> datetime:
    if DATE.fullmatch(text):
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    return parse_instant(text, "until")


def _is_instant(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        _instant(value)
    except (Invalid, ValueError):
        return "{{" in value
    return True


def _is_span(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= YEAR_S


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_MAX and value.isprintable()


def _is_choice(value: Any) -> bool:
    return _is_name(value) and value not in (*_ENDS, EXPIRED)


def _is_list_of(holds: Callable[[Any], bool], least: int) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        fits = isinstance(value, list | tuple) and least <= len(value) <= LIST_MAX
        return fits and all(map(holds, value)) and len(set(value)) == len(value)

    return check


def _is_end_of_signal(value: Any) -> bool:
    return value in _ENDS if isinstance(value, str) else isinstance(value, dict) and set(value) == {"value"}


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value.values()
    )


_SPAN = f"must be a number from 0 to {YEAR_S}"
_RULES: dict[str, dict[str, _Rule]] = {
    "core.wait": {
        "until": _Rule(_is_instant, "must be an instant YYYY-MM-DDTHH:MM:SSZ or a date"),
        "seconds": _Rule(_is_span, _SPAN),
    },
    "core.signal": {
        "name": _Rule(_is_name, f"must be a name of 1 to {NAME_MAX} characters", required=True),
        "timeout_s": _Rule(_is_span, _SPAN),
        "on_timeout": _Rule(_is_end_of_signal, 'must be fail, skip or {"value": …}'),
    },
    "core.approval": {
        "prompt": _Rule(
            lambda value: isinstance(value, str) and 0 < len(value) <= PROMPT_MAX,
            f"must be a text of 1 to {PROMPT_MAX} characters",
            required=True,
        ),
        "choices": _Rule(
            _is_list_of(_is_choice, 1),
            f"must be 1 to {LIST_MAX} different words other than fail, skip and {EXPIRED}",
        ),
        "roles": _Rule(_is_list_of(_is_name, 0), f"must be up to {LIST_MAX} different scopes or names"),
        "quorum": _Rule(lambda value: type(value) is int and 1 <= value <= LIST_MAX, f"must be 1 to {LIST_MAX}"),
        "expires_s": _Rule(_is_span, _SPAN),
        "on_expiry": _Rule(_is_name, f"must be fail, skip, {EXPIRED} or one of the choices"),
        "branches": _Rule(_is_map, "must be an object: choice to a list of task ids"),
    },
}

#: of all params of tasks that wait
NAMES = frozenset(name for rules in _RULES.values() for name in rules)
