"""What the endpoints about runs and backfills take and give, as models for the OpenAPI: see `models.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from serve_app.surfaces.dags import parse
from serve_app.surfaces.dags.dag_models import Partitions
from serve_app.surfaces.dags.models import DagId, DagsCause, DagsWindow, Instant, Partition, RunState

Reprocess = Literal["none", "failed", "completed"]

WindowState = Literal["queued", "running", "success", "failed", "cancelled", "skipped"]
RunType = Literal["manual", "backfill", "scheduled"]

TimedOut = Literal["run", "queued"]
TaskState = Literal["pending", "running", "retrying", "done", "failed", "skipped", "upstream_failed", "cancelled"]


class DagsCounts(BaseModel):
    """The windows of a backfill by state; each counts once."""

    total: int
    queued: int
    running: int
    success: int
    failed: int
    cancelled: int
    skipped: int


class DagsTrigger(BaseModel):
    """A manual run or a backfill."""

    dag_id: DagId
    run_type: Literal["manual", "backfill"] | None = Field(None, description="default `manual`")
    from_: str | None = Field(None, alias="from", description="first day, or first instant of a manual run")
    to: str | None = Field(None, description="last day, inclusive, or end instant, exclusive")
    partition: Partition | None = Field(None, description="of a manual run, instead of from and to")
    partitions: Partitions | None = Field(
        None, description="of a backfill, instead of from and to; without either those that the DAG declares"
    )
    params: dict[str, Any] | None = Field(None, description="merged over every task's params")
    dry_run: bool | None = Field(None, description="plan only, nothing is stored")
    plan_hash: str | None = Field(None, min_length=1, max_length=1000, description="precondition: the plan still holds")
    max_active_runs: int | None = Field(None, ge=1, le=1000)
    run_backwards: bool | None = Field(None, description="latest window first")
    reprocess: Reprocess | None = Field(None, description="what to do about windows that have a run; default `none`")
    on_version: Literal["current", "pinned"] | None = Field(None, description="version of a restarted run")


class DagsEvent(BaseModel, extra="allow"):
    """What an event says: any JSON object, which becomes the run's params."""


class DagsTriggered(BaseModel):
    """A new run, or the one that stood for that window already."""

    run_id: str
    state: RunState
    dag_id: DagId
    run_type: RunType
    counts: DagsCounts | None = None
    duplicate: bool | None = Field(None, description="of an event: it had started this run before")


class DagsWidening(BaseModel):
    """More windows of a backfill that goes on."""

    from_: str | None = Field(None, alias="from", description="first day; default as now")
    to: str | None = Field(None, description="last day, inclusive; default as now")
    partitions: Partitions | None = Field(None, description="of a backfill over partitions")
    params: dict[str, Any] | None = Field(None, description="of the runs that are created for them")
    dry_run: bool | None = Field(None, description="plan only, nothing is stored")
    plan_hash: str | None = Field(None, min_length=1, max_length=1000, description="precondition: the plan still holds")
    reprocess: Reprocess | None = Field(None, description="what to do about windows that have a run; default `none`")
    on_version: Literal["current", "pinned"] | None = Field(None, description="version of a restarted run")


class DagsWider(BaseModel):
    """What became of a widening; `counts` are of all windows."""

    run_id: str
    state: RunState
    dag_id: DagId
    run_type: Literal["backfill"]
    added: int = Field(ge=0)
    counts: DagsCounts


class DagsCap(BaseModel):
    """How many windows of a backfill run at a time."""

    max_active_runs: int | None = Field(ge=1, le=1000, description="null: as many as the DAG allows")


class DagsPlannedWindow(BaseModel):
    """What a backfill would do about one window."""

    window: DagsWindow
    action: Literal["create", "restart", "skip", "adopt"]
    run_id: str | None = None


class DagsPlan(BaseModel):
    """A dry run: what the same request without `dry_run` would do."""

    dag_id: DagId
    run_type: RunType
    dry_run: Literal[True]
    plan_hash: str
    counts: dict[str, int]
    windows: list[DagsPlannedWindow]
    task_groups: list[list[str]]


class DagsBatch(BaseModel):
    """Many manual runs in one durable step; a bad entry fails alone."""

    runs: list[Any] = Field(
        min_length=1, max_length=parse.MOST_RUNS_IN_BATCH, description="each a body of POST /runs of a manual run"
    )


class DagsBatchItem(BaseModel):
    """What became of one entry: `run_id` and `state`, or `error` and `message`."""

    run_id: str | None = None
    state: RunState | None = None
    error: str | None = None
    message: str | None = None


class DagsBatchDone(BaseModel):
    """Answers in the order of the entries."""

    runs: list[DagsBatchItem]


class DagsVote(BaseModel):
    """A vote that counts."""

    by: str
    choice: str
    comment: str | None
    at: Instant


class DagsWaitingFor(BaseModel):
    """What a task waits for without a worker. `until` ends the wait, whatever comes."""

    kind: str = Field(description="time, signal, approval, run, or sleep: its own code sleeps")
    attempt: int
    since: Instant
    until: Instant
    name: str | None = Field(None, description="of a signal")
    prompt: str | None = Field(None, description="of an approval, like what follows")
    choices: list[str] | None = None
    roles: list[str] | None = None
    quorum: int | None = None
    votes: list[DagsVote] | None = None
    run_id: str | None = Field(None, description="of a run that the task called, like what follows")
    dag_id: str | None = None


class DagsCalled(BaseModel):
    """A run that a task called."""

    run_id: str
    dag_id: str
    state: RunState


class DagsRunWindow(BaseModel):
    """One window of a backfill and the run that serves it."""

    window: DagsWindow
    run_id: str
    state: WindowState


