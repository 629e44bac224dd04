"""Pools of workers, which all tenants share (surface `dags`): what each worker takes, and how many there may be."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.client.dags import BASE
from orchestrator.client.script import Request, Script, get, json_of, part, path
from orchestrator.client.shapes.cluster import DagsPoolDeleted, DagsPoolView


def list_pools() -> Script[list[DagsPoolView]]:
    """Pools that are defined, or have workers, and what is so now."""
    return part(get(f"{BASE}/pools"), "items")


def get_pool(name: str) -> Script[DagsPoolView]:
    """One of them."""
    return get(path(BASE + "/pools/{}", name))


def set_pool(
    name: str,
    *,
    max: int,
    min: int = 0,
    num_cpus: float = 0.0,
    num_gpus: float = 0.0,
    memory_bytes: int = 0,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    idle_timeout_s: float = 60.0,
    tasks_per_worker: int = 1,
    scale_up_wait_s: float = 1.0,
    step: int = 10,
) -> Script[DagsPoolView]:
    """The pool has `min` to `max` workers of that shape, as many as have work; what is not given is the default."""
    body = {
        "max": max,
        "min": min,
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "memory_bytes": memory_bytes,
        "resources": dict(resources or {}),
        "labels": dict(labels or {}),
        "idle_timeout_s": idle_timeout_s,
        "tasks_per_worker": tasks_per_worker,
        "scale_up_wait_s": scale_up_wait_s,
        "step": step,
    }
    return json_of(Request(method="PUT", path=path(BASE + "/pools/{}", name), body=body, repeatable=True))


def delete_pool(name: str) -> Script[DagsPoolDeleted]:
    """Forget a pool: its workers finish what they do and end."""
    return json_of(Request(method="DELETE", path=path(BASE + "/pools/{}", name)))
