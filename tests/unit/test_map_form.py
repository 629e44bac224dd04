"""How a mapped task is written, in JSON and in Python, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Invalid, dag, task
from orchestrator.definition import Definition
from orchestrator.map_form import MAPS_MAX
from orchestrator.spec import parse_dag, to_json


@task
def numbers(n: int = 3) -> list[int]:
    return list(range(n))


@task(max_active=2, tolerated_failures="5%")
def scaled(n: int, by: int = 10) -> int:
    return n * by


@task
def total(parts: list[int]) -> int:
    return sum(parts)


def described(function: Any) -> Definition:
    definition = dag(function).definition()
    assert parse_dag(to_json(definition))[0] == definition
    return definition


def of(**mapped: Any) -> dict[str, Any]:
    return {"dag_id": "d", "owner": "o", "tasks": [{"id": "list"}, {"id": "work", **mapped}]}


def fields(body: dict[str, Any]) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse_dag(body)
    return [field for field, _ in caught.value.details]


def test_the_task_whose_list_it_is_comes_before_it() -> None:
    (_, work) = parse_dag(of(expand={"item": "list"}))[0].tasks
    assert (work.depends_on, work.expand) == (("list",), {"item": "list"})


def test_what_is_written_comes_back_and_plain_tasks_have_no_more_keys() -> None:
    body = of(expand={"a/b": [1]}, params={"a": {}}, max_active=3, tolerated_failures=2)
    definition = parse_dag(body)[0]
    assert parse_dag(to_json(definition))[0] == definition
    plain, _ = to_json(definition)["tasks"]
    assert not {"expand", "max_active", "tolerated_failures"} & plain.keys()


@pytest.mark.parametrize(
    ("mapped", "field"),
    [
        ({"expand": {"item": "nobody"}}, "tasks/1/expand/item"),
        ({"expand": {"item": 7}}, "tasks/1/expand/item"),
        ({"expand": {"item": {"$param": 1}}}, "tasks/1/expand/item"),
        ({"expand": {"item": {"$param": "p", "default": "x"}}}, "tasks/1/expand/item"),
        ({"expand": {"item": [0] * 10_001}}, "tasks/1/expand/item"),
        ({"expand": {"a": [1], "b": [2]}}, "tasks/1/expand"),
        ({"expand": {"x/y": [1]}, "params": {"x": 1}}, "tasks/1/expand/x/y"),
        ({"expand": {"item": "list"}, "inputs": {"item": "list"}}, "tasks/1/expand/item"),
        ({"expand": {"seconds": [1]}, "type": "core.wait", "params": {"seconds": 1}}, "tasks/1/expand"),
        ({"expand": {"item": [1]}, "branch": True}, "tasks/1/branch"),
        ({"expand": {"item": [1]}, "teardown_of": ["list"]}, "tasks/1/teardown_of"),
        ({"expand": {"item": [1]}, "tolerated_failures": "5"}, "tasks/1/tolerated_failures"),
        ({"expand": {"item": [1]}, "tolerated_failures": "101%"}, "tasks/1/tolerated_failures"),
        ({"max_active": 2}, "tasks/1/max_active"),
        ({"tolerated_failures": 2}, "tasks/1/tolerated_failures"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(mapped: dict[str, Any], field: str) -> None:
    assert fields(of(**mapped)) == [field]


def test_an_element_may_be_a_url_but_not_a_shell_line() -> None:
    assert parse_dag(of(type="http", expand={"url": "list"}))[0].tasks[1].expand == {"url": "list"}
    assert fields(of(type="bash", expand={"command": ["rm"]})) == ["tasks/1/params/command"]


def test_a_dag_has_a_bounded_number_of_maps() -> None:
    tasks = [{"id": f"t{n}", "expand": {"x": [1]}} for n in range(MAPS_MAX + 1)]
    assert fields({"dag_id": "d", "owner": "o", "tasks": tasks}) == ["tasks"]


def test_an_output_is_mapped_over_and_what_is_the_same_goes_into_partial() -> None:
    def with_partial() -> None:
        total(scaled.partial(by=2).expand(n=numbers()))

    def beside_it() -> None:
        total(scaled.expand(n=numbers(), by=2))

    (_, work, reduce), (_, other, _) = described(with_partial).tasks, described(beside_it).tasks
    assert work == other
    assert (work.expand, work.params, work.inputs) == ({"n": "numbers"}, {"by": 2}, {})
    assert (work.max_active, work.tolerated_failures, reduce.inputs) == (2, "5%", {"parts": "scaled"})


def test_a_list_and_a_param_are_mapped_over() -> None:
    def known(names: list[int] = [1, 2]) -> None:  # noqa: B006 (a DAG function is called once)
        scaled.expand(n=[3, 4])
        scaled.expand(n=names)

    first, second = described(known).tasks
    assert first.expand == {"n": [3, 4]}
    assert second.expand == {"n": {"$param": "names", "default": [1, 2]}}


def test_other_arguments_of_a_map_may_be_outputs() -> None:
    def flow() -> None:
        scaled.partial(by=total(numbers())).expand(n=[1])

    work = described(flow).tasks[-1]
    assert (work.inputs, work.depends_on) == ({"by": "total"}, ("total",))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n": 1}, "takes one list"),
        ({"n": [1], "by": [2]}, "product"),
        ({"n": [1], "off": 2}, "unexpected keyword"),
    ],
)
def test_a_wrong_expand_is_refused(arguments: dict[str, Any], says: str) -> None:
    def flow() -> None:
        scaled.expand(**arguments)

    with pytest.raises(Invalid, match=says):
        described(flow)


def test_outputs_in_a_list_are_no_elements() -> None:
    def flow() -> None:
        scaled.expand(n=[numbers()])

    with pytest.raises(Invalid, match="cannot be outputs"):
        described(flow)


def test_outside_a_dag_it_is_a_loop() -> None:
    assert total(scaled.partial(by=2).expand(n=numbers())) == 6
