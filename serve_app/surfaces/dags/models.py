"""What this surface takes and gives, as models for its OpenAPI.

They describe; they validate nothing (`orchestrator.spec` and `parse` do), so a request costs no pydantic. That
they tell the truth is what `tests/conformance/test_openapi_fuzz.py` checks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from orchestrator import spec_form
from orchestrator.definition import AfterRule, SlaAction, TriggerRule
from orchestrator.limits import COUNT_MAX, PER_S_MAX, PER_S_MIN
from orchestrator.needs import LIMITS_MAX
from orchestrator.task_shape_form import ResourcesBody
from serve_app.surfaces.dags import parse

INSTANT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$"

NO_NUL = r"^[^\u0000]*$"

Instant = Annotated[str, Field(pattern=INSTANT, examples=["2026-01-02T03:04:05.678Z"])]
DagId = Annotated[str, Field(pattern=f"^{parse.DAG_ID}$", examples=["sales_gdp"])]
TaskName = Annotated[str, Field(pattern=f"^{parse.TASK_ID}$", examples=["extract"])]
Reprocess = Literal["none", "failed", "completed"]
Status = Literal["active", "paused"]
RunState = Literal["queued", "running", "success", "failed", "cancelled"]
WindowState = Literal["queued", "running", "success", "failed", "cancelled", "skipped"]
RunType = Literal["manual", "backfill", "scheduled"]
DropReason = Literal["missed", "overlap"]
TimedOut = Literal["run", "queued"]
TaskState = Literal["pending", "running", "retrying", "done", "failed", "skipped", "upstream_failed", "cancelled"]


class DagsRetryPolicy(spec_form.RetryPolicyBody):
    """How failures of some classes are tried again; the first policy that fits counts."""


class DagsLimitUse(spec_form.LimitUseBody):
    """Several permits of one limit."""


class DagsResources(ResourcesBody):
    """What a task asks of the cluster, instead of a pool."""


class DagsTask(spec_form.TaskBody):
    """One node of the graph. `type` and `entrypoint` exclude each other; neither means `core.noop`."""

    retry_policies: list[DagsRetryPolicy] = Field([], max_length=20)  # type: ignore[assignment]  # a list is invariant
    resources: DagsResources | None = None
    limits: list[spec_form.LimitName | DagsLimitUse] = Field([], max_length=LIMITS_MAX)  # type: ignore[assignment]  # a list is invariant


#: a list of values, or lists by name whose product the partitions are
Partitions = list[str] | dict[str, list[str]]
#: a value, or values by name of one of a product
Partition = str | dict[str, str]


class DagsCalendar(spec_form.CalendarBody):
    """On which dates a schedule fires, beside its cron expression. `include` wins over `weekdays`."""


class DagsDag(spec_form.DagBody):
    """A DAG as its author submits it. Without `tasks` an existing DAG keeps its tasks; `[]` clears them."""

    tasks: list[DagsTask] = Field([], max_length=spec_form.TASKS_MAX)  # type: ignore[assignment]  # a list is invariant
    version: int | None = Field(None, ge=1, le=parse.MOST_VERSIONS, description="the one being replaced (precondition)")
    calendar: DagsCalendar | None = None
    partitions: Partitions | None = Field(None, description="what a backfill without dates is over")


class DagsCalendarView(BaseModel):
    """On which dates a schedule fires, beside its cron expression."""

    exclude: list[str] | None = None
    include: list[str] | None = None
    weekdays: list[str] | None = None


class DagsLastDropped(BaseModel):
    """The latest fire that started no run."""

    at: Instant
    reason: DropReason


class DagsCause(BaseModel):
    """Why a run started by itself. What does not belong to its kind is left out."""

    kind: Literal["dag", "asset", "event"]
    name: str = Field(description="of the DAG that succeeded, of the asset that was updated, or of the event")
    run_id: str | None = Field(None, description="that succeeded, or whose task updated the asset")
    task: str | None = None
    attempt: int | None = Field(None, description="of the run, or of the task")
    event_id: str | None = None


class DagsAwaited(BaseModel):
    """One thing that has to happen before a run starts by itself."""

    kind: Literal["dag", "asset"]
    name: str
    known: bool = Field(description="false: there is no such DAG, or no DAG updates the asset")
    met: bool = Field(description="it has happened, and no run has started because of it")
    by: list[DagsCause] = Field(description="the latest 20")


class DagsTaskView(BaseModel):
    """One node of the graph as it is stored."""

    id: str
    depends_on: list[str]
    type: str | None = None
    entrypoint: str | None = None
    params: dict[str, Any]
    inputs: dict[str, str] = {}
    retries: int
    retry_delay_s: float
    timeout_s: float
    sla_s: int | None
    priority: int
    trigger_rule: TriggerRule = "all_success"
    branch: bool = False
    teardown_of: list[str] = []
    on_failure_fail_run: bool = False
    on_sla_miss: list[SlaAction] = ["mark"]
    queue_timeout_s: float | None = None
    heartbeat_timeout_s: float | None = None
    retry_on: list[str] = []
    no_retry_on: list[str] = []
    retry_policies: list[DagsRetryPolicy] = []
    retry_exit_codes: list[int] = []
    retry_statuses: list[str] = []
    compensates: str | None = None
    group: str = ""
    pool: str = "default"
    resources: DagsResources | None = None
    limits: list[str | DagsLimitUse] = []
    cache_ttl_s: float | None = None
    cache_key: str | None = None
    cache_version: str | None = None
    cache_window: bool = False
    produces: list[str] = []
    durability: str = "stored"


class DagsDagView(BaseModel):
    """A DAG with what the server knows about it."""

    dag_id: DagId
    owner: str
    schedule: str | None
    timezone: str
    tasks: list[DagsTaskView]
    catchup: Literal["none", "last", "all"]
    overlap: Literal["allow", "skip", "buffer_one", "cancel_previous"]
    max_active_runs: int
    max_active_tasks: int | None = None
    sla_s: int | None
    on_sla_miss: list[SlaAction] | None = None
    queue_timeout_s: float | None = None
    callback_url: str | None
    description: str | None = None
    tags: list[str]
    status: Status
    version: int = Field(ge=1)
    created_at: Instant
    updated_at: Instant
    next_run_at: Instant | None
    run_counts: dict[str, int] = Field(description="runs by state, backfills themselves left out")
    calendar: DagsCalendarView | None = None
    start_at: str | None = None
    end_at: str | None = None
    jitter_s: float | None = None
    partitions: Partitions | None = None
    after: list[str] = Field([], description="DAGs whose success starts a run")
    after_rule: AfterRule = "all"
    consumes: list[str] = Field([], description="assets whose update starts a run, once all are updated")
    on_event: str | None = None
    awaits: list[DagsAwaited] | None = Field(None, description="of one DAG: what it follows, and what of that is met")
    bundle: str | None = Field(None, description="what its code was deployed in")
    dropped_fires: dict[DropReason, int] = Field(description="fires of the schedule that started no run, by reason")
    last_dropped: DagsLastDropped | None


class DagsDagList(BaseModel):
    """One page of DAGs."""

    items: list[DagsDagView]
    next_cursor: str | None


class DagsDagDefined(BaseModel):
    """What a definition, a pause or a resume came to."""

    dag_id: DagId
    status: Status
    version: int = Field(ge=1)


class DagsWindow(BaseModel):
    """Two dates, both inclusive, or two instants, the second exclusive; or else a partition."""

    from_: str | None = Field(None, alias="from")
    to: str | None = None
    partition: Partition | None = None


class DagsSchedule(BaseModel):
    """A schedule that need not be deployed. With `dag_id` the jitter is that of the DAG."""

    schedule: str
    timezone: str = "UTC"
    calendar: DagsCalendar | None = None
    start_at: str | None = None
    end_at: str | None = None
    jitter_s: float = Field(0, ge=0, le=86_400)
    dag_id: DagId | None = None
    n: int | None = Field(None, ge=1, le=parse.MOST_TICKS, description="default 10")
    from_: Instant | None = Field(None, alias="from", description="default now")


class DagsTick(BaseModel):
    """An instant of a schedule. `runs_at` and `window` are null when the calendar skips it."""

    at: Instant
    local: str = Field(description="on the wall clock of the zone, with its offset")
    runs_at: Instant | None = Field(description="`at` with the jitter")
    window: DagsWindow | None
    skipped: Literal["excluded", "weekday"] | None = Field(description="why nothing fires")
    moved: bool = Field(description="the time that was due does not exist: the clocks change")


class DagsPreview(BaseModel):
    """When a schedule fires next; without a schedule never."""

    timezone: str | None
    paused: bool
    items: list[DagsTick]


class DagsReason(BaseModel):
    """Why."""

    reason: str | None = Field(None, max_length=1000, pattern=NO_NUL)


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


class DagsUncached(BaseModel):
    """Attempts that had begun then do not count any more; `task` null: of all tasks."""

    dag_id: DagId
    task: str | None
    uncached_at: Instant


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


class DagsScale(BaseModel):
    """How many worker slots a pool should have."""

    pool: str | None = Field(None, min_length=1, max_length=63, pattern=NO_NUL, description="default `default`")
    n: int = Field(ge=0, le=parse.MOST_WORKERS)


class DagsShare(BaseModel):
    """A tenant's weight in the shares of worker slots; tenants that are not listed weigh 1."""

    tenant: str = Field(min_length=1, max_length=100, pattern=NO_NUL)
    weight: int = Field(ge=1, le=parse.MOST_WEIGHT)


