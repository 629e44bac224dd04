"""`${path}` in declared states: what it reads, and what becomes of the value around it.

    "${initial_data.clip}"             the value itself, with its type; null when there is none
    "clip ${initial_data.clip}!"       text: strings as they are, everything else as JSON
    {"a": ["${job_id}"]}               objects and lists are filled within; their keys are not

A path is a root and the steps below it, with dots between: keys of objects, numbers for places of lists. There are no
other expressions, and what was filled in is not looked at again. Source: jobs contract, section 7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.errors import Invalid

ROOTS = ("initial_data", "state_history", "aggregation_results", "job_id")

#: stands for a value that is not there; is no JSON value
MISSING: Any = object()

_OPEN = "${"
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_PLACE = re.compile(r"0|[1-9][0-9]{0,8}")
_encode = msgspec.json.Encoder().encode


def look_up(value: Any, steps: Sequence[str]) -> Any:
    """What is below `value` at the end of these steps; MISSING when they lead nowhere."""
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step, MISSING)
        elif isinstance(value, list) and _PLACE.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def fill(value: Any, scope: Mapping[str, Any]) -> Any:
    """`value` with its placeholders replaced by what `scope` has under ROOTS."""
    if isinstance(value, str):
        return _filled(value, scope) if _OPEN in value else value
    if isinstance(value, dict):
        return {key: fill(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, scope) for item in value]
    return value


def fill_text(text: str, scope: Mapping[str, Any]) -> str:
    """The same where only text will do."""
    return _PLACEHOLDER.sub(lambda found: _as_text(_read(found[1], scope)), text)


def check_templates(value: Any) -> None:
    """Every placeholder in `value` is one. Raises Invalid."""
    for text in _texts(value):
        for path in _PLACEHOLDER.findall(text):
            _check_path(path)
        if _OPEN in _PLACEHOLDER.sub("", text):
            raise Invalid(f"{text[:200]!r} holds a ${{ that no }} ends")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _check_path(path: str) -> None:
    root, *steps = path.split(".")
    if root not in ROOTS:
        raise Invalid(f"${{{path[:200]}}} must begin with one of {', '.join(ROOTS)}")
    if not all(step and step == step.strip() for step in steps):
        raise Invalid(f"${{{path[:200]}}} must be names with single dots between")


def _filled(text: str, scope: Mapping[str, Any]) -> Any:
    whole = _PLACEHOLDER.fullmatch(text)
    return _read(whole[1], scope) if whole else fill_text(text, scope)


def _read(path: str, scope: Mapping[str, Any]) -> Any:
    found = look_up(scope, path.split("."))
    return None if found is MISSING else found


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()
