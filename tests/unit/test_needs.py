from __future__ import annotations

from typing import Any

import pytest

from orchestrator.definition import LimitUse
from orchestrator.errors import Invalid
from orchestrator.messages import Need
from orchestrator.needs import NAME_MAX, is_bound, needs_of
from orchestrator.spec import parse_dag, to_json
from tests.builders import Story as Told
from tests.builders import a_dag, a_task, created, versions


def a_body(*tasks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"dag_id": "d", "owner": "team", "tasks": list(tasks), **changes}


def keys(*uses: LimitUse | str, params: dict[str, Any] | None = None, run: dict[str, Any] | None = None) -> list[str]:
    limits = tuple(use if isinstance(use, LimitUse) else LimitUse(use) for use in uses)
    (need,) = needs_of(a_dag(a_task("a", limits=limits, params=params or {})), "t", run or {})
    return [] if need is None else [key for key, _ in need.keys]


def test_a_task_with_neither_limit_nor_pool_is_plain() -> None:
    dag = a_dag(a_task("a"), a_task("b", pool="gpu"))
    assert needs_of(dag, "t", {}) == [None, Need("gpu")]
    assert is_bound(dag)
    assert not is_bound(a_dag(a_task("a")))


def test_keys_are_in_order_and_each_is_there_once() -> None:
    dag = a_dag(a_task("a", limits=(LimitUse("w", 2), LimitUse("b"), LimitUse("w"))), max_active_tasks=3)
    assert needs_of(dag, "t", {}) == [Need("default", (("d/t/d", 1), ("l/t/b", 1), ("l/t/w", 2)))]


def test_tasks_with_equal_needs_share_one() -> None:
    one, other = needs_of(a_dag(a_task("a", limits=(LimitUse("w"),)), a_task("b", limits=(LimitUse("w"),))), "t", {})
    assert one is other


@pytest.mark.parametrize(
    ("params", "run", "key"),
    [
        ({}, {"region": "eu"}, "api-eu"),
        ({"region": "us"}, {}, "api-us"),
        ({"region": "us"}, {"region": "eu"}, "api-eu"),
        ({"region": {"$param": "region", "default": "asia"}}, {}, "api-asia"),
        ({"region": {"$param": "region"}}, {}, "api-"),
        ({"region": {"$fixed": "moon"}}, {}, "api-moon"),
        ({"region": 7}, {}, "api-7"),
        ({"region": True}, {}, "api-true"),
        ({"region": "a b/c"}, {}, "api-a_b_c"),
        ({}, {}, "api-"),
    ],
)
def test_a_placeholder_is_what_the_task_sees(params: dict[str, Any], run: dict[str, Any], key: str) -> None:
    assert keys("api-{{ params.region }}", params=params, run=run) == [f"l/t/{key}"]


def test_a_name_that_came_out_too_long_is_cut_and_none_is_empty() -> None:
    assert keys("{{params.x}}", run={"x": "y" * 500}) == ["l/t/" + "y" * NAME_MAX]
    assert keys("{{params.x}}") == ["l/t/_"]


def test_limits_and_pools_are_read_and_written_as_they_were_given() -> None:
    task = {"id": "a", "pool": "gpu", "limits": ["w", {"name": "api-{{ params.r }}", "slots": 2}]}
    definition = parse_dag(a_body(task, max_active_tasks=5))[0]
    assert definition.tasks[0].limits == (LimitUse("w"), LimitUse("api-{{ params.r }}", 2))
    again = to_json(definition)
    assert (again["tasks"][0]["limits"], again["tasks"][0]["pool"]) == (task["limits"], "gpu")
    assert again["max_active_tasks"] == 5
    assert parse_dag(again)[0] == definition


@pytest.mark.parametrize(
    "task",
    [
        {"limits": ["no good"]},
        {"limits": ["a/b"]},
        {"limits": ["{{ window.start }}"]},
        {"limits": ["{{ params.x"]},
        {"limits": [""]},
        {"limits": ["x"] * 9},
        {"limits": [{"name": "x", "slots": 0}]},
        {"limits": [{"name": "x", "more": 1}]},
        {"pool": "no good"},
        {"pool": ""},
    ],
)
def test_what_cannot_be_a_limit_or_a_pool_is_refused(task: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse_dag(a_body({"id": "a", **task}))


def test_ready_tasks_with_needs_wait_apart_and_once() -> None:
    tasks = (a_task("a"), a_task("b", limits=(LimitUse("w"),)), a_task("c", limits=(LimitUse("w"),), priority=5))
    run = Told(*tasks).start().run
    need = Need("default", (("l/t/w", 1),))
    assert run.ready == [(0, 0)]
    assert run.aside is not None
    assert (run.aside.count(need), run.aside.peek(need)) == (2, 2)
    assert run.aside.offer(1)
    assert run.aside.count(need) == 2
    assert [run.aside.pop(need), run.aside.pop(need), run.aside.pop(need)] == [2, 1, None]
    assert run.aside.offer(0) is False


def test_a_run_in_kubernetes_keeps_nothing_apart() -> None:
    story = Told(a_task("a", limits=(LimitUse("w"),)), mode="k8s")
    assert (story.run.aside, story.ready) == (None, ["a"])


def test_a_plain_definition_hashes_as_it_always_has() -> None:
    assert b"limits" not in __import__("msgspec").json.encode(a_dag(a_task("a")))
    assert versions(a_dag(a_task("a")))(1).bound is False
    assert created().params == {}
