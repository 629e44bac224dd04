"""What the endpoints about signals, approvals and queries take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.models import NO_NUL, DagId, Instant, RunState, TaskName
from serve_app.surfaces.dags.run_models import DagsVote


class DagsSignal(BaseModel):
    """A signal for a run."""

    data: Any = Field(None, description=f"what the task that takes it returns; {parse.MOST_SIGNAL_BYTES} bytes at most")
    signal_id: str | None = Field(
        None, min_length=1, max_length=128, pattern=NO_NUL, description="a second signal with it is the first one"
    )


class DagsSignalSent(BaseModel):
    """The run has the signal."""

    run_id: str
    name: str
    signal_id: str
    state: RunState


class DagsDecision(BaseModel):
    """A vote on an approval. It may be changed until the approval is decided."""

    choice: str = Field(min_length=1, max_length=128, pattern=NO_NUL)
    comment: str | None = Field(None, max_length=parse.LONGEST_COMMENT, pattern=NO_NUL)
    by: str | None = Field(
        None, min_length=1, max_length=200, pattern=NO_NUL, description="whose vote it is; needs scope admin"
    )
    attempt: int | None = Field(
        None, ge=1, le=parse.MOST_ATTEMPTS, description="the attempt it is meant for; another one refuses it"
    )


class DagsApproval(BaseModel):
    """An approval that waits for votes; one choice with `quorum` votes decides."""

    run_id: str
    dag_id: DagId
    task: TaskName
    attempt: int
    prompt: str
    choices: list[str]
    roles: list[str] = Field(description="scopes and names of who may vote; empty = everybody")
    quorum: int
    asked_at: Instant
    expires_at: Instant
    votes: list[DagsVote]


class DagsApprovalList(BaseModel):
    """Open approvals, oldest first."""

    items: list[DagsApproval]


class DagsPublished(BaseModel):
    """What a run answers to a query. `task`, `attempt` and `at` tell who published it; of what is built in, nobody."""

    run_id: str
    name: str
    value: Any
    task: TaskName | None
    attempt: int | None
    at: Instant | None


class DagsPublishedList(BaseModel):
    """Everything a run answers, by name."""

    items: list[DagsPublished]


_AT = "2026-01-02T03:04:05.678Z"
_APPROVAL = {
    "run_id": "run_9",
    "dag_id": "sales_gdp",
    "task": "ask",
    "attempt": 1,
    "prompt": "Publish 4 rows?",
    "choices": ["approve", "reject"],
    "roles": ["admin"],
    "quorum": 1,
    "asked_at": _AT,
    "expires_at": "2026-01-09T03:04:05.678Z",
    "votes": [],
}
_PUBLISHED = {"run_id": "run_9", "name": "rows", "value": 4, "task": "extract", "attempt": 1, "at": _AT}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsSignalSent: {"run_id": "run_9", "name": "data_ready", "signal_id": "file-7", "state": "running"},
    DagsApprovalList: {"items": [_APPROVAL]},
    DagsPublished: _PUBLISHED,
    DagsPublishedList: {"items": [_PUBLISHED]},
}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsSignal: {"with data": {"data": {"file": "sales.csv"}, "signal_id": "file-7"}},
    DagsDecision: {"approve": {"choice": "approve", "comment": "looks right"}},
}
