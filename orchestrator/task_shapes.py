"""What one task asks of the cluster, and the pool of workers that is made for tasks that ask for the same.

    resources: {num_gpus: 1, labels: {tier: a}}  ──▶  pool `shape-5f0c2a9e81d4`: elastic, empty while no such task waits

The pool's name is made from the shape alone, so equal tasks of whatever DAG share workers. Whoever stores a definition
defines its pools first, unless they exist: an operator may have changed how many workers one may have.

Beside this stands a pool that the task names (`pool`), whose shape an operator defined; a task has one or the other.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from orchestrator.definition import Definition, TaskResources
from orchestrator.errors import Invalid
from orchestrator.faults import Fault
from orchestrator.pools import PoolSpec, check

#: workers of a pool that was made for a shape
SHAPED_MAX = 8


def pool_for(resources: TaskResources) -> str:
    """The pool of tasks that ask for that."""
    written = msgspec.json.encode(to_json(resources), order="deterministic")
    return f"shape-{hashlib.sha256(written).hexdigest()[:12]}"


def to_json(resources: TaskResources) -> dict[str, Any]:
    """As written: what is asked for, and nothing else. Equal for equal ones, since the pool's name is made from it."""
    return {name: value for name, value in msgspec.structs.asdict(resources).items() if value}


def pool_spec(resources: TaskResources) -> PoolSpec:
    """How that pool is defined first."""
    return PoolSpec(
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
        memory_bytes=resources.memory_bytes,
        resources=resources.custom,
        labels=resources.labels,
        max=SHAPED_MAX,
    )


def pools_of(definition: Definition) -> dict[str, PoolSpec]:
    """The pools that its tasks need to be defined."""
    asked = (task.resources for task in definition.tasks if task.resources is not None)
    return {pool_for(resources): pool_spec(resources) for resources in asked}


def faults(position: int, resources: TaskResources, pool_given: bool) -> list[Fault]:
    """What is wrong with what a task asks for."""
    at = f"tasks/{position}/resources"
    if pool_given:
        return [(at, "a task has resources, or the pool that it names")]
    try:
        check(pool_spec(resources))
    except Invalid as refused:
        return [(f"{at}/{field.replace('resources/', 'custom/')}", problem) for field, problem in refused.details]
    return []
