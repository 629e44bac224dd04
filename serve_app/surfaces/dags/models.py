"""What the models of this surface have in common: words, names, windows, causes, errors.

`dag_models`, `run_models`, `cluster_models` and the like are what its endpoints take and give, for the OpenAPI. They
describe; they validate nothing (`orchestrator.spec` and `parse` do), so a request costs no pydantic. That they tell
the truth is what `tests/conformance/test_openapi_fuzz.py` checks.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.surfaces.dags import parse

INSTANT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$"

NO_NUL = r"^[^\u0000]*$"

Instant = Annotated[str, Field(pattern=INSTANT, examples=["2026-01-02T03:04:05.678Z"])]
DagId = Annotated[str, Field(pattern=f"^{parse.DAG_ID}$", examples=["sales_gdp"])]
TaskName = Annotated[str, Field(pattern=f"^{parse.TASK_ID}$", examples=["extract"])]

RunState = Literal["queued", "running", "success", "failed", "cancelled"]

#: a value, or values by name of one of a product
Partition = str | dict[str, str]


class DagsCause(BaseModel):
    """Why a run started by itself. What does not belong to its kind is left out."""

    kind: Literal["dag", "asset", "event"]
    name: str = Field(description="of the DAG that succeeded, of the asset that was updated, or of the event")
    run_id: str | None = Field(None, description="that succeeded, or whose task updated the asset")
    task: str | None = None
    attempt: int | None = Field(None, description="of the run, or of the task")
    event_id: str | None = None


class DagsWindow(BaseModel):
    """Two dates, both inclusive, or two instants, the second exclusive; or else a partition."""

    from_: str | None = Field(None, alias="from")
    to: str | None = None
    partition: Partition | None = None


class DagsErrorDetail(BaseModel):
    """One field at fault."""

    field: str
    message: str


class DagsError(BaseModel):
    """Every error of this surface."""

    error: Literal[
        "invalid_request",
        "unauthorized",
        "forbidden",
        "not_found",
        "version_conflict",
        "gone",
        "rate_limited",
        "internal_error",
        "dependency_down",
    ]
    message: str
    request_id: str
    details: list[DagsErrorDetail] | None = None
