"""Artifacts, the large values that tasks returned (surface `dags`): letting go of those of runs that ended long ago."""

from __future__ import annotations

from typing import Literal, TypedDict

from orchestrator.client.dags import BASE
from orchestrator.client.script import Request, Script, get, keyed, part


class DagsArtifactSweepView(TypedDict):
    """Artifacts on their way out."""

    sweep_id: str
    state: Literal["wanted", "running", "done", "failed"]
    #: those of runs that ended before then go
    before: str
    #: nothing goes; it is only told what would
    dry_run: bool
    #: what went so far, and of how many runs
    runs: int
    files: int
    size_bytes: int
    #: what was there at the end, as far as it is in folders; None before that
    there_files: int | None
    there_bytes: int | None
    error: str | None
    asked_at: str
    updated_at: str | None


def sweep_artifacts(
    older_than_s: int, *, dry_run: bool = False, key: str | None = None
) -> Script[DagsArtifactSweepView]:
    """Artifacts of runs that ended longer ago go, or it is only told which would; this does not wait."""
    body = {"older_than_s": older_than_s, "dry_run": dry_run}
    return keyed(Request(method="POST", path=f"{BASE}/artifacts", body=body), "X-Request-Id", key)


def list_artifact_sweeps() -> Script[list[DagsArtifactSweepView]]:
    """Sweeps of artifacts that are under way, and that ended last; the latest first."""
    return part(get(f"{BASE}/artifacts"), "items")
