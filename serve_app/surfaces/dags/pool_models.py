"""What the endpoints about pools of workers take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from orchestrator import pools

Amount = Annotated[float, Field(ge=0, le=pools.AMOUNT_MAX, description="0, or 0.0001 at least; above 1 whole")]


class DagsPool(BaseModel):
    """What each worker of a pool takes of the cluster, and how many there may be; null is as good as nothing."""

    max: int = Field(ge=0, le=pools.WORKERS_MAX, description="workers at most")
    min: int | None = Field(
        0, ge=0, le=pools.WORKERS_MAX, description="workers at least; equal to `max`: always as many"
    )
    num_cpus: Amount | None = 0
    num_gpus: Amount | None = 0
    memory_bytes: int | None = Field(0, ge=0, le=pools.BYTES_MAX)
    resources: dict[str, Amount] | None = Field(
        {}, max_length=pools.NAMES_MAX, description="custom resources of the cluster"
    )
    labels: dict[str, str] | None = Field(
        {}, max_length=pools.NAMES_MAX, description="that its node must have: `a`, `!a`, `in(a,b)` or `!in(a,b)`"
    )
    idle_timeout_s: float | None = Field(60, ge=0, le=pools.SPAN_MAX_S, description="surplus workers end after that")
    tasks_per_worker: int | None = Field(
        1, ge=1, le=pools.TASKS_MAX, description="one more for so many tasks that wait"
    )
    scale_up_wait_s: float | None = Field(
        1, ge=0, le=pools.SPAN_MAX_S, description="more only once tasks have waited so long; the first comes at once"
    )
    step: int | None = Field(10, ge=1, le=pools.WORKERS_MAX, description="so many more at a time")


class DagsPoolView(BaseModel):
    """A pool of workers: what is defined, and what is so now."""

    name: str
    defined: bool = Field(description="false: of `default` the server's settings say how many")
    num_cpus: float
    num_gpus: float
    memory_bytes: int
    resources: dict[str, float]
    labels: dict[str, str]
    min: int
    max: int
    idle_timeout_s: float
    tasks_per_worker: int
    scale_up_wait_s: float
    step: int
    wanted: int = Field(description="workers that it should have")
    workers: int = Field(description="workers that it has, without those that are draining")
    starting: int = Field(description="of them, not ready yet")
    busy: int = Field(description="of them, with work")
    draining: int = Field(description="workers that end once they have no work")
    waiting: int = Field(description="ready tasks that wait for a worker")
    waiting_s: float = Field(description="for how long some have")


class DagsPoolList(BaseModel):
    """Pools that are defined, or have workers, by name."""

    items: list[DagsPoolView]


class DagsPoolDeleted(BaseModel):
    """It is not defined any more."""

    name: str
    deleted: bool


_POOL: dict[str, Any] = {
    "name": "gpu",
    "defined": True,
    "num_cpus": 0.0,
    "num_gpus": 1.0,
    "memory_bytes": 0,
    "resources": {},
    "labels": {"tier": "a"},
    "min": 0,
    "max": 4,
    "idle_timeout_s": 60.0,
    "tasks_per_worker": 1,
    "scale_up_wait_s": 1.0,
    "step": 10,
    "wanted": 2,
    "workers": 2,
    "starting": 1,
    "busy": 1,
    "draining": 0,
    "waiting": 1,
    "waiting_s": 2.5,
}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsPoolView: _POOL,
    DagsPoolList: {"items": [_POOL]},
    DagsPoolDeleted: {"name": "gpu", "deleted": True},
}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsPool: {
        "one GPU each, none while idle": {"num_gpus": 1, "max": 4},
        "always three": {"min": 3, "max": 3},
    }
}
