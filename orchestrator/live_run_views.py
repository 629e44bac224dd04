"""What the runs surface asks for and shows: runs of a plan or a DAG that somebody follows, checkpoint by checkpoint."""

from __future__ import annotations

from datetime import datetime

import msgspec

from orchestrator.definition import TaskSpec
from orchestrator.messages import NO_JSON


class LiveRunWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a run of the runs surface, already validated in form."""

    #: redis | k8s
    mode: str = "redis"
    #: who asked for it, as the caller says
    owner: str | None = None
    #: JSON object as text, kept as it is
    metadata: msgspec.Raw = NO_JSON
    #: run the current version of this DAG
    dag_id: str | None = None
    #: an inline plan: its tasks, checked; None and no `dag_id` = a run that its caller drives by checkpoints
    tasks: tuple[TaskSpec, ...] | None = None
    #: the trace that it belongs to (`traces.py`)
    traceparent: str = ""


class LiveRunCreated(msgspec.Struct, frozen=True):
    """Answer to a LiveRunWanted."""

    run_id: str
    #: True when the answer was stored under the request's idempotency key
    replayed: bool = False


class LiveRunView(msgspec.Struct, frozen=True):
    """A run as the runs surface shows it."""

    run_id: str
    mode: str
    created_at: datetime
    #: core run state
    state: str
    owner: str | None = None
    #: JSON object as text
    metadata: msgspec.Raw = NO_JSON


class CheckpointView(msgspec.Struct, frozen=True):
    """Something that happened in a run, as told to who follows it; `at` strictly increases within a run."""

    id: str
    run_id: str
    #: whole milliseconds
    at: datetime
    kind: str
    data: msgspec.Raw = NO_JSON