class DagsShareList(BaseModel):
    """Tenants that were given a weight."""

    items: list[DagsShare]


class DagsWorker(BaseModel):
    """One worker slot."""

    worker_id: str
    pool: str
    state: str
    node: str = Field(description="host name")
    node_id: str = Field(description="of its node in Ray")
    pid: int


class DagsRate(BaseModel):
    """So many starts in any span of so many seconds."""

    count: int = Field(ge=1, le=COUNT_MAX)
    per_s: float = Field(1.0, ge=PER_S_MIN, le=PER_S_MAX)


class DagsLimit(BaseModel):
    """What is allowed under one name; without either, tasks are only counted."""

    max_running: int | None = Field(None, ge=0, le=COUNT_MAX, description="permits in use at a time")
    rate: DagsRate | None = None


class DagsRateView(BaseModel):
    """So many starts in any span of so many seconds."""

    count: int
    per_s: float


class DagsLimitView(BaseModel):
    """A limit, and what is so now."""

    max_running: int | None
    rate: DagsRateView | None
    name: str
    kind: Literal["limit", "dag"] = Field(description="dag: all tasks of a DAG with `max_active_tasks`")
    defined: bool = Field(description="false: tasks name it, and nobody has defined it")
    running: int = Field(description="permits in use")
    waiting: int = Field(description="ready tasks that wait")


