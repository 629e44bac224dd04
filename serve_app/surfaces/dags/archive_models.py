"""What the endpoints about the archive take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.models import Instant


class DagsSweep(BaseModel):
    """Which runs leave for the archive."""

    older_than_s: int = Field(ge=0, le=parse.LONGEST_SPAN_S, description="that ended longer ago, in seconds")
    to: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        pattern=parse.ARCHIVE_URL.pattern,
        description="absolute folder on the server, or fsspec URL; default as the server is set",
    )


class DagsSweepView(BaseModel):
    """Runs on their way to the archive."""

    sweep_id: str
    state: Literal["wanted", "running", "done", "failed"]
    before: Instant = Field(description="what ended before then leaves")
    to: str = Field(description="empty: beside the index, in the data directory")
    runs: int = Field(description="that left so far")
    backfills: int
    size_bytes: int = Field(description="written so far")
    left: int = Field(description="that have to stay: a fire may still be about them, or a backfill counts them")
    error: str | None = Field(description="why it failed, or why it is put off and tried again")
    asked_at: Instant
    updated_at: Instant | None


class DagsSweepList(BaseModel):
    """What is under way, and what ended last; the latest first."""

    items: list[DagsSweepView]


_SWEEP: dict[str, Any] = {
    "sweep_id": "automatic",
    "state": "done",
    "before": "2025-12-03T03:04:05.678Z",
    "to": "",
    "runs": 100000,
    "backfills": 12,
    "size_bytes": 52428800,
    "left": 3,
    "error": None,
    "asked_at": "2026-01-02T03:04:05.678Z",
    "updated_at": "2026-01-02T03:05:35.678Z",
}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {DagsSweepView: _SWEEP, DagsSweepList: {"items": [_SWEEP]}}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {DagsSweep: {"a month": {"older_than_s": 2592000}}}
