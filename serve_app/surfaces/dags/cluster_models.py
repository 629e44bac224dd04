"""What the endpoints about workers, shares and limits take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from orchestrator.limits import COUNT_MAX, PER_S_MAX, PER_S_MIN
from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.models import NO_NUL


class DagsScale(BaseModel):
    """How many worker slots a pool should have."""

    pool: str | None = Field(None, min_length=1, max_length=63, pattern=NO_NUL, description="default `default`")
    n: int = Field(ge=0, le=parse.MOST_WORKERS)


class DagsShare(BaseModel):
    """A tenant's weight in the shares of worker slots; tenants that are not listed weigh 1."""

    tenant: str = Field(min_length=1, max_length=100, pattern=NO_NUL)
    weight: int = Field(ge=1, le=parse.MOST_WEIGHT)


class DagsShareList(BaseModel):
    """Tenants that were given a weight."""

    items: list[DagsShare]


class DagsWorker(BaseModel):
    """One worker slot."""

    worker_id: str
    pool: str
    state: str
    node: str = Field(description="host name")
    node_id: str = Field(description="of its node in Ray")
    pid: int


class DagsRate(BaseModel):
    """So many starts in any span of so many seconds."""

    count: int = Field(ge=1, le=COUNT_MAX)
    per_s: float = Field(1.0, ge=PER_S_MIN, le=PER_S_MAX)


class DagsLimit(BaseModel):
    """What is allowed under one name; without either, tasks are only counted."""

    max_running: int | None = Field(None, ge=0, le=COUNT_MAX, description="permits in use at a time")
    rate: DagsRate | None = None


class DagsRateView(BaseModel):
    """So many starts in any span of so many seconds."""

    count: int
    per_s: float


class DagsLimitView(BaseModel):
    """A limit, and what is so now."""

    max_running: int | None
    rate: DagsRateView | None
    name: str
    kind: Literal["limit", "dag"] = Field(description="dag: all tasks of a DAG with `max_active_tasks`")
    defined: bool = Field(description="false: tasks name it, and nobody has defined it")
    running: int = Field(description="permits in use")
    waiting: int = Field(description="ready tasks that wait")


class DagsLimitList(BaseModel):
    """Limits that are defined or in use, by name."""

    items: list[DagsLimitView]


class DagsWaiting(BaseModel):
    """A ready task that has not started, and what it waits for."""

    task: str
    pool: str
    reasons: list[str]


class DagsWaitingList(BaseModel):
    """What a run waits for: its place, its share of slots, and what its ready tasks have not started for."""

    items: list[DagsWaiting]
    run_id: str
    waiting_for: Literal["place", "slot"] | None = Field(
        description="a place among its DAG's active runs; a worker slot"
    )
    run_class: Literal["scheduled", "manual", "backfill"] | None
    ahead: int | None = Field(description="runs that start before it in its lane")
    active_runs: int | None
    max_active_runs: int | None
    paused: bool
    share: float | None = Field(description="of all slots, what its DAG gets while all who want some now go on to")


class DagsLimitDeleted(BaseModel):
    """It is not defined any more."""

    name: str
    deleted: bool


class DagsWorkerList(BaseModel):
    """Worker slots."""

    items: list[DagsWorker]


#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsShare: {"twice the share": {"tenant": "acme", "weight": 2}},
    DagsScale: {"four slots": {"pool": "default", "n": 4}},
    DagsLimit: {"three at a time, ten a minute": {"max_running": 3, "rate": {"count": 10, "per_s": 60}}},
}