class DagsLimitList(BaseModel):
    """Limits that are defined or in use, by name."""

    items: list[DagsLimitView]


class DagsWaiting(BaseModel):
    """A ready task that has not started, and what it waits for."""

    task: str
    pool: str
    reasons: list[str]


class DagsWaitingList(BaseModel):
    """What a run waits for: its place, its share of slots, and what its ready tasks have not started for."""

    items: list[DagsWaiting]
    run_id: str
    waiting_for: Literal["place", "slot"] | None = Field(
        description="a place among its DAG's active runs; a worker slot"
    )
    run_class: Literal["scheduled", "manual", "backfill"] | None
    ahead: int | None = Field(description="runs that start before it in its lane")
    active_runs: int | None
    max_active_runs: int | None
    paused: bool
    share: float | None = Field(description="of all slots, what its DAG gets while all who want some now go on to")


class DagsLimitDeleted(BaseModel):
    """It is not defined any more."""

    name: str
    deleted: bool


class DagsWorkerList(BaseModel):
    """Worker slots."""

    items: list[DagsWorker]


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
_DAG = {"dag_id": "sales_gdp", "schedule": "0 2 * * *", "owner": "team-data"}
_TASKS = [{"id": "extract"}, {"id": "transform", "depends_on": ["extract"], "retries": 2}]
_CHANGED = {"run_id": "run_9", "state": "running", "attempts": 1}
#: the body of an event stream
EVENTS = (
    'retry: 1000\n\nid: 1\nevent: run_state\ndata: {"seq":1,"ts":"2026-01-02T03:04:05.678Z","run_id":"run_9",'
    '"from":null,"to":"queued","attempts":0}\n\nevent: end\ndata: {"run_id":"run_9","state":"success"}\n\n'
)

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    DagsDagView: {
        **_DAG,
        "tasks": _TASKS,
        "status": "active",
        "version": 1,
        "created_at": "2026-01-02T03:04:05.678Z",
        "updated_at": "2026-01-02T03:04:05.678Z",
        "next_run_at": "2026-01-03T02:00:00.000Z",
        "run_counts": {"success": 4},
        "dropped_fires": {"overlap": 1},
        "last_dropped": {"at": "2026-01-02T02:00:00.000Z", "reason": "overlap"},
    },
    DagsPreview: {
        "timezone": "Europe/Berlin",
        "paused": False,
        "items": [
            {
                "at": "2026-03-29T01:00:00.000Z",
                "local": "2026-03-29T03:00:00+02:00",
                "runs_at": "2026-03-29T01:00:00.000Z",
                "window": {"from": "2026-03-29", "to": "2026-03-29"},
                "skipped": None,
                "moved": True,
            }
        ],
    },
    DagsDagDefined: {"dag_id": "sales_gdp", "status": "active", "version": 1},
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
    DagsDag: {
        "schedule and owner": _DAG,
        "with tasks": {**_DAG, "tasks": _TASKS},
    },
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
    DagsSchedule: {
        "weekdays without holidays": {
            "schedule": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "calendar": {"weekdays": ["mon", "tue", "wed", "thu", "fri"], "exclude": ["2026-12-25"]},
            "n": 5,
        }
    },
    DagsShare: {"twice the share": {"tenant": "acme", "weight": 2}},
    DagsScale: {"four slots": {"pool": "default", "n": 4}},
    DagsLimit: {"three at a time, ten a minute": {"max_running": 3, "rate": {"count": 10, "per_s": 60}}},
    DagsReason: {"with a reason": {"reason": "upstream is down"}},
}
