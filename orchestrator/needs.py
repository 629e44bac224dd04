"""What a task needs beside a slot of the default pool: a pool of its own, and permits.

    limits: ["warehouse", {"name": "api-{{ params.region }}", "slots": 2}], pool: "gpu"; of the DAG max_active_tasks: 10
         ──▶ Need("gpu", (("d/acme/etl", 1), ("l/acme/api-eu", 2), ("l/acme/warehouse", 1)))

A *key* is what permits are counted by: a limit of a tenant, or all tasks of a DAG that has `max_active_tasks`. Tasks
with equal needs are alike for whoever grants. A task with no need is *plain*: nothing here costs it anything.

Placeholders read the params of the task under those of the run, as the task itself will see them. They are resolved
when the run starts, from what never changes afterwards, so they come out the same whenever the run is read again. A
param that is not there counts as empty text: such tasks share one key rather than escape from all of them. What a
name cannot have (slashes, white space) becomes `_`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from orchestrator.binding import PARAM, is_placeholder, own
from orchestrator.definition import Definition, LimitUse, TaskSpec
from orchestrator.messages import Need

DEFAULT_POOL = "default"
#: what a pool may be called
POOL = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
#: limits that one task may name
LIMITS_MAX = 8
#: permits that one task may take of a limit
SLOTS_MAX = 1000
#: characters of the name of a limit; longer ones that placeholders make are cut
NAME_MAX = 200
#: what a limit may be called
NAME = r"^[^/\s\x00-\x1f\x7f]{1,200}$"

_PLACEHOLDER = re.compile(r"\{\{\s*params\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_UNUSABLE = re.compile(r"[/\s\x00-\x1f\x7f]")
_encode = msgspec.json.Encoder().encode


def limit_key(tenant: str, name: str) -> str:
    """The key of a tenant's limit."""
    return f"l/{tenant}/{name}"


def dag_key(tenant: str, dag_id: str) -> str:
    """The key that all tasks of a DAG share."""
    return f"d/{tenant}/{dag_id}"


def is_bound(definition: Definition) -> bool:
    """Is there a task that is not plain?"""
    return definition.max_active_tasks is not None or any(
        task.limits or task.pool != DEFAULT_POOL for task in definition.tasks
    )


def needs_of(definition: Definition, tenant: str, run_params: Mapping[str, Any]) -> list[Need | None]:
    """Per task of a run with these params: its need; None = it is plain."""
    shared: dict[Need, Need] = {}
    out: list[Need | None] = []
    for task in definition.tasks:
        need = Need(task.pool, _keys(definition, task, tenant, run_params))
        out.append(shared.setdefault(need, need) if need.keys or need.pool != DEFAULT_POOL else None)
    return out


def template_fault(name: str) -> str | None:
    """What is wrong with the name of a limit as a task writes it; None = nothing."""
    rest = _PLACEHOLDER.sub("x", name)
    if "{{" in rest or "}}" in rest:
        return "placeholders are {{ params.NAME }}"
    return None if re.match(NAME, rest) else f"must match {NAME}, but for placeholders {{{{ params.NAME }}}}"


def _keys(
    definition: Definition, task: TaskSpec, tenant: str, run_params: Mapping[str, Any]
) -> tuple[tuple[str, int], ...]:
    keys: dict[str, int] = {}
    for name, slots in _resolved(task, run_params):
        key = limit_key(tenant, name)
        keys[key] = max(slots, keys.get(key, 0))
    if definition.max_active_tasks is not None:
        keys[dag_key(tenant, definition.dag_id)] = 1
    return tuple(sorted(keys.items()))


def _resolved(task: TaskSpec, run_params: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for use in task.limits:
        yield _UNUSABLE.sub("_", _name(use, task, run_params))[:NAME_MAX] or "_", use.slots


def _name(use: LimitUse, task: TaskSpec, run_params: Mapping[str, Any]) -> str:
    if "{{" not in use.name:
        return use.name
    return _PLACEHOLDER.sub(lambda found: _text(_param(found[1], task, run_params)), use.name)


def _param(name: str, task: TaskSpec, run_params: Mapping[str, Any]) -> Any:
    if name in run_params:
        return run_params[name]
    value: Any = task.params.get(name)
    if is_placeholder(value):  # the default of a parameter of a @dag function
        return run_params.get(value[PARAM], value.get("default"))
    return own(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode(value).decode()
