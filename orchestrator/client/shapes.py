"""What the server's answers look like, under the names of its OpenAPI components.

Instants are RFC 3339 text in UTC. A key that is `NotRequired` is left out when there is nothing to say. That they
agree with the server's own description is what `tests/unit/client/test_shapes.py` checks.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

# -- dags

#: two dates, both inclusive, or two instants, the second exclusive; or else a partition, a value or values by name
DagsWindow = TypedDict(
    "DagsWindow",
    {
        "from": NotRequired[str | None],
        "to": NotRequired[str | None],
        "partition": NotRequired[str | dict[str, str] | None],
    },
)
DagsRunState = Literal["queued", "running", "success", "failed", "cancelled"]
DagsRunType = Literal["manual", "backfill", "scheduled"]


class DagsCalendarView(TypedDict):
    """On which dates a schedule fires, beside its cron expression."""

    exclude: NotRequired[list[str] | None]
    include: NotRequired[list[str] | None]
    weekdays: NotRequired[list[str] | None]


class DagsLastDropped(TypedDict):
    """The latest fire that started no run."""

    at: str
    reason: Literal["missed", "overlap"]


class DagsTick(TypedDict):
    """An instant of a schedule. `runs_at` and `window` are null when the calendar skips it."""

    at: str
    local: str
    runs_at: str | None
    window: DagsWindow | None
    skipped: Literal["excluded", "weekday"] | None
    moved: bool


class DagsPreview(TypedDict):
    """When a schedule fires next; without a schedule never."""

    timezone: str | None
    paused: bool
    items: list[DagsTick]


class DagsDagDefined(TypedDict):
    """What a definition, a pause or a resume came to."""

    dag_id: str
    status: Literal["active", "paused"]
    version: int


class DagsCause(TypedDict):
    """Why a run started by itself; what does not belong to its kind is left out."""

    kind: Literal["dag", "asset", "event"]
    name: str
    run_id: NotRequired[str | None]
    task: NotRequired[str | None]
    attempt: NotRequired[int | None]
    event_id: NotRequired[str | None]


class DagsAwaited(TypedDict):
    """One thing that has to happen before a run starts by itself."""

    kind: Literal["dag", "asset"]
    name: str
    known: bool
    met: bool
    by: list[DagsCause]


class DagsDagView(TypedDict):
    """A DAG with what the server knows about it."""

    dag_id: str
    owner: str
    schedule: str | None
    timezone: str
    tasks: list[dict[str, Any]]
    catchup: str
    overlap: str
    max_active_runs: int
    max_active_tasks: NotRequired[int | None]
    sla_s: int | None
    on_sla_miss: NotRequired[list[Literal["mark", "event", "webhook", "cancel"]] | None]
    queue_timeout_s: NotRequired[float | None]
    callback_url: str | None
    description: NotRequired[str | None]
    tags: list[str]
    status: Literal["active", "paused"]
    version: int
    created_at: str
    updated_at: str
    next_run_at: str | None
    run_counts: dict[str, int]
    calendar: NotRequired[DagsCalendarView | None]
    start_at: NotRequired[str | None]
    end_at: NotRequired[str | None]
    jitter_s: NotRequired[float | None]
    partitions: NotRequired[list[str] | dict[str, list[str]] | None]
    after: NotRequired[list[str]]
    after_rule: NotRequired[Literal["all", "any"]]
    consumes: NotRequired[list[str]]
    on_event: NotRequired[str | None]
    #: of one DAG: what it follows, and what of that is met
    awaits: NotRequired[list[DagsAwaited] | None]
    #: what its code was deployed in
    bundle: NotRequired[str | None]
    dropped_fires: dict[str, int]
    last_dropped: DagsLastDropped | None


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


class DagsUpdate(TypedDict):
    """One update of an asset: an attempt that succeeded."""

    run_id: str
    task: str
    attempt: int
    dag_id: str
    at: str


class DagsAsset(TypedDict):
    """Something that tasks update and DAGs consume."""

    asset: str
    producers: list[str]
    consumers: list[str]
    updates: int
    updated_at: str | None
    #: newest first, at most 20
    last_updates: list[DagsUpdate]


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


class DagsUncached(TypedDict):
    """Attempts that had begun then do not count any more; `task` None: of all tasks."""

    dag_id: str
    task: str | None
    uncached_at: str


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


class DagsRateView(TypedDict):
    """So many starts in any span of so many seconds."""

    count: int
    per_s: float


class DagsLimitView(TypedDict):
    """A limit, and what is so now."""

    name: str
    #: `dag`: all tasks of a DAG with `max_active_tasks`
    kind: Literal["limit", "dag"]
    #: False: tasks name it, and nobody has defined it
    defined: bool
    max_running: int | None
    rate: DagsRateView | None
    running: int
    waiting: int


class DagsPoolView(TypedDict):
    """A pool of workers: what is defined, and what is so now."""

    name: str
    #: False: of `default` the server's settings say how many
    defined: bool
    num_cpus: float
    num_gpus: float
    memory_bytes: int
    resources: dict[str, float]
    labels: dict[str, str]
    min: int
    max: int
    idle_timeout_s: float
    tasks_per_worker: int
    scale_up_wait_s: float
    step: int
    wanted: int
    workers: int
    starting: int
    busy: int
    draining: int
    #: ready tasks that wait for a worker, and for how long some have
    waiting: int
    waiting_s: float


class DagsPoolDeleted(TypedDict):
    """It is not defined any more."""

    name: str
    deleted: bool


class DagsWaiting(TypedDict):
    """A ready task that has not started, and what it waits for."""

    task: str
    pool: str
    reasons: list[str]


class DagsBundleStored(TypedDict):
    """A bundle that is kept."""

    bundle: str
    #: packed
    size_bytes: int
    files: int
    #: false: it was there already
    created: bool


class DagsBundleDeployed(TypedDict):
    """The DAGs of a bundle, which are the current ones now."""

    bundle: str
    items: list[DagsDagDefined]


class DagsBundleView(TypedDict):
    """A bundle that is kept, and who needs it."""

    bundle: str
    #: packed
    size_bytes: int
    files: int
    #: when it was sent or deployed last
    touched_at: str
    #: deployed from it
    dags: list[str]
    #: those among them whose current version names it
    current: list[str]


class DagsSweepView(TypedDict):
    """Runs on their way to the archive."""

    sweep_id: str
    state: Literal["wanted", "running", "done", "failed"]
    #: what ended before then leaves
    before: str
    #: empty: beside the index, in the data directory
    to: str
    #: that left so far
    runs: int
    backfills: int
    #: written so far
    size_bytes: int
    #: that have to stay: a fire may still be about them, or a backfill counts them
    left: int
    error: str | None
    asked_at: str
    updated_at: str | None


class DagsPlane(TypedDict):
    """A control plane, and who is in charge of the journal."""

    #: that answers: its Ray cluster's session; empty when there can be no other
    plane: str
    #: false: it stands by, and the holder does what it accepts
    in_charge: bool
    #: the plane in charge
    holder: str | None
    #: where that one answers
    holder_url: str | None
    #: by the clock of the journal's server
    since: str | None
    #: grows whenever somebody comes to be in charge, or is not any more
    term: int
    #: the plane that asked to take over
    wanted: str | None
    #: since the plane in charge renewed its lease, or since nobody is; above 10 nobody may be; null: for ever
    lease_age_s: float | None


class DagsLimitDeleted(TypedDict):
    """It is not defined any more."""

    name: str
    deleted: bool


# -- runs


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


# -- instances


class OrchestratorInfo(TypedDict):
    """An orchestrator instance as the registry knows it."""

    id: str
    pid: int
    plan_path: str
    plan_name: str
    worktree_path: str | None
    started_at: str
    last_heartbeat: str
    status: Literal["running", "stopping", "stopped", "crashed"]
    socket_path: str | None
    is_alive: bool
    is_stale: bool
    exit_reason: str | None
    executor: str | None


class StatusSummary(TypedDict):
    """How many tasks are how far."""

    total_tasks: int
    completed: int
    pending: int
    in_progress: int
    failed: int
    skipped: int
    current_phase: str | None
    progress_percent: float


class TaskInfo(TypedDict):
    """One task of a plan."""

    id: str
    description: str
    status: Literal["pending", "in_progress", "completed", "failed", "skipped"]
    phase: str | None
    retry_count: int
    last_error: str | None
    started_at: str | None
    completed_at: str | None


class PhaseSummary(TypedDict):
    """One phase of a plan."""

    phase_number: int
    name: str
    total_tasks: int
    completed_tasks: int
    pending_tasks: int
    failed_tasks: int
    is_current: bool


class StatusResponse(TypedDict):
    """How far a plan is."""

    instance_id: str
    plan_path: str
    plan_name: str
    status: Literal["running", "paused", "stopping", "stopped"]
    summary: StatusSummary
    tasks: list[TaskInfo]
    phases: list[PhaseSummary]
    started_at: str | None
    iteration: int
    max_iterations: int
    exit_reason: str | None


class CommandResponse(TypedDict):
    """What came of a command; with `success` false `message` and `error` say why not."""

    success: bool
    message: str
    error: str | None


class PlanInfo(TypedDict):
    """A plan file."""

    name: str
    path: str
    has_status: bool
    last_modified: str | None
    output_dir: str | None


class FindingInfo(TypedDict):
    """What a task of a plan left behind."""

    task_id: str
    file_path: str
    size_bytes: int
    last_modified: str


# -- jobs

JobsJobStatus = Literal[
    "pending",
    "running",
    "waiting_for_worker",
    "waiting_for_human",
    "waiting_for_parallel_tasks",
    "waiting_for_sub_job",
    "awaiting_retry",
    "finished",
    "failed",
    "error",
    "quarantined",
    "cancelled",
]


class JobsJob(TypedDict):
    """A job of a blueprint. At the end `status` and `current_state` both tell the end."""

    id: str
    blueprint_name: str
    current_state: str
    status: JobsJobStatus
    initial_data: dict[str, Any]
    state_history: dict[str, Any]
    webhook_url: str | None
    error_message: str | None
    parent_job_id: str | None
    child_job_id: str | None
    current_task_id: str | None
    task_worker_id: str | None
    retry_count: int
    progress: float
    progress_message: str
    current_task_info: dict[str, Any] | None
    current_task_transitions: dict[str, str]
    aggregation_target: str | None
    active_branches: list[str]
    aggregation_results: dict[str, Any]
    data_metadata: dict[str, Any]
    tracing_context: dict[str, Any]
    client_config: dict[str, Any]
    #: seconds since the epoch
    task_dispatched_at: float | None
    cancel_requested: bool
    created_at: str
    updated_at: str
    finished_at: str | None
    #: why a job that is fetched alone waits for a worker; None in lists, and while nobody can say
    waiting_reason: str | None


class JobsHistoryEvent(TypedDict):
    """One line of a job's history."""

    event_id: str
    job_id: str
    timestamp: str
    state: str | None
    event_type: str
    duration_ms: int | None
    previous_state: str | None
    next_state: str | None
    worker_id: str | None
    attempt_number: int | None
    context_snapshot: dict[str, Any]


