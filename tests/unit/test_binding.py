"""What tasks are called with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.binding import arguments, bind, facts, path, place
from orchestrator.errors import PermanentFailure

#: no deadline: two cores are shared with whatever else is tested at the time
LAWS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

RUN = facts("run_1", "sales", ("2025-10-01", "2025-10-02"))


def bound(params: dict[str, Any], kind: str = "core.echo", told: dict[str, str] = RUN, **more: Any) -> dict[str, Any]:
    return bind(kind, params, more.get("inputs", {}), more.get("run", {}), told)


def called(function: Any, params: dict[str, Any], **more: Any) -> Any:
    args, kwargs = arguments(function, params, more.get("inputs", {}), more.get("run", {}), RUN, "the context")
    return function(*args, **kwargs)


def test_the_runs_params_are_merged_over_the_tasks_own_name_by_name() -> None:
    assert bound({"a": {"x": 1}, "b": 2}, run={"a": {"y": 1}, "c": 3}) == {"a": {"y": 1}, "b": 2, "c": 3}


@pytest.mark.parametrize("kind", ["bash", "http"])
def test_whoever_starts_a_run_does_not_choose_a_command_or_where_a_header_goes(kind: str) -> None:
    own = {"command": "ls", "url": "https://example.org", "headers": {"authorization": "secret"}}
    assert bound(own, kind, run={"command": "rm", "url": "https://evil.example", "env": {"LD_PRELOAD": "x"}}) == own


def test_bash_and_http_take_what_their_author_asked_for_by_name() -> None:
    own = {"command": "ls", "env": {"DAY": {"$param": "day"}}}
    assert bound(own, "bash", run={"day": "2025-10-01"}) == {"command": "ls", "env": {"DAY": "2025-10-01"}}


def test_a_placeholder_is_the_runs_param_else_its_default() -> None:
    params = {"day": {"$param": "d", "default": 1}, "deep": [{"x": {"$param": "d", "default": [2]}}]}
    assert bound(params) == {"day": 1, "deep": [{"x": [2]}]}
    assert bound(params, kind="http", run={"d": None}) == {"day": None, "deep": [{"x": None}]}


def test_a_placeholder_with_neither_fails_for_good() -> None:
    with pytest.raises(PermanentFailure, match="without the param 'd'"):
        bound({"day": {"$param": "d"}})


def test_a_placeholder_in_the_runs_params_is_not_followed() -> None:
    loop = {"$param": "d"}
    assert bound({"day": {"$param": "d"}}, kind="http", run={"d": loop}) == {"day": loop}


def test_an_object_that_only_looks_like_a_placeholder_is_left_alone() -> None:
    assert bound({"x": {"$param": 5}, "y": {"$fixed": 1, "and": 2}}) == {
        "x": {"$param": 5},
        "y": {"$fixed": 1, "and": 2},
    }


def test_a_fixed_value_is_filled_but_not_replaced() -> None:
    params = {"n": {"$fixed": ["{{ dag_id }}", {"$param": "m", "default": 0}]}}
    assert bound(params, run={"n": 9, "m": 1}) == {"n": ["sales", 1], "m": 1}


def test_templates_in_strings_know_the_run() -> None:
    text = "{{ from }}..{{to}} {{ run_id }} of {{  dag_id }}, {{ other }} {{from"
    told = "2025-10-01..2025-10-02 run_1 of sales, {{ other }} {{from"
    assert bound({"a": [text], "b": {"c": text}}, run={"d": text}) == {"a": [told], "b": {"c": told}, "d": told}
    assert bound({"day": {"$param": "day", "default": "{{ from }}"}}) == {"day": "2025-10-01"}


def test_a_template_of_the_window_fails_for_good_when_the_run_has_none() -> None:
    with pytest.raises(PermanentFailure, match="has no window"):
        bound({"a": "{{ from }}"}, told=facts("run_1", "sales", None))
    assert bound({"a": "{{ run_id }}"}, told=facts("run_1", "sales", None)) == {"a": "run_1"}


def test_inputs_are_put_at_their_paths_and_not_looked_at() -> None:
    params = {"parts": [None, 2, {"k/~": None}]}
    inputs = {"parts/0": "{{ from }}", "parts/2/k~1~0": {"$param": "x"}, "whole": (1, 2), "new/place": 3}
    assert bound(params, inputs=inputs) == {
        "parts": ["{{ from }}", 2, {"k/~": {"$param": "x"}}],
        "whole": (1, 2),
        "new": {"place": 3},
    }
    assert params == {"parts": [None, 2, {"k/~": None}]}


def test_the_runs_params_do_not_replace_what_inputs_fill() -> None:
    assert bound({"parts": [None]}, inputs={"parts/0": 1, "x": 2}, run={"parts": 3, "x": 4}) == {"parts": [1], "x": 2}


@pytest.mark.parametrize("where", ["parts/1", "parts/-1", "parts/00", "parts/x", "text/0", "number/x"])
def test_an_input_without_a_place_fails_for_good(where: str) -> None:
    with pytest.raises(PermanentFailure, match="no place"):
        bound({"parts": [None], "text": "abc", "number": 1}, inputs={where: 1})


def leaves(value: Any, where: str) -> dict[str, Any]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if steps is None:
        return {where: value}
    return {at: leaf for step, inner in steps for at, leaf in leaves(inner, path(where, step)).items()}


def hollow(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: hollow(inner) for key, inner in value.items()}
    return [hollow(inner) for inner in value] if isinstance(value, list) else None


@LAWS
@given(
    st.recursive(
        st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a/~01", max_size=3), inner, max_size=3),
    )
)
def test_whatever_is_taken_apart_by_path_is_put_together_again(value: Any) -> None:
    params = {"x": hollow(value)}
    place(params, leaves(value, "x"))
    assert params == {"x": value}


def everything(first: Any, /, second: Any = 2, *rest: Any, key: Any = "k", ctx: Any = None, **others: Any) -> Any:
    return first, second, rest, key, ctx, others


def plain(n: int, by: int = 2) -> int:
    return n * by


def test_a_function_gets_each_argument_the_way_it_wants_it() -> None:
    params = {"first": 1, "rest": [None, 4], "key": 5, "other": 6}
    assert called(everything, params, inputs={"rest/0": 3}) == (1, 2, (3, 4), 5, "the context", {"other": 6})


def test_a_function_gets_the_runs_params_it_has_parameters_for() -> None:
    assert called(plain, {"n": 5}, run={"by": 3, "unrelated": 1}) == 15
    assert called(everything, {"first": 1}, run={"extra": 7})[-1] == {"extra": 7}
    assert called(plain, {"n": {"$fixed": 5}}, run={"n": 9}) == 10


def test_the_context_cannot_come_from_params() -> None:
    def wants(ctx: Any) -> Any:
        return ctx

    assert called(wants, {}, run={"ctx": "forged"}) == "the context"
    with pytest.raises(PermanentFailure, match="no parameter 'ctx'"):
        called(wants, {"ctx": "forged"})


def test_wrong_arguments_fail_for_good() -> None:
    with pytest.raises(PermanentFailure, match="nothing was given for parameter 'n'"):
        called(plain, {"by": 1})
    with pytest.raises(PermanentFailure, match="no parameter 'x'"):
        called(plain, {"n": 1, "x": 1})


def test_a_function_that_hides_its_parameters_is_called_by_name() -> None:
    assert called(dict, {"a": 1}, run={"b": 2}) == {"a": 1}
