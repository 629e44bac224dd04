"""Conditions: what they say, what they compare with what, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.conditions import parse_condition
from orchestrator.errors import Invalid


def holds(condition: str, **initial_data: Any) -> bool:
    return parse_condition(condition).holds({"initial_data": initial_data})


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("2.5", 2.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("false", False),
        ("yes", "yes"),
        ("'yes'", "yes"),
        ('"yes"', "yes"),
        ("'5'", "5"),
        ("'true'", "true"),
        ("''", ""),
        ("in progress", "in progress"),
        ("it's", "it's"),
        ("True", "True"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
        ('"it\'s"', "it's"),
    ],
)
def test_a_value_is_a_number_a_boolean_or_text(written: str, value: object) -> None:
    read = parse_condition(f"context.initial_data.a == {written}").value
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("op", "a", "expected"),
    [
        ("==", 10, True),
        ("==", 10.0, True),
        ("!=", 10, False),
        ("!=", 11, True),
        (">=", 10, True),
        ("<=", 10, True),
        (">", 10, False),
        (">", 10.5, True),
        ("<", 9.5, True),
        ("<", 10, False),
    ],
)
def test_numbers_compare_as_numbers(op: str, a: float, expected: bool) -> None:
    assert holds(f"context.initial_data.a {op} 10", a=a) is expected


def test_spaces_around_the_operator_are_free() -> None:
    assert holds("  context.initial_data.a>=10  ", a=10)


def test_text_compares_by_its_characters() -> None:
    assert holds("context.initial_data.a == yes", a="yes")
    assert holds("context.initial_data.a < b", a="a")
    assert not holds("context.initial_data.a == yes", a="Yes")


@pytest.mark.parametrize("op", ["==", ">=", "<=", ">", "<"])
@pytest.mark.parametrize(("written", "a"), [("10", "10"), ("'10'", 10), ("true", "true"), ("1", True), ("true", 1)])
def test_values_of_different_types_are_not_equal_and_know_no_order(op: str, written: str, a: object) -> None:
    assert not holds(f"context.initial_data.a {op} {written}", a=a)
    assert holds(f"context.initial_data.a != {written}", a=a)


@pytest.mark.parametrize("op", [">=", "<=", ">", "<"])
def test_booleans_know_no_order(op: str) -> None:
    assert not holds(f"context.initial_data.a {op} true", a=True)


@pytest.mark.parametrize("op", ["==", "!=", ">=", "<=", ">", "<"])
@pytest.mark.parametrize("data", [{}, {"a": None}, {"a": []}, {"a": {}}, {"a": [5]}], ids=str)
def test_what_is_missing_null_a_list_or_an_object_compares_false(op: str, data: dict[str, Any]) -> None:
    assert not holds(f"context.initial_data.a {op} 5", **data)


def test_a_field_may_lie_deeper() -> None:
    assert holds("context.initial_data.user.tags.1 == b", user={"tags": ["a", "b"]})
    assert not holds("context.initial_data.user.tags.2 == b", user={"tags": ["a", "b"]})
    assert not holds("context.initial_data.user.name.first == b", user={"name": "b"})


def test_every_area_can_be_looked_into() -> None:
    areas = {"state_history": {"a": 1}, "aggregation_results": {"t": {"status": "ok"}}, "client": {"plan": "free"}}
    assert parse_condition("context.state_history.a == 1").holds(areas)
    assert parse_condition("context.aggregation_results.t.status == ok").holds(areas)
    assert parse_condition("context.client.plan != paid").holds(areas)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected context"),
        ("initial_data.a == 5", "expected context"),
        ("context.initial_data == 5", "expected context"),
        ("context.initial_data.a = 5", "expected context"),
        ("context.initial_data.a", "expected context"),
        ("context.initial_data.a is 5", "expected context"),
        ("context.initial_data.a == 5 " + " " * 1000, "expected context"),
        ("context.secrets.a == 5", "no context.secrets"),
        ("context.initial_data.a ==", "no value"),
        ("context.initial_data.a == 'yes", "must end with its '"),
        ("context.initial_data.a == '", "must end with its '"),
        ("context.initial_data.a == 'x' and context.b.c == 'y'", "hold no other"),
        ("context.initial_data.a == 5 and context.b.c == 6", "only one comparison"),
        ("context.initial_data.a === 5", "only one comparison"),
        ("__import__('os').system('x') == 0", "expected context"),
    ],
)
def test_anything_else_is_refused(text: str, why: str) -> None:
    with pytest.raises(Invalid, match="condition .*" + why):
        parse_condition(text)
