"""What may stand in the params of tasks that wait, when a definition arrives."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import spec
from orchestrator.errors import Invalid


def parsed(*tasks: dict[str, Any]) -> Any:
    return spec.parse_dag({"dag_id": "d", "owner": "o", "tasks": list(tasks)})[0]


def a_task(kind: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "w", "type": f"core.{kind}", "params": params, **more}


ASK = {"prompt": "?"}


@pytest.mark.parametrize(
    ("task", "field", "problem"),
    [
        (a_task("wait", {}), "params/until", "give either until or seconds"),
        (a_task("wait", {"until": "2026-01-01", "seconds": 1}), "params/until", "give either until or seconds"),
        (a_task("wait", {"until": "soon"}), "params/until", "must be an instant"),
        (a_task("wait", {"until": "2026-02-30"}), "params/until", "must be an instant"),
        (a_task("wait", {"seconds": -1}), "params/seconds", "must be a number from 0"),
        (a_task("wait", {"seconds": True}), "params/seconds", "must be a number from 0"),
        (a_task("wait", {"seconds": 367 * 86_400}), "params/seconds", "must be a number from 0"),
        (a_task("wait", {"seconds": 1, "for": 2}), "params/for", "is no param of core.wait"),
        (a_task("wait", {"seconds": 1}, retries=1), "retries", "is not tried again by itself"),
        (a_task("wait", {"seconds": 1}, timeout_s=60.0), "timeout_s", "has a limit of its own"),
        (a_task("wait", {"seconds": 1}, branch=True), "branch", "time chooses no way"),
        (a_task("signal", {}), "params/name", "is required"),
        (a_task("signal", {"name": ""}), "params/name", "must be a name"),
        (a_task("signal", {"name": "go", "on_timeout": "retry"}), "params/on_timeout", "must be fail, skip or"),
        (a_task("signal", {"name": "go", "on_timeout": {"v": 1}}), "params/on_timeout", "must be fail, skip or"),
        (a_task("approval", {}), "params/prompt", "is required"),
        (a_task("approval", {**ASK, "choices": []}), "params/choices", "different words"),
        (a_task("approval", {**ASK, "choices": ["a", "a"]}), "params/choices", "different words"),
        (a_task("approval", {**ASK, "choices": ["skip"]}), "params/choices", "different words"),
        (a_task("approval", {**ASK, "quorum": 0}), "params/quorum", "must be 1 to"),
        (a_task("approval", {**ASK, "on_expiry": "maybe"}), "params/on_expiry", "or one of the choices"),
        (a_task("approval", {**ASK, "branches": {"maybe": []}}, branch=True), "params/branches/maybe", "is no choice"),
        (a_task("approval", {**ASK, "branches": {"approve": []}}), "params/branches", "needs branch: true"),
        (
            a_task("approval", {**ASK, "branches": {"approve": ["zz"]}}, branch=True),
            "params/branches/approve",
            "'zz' is not a direct dependent",
        ),
        (
            a_task("approval", {**ASK, "branches": {"$param": "ways"}}, branch=True),
            "params/branches",
            "must be written in the definition",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(task: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        parsed(task)
    assert [problem in told for where, told in refused.value.details if where == f"tasks/0/{field}"] == [True]


@pytest.mark.parametrize(
    "task",
    [
        a_task("wait", {"until": "2026-01-01T00:00:00Z"}),
        a_task("wait", {"until": "{{ to }}"}),
        a_task("wait", {"until": {"$param": "day"}}),
        a_task("wait", {"seconds": 0}),
        a_task("signal", {"name": "go", "timeout_s": 1, "on_timeout": {"value": None}}),
        a_task("approval", {**ASK, "roles": ["admin"], "quorum": 3, "expires_s": 5, "on_expiry": "expired"}),
        a_task("approval", {**ASK, "choices": ["yes"], "on_expiry": "yes", "branches": {"yes": []}}, branch=True),
        a_task("approval", {"prompt": {"$param": "what"}, "choices": {"$param": "c"}, "on_expiry": "yes"}),
    ],
)
def test_what_makes_sense_or_comes_later_is_taken_and_told_again(task: dict[str, Any]) -> None:
    definition = parsed(task)
    assert spec.parse_dag(spec.to_json(definition))[0] == definition


def test_a_task_that_waits_is_no_teardown() -> None:
    with pytest.raises(Invalid, match="cannot be a teardown"):
        parsed({"id": "a"}, a_task("wait", {"seconds": 1}, teardown_of=["a"]))
