"""What the endpoints about artifacts take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.models import Instant


class DagsArtifactSweep(BaseModel):
    """Of which runs artifacts go."""

    older_than_s: int = Field(ge=0, le=parse.LONGEST_SPAN_S, description="that ended longer ago, in seconds")
    dry_run: bool | None = Field(None, description="nothing goes; it is only told what would")


class DagsArtifactSweepView(BaseModel):
    """Artifacts on their way out."""

    sweep_id: str
    state: Literal["wanted", "running", "done", "failed"]
    before: Instant = Field(description="those of runs that ended before then go")
    dry_run: bool
    runs: int = Field(description="of which something went so far")
    files: int = Field(description="that went so far")
    size_bytes: int = Field(description="of those")
    there_files: int | None = Field(description="at the end, as far as they are in folders; null before that")
    there_bytes: int | None
    error: str | None = Field(description="why it failed, or why it is put off and tried again")
    asked_at: Instant
    updated_at: Instant | None


class DagsArtifactSweepList(BaseModel):
    """What is under way, and what ended last; the latest first."""

    items: list[DagsArtifactSweepView]


_SWEEP: dict[str, Any] = {
    "sweep_id": "automatic",
    "state": "done",
    "before": "2025-07-06T03:04:05.678Z",
    "dry_run": False,
    "runs": 120,
    "files": 480,
    "size_bytes": 52428800000,
    "there_files": 2000,
    "there_bytes": 209715200000,
    "error": None,
    "asked_at": "2026-01-02T03:04:05.678Z",
    "updated_at": "2026-01-02T03:05:35.678Z",
}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsArtifactSweepView: _SWEEP,
    DagsArtifactSweepList: {"items": [_SWEEP]},
}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsArtifactSweep: {"what would go": {"older_than_s": 2592000, "dry_run": True}}
}
