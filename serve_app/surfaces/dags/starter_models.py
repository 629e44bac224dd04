"""What the endpoints about events and assets take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from orchestrator import spec_form
from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.models import DagId, Instant, RunState


class DagsEventToTell(BaseModel):
    """Something that happened, told by its name and an id of its own."""

    name: str = Field(pattern=spec_form.EVENT_NAME, description="DAGs with this `on_event` run")
    id: str = Field(pattern=f"^{parse.EVENT_ID}$", description="told again, it starts nothing")
    payload: dict[str, Any] | None = Field(None, description="becomes the params of the runs")


class DagsEventRun(BaseModel):
    """The run that an event started of one DAG."""

    dag_id: DagId
    run_id: str
    state: RunState


class DagsEventTold(BaseModel):
    """The runs of an event, one for each DAG that listened when it was told first."""

    name: str
    id: str
    duplicate: bool = Field(description="it had been told before")
    runs: list[DagsEventRun]


class DagsUpdate(BaseModel):
    """One update of an asset: an attempt that succeeded."""

    run_id: str
    task: str
    attempt: int
    dag_id: str
    at: Instant


class DagsAsset(BaseModel):
    """Something that tasks update and DAGs consume."""

    asset: str
    producers: list[str] = Field(description="DAGs with a task that updates it")
    consumers: list[str] = Field(description="DAGs that run when it is updated")
    updates: int = Field(ge=0)
    updated_at: Instant | None
    last_updates: list[DagsUpdate] = Field(description="newest first, at most 20")


class DagsAssetList(BaseModel):
    """Assets that DAGs name, or that were updated, by name."""

    items: list[DagsAsset]


_ASSET = {
    "asset": "s3://lake/sales",
    "producers": ["load_sales"],
    "consumers": ["report"],
    "updates": 1,
    "updated_at": "2026-01-02T03:04:05.678Z",
    "last_updates": [
        {"run_id": "run_9", "task": "load", "attempt": 1, "dag_id": "load_sales", "at": "2026-01-02T03:04:05.678Z"}
    ],
}
#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsEventTold: {
        "name": "order.paid",
        "id": "order-7",
        "duplicate": False,
        "runs": [{"dag_id": "ship", "run_id": "run_9", "state": "queued"}],
    },
    DagsAsset: _ASSET,
    DagsAssetList: {"items": [_ASSET]},
}
#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsEventToTell: {"an order was paid": {"name": "order.paid", "id": "order-7", "payload": {"total": 12}}},
}
