"""orchestrator.task_shapes: what a task asks of the cluster, and the pool that is made for it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import authoring, spec, task_functions
from orchestrator.errors import Invalid
from orchestrator.needs import is_bound
from orchestrator.pools import PoolSpec
from orchestrator.task_shapes import SHAPED_MAX, pools_of


@task_functions.task(resources={"num_gpus": 1})
def train() -> int:
    return 1


@authoring.dag(owner="o")
def learning() -> None:
    train()


def parsed(*tasks: dict[str, Any]) -> Any:
    body = {"dag_id": "d", "owner": "o", "tasks": [{"id": f"t{n}", **task} for n, task in enumerate(tasks)]}
    return spec.parse_dag(body)[0]


GPU = {"resources": {"num_gpus": 1, "custom": {"tpu": 4}, "labels": {"tier": "a"}, "memory_bytes": 1024}}


def test_tasks_that_ask_for_the_same_have_the_same_pool_however_it_is_written() -> None:
    again = {
        "resources": {"labels": {"tier": "a"}, "memory_bytes": 1024, "custom": {"tpu": 4.0, "x": 0}, "num_gpus": 1.0}
    }
    first, second, other, plain = parsed(GPU, again, {"resources": {"num_gpus": 2}}, {"resources": {}}).tasks
    assert first.pool == second.pool != other.pool
    assert first.pool.startswith("shape-")
    assert (plain.pool, plain.resources) == ("default", None)


def test_the_pool_has_the_shape_and_is_empty_while_nobody_waits() -> None:
    definition = parsed(GPU, GPU, {})
    [(name, made)] = pools_of(definition).items()
    assert name == definition.tasks[0].pool
    shape = PoolSpec(num_gpus=1.0, memory_bytes=1024, resources={"tpu": 4.0}, labels={"tier": "a"})
    assert (made.shape, made.min, made.max) == (shape.shape, 0, SHAPED_MAX)
    assert is_bound(definition)


def test_what_is_asked_for_is_written_as_it_was_read() -> None:
    definition = parsed(GPU)
    body = spec.to_json(definition)
    assert body["tasks"][0]["resources"] == GPU["resources"]
    assert "pool" not in body["tasks"][0]
    assert spec.parse_dag(body)[0] == definition


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"pool": "gpu", "resources": {"num_gpus": 1}}, "tasks/0/resources"),
        ({"resources": {"num_gpus": 1.5}}, "tasks/0/resources/num_gpus"),
        ({"resources": {"num_gpus": -1}}, "tasks/0/resources/num_gpus"),
        ({"resources": {"custom": {"GPU": 1}}}, "tasks/0/resources/custom/GPU"),
        ({"resources": {"labels": {"a": "b c"}}}, "tasks/0/resources/labels/a"),
        ({"resources": {"gpus": 1}}, "tasks/0/resources/gpus"),
    ],
)
def test_what_no_worker_can_have_is_refused(task: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parsed(task)
    assert refused.value.details[0][0] == field


def test_a_task_function_asks_for_resources() -> None:
    definition = spec.parse_dag(spec.to_json(learning.definition()))[0]
    assert definition.tasks[0].resources is not None
    assert definition.tasks[0].resources.num_gpus == 1.0
