"""What is wrong with something a stranger sent, field by field.

A fault is (path of the field with slashes, what is wrong with it): `("tasks/1/id", "duplicate task 'a'")`.
`refusal` turns faults into the one error a caller gets; `json_fault` finds what JSON could carry, or a
YAML file or a Python literal holds, and a journal could not keep: it never raises, whatever it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import Invalid

Fault = tuple[str, str]

#: faults listed in one refusal; the rest are only counted
FAULTS_MAX = 20
#: levels of objects and lists in each other
DEPTH_MAX = 64
#: values in one document, counted through YAML aliases
VALUES_MAX = 2_000_000
#: characters of a key that a field path repeats
_STEP_MAX = 100
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def refusal(faults: Sequence[Fault]) -> Invalid:
    """One error for all `faults`: its message tells the first, its details the first FAULTS_MAX."""
    field, problem = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Invalid(f"{field}: {problem}{more}" if field else problem + more, tuple(faults[:FAULTS_MAX]))


def json_fault(value: object) -> Fault | None:
    """The first part of `value` that is not JSON we can keep, or None."""
    return _fault(value, 0, [VALUES_MAX])


def _fault(value: Any, depth: int, budget: list[int]) -> Fault | None:
    budget[0] -= 1
    if budget[0] < 0:
        return ("", f"has more than {VALUES_MAX} values")
    kind = type(value)
    if value is None or kind is bool:
        return None
    if kind is str:
        return _text_fault(value)
    if kind is int:
        return None if _INT_MIN <= value <= _INT_MAX else ("", "does not fit in 64 bits")
    if kind is float:
        return None if math.isfinite(value) else ("", "must be a finite number")
    if kind is dict:
        return _object_fault(value, depth, budget)
    if kind is list:
        return _list_fault(value, depth, budget)
    return ("", f"is not JSON but a {kind.__name__}")


def _text_fault(text: str) -> Fault | None:
    if text.isascii():
        return ("", "holds a NUL character") if "\0" in text else None
    if "\0" in text:
        return ("", "holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        return ("", "holds a lone surrogate")
    return None


def _object_fault(value: dict[Any, Any], depth: int, budget: list[int]) -> Fault | None:
    if depth >= DEPTH_MAX:
        return ("", f"is nested deeper than {DEPTH_MAX} levels")
    for key, item in value.items():
        if type(key) is not str:
            return ("", f"has a key that is not a string: {_shown(key)}")
        if found := _text_fault(key):
            return ("", f"has a key that {found[1]}")
        if found := _fault(item, depth + 1, budget):
            return _below(key, found)
    return None


def _list_fault(value: list[Any], depth: int, budget: list[int]) -> Fault | None:
    if depth >= DEPTH_MAX:
        return ("", f"is nested deeper than {DEPTH_MAX} levels")
    for place, item in enumerate(value):
        if found := _fault(item, depth + 1, budget):
            return _below(str(place), found)
    return None


def _below(step: str, fault: Fault) -> Fault:
    step = step if len(step) <= _STEP_MAX else step[:_STEP_MAX] + "…"
    return (f"{step}/{fault[0]}" if fault[0] else step, fault[1])


def _shown(key: object) -> str:
    return repr(key) if isinstance(key, (int, float)) and -1e9 < key < 1e9 else type(key).__name__
