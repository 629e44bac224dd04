"""What the dags surface says of runs and backfills, their tasks, and what they wait for."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from orchestrator.client.shapes.dags import DagsCause, DagsRunState, DagsRunType, DagsWindow


class DagsCounts(TypedDict):
    """The windows of a backfill by state; each counts once."""

    total: int
    queued: int
    running: int
    success: int
    failed: int
    cancelled: int
    skipped: int


class DagsTriggered(TypedDict):
    """A new run, or the one that stood for that window already."""

    run_id: str
    state: DagsRunState
    dag_id: str
    run_type: DagsRunType
    counts: NotRequired[DagsCounts | None]
    duplicate: NotRequired[bool | None]


class DagsEventRun(TypedDict):
    """The run that an event started of one DAG."""

    dag_id: str
    run_id: str
    state: DagsRunState


class DagsEventTold(TypedDict):
    """The runs of an event, one for each DAG that listened when it was told first."""

    name: str
    id: str
    #: it had been told before
    duplicate: bool
    runs: list[DagsEventRun]


class DagsWider(TypedDict):
    """What became of a widening; `counts` are of all windows."""

    run_id: str
    state: DagsRunState
    dag_id: str
    run_type: Literal["backfill"]
    added: int
    counts: DagsCounts


class DagsBatchItem(TypedDict):
    """What became of one entry: `run_id` and `state`, or `error` and `message`."""

    run_id: NotRequired[str | None]
    state: NotRequired[DagsRunState | None]
    error: NotRequired[str | None]
    message: NotRequired[str | None]


class DagsPlannedWindow(TypedDict):
    """What a backfill would do about one window."""

    window: DagsWindow
    action: Literal["create", "restart", "skip", "adopt"]
    run_id: NotRequired[str | None]


class DagsPlan(TypedDict):
    """A dry run; `plan_hash` makes the real one do exactly this or nothing."""

    dag_id: str
    run_type: DagsRunType
    dry_run: Literal[True]
    plan_hash: str
    counts: dict[str, int]
    windows: list[DagsPlannedWindow]
    task_groups: list[list[str]]


class DagsRunSummary(TypedDict):
    """A run as lists show it."""

    run_id: str
    dag_id: str
    dag_version: int
    run_type: DagsRunType
    state: DagsRunState
    window: DagsWindow | None
    attempts: int
    sla_deadline: str | None
    #: task -> pending, running, retrying, done, failed, skipped, upstream_failed or cancelled
    tasks: dict[str, str]
    created_at: str
    started_at: str | None
    finished_at: str | None
    parent_run_id: str | None
    #: the task that called the run; `parent_run_id` is its run
    parent_task: NotRequired[str | None]
    error: str | None
    #: of one that started by itself
    triggered_by: NotRequired[list[DagsCause] | None]
    #: the Ray actor that has it now, by the name that Ray's dashboard shows
    actor: NotRequired[str | None]
    #: True: it is in the archive, as it was when it left
    archived: NotRequired[bool | None]
    sla_missed: NotRequired[bool | None]
    tasks_sla_missed: NotRequired[list[str] | None]
    timed_out: NotRequired[Literal["run", "queued"] | None]
    paused: NotRequired[bool | None]
    max_active_runs: NotRequired[int | None]
    counts: NotRequired[DagsCounts | None]


class DagsVote(TypedDict):
    """A vote that counts."""

    by: str
    choice: str
    comment: str | None
    at: str


class DagsWaitingFor(TypedDict):
    """What a task waits for without a worker; `until` ends the wait, whatever comes."""

    #: time, signal, approval, run or sleep
    kind: str
    attempt: int
    since: str
    until: str
    name: NotRequired[str | None]
    prompt: NotRequired[str | None]
    choices: NotRequired[list[str] | None]
    roles: NotRequired[list[str] | None]
    quorum: NotRequired[int | None]
    votes: NotRequired[list[DagsVote] | None]
    #: of a run that the task called
    run_id: NotRequired[str | None]
    dag_id: NotRequired[str | None]


class DagsCalled(TypedDict):
    """A run that a task called."""

    run_id: str
    dag_id: str
    state: DagsRunState


class DagsRunWindow(TypedDict):
    """One window of a backfill and the run that serves it."""

    window: DagsWindow
    run_id: str
    state: str


class DagsCached(TypedDict):
    """Where a result comes from that was not computed in this run."""

    run_id: str


class DagsRun(DagsRunSummary):
    """A run; `windows`, `counts`, `progress` and what follows it belong to backfills."""

    progress: NotRequired[float | None]
    eta: NotRequired[str | None]
    windows_per_s: NotRequired[float | None]
    windows: NotRequired[list[DagsRunWindow] | None]
    windows_truncated: NotRequired[bool | None]
    #: task -> what it waits for without a worker
    waiting_for: NotRequired[dict[str, DagsWaitingFor] | None]
    #: task -> the run whose result it has
    cached: NotRequired[dict[str, DagsCached] | None]
    #: task -> the run that it called last
    children: NotRequired[dict[str, DagsCalled] | None]


class DagsRunChanged(TypedDict):
    """What a command on a run came to."""

    run_id: str
    state: DagsRunState
    attempts: int
    paused: NotRequired[bool | None]
    max_active_runs: NotRequired[int | None]


class DagsTaskChanged(TypedDict):
    """What a command on a task came to; `attempts` are the run's."""

    run_id: str
    task: str
    state: str
    attempts: int


class DagsMapInstance(TypedDict):
    """One instance of a mapped task; `task` is its id."""

    map_index: int
    task: str
    state: str
    cached: NotRequired[DagsCached | None]


class DagsSignalSent(TypedDict):
    """The run has the signal."""

    run_id: str
    name: str
    signal_id: str
    state: DagsRunState


class DagsApproval(TypedDict):
    """An approval that waits for votes; one choice with `quorum` votes decides."""

    run_id: str
    dag_id: str
    task: str
    attempt: int
    prompt: str
    choices: list[str]
    #: scopes and names of who may vote; empty = everybody
    roles: list[str]
    quorum: int
    asked_at: str
    expires_at: str
    votes: list[DagsVote]


class DagsPublished(TypedDict):
    """What a run answers to a query."""

    run_id: str
    name: str
    value: Any
    task: str | None
    attempt: int | None
    at: str | None


class DagsLog(TypedDict):
    """Captured output of one attempt."""

    task: str
    attempt: int
    text: str
    truncated: bool


class DagsWaiting(TypedDict):
    """A ready task that has not started, and what it waits for."""

    task: str
    pool: str
    reasons: list[str]
