"""DAGs as JSON and YAML texts, anything that may come as one, and where code may come from."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.definition import Definition
from orchestrator.errors import Invalid
from orchestrator.spec import check_origin, from_json, from_yaml, parse_dag, to_json
from tests.spec_bodies import Body, a_task, dag, fields, parsed, refused

#: no deadline: two cores are shared with whatever else is tested at the time
LAWS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "must be a finite number"),
        (float("inf"), "must be a finite number"),
        (2**63, "does not fit in 64 bits"),
        (-(2**63) - 1, "does not fit in 64 bits"),
        pytest.param(10**6000, "does not fit in 64 bits", id="6000 digits"),
        pytest.param({10**6000: 1}, "has a key that is not a string: int", id="6000 digits as a key"),
        ("a\0b", "holds a NUL character"),
        ("é\0", "holds a NUL character"),
        ("\ud800", "holds a lone surrogate"),
        ({"\udfff": 1}, "has a key that holds a lone surrogate"),
        ({1: 2}, "has a key that is not a string: 1"),
        ((1, 2), "is not JSON but a tuple"),
        (b"x", "is not JSON but a bytes"),
        ({1, 2}, "is not JSON but a set"),
    ],
)
def test_what_json_cannot_keep_is_refused_where_it_stands(value: Any, problem: str) -> None:
    error = refused(dag(a_task(params={"x": [0, value]})))
    assert error.details == (("tasks/0/params/x/1", problem),)
    assert fields(dag(extra=value)) == ["extra"]


def test_nesting_has_a_limit_and_never_a_recursion_error() -> None:
    assert parsed(a_task(params=nested(60))).tasks[0].params == nested(60)
    for levels in (65, 100_000):
        assert "is nested deeper than 64 levels" in str(refused(dag(a_task(params=nested(levels)))))
    loop: list[Any] = []
    loop.append(loop)
    assert "is nested deeper" in str(refused(dag(extra=loop)))


def test_an_enormous_key_is_not_repeated_in_the_answer() -> None:
    error = refused(dag(extra={"k" * 1_000_000: float("nan")}))
    assert len(str(error)) < 300
    assert len(error.details[0][0]) < 200


def test_64_bit_integers_survive_the_codec() -> None:
    params = {"low": -(2**63), "high": 2**63 - 1, "text": "\U0001f600", "float": 1e308}
    definition = parsed(a_task(params=params))
    assert msgspec.json.decode(msgspec.json.encode(definition), type=Definition) == definition


def test_fifty_thousand_tasks_are_the_most() -> None:
    many = [{"id": f"t{i}", "depends_on": [f"t{i - 1}"] if i else []} for i in range(50_000)]
    assert len(parsed(*many).tasks) == 50_000
    assert fields(dag(*many, {"id": "one_more"})) == ["tasks"]


def full() -> Definition:
    return parsed(
        {"id": "a", "entrypoint": "m:f", "params": {"day": {"$param": "day", "default": "2025-10-01"}, "p": [None]}},
        {"id": "b", "type": "core.echo", "inputs": {"x/0": "a"}, "params": {"x": [None]}, "retry_cap_s": 9},
        {"id": "c", "depends_on": ["a", "b"], "timeout_s": 2.5, "trigger_rule": "one_failed", "branch": True},
        {"id": "d", "depends_on": ["a", "c"], "teardown_of": ["a"], "on_failure_fail_run": True},
        {
            "id": "e",
            "type": "bash",
            "params": {"command": "true"},
            "retries": 2,
            "sla_s": 60,
            "on_sla_miss": ["webhook", "cancel"],
            "queue_timeout_s": 5,
            "heartbeat_timeout_s": 1.5,
            "retry_on": ["OSError", "requests.exceptions.Timeout"],
            "no_retry_on": ["pkg.Outer.Inner"],
            "retry_policies": [{"exceptions": ["TimeoutError"], "retries": 9, "retry_delay_s": 0.5}],
            "retry_exit_codes": [75, -9],
        },
        {"id": "f", "type": "http", "params": {"url": "http://x"}, "retries": 1, "retry_statuses": ["503", "4xx"]},
        on_sla_miss=["mark", "event"],
        queue_timeout_s=600,
        callback_url="https://example.org/hook",
        schedule="*/5 * * * *",
        timezone="Asia/Kolkata",
        description="two\nlines: é",
        tags=["yes", "1"],
        run_timeout_s=60,
        isolation="dedicated",
        max_active_runs=2,
        sla_s=7,
        catchup="all",
        overlap="cancel_previous",
        calendar={"exclude": ["2026-12-25"], "include": ["2026-12-26"], "weekdays": ["MON", "tue"]},
        start_at="2026-01-01T00:00:00.000Z",
        end_at="2026-12-31T00:00:00Z",
        jitter_s=30,
    )


def test_to_json_says_what_parse_dag_reads() -> None:
    assert parse_dag(json.loads(json.dumps(to_json(full()))))[0] == full()


def test_to_json_has_the_contracts_keys_and_additive_ones_only_when_they_say_something() -> None:
    body = to_json(parsed(a_task()))
    assert list(body) == [
        "dag_id",
        "owner",
        "schedule",
        "timezone",
        "tasks",
        "catchup",
        "overlap",
        "max_active_runs",
        "sla_s",
        "callback_url",
        "tags",
    ]
    assert body["tasks"] == [
        {
            "id": "a",
            "depends_on": [],
            "type": "core.noop",
            "params": {},
            "retries": 0,
            "retry_delay_s": 5,
            "timeout_s": 3600,
            "sla_s": None,
            "priority": 0,
        }
    ]
    python, echo, *_ = to_json(full())["tasks"]
    assert python["entrypoint"] == "m:f"
    assert "type" not in python
    assert (echo["inputs"], echo["retry_cap_s"]) == ({"x/0": "a"}, 9)


def test_json_and_yaml_texts_give_the_same_definition() -> None:
    import yaml

    body = to_json(full())
    assert from_json(json.dumps(body)) == full()
    assert from_json(json.dumps(body).encode()) == full()
    assert from_yaml(yaml.safe_dump(body)) == full()


def test_yaml_keeps_dates_as_text_and_knows_anchors() -> None:
    text = """
    dag_id: d
    owner: o
    tasks:
      - &first {id: a, retries: 2, params: {day: 2025-10-01, at: 2025-10-01T02:00:00Z}}
      - {<<: *first, id: b}
    """
    first, second = from_yaml(text).tasks
    assert first.params == {"day": "2025-10-01", "at": "2025-10-01T02:00:00Z"}
    assert second == msgspec.structs.replace(first, id="b")


LAUGHS = "a: &a [1, 2]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "a: b: c",
        "\0",
        "x: !!python/object/apply:os.getcwd []",
        "x: !!int ''",
        "x: !!float zz",
        "x: !!timestamp zz",
        "x: " + "1" * 5000,
        "x: .nan",
        "dag_id: d\nowner: o\nx: &x [*x]",
        "? [1, 2]\n: 3",
        "[" * 1500,
        "a: 1\n---\na: 2",
        LAUGHS,
    ],
)
def test_bad_yaml_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        from_yaml(text)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":' + b"9" * 5000 + b"}", "[]"]
)
def test_bad_json_is_invalid(text: bytes | str) -> None:
    with pytest.raises(Invalid):
        from_json(text)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.just("a")
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
keys_of_a_dag = st.sampled_from([*to_json(full()), "version"])
keys_of_a_task = st.sampled_from([*to_json(full())["tasks"][1], "entrypoint", "sla_s", "pool"])
almost_tasks = st.lists(st.dictionaries(keys_of_a_task, anything).map(lambda more: {"id": "a", **more}), max_size=2)


@LAWS
@given(st.dictionaries(keys_of_a_dag, anything), almost_tasks)
def test_any_body_is_a_definition_or_invalid(more: Body, tasks: list[Body]) -> None:
    try:
        definition, _ = parse_dag({"dag_id": "d", "owner": "o", "tasks": tasks, **more})
    except Invalid as error:
        refusal: Invalid | None = error
    else:
        refusal = None
    if refusal is not None:
        assert str(refusal)
        assert all(isinstance(part, str) for detail in refusal.details for part in detail)
    else:
        assert parse_dag(to_json(definition))[0] == definition
        assert msgspec.json.decode(msgspec.json.encode(definition), type=Definition) == definition


def origin(*tasks: Body, **policy: Any) -> None:
    allowed: dict[str, Any] = {
        "over_http": True,
        "allow_shell": False,
        "entrypoint_prefixes": (),
        "admin": True,
    } | policy
    check_origin(parsed(*tasks), **allowed)


BASH = a_task(type="bash", params={"command": "ls"})
PYTHON = a_task(entrypoint="team.tasks:run")


@pytest.mark.parametrize(
    ("task", "policy"),
    [
        (BASH, {"over_http": False, "admin": False}),
        (PYTHON, {"over_http": False, "admin": False}),
        (BASH, {"allow_shell": True}),
        (PYTHON, {"entrypoint_prefixes": ("other.", "team.")}),
        (a_task(type="core.echo"), {"admin": False}),
        (a_task(type="http", params={"url": "https://example.org"}), {"admin": False}),
    ],
)
def test_code_may_come_from_where_the_operator_says(task: Body, policy: Body) -> None:
    origin(task, **policy)


@pytest.mark.parametrize(
    ("task", "policy", "field"),
    [
        (BASH, {}, "tasks/0/type"),
        (BASH, {"allow_shell": True, "admin": False}, "tasks/0/type"),
        (PYTHON, {}, "tasks/0/entrypoint"),
        (PYTHON, {"entrypoint_prefixes": ("",)}, "tasks/0/entrypoint"),
        (PYTHON, {"entrypoint_prefixes": ("other.",)}, "tasks/0/entrypoint"),
        (PYTHON, {"entrypoint_prefixes": ("team.",), "admin": False}, "tasks/0/entrypoint"),
        (PYTHON, {"allow_shell": True}, "tasks/0/entrypoint"),
    ],
)
def test_code_over_http_is_refused_otherwise(task: Body, policy: Body, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        origin(task, **policy)
    assert [where for where, _ in caught.value.details] == [field]
