"""Placeholders: what they read, and what becomes of the value around them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import Invalid
from orchestrator.templates import check_templates, fill, fill_text

SCOPE: dict[str, Any] = {
    "initial_data": {"n": 3, "t": "x", "b": True, "f": 1.5, "o": {"k": [10, {"z": None}]}, "p": "${job_id}"},
    "state_history": {"done": False},
    "aggregation_results": {"1c6c-07": {"status": "ok"}},
    "job_id": "J",
}


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("${initial_data.n}", 3),
        ("${initial_data.b}", True),
        ("${initial_data.o}", {"k": [10, {"z": None}]}),
        ("${initial_data}", SCOPE["initial_data"]),
        ("${initial_data.o.k.0}", 10),
        ("${initial_data.o.k.1.z}", None),
        ("${aggregation_results.1c6c-07.status}", "ok"),
        ("${job_id}", "J"),
    ],
)
def test_a_value_that_is_one_placeholder_keeps_its_type(value: str, filled: object) -> None:
    assert fill(value, SCOPE) == filled
    assert type(fill(value, SCOPE)) is type(filled)


@pytest.mark.parametrize("path", ["initial_data.q", "initial_data.n.q", "initial_data.o.k.2", "job_id.x", "nothing"])
def test_what_is_missing_is_null(path: str) -> None:
    assert fill(f"${{{path}}}", SCOPE) is None


def test_a_place_of_a_list_is_a_number_without_signs() -> None:
    assert fill(["${initial_data.o.k.-1}", "${initial_data.o.k.00}", "${initial_data.o.k.k}"], SCOPE) == [None] * 3


def test_around_other_text_everything_becomes_text() -> None:
    assert fill("${initial_data.t}-${initial_data.n}-${initial_data.b}-${initial_data.q}", SCOPE) == "x-3-true-null"
    assert fill("o=${initial_data.o}", SCOPE) == 'o={"k":[10,{"z":null}]}'
    assert fill(" ${initial_data.n}", SCOPE) == " 3"


def test_objects_and_lists_are_filled_within_but_not_their_keys() -> None:
    assert fill({"${job_id}": ["${job_id}", {"a": "${initial_data.n}"}]}, SCOPE) == {"${job_id}": ["J", {"a": 3}]}


def test_what_was_filled_in_is_not_looked_at_again() -> None:
    assert fill("${initial_data.p}", SCOPE) == "${job_id}"
    assert fill("<${initial_data.p}>", SCOPE) == "<${job_id}>"


def test_other_values_stay_what_they_are() -> None:
    value = [1, 2.5, None, True, "plain", "$x {y} $${z"]
    assert fill(value, SCOPE) == value


def test_text_that_must_be_text_becomes_text() -> None:
    assert fill_text("${initial_data.n}", SCOPE) == "3"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("${HOME}", "must begin with one of initial_data"),
        ("${}", "must begin with"),
        ("${context.initial_data.a}", "must begin with"),
        ("${ initial_data.a }", "must begin with"),
        ("${initial_data..a}", "single dots"),
        ("${initial_data.a }", "single dots"),
        ("${initial_data.a", "no } ends"),
        ("${initial_data.${job_id}}", "no } ends"),
        ({"a": ["x", {"b": "${nope}"}]}, "must begin with"),
    ],
)
def test_what_is_no_placeholder_is_refused(value: object, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check_templates(value)


def test_good_placeholders_pass() -> None:
    check_templates({"a": ["${initial_data}", "a ${state_history.x.0} b ${job_id}", 5, None]})
