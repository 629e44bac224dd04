"""What the endpoints about bundles take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from orchestrator import bundle
from serve_app.surfaces.dags.dag_models import DagsDagDefined
from serve_app.surfaces.dags.models import DagId, Instant


class DagsBundleStored(BaseModel):
    """A bundle that is kept."""

    bundle: str = Field(pattern=f"^{bundle.ID}$")
    size_bytes: int = Field(description="packed")
    files: int
    created: bool = Field(description="false: it was there already")


class DagsBundleDeployed(BaseModel):
    """The DAGs of a bundle, which are the current ones now."""

    bundle: str
    items: list[DagsDagDefined]


class DagsBundleView(BaseModel):
    """A bundle that is kept, and who needs it."""

    bundle: str
    size_bytes: int = Field(description="packed")
    files: int
    touched_at: Instant = Field(description="when it was sent or deployed last")
    dags: list[DagId] = Field(description="deployed from it")
    current: list[DagId] = Field(description="those among them whose current version names it")


class DagsBundleList(BaseModel):
    """All bundles, those last touched first."""

    items: list[DagsBundleView]


class DagsBundleDeleted(BaseModel):
    """A bundle that went."""

    bundle: str
    deleted: bool


class DagsBundlesPruned(BaseModel):
    """Bundles that went."""

    items: list[str]


_ID = "3f5a0c7be1d24c9f8a6b5e4d3c2b1a09f8e7d6c5b4a392817060504030201000"
_VIEW: dict[str, Any] = {
    "bundle": _ID,
    "size_bytes": 18234,
    "files": 7,
    "touched_at": "2026-01-02T03:04:05.678Z",
    "dags": ["sales_gdp"],
    "current": ["sales_gdp"],
}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsBundleStored: {"bundle": _ID, "size_bytes": 18234, "files": 7, "created": True},
    DagsBundleDeployed: {"bundle": _ID, "items": [{"dag_id": "sales_gdp", "status": "active", "version": 2}]},
    DagsBundleList: {"items": [_VIEW]},
    DagsBundleDeleted: {"bundle": _ID, "deleted": True},
    DagsBundlesPruned: {"items": [_ID]},
}