class JobsWebhookAttempt(TypedDict):
    """One try to tell a receiver."""

    timestamp: str
    status_code: int | None
    error: str | None


class JobsWebhook(TypedDict):
    """What somebody is told of a job's end, and what became of that."""

    id: str
    event: str
    job_id: str
    url: str
    status: Literal["pending", "delivered", "dead"]
    attempt_count: int
    attempts: list[JobsWebhookAttempt]
    created_at: str
    next_attempt_at: str | None
    ended_at: str | None


class JobsBlueprint(TypedDict):
    """A blueprint that is loaded, and where its jobs are created."""

    name: str
    api_version: str | None
    api_endpoint: str | None
    version: int


class JobsDashboard(TypedDict):
    """How many workers there are, and jobs by status."""

    workers: dict[str, int]
    jobs: dict[str, int]


# -- pipelines

PipelinesStatus = Literal["Queued", "Running", "Succeeded", "Failed", "Cancelled", "TimedOut"]


class PipelinesPipelineConfig(TypedDict):
    """How jobs of a pipeline run; secrets are shown as `***`."""

    timeout_seconds: int | None
    max_retries: int
    env_vars: dict[str, str]
    secret_env_vars: NotRequired[dict[str, str] | None]


class PipelinesPipeline(TypedDict):
    """A CI pipeline."""

    id: str
    name: str
    description: str | None
    script: str
    required_modules: list[str]
    created_at: str
    updated_at: str
    tags: list[Any]
    config: PipelinesPipelineConfig
    version: int


class PipelinesJobResult(TypedDict):
    """How a CI job ended."""

    success: bool
    exit_code: int
    output: Any
    error_message: str | None


class PipelinesJob(TypedDict):
    """One execution of a pipeline."""

    id: str
    pipeline_id: str
    status: PipelinesStatus
    requested_at: str
    started_at: str | None
    completed_at: str | None
    runner_id: str | None
    parameters: dict[str, Any]
    result: PipelinesJobResult | None
    retry_count: int
    timeout_seconds: int | None


class PipelinesLogEntry(TypedDict):
    """A line that a CI job has written."""

    timestamp: str
    level: Literal["Debug", "Info", "Warning", "Error"]
    message: str


class PipelinesRunner(TypedDict):
    """Who executes CI jobs."""

    id: str
    capabilities: list[str]
    capability_count: int
    registered_at: str
    last_heartbeat_at: str
    status: Literal["Online", "Offline", "Busy"]


class PipelinesStub(TypedDict):
    """A file for Lua editors that describes a module."""

    name: str
    content: str


# -- shared


class HealthResponse(TypedDict):
    """How the server is."""

    ok: bool
    service: str
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    timestamp: str
    orchestrators_running: int
