"""orchestrator.durability: how a task says that what it returns is kept in memory, and who may not."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import dag, spec, task
from orchestrator.definition import Definition, content_hash
from orchestrator.errors import Invalid
from orchestrator.spec import parse_dag, to_json

IN_MEMORY = {"durability": "memory"}


@task(durability="memory")
def make() -> list[int]:
    return [1]


@dag(owner="team")
def in_memory() -> None:
    make()


def parsed(*tasks: dict[str, Any]) -> Definition:
    return parse_dag({"dag_id": "d", "owner": "team", "tasks": list(tasks)})[0]


def test_it_is_part_of_the_definition_only_when_set() -> None:
    plain, stored, memory = (parsed({"id": "a", **more}) for more in ({}, {"durability": "stored"}, IN_MEMORY))
    assert content_hash(plain) == content_hash(stored) != content_hash(memory)
    assert [each["tasks"][0].get("durability") for each in map(to_json, (stored, memory))] == [None, "memory"]
    assert parse_dag(to_json(memory))[0] == memory


def test_a_python_task_says_it_like_any_option() -> None:
    assert in_memory.definition().tasks[0].durability == "memory"


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ([{"id": "a", **IN_MEMORY, "cache_ttl_s": 60.0}], "other runs may use its result"),
        ([{"id": "a", **IN_MEMORY}, {"id": "b", "expand": {"x": "a"}}], "a mapped task goes over what it returns"),
        ([{"id": "a", **IN_MEMORY, "type": "core.wait", "params": {"seconds": 1}}], "returns nothing large"),
        ([{"id": "a", **IN_MEMORY, "type": "somebody.elses"}], "not for type 'somebody.elses'"),
    ],
)
def test_what_could_not_be_computed_again_by_one_task_is_refused(tasks: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parsed(*tasks)
    assert [field for field, problem in caught.value.details if why in problem] == ["tasks/0/durability"]


def test_another_word_is_refused() -> None:
    with pytest.raises(Invalid, match="memory"):
        spec.from_json('{"dag_id": "d", "owner": "o", "tasks": [{"id": "a", "durability": "ram"}]}')
