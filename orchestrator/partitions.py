"""Partitions: the piece of a data set that a run is about, where that is not a piece of time.

    partitions: ["eu", "us"]                                   each value is one
    partitions: {"region": ["eu", "us"], "day": ["mon"]}       each combination is one; the last list varies fastest

A partition is a window like any other (`Window.partition`), identified by its text, so it has one spelling: `eu`, or
`day=mon/region=eu` with names in their order; in a value `%`, `=` and `/` are written `%25`, `%3D` and `%2F`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Any

from orchestrator.definition import Dimension, Window
from orchestrator.errors import Invalid

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
#: characters of a value
VALUE_MAX = 200
#: values of one list, and lists of a product
VALUES_MAX = 100_000
DIMENSIONS_MAX = 8

_NAME = re.compile(NAME, re.ASCII)
_ESCAPES = (("%", "%25"), ("=", "%3D"), ("/", "%2F"))

#: what a caller writes: a list, or lists by name
Lists = list[str] | dict[str, list[str]]


def parse(body: object, field: str = "partitions") -> tuple[Dimension, ...]:
    """A list of values, or an object of lists. Raises Invalid."""
    if isinstance(body, list):
        return (Dimension("", _values(body, field)),)
    if not isinstance(body, dict) or not body:
        raise _wrong(field, "array of texts, or object of such arrays expected")
    if len(body) > DIMENSIONS_MAX:
        raise _wrong(field, f"at most {DIMENSIONS_MAX} lists")
    for name in body:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _wrong(f"{field}/{name}", f"name must match ^{NAME}$")
    return tuple(Dimension(name, _values(values, f"{field}/{name}")) for name, values in body.items())


def parse_one(body: object, field: str = "partition") -> str:
    """The text of one partition: a value, or an object of values by name. Raises Invalid."""
    body = {name: [value] for name, value in body.items()} if isinstance(body, dict) else [body]
    return text_of([(each.name, each.values[0]) for each in parse(body, field)])


def lists(dimensions: Sequence[Dimension]) -> Lists:
    """What `parse` reads as these dimensions."""
    if len(dimensions) == 1 and not dimensions[0].name:
        return list(dimensions[0].values)
    return {each.name: list(each.values) for each in dimensions}


def windows(dimensions: Sequence[Dimension], limit: int) -> list[Window]:
    """One window per combination, the last list varying fastest. Raises Invalid when there are more than `limit`."""
    found = list(islice(_texts(dimensions), limit + 1))
    if len(found) > limit:
        raise _wrong("partitions", f"more than {limit} partitions")
    return [Window(partition=text) for text in found]


def check_declared(asked: Sequence[Dimension], declared: Sequence[Dimension]) -> None:
    """What is asked for is part of what the DAG declares, when it declares anything. Raises Invalid."""
    if not declared:
        return
    known = {each.name: frozenset(each.values) for each in declared}
    if {each.name for each in asked} != known.keys():
        raise _wrong("partitions", f"the DAG declares {' × '.join(known) or 'one list'}")
    for each in asked:
        if unknown := [value for value in each.values if value not in known[each.name]]:
            raise _wrong(f"partitions/{each.name}".rstrip("/"), f"{unknown[0]!r} is not declared by the DAG")


def check_one(text: str, declared: Sequence[Dimension]) -> None:
    """The same for one partition. Raises Invalid."""
    parts = parts_of(text) or {"": plain(text)}
    check_declared([Dimension(name, (value,)) for name, value in parts.items()], declared)


def text_of(parts: Iterable[tuple[str, str]]) -> str:
    """The one spelling of a partition, given its named values; the name of an only value is ""."""
    return "/".join(f"{name}={_escaped(value)}" if name else _escaped(value) for name, value in sorted(parts))


def parts_of(text: str) -> dict[str, str]:
    """Name -> value of one of a product; {} of any other."""
    if "=" not in text:
        return {}
    return {name: _unescaped(value) for name, _, value in (part.partition("=") for part in text.split("/"))}


def plain(text: str) -> str:
    """The value itself where a partition is one value; a product's text as it is."""
    return text if "=" in text else _unescaped(text)


def shown(window: Window) -> dict[str, Any]:
    """A window as people see it: `from` and `to`, or `partition` in the form in which it was asked for."""
    if window.partition:
        return {"partition": parts_of(window.partition) or plain(window.partition)}
    return {"from": window.start, "to": window.end}


def set_key(windows: Iterable[Window]) -> str:
    """Identity of a backfill over partitions: the set of them, in whatever order they were given."""
    digest = hashlib.sha256()
    for text in sorted(window.partition for window in windows):
        digest.update(text.encode() + b"\n")
    return SET + digest.hexdigest()[:32]


#: what the key of a backfill over partitions begins with
SET = "#"


def _texts(dimensions: Sequence[Dimension]) -> Iterator[str]:
    names = [each.name for each in dimensions]
    for values in product(*(each.values for each in dimensions)):
        yield text_of(zip(names, values, strict=True))


def _values(body: object, field: str) -> tuple[str, ...]:
    if not isinstance(body, list) or not 1 <= len(body) <= VALUES_MAX:
        raise _wrong(field, f"array of 1 to {VALUES_MAX} texts expected")
    for position, value in enumerate(body):
        if not isinstance(value, str) or not 1 <= len(value) <= VALUE_MAX or not value.isprintable():
            raise _wrong(f"{field}/{position}", f"text of 1 to {VALUE_MAX} printable characters expected")
    if len(set(body)) < len(body):
        raise _wrong(field, "a value is there twice")
    return tuple(body)


def _escaped(value: str) -> str:
    for character, escape in _ESCAPES:
        value = value.replace(character, escape)
    return value


def _unescaped(text: str) -> str:
    for character, escape in reversed(_ESCAPES):
        text = text.replace(escape, character)
    return text


def _wrong(field: str, message: str) -> Invalid:
    return Invalid(f"{field}: {message}", ((field, message),))
