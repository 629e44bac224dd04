"""Where a handler leads, as far as its source tells: for the graph, and to find what leads nowhere.

    actions.transition_to("review")                          ─▶ review
    actions.dispatch_task(…, transitions={"ok": "done"})     ─▶ done, labelled ok
    actions.dispatch_parallel(…, aggregate_into="merge")     ─▶ merge

Known is what is written down: literals, either side of `a if c else b`, and texts that have a name at the top level of
the module, around the handler, or in a class there. Everything else makes the handler dynamic: it may lead anywhere. So
does handing `actions` or `context` on to another function, and a source that cannot be read.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.blueprint import Lead

#: action -> (place, name) of the argument that says where it leads
_TARGETS = {
    "transition_to": (0, "state"),
    "dispatch_task": (2, "transitions"),
    "dispatch_parallel": (1, "aggregate_into"),
    "await_human_approval": (2, "transitions"),
    "run_blueprint": (2, "transitions"),
}
#: what acts when it is handed on
_POWERS = ("actions", "context")


@dataclass(frozen=True, slots=True)
class Leads:
    """What was found."""

    known: tuple[Lead, ...] = ()
    #: it may lead elsewhere as well
    dynamic: bool = False


class _Unknown(Exception):
    """Only running the code can tell."""


def text_of(function: Callable[..., Any]) -> str:
    """What tells this handler from another: its source, or its byte code when there is none."""
    source = _source(function)
    if source is not None:
        return source
    code = getattr(inspect.unwrap(function), "__code__", None)
    return type(function).__qualname__ if code is None else f"{code.co_qualname} {code.co_code.hex()} {code.co_names}"


def leads_in(function: Callable[..., Any]) -> Leads:
    """Where the handler leads. Raises nothing."""
    try:
        tree = ast.parse(_source(function) or "?")
    except (SyntaxError, ValueError, RecursionError):
        return Leads(dynamic=True)
    names = _names_around(inspect.unwrap(function))
    known: list[Lead] = []
    dynamic = _hands_on(tree)
    for call, action in _calls(tree):
        try:
            known += _leads(call, action, names)
        except _Unknown:
            dynamic = True
    return Leads(tuple(dict.fromkeys(known)), dynamic)


def _source(function: Callable[..., Any]) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError, ValueError, SyntaxError):
        return None


def _names_around(function: Callable[..., Any]) -> Mapping[str, Any]:
    """What names stand for whenever the handler runs, unless somebody sets them anew."""
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    names = dict(getattr(function, "__globals__", {}))
    for name, cell in zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not bound yet
            names.pop(name, None)
    return {name: value for name, value in names.items() if name not in code.co_varnames}


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _TARGETS:
            yield node, node.func.attr


def _hands_on(tree: ast.AST) -> bool:
    """Does `actions` or `context` go anywhere but before a dot?"""
    before_dots = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        power = isinstance(node, ast.Name) and node.id in _POWERS and isinstance(node.ctx, ast.Load)
        power |= isinstance(node, ast.Attribute) and node.attr == "actions"
        if power and id(node) not in before_dots:
            return True
    return False


def _leads(call: ast.Call, action: str, names: Mapping[str, Any]) -> Iterator[Lead]:
    place, name = _TARGETS[action]
    written = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    if written is None:
        if len(call.args) <= place or any(isinstance(argument, ast.Starred) for argument in call.args[: place + 1]):
            raise _Unknown
        written = call.args[place]
    if name != "transitions":
        label = "all results" if action == "dispatch_parallel" else ""
        yield from (Lead(state, label) for state in _texts(written, names))
        return
    if action == "run_blueprint" and not _has_key(written, "failure"):
        yield Lead("failed", "failure")
    yield from _entries(written, names)


def _entries(written: ast.expr, names: Mapping[str, Any]) -> Iterator[Lead]:
    if not isinstance(written, ast.Dict):
        raise _Unknown
    for key, value in zip(written.keys, written.values, strict=True):
        if key is None:  # **others
            raise _Unknown
        for label in _texts(key, names):
            yield from (Lead(state, label) for state in _texts(value, names))


def _has_key(written: ast.expr, key: str) -> bool:
    return isinstance(written, ast.Dict) and any(isinstance(k, ast.Constant) and k.value == key for k in written.keys)


def _texts(written: ast.expr, names: Mapping[str, Any]) -> list[str]:
    """The texts that an expression may have."""
    match written:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=other):
            return [*_texts(body, names), *_texts(other, names)]
        case ast.Name(id=name):
            return [_text(names.get(name))]
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if isinstance(names.get(name), type):
            return [_text(getattr(names[name], attribute, None))]
        case _:
            raise _Unknown


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Unknown
    return str.__str__(value)
