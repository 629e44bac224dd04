"""What the runs surface says."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class RunsRun(TypedDict):
    """A run of the runs surface."""

    id: str
    mode: Literal["plan", "redis", "k8s"]
    createdAt: str
    status: Literal["pending", "running", "completed", "failed", "canceled"]
    owner: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]


class RunsCheckpoint(TypedDict):
    """Something that happened in a run; `ts` strictly increases and is the id to resume after."""

    id: str
    runId: str
    ts: str
    type: str
    data: NotRequired[Any]
