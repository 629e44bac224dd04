"""What can be said about a task's type and params before anything runs.

`core.*` is reserved and closed; `python`, `bash` and `http` are ours too; any other type belongs to the
worker that advertises it, and its params are none of our business. A param that only the run will know
(an input, or `{"$param": …}`) is not looked at, except the command of a `bash` task: that is always text
that the author wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orchestrator.binding import escaped, is_placeholder, own
from orchestrator.definition import WAITING_TYPES, TaskSpec
from orchestrator.faults import Fault
from orchestrator.wait_params import NAMES, misplaced, problems

CORE = ("core.noop", "core.echo", "core.sleep", "core.fail", *sorted(WAITING_TYPES))
SLEEP_MAX_S = 3600
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class _Rule:
    param: str
    holds: Callable[[Any], bool]
    #: completes "params/<param>: …"
    wording: str
    required: bool = False
    #: must stand in the definition itself
    literal: bool = False


def faults(task: TaskSpec) -> list[Fault]:
    """What is wrong with the type and params of `task`; fields are relative to the task."""
    if task.type.startswith("core.") and task.type not in CORE:
        return [("type", f"unknown type {task.type!r}; the core types are {', '.join(CORE)}")]
    if task.type == "python" and task.entrypoint is None:
        return [("type", "give entrypoint ('module:function') instead of type 'python'")]
    if task.type in WAITING_TYPES:
        return _faults_of_wait(task)
    return [fault for rule in _RULES.get(task.type, ()) if (fault := _broken(rule, task))]


def _faults_of_wait(task: TaskSpec) -> list[Fault]:
    params = {name: own(value) for name, value in task.params.items()}
    paths = {path.partition("/")[0] for path in task.inputs}
    later = {name for name in (*params, *NAMES) if is_placeholder(params.get(name)) or escaped(name) in paths}
    found = problems(task.type, params | dict.fromkeys(later), later)
    literal = ["branches"] if "branches" in later else []
    return [
        *((f"params/{name}", problem) for name, problem in found),
        *((f"params/{name}", "must be written in the definition") for name in literal),
        *misplaced(task),
    ]


def _broken(rule: _Rule, task: TaskSpec) -> Fault | None:
    field = f"params/{rule.param}"
    if _comes_later(rule.param, task):
        return (field, f"{rule.wording}, written in the definition") if rule.literal else None
    if rule.param not in task.params:
        return (field, f"is required: {rule.wording}") if rule.required else None
    return None if rule.holds(own(task.params[rule.param])) else (field, rule.wording)


def _comes_later(param: str, task: TaskSpec) -> bool:
    return is_placeholder(own(task.params.get(param))) or escaped(param) in task.inputs or escaped(param) in task.expand


def _is_sleep(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= SLEEP_MAX_S


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(name and "=" not in name for name in value)


def _is_url(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_method(value: Any) -> bool:
    return isinstance(value, str) and value.upper() in HTTP_METHODS


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_RULES: dict[str, tuple[_Rule, ...]] = {
    "core.sleep": (_Rule("seconds", _is_sleep, f"must be a number from 0 to {SLEEP_MAX_S}", required=True),),
    "core.fail": (
        _Rule("message", _is_text, "must be a string"),
        _Rule("times", _is_count, "must be a whole number, 0 or more"),
        _Rule("permanent", _is_bool, "must be true or false"),
    ),
    "bash": (
        _Rule("command", _is_line, "must be a shell command", required=True, literal=True),
        _Rule("env", _is_environment, "must be an object: names of environment variables to their values"),
    ),
    "http": (
        _Rule("url", _is_url, "must be an http or https URL", required=True),
        _Rule("method", _is_method, f"must be one of {', '.join(sorted(HTTP_METHODS))}"),
        _Rule("headers", _is_object, "must be an object"),
    ),
}
