"""Conditions of blueprints: one comparison, read by a small grammar and never evaluated as code.

    condition  context . <area> . <field> <op> <value>        context.initial_data.urgent == 'yes'
    op         ==  !=  >=  <=  >  <
    value      42   -1.5   true   false   'text'   "text"   text

A field may go deeper, step by step, as a placeholder does (`templates.py`). Comparison is strict by type: numbers with
numbers, text with text, booleans with booleans, which know no order. So `"10" >= 10` and `"true" == true` are false,
and `"10" != 10` is true. A field that is missing, null, a list or an object compares false, also by `!=`.
Source: jobs contract, sections 7 and 9a.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.errors import Invalid
from orchestrator.templates import look_up

#: what a condition can look into
AREAS = ("initial_data", "state_history", "aggregation_results", "client")
LONGEST = 1000

Scalar = str | int | float | bool

_EQUALITY: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, "!=": operator.ne}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"context\.(\w+)\.([\w-]+(?:\.[\w-]+)*)\s*(==|!=|>=|<=|>|<)\s*(.*)", re.DOTALL)
_INT = re.compile(r"[+-]?[0-9]{1,300}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition."""

    text: str
    area: str
    #: keys from the area down to the field
    steps: tuple[str, ...]
    op: str
    value: Scalar

    def holds(self, areas: Mapping[str, Any]) -> bool:
        """Is it true of these areas? Never raises."""
        found = look_up(areas, (self.area, *self.steps))
        kind = _kind(found)
        if kind is None:
            return False
        if kind != _kind(self.value):
            return self.op == "!="
        if self.op in _EQUALITY:
            return _EQUALITY[self.op](found, self.value)
        return kind is not bool and _ORDER[self.op](found, self.value)


@lru_cache(maxsize=1024)
def parse_condition(text: str) -> Condition:
    """The condition in `text`. Raises Invalid."""
    match = _FORM.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if match is None:
        raise _refused(text, "expected context.<area>.<field> <op> <value> with one of == != > < >= <=")
    area, field, op, value = match.groups()
    if area not in AREAS:
        raise _refused(text, f"there is no context.{area}; expected one of {', '.join(AREAS)}")
    return Condition(text, area, tuple(field.split(".")), op, _value(text, value))


def _value(text: str, written: str) -> Scalar:
    if written in ("true", "false"):
        return written == "true"
    if _INT.fullmatch(written):
        return int(written)
    if _FLOAT.fullmatch(written):
        return float(written)
    if written[:1] in ("'", '"'):
        quote, inside = written[0], written[1:-1]
        if len(written) < 2 or written[-1] != quote or quote in inside:
            raise _refused(text, f"the text after the operator must end with its {quote}, and hold no other")
        return inside
    if not written:
        raise _refused(text, "there is no value after the operator")
    if re.search("[=<>]", written):
        raise _refused(text, "only one comparison is possible; put a text with such signs in quotes")
    return written


def _kind(value: object) -> type | None:
    """What it compares with; None = with nothing."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else None


def _refused(text: str, why: str) -> Invalid:
    return Invalid(f"condition {text[:200]!r}: {why}")