class DagsRunSummary(BaseModel):
    """A run as lists show it."""

    run_id: str
    dag_id: str
    dag_version: int
    run_type: RunType
    state: RunState
    window: DagsWindow | None
    attempts: int = Field(ge=0)
    sla_deadline: Instant | None
    tasks: dict[str, TaskState]
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    parent_run_id: str | None = Field(description="the backfill of a window, or the run that called this one")
    parent_task: str | None = Field(None, description="the task that called this run")
    error: str | None
    triggered_by: list[DagsCause] | None = Field(None, description="of one that started by itself: at most 100 reasons")
    actor: str | None = Field(None, description="the Ray actor that has it now, by the name that Ray's dashboard shows")
    archived: bool | None = Field(None, description="true: it is in the archive, as it was when it left")
    sla_missed: bool | None = None
    tasks_sla_missed: list[str] | None = Field(None, description="tasks that missed their SLA, at most the first 100")
    timed_out: TimedOut | None = Field(None, description="of a run that took too long: what did")
    paused: bool | None = None
    max_active_runs: int | None = Field(None, description="of a backfill: windows at a time")
    counts: DagsCounts | None = None


class DagsCached(BaseModel):
    """Where a result comes from that was not computed in this run."""

    run_id: str


class DagsRun(DagsRunSummary):
    """A run. `windows`, `counts`, `progress` and what follows it belong to backfills."""

    progress: float | None = Field(None, ge=0, le=1, description="share of the windows that are over")
    eta: Instant | None = Field(None, description="when the last window ends; null when that cannot be told")
    windows_per_s: float | None = Field(None, ge=0)

    windows: list[DagsRunWindow] | None = None
    windows_truncated: bool | None = None
    waiting_for: dict[str, DagsWaitingFor] | None = Field(
        None, description="task -> what it waits for without a worker"
    )
    cached: dict[str, DagsCached] | None = Field(None, description="task -> the run whose result it has")
    children: dict[str, DagsCalled] | None = Field(None, description="task -> the run that it called last")


class DagsRunList(BaseModel):
    """One page of runs, newest first."""

    items: list[DagsRunSummary]
    next_cursor: str | None


class DagsRunChanged(BaseModel):
    """What a command on a run came to."""

    run_id: str
    state: RunState
    attempts: int
    paused: bool | None = None
    max_active_runs: int | None = Field(None, description="answer to a cap")


class DagsTaskChanged(BaseModel):
    """What a command on a task came to; `attempts` are the run's."""

    run_id: str
    task: str
    state: TaskState
    attempts: int


class DagsMapInstance(BaseModel):
    """One instance of a mapped task; `task` is its id."""

    map_index: int
    task: str
    state: TaskState
    cached: DagsCached | None = None


class DagsMapInstances(BaseModel):
    """A mapped task with a page of its instances; `total` is null until it has its list."""

    run_id: str
    task: str
    state: TaskState
    total: int | None
    counts: dict[TaskState, int]
    items: list[DagsMapInstance]
    next_cursor: str | None


class DagsLog(BaseModel):
    """Captured output of one attempt."""

    task: str
    attempt: int
    text: str
    truncated: bool


class DagsLogList(BaseModel):
    """Output, oldest attempt first."""

    items: list[DagsLog]


_RUN = {
    "run_id": "run_9",
    "dag_id": "sales_gdp",
    "dag_version": 1,
    "run_type": "manual",
    "state": "running",
    "window": None,
    "attempts": 1,
    "sla_deadline": None,
    "tasks": {"extract": "done", "transform": "running"},
    "created_at": "2026-01-02T03:04:05.678Z",
    "started_at": "2026-01-02T03:04:05.690Z",
    "finished_at": None,
    "parent_run_id": None,
    "error": None,
}

_CHANGED = {"run_id": "run_9", "state": "running", "attempts": 1}
#: the body of an event stream
EVENTS = (
    'retry: 1000\n\nid: 1\nevent: run_state\ndata: {"seq":1,"ts":"2026-01-02T03:04:05.678Z","run_id":"run_9",'
    '"from":null,"to":"queued","attempts":0}\n\nevent: end\ndata: {"run_id":"run_9","state":"success"}\n\n'
)

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsTriggered: {"run_id": "run_9", "state": "queued", "dag_id": "sales_gdp", "run_type": "manual"},
    DagsBatchDone: {
        "runs": [
            {"run_id": "run_9", "state": "queued"},
            {"error": "invalid_request", "message": "dag_id: required"},
        ]
    },
    DagsRun: _RUN,
    DagsRunList: {"items": [_RUN], "next_cursor": None},
    DagsRunChanged: _CHANGED,
    DagsTaskChanged: {"run_id": "run_9", "task": "extract", "state": "pending", "attempts": 2},
    DagsLogList: {"items": [{"task": "extract", "attempt": 1, "text": "4 rows\n", "truncated": False}]},
}

#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    DagsTrigger: {
        "manual": {"dag_id": "sales_gdp", "params": {"region": "eu"}},
        "backfill": {"dag_id": "sales_gdp", "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"},
        "dry run": {
            "dag_id": "sales_gdp",
            "run_type": "backfill",
            "from": "2025-10-01",
            "to": "2025-10-04",
            "dry_run": True,
        },
    },
    DagsEvent: {"a file has come": {"path": "s3://in/2025-10-01.csv", "size_bytes": 4096}},
    DagsWidening: {"a week more": {"to": "2025-10-11"}, "a region more": {"partitions": ["us"]}},
    DagsCap: {"two at a time": {"max_active_runs": 2}, "none of its own": {"max_active_runs": None}},
    DagsBatch: {"two runs": {"runs": [{"dag_id": "sales_gdp"}, {"dag_id": "sales_gdp", "params": {"n": 2}}]}},
}
