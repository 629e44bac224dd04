"""What this surface takes and gives, as models for its OpenAPI.

They describe; they validate nothing (`parse` does), so a request costs no pydantic.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.job_views import JobStatus

JOB_ID = "1c6c2d07-8110-4132-acd7-cf39dd403e49"
TASK_ID = "63f1c926-6692-4d9f-bf9b-e9c31b2fe694"
WEBHOOK_ID = f"msg_{JOB_ID}"
WORKER_ID_PATTERN = "^[a-zA-Z0-9_-]{1,128}$"

JobId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
WorkerId = Annotated[str, Field(pattern=WORKER_ID_PATTERN)]


class JobsError(BaseModel):
    """Every error of this surface."""

    error: str


class JobsWanted(BaseModel):
    """A job. A body with neither of these keys is the initial data itself."""

    initial_data: dict[str, Any] | None = None
    webhook_url: str | None = Field(None, description="http or https; told how the job ended")


class JobsAccepted(BaseModel):
    """The job exists."""

    status: Literal["accepted"]
    job_id: JobId


class JobsTaskInfo(BaseModel):
    """The task that the job's state dispatched."""

    type: str
    params: dict[str, Any]
    transitions: dict[str, str]
    dispatch_strategy: str
    resource_requirements: dict[str, Any] | None
    timeout_seconds: float | None
    max_cost: float | None
    priority: float


class JobsClient(BaseModel):
    """Who asked for a job."""

    name: str
    plan: str | None


class JobsJob(BaseModel):
    """One job, as it stands."""

    id: JobId
    blueprint_name: str
    current_state: str
    status: JobStatus
    initial_data: dict[str, Any]
    state_history: dict[str, Any] = Field(description="what handlers wrote, and `data` of results")
    webhook_url: str | None
    error_message: str | None
    parent_job_id: str | None
    child_job_id: str | None
    current_task_id: str | None
    task_worker_id: str | None
    retry_count: int = Field(description="of the current task")
    progress: float = Field(ge=0, le=1)
    progress_message: str
    current_task_info: JobsTaskInfo | None
    current_task_transitions: dict[str, str] = Field(description="result status, or decision, to state")
    aggregation_target: str | None
    active_branches: list[str]
    aggregation_results: dict[str, Any]
    data_metadata: dict[str, Any]
    tracing_context: dict[str, Any]
    client_config: JobsClient
    task_dispatched_at: float | None = Field(description="epoch seconds")
    cancel_requested: bool
    created_at: str
    updated_at: str
    finished_at: str | None
    waiting_reason: str | None = Field(
        description="why a job that is fetched alone waits for a worker; null in lists, and while nobody can say"
    )


class JobsHistoryEvent(BaseModel):
    """One line of a job's history."""

    event_id: str
    job_id: JobId
    timestamp: str
    state: str | None
    event_type: str
    duration_ms: int | None
    previous_state: str | None
    next_state: str | None
    worker_id: str | None
    attempt_number: int | None
    context_snapshot: dict[str, Any]


class JobsBlueprint(BaseModel):
    """A loaded blueprint. Without an endpoint only other blueprints run it."""

    name: str
    api_version: str | None
    api_endpoint: str | None
    version: int


class JobsCounted(BaseModel):
    """How many there are."""

    total: int


class JobsDashboard(BaseModel):
    """Workers, and jobs by status; `queued` are those that wait for room or for a worker."""

    workers: JobsCounted
    jobs: dict[str, int]


class JobsStatus(BaseModel):
    """What became of the request, in one word."""

    status: str


class JobsReleased(BaseModel):
    """The job goes on."""

    status: Literal["released"]
    job_id: JobId


class JobsWebhookAttempt(BaseModel):
    """One try to tell a receiver: the status that it answered, or why there was none."""

    timestamp: str
    status_code: int | None
    error: str | None


class JobsWebhook(BaseModel):
    """What somebody is told of a job's end, and what became of that."""

    id: str = Field(description="`webhook-id` of every attempt")
    event: str
    job_id: JobId
    url: str
    status: Literal["pending", "delivered", "dead"]
    attempt_count: int = Field(description="since the webhook was made, or tried again by command")
    attempts: list[JobsWebhookAttempt] = Field(description="the last 20, oldest first")
    created_at: str
    next_attempt_at: str | None = Field(description="dead ones are still tried now and then for a day")
    ended_at: str | None = Field(description="since when it is delivered or dead")


class JobsSettled(BaseModel):
    """What became of a result; an ignored one says why."""

    status: str
    reason: str | None = None


class JobsDecision(BaseModel):
    """A human's decision: a key of the job's `current_task_transitions`."""

    decision: str = Field(min_length=1)


class JobsApproved(BaseModel):
    """The job goes on."""

    status: Literal["approval_received"]
    job_id: JobId


class JobsSkill(BaseModel):
    """One thing that a worker can do."""

    model_config = ConfigDict(extra="allow")

    name: str
    type: str | None = None


class JobsWorker(BaseModel):
    """A worker: its registration and what it has said since, key by key."""

    model_config = ConfigDict(extra="allow")

    worker_id: WorkerId
    worker_type: str | None = Field(None, description="`ray` for workers of the cluster itself")
    supported_tasks: list[str] | None = None
    supported_skills: list[JobsSkill | str] | None = None
    max_concurrent_tasks: int | None = None
    reputation: float = Field(1.0, ge=0, le=1)
    last_seen: str | None = None


class JobsRegistration(BaseModel):
    """What a worker says of itself. Capabilities are the tasks and the names of the skills together."""

    model_config = ConfigDict(extra="allow")

    worker_id: WorkerId
    supported_tasks: list[str] | None = None
    supported_skills: list[JobsSkill | str] | None = None
    available_skills: list[JobsSkill | str] | None = None
    max_concurrent_tasks: int | None = Field(None, description="default 10, or `resources.max_concurrent_tasks`")
    resources: dict[str, Any] | None = None


class JobsHeartbeat(BaseModel):
    """What has changed about a worker; any keys."""

    model_config = ConfigDict(extra="allow")

    status: str | None = None
    supported_tasks: list[str] | None = None
    current_tasks: list[str] | None = Field(None, description="ids; a task missing twice was lost on its way")


class JobsAlive(BaseModel):
    """The worker counts as alive; or, when it said something, the worker as it is known now."""

    model_config = ConfigDict(extra="allow")

    status: str | None = None
    cancel_task_ids: list[str] | None = Field(None, description="tasks to stop, repeated until they end")
    require_full_sync: bool | None = Field(None, description="no capability of the worker is known")


class JobsTask(BaseModel):
    """A task, leased to the worker that asked."""

    job_id: JobId
    task_id: JobId
    type: str
    params: dict[str, Any]
    tracing_context: dict[str, Any]
    params_metadata: dict[str, Any] | None
    priority: float
    deadline: int | None = Field(None, description="epoch seconds")
    attempt: int | None = Field(None, description="counts tries of the task from 1; a redelivery is none")


class JobsOutcome(BaseModel):
    """What came of a task."""

    status: str = Field("success", description="`success`, `failure`, `cancelled`, or a key of the transitions")
    data: Any = None
    error: Any = Field(None, description="text, or {code, message, details}")
    data_metadata: Any = None


class JobsResult(BaseModel):
    """A result: its parts stand in `result`, or flat beside the ids."""

    model_config = ConfigDict(extra="allow")

    job_id: str = Field(min_length=1)
    task_id: str = Field(min_length=1)
    worker_id: WorkerId | None = None
    result: JobsOutcome | None = None
    status: str | None = None
    data: Any = None
    error: Any = None
    data_metadata: Any = None


class JobsEvent(BaseModel):
    """Something that happened while a task ran; only `progress` is kept."""

    model_config = ConfigDict(extra="allow")

    event_type: str
    worker_id: WorkerId | None = None
    payload: dict[str, Any] | None = None
    target_job_id: str | None = None
    target_task_id: str | None = None


_JOB: dict[str, Any] = {
    "id": JOB_ID,
    "blueprint_name": "simple_flow",
    "current_state": "start",
    "status": "waiting_for_worker",
    "initial_data": {"clip": "a"},
    "state_history": {},
    "webhook_url": None,
    "error_message": None,
    "parent_job_id": None,
    "child_job_id": None,
    "current_task_id": TASK_ID,
    "task_worker_id": "worker-123",
    "retry_count": 0,
    "progress": 0.5,
    "progress_message": "half",
    "current_task_info": {
        "type": "video_processing",
        "params": {"clip": "a"},
        "transitions": {"success": "finished", "needs_review": "review"},
        "dispatch_strategy": "default",
        "resource_requirements": None,
        "timeout_seconds": None,
        "max_cost": None,
        "priority": 0.0,
    },
    "current_task_transitions": {"success": "finished", "needs_review": "review"},
    "aggregation_target": None,
    "active_branches": [],
    "aggregation_results": {},
    "data_metadata": {},
    "tracing_context": {},
    "client_config": {"name": "default", "plan": None},
    "task_dispatched_at": 1767323045.678,
    "cancel_requested": False,
    "created_at": "2026-01-02T03:04:05.600000+00:00",
    "updated_at": "2026-01-02T03:04:06.100000+00:00",
    "finished_at": None,
    "waiting_reason": None,
}
_HISTORY_EVENT: dict[str, Any] = {
    "event_id": f"{JOB_ID}-2",
    "job_id": JOB_ID,
    "timestamp": "2026-01-02T03:04:05.678901+00:00",
    "state": "start",
    "event_type": "state_started",
    "duration_ms": None,
    "previous_state": None,
    "next_state": None,
    "worker_id": None,
    "attempt_number": 1,
    "context_snapshot": {},
}
_WEBHOOK: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "event": "job_finished",
    "job_id": JOB_ID,
    "url": "https://example.com/hook",
    "status": "pending",
    "attempt_count": 1,
    "attempts": [{"timestamp": "2026-01-02T03:04:07.100000+00:00", "status_code": 500, "error": None}],
    "created_at": "2026-01-02T03:04:06.900000+00:00",
    "next_attempt_at": "2026-01-02T03:04:09.100000+00:00",
    "ended_at": None,
}
#: a dead letter that is tried again
RETRIED_WEBHOOK = _WEBHOOK | {"attempt_count": 0}
_WORKER = {"worker_id": "worker-123", "supported_tasks": ["video_processing"], "reputation": 1.0}

#: example of each answer
ANSWERS: dict[type[BaseModel], Any] = {
    JobsAccepted: {"status": "accepted", "job_id": JOB_ID},
    JobsJob: _JOB,
    JobsHistoryEvent: _HISTORY_EVENT,
    JobsBlueprint: {"name": "simple_flow", "api_version": "v1", "api_endpoint": "/jobs/simple_flow", "version": 1},
    JobsWorker: _WORKER,
    JobsDashboard: {"workers": {"total": 2}, "jobs": {"queued": 1, "running": 3, "finished": 9}},
    JobsStatus: {"status": "ok"},
    JobsReleased: {"status": "released", "job_id": JOB_ID},
    JobsWebhook: _WEBHOOK,
    JobsApproved: {"status": "approval_received", "job_id": JOB_ID},
    JobsAlive: {"status": "ttl_refreshed"},
    JobsTask: {
        "job_id": JOB_ID,
        "task_id": TASK_ID,
        "type": "video_processing",
        "params": {"clip": "a"},
        "tracing_context": {},
        "params_metadata": None,
        "priority": 0.0,
    },
    JobsSettled: {"status": "result_accepted_success"},
}

_OF_TASK = {"job_id": JOB_ID, "task_id": TASK_ID, "worker_id": "worker-123"}
#: examples of each body, by name
BODIES: dict[type[BaseModel], dict[str, dict[str, Any]]] = {
    JobsWanted: {
        "a job": {"initial_data": {"clip": "a"}, "webhook_url": "https://example.com/hook"},
        "initial data alone": {"clip": "a"},
    },
    JobsDecision: {"yes": {"decision": "approved"}},
    JobsRegistration: {"a worker": {"worker_id": "worker-123", "supported_tasks": ["video_processing"]}},
    JobsHeartbeat: {"busy": {"status": "busy", "supported_tasks": []}},
    JobsResult: {
        "nested": {**_OF_TASK, "result": {"status": "success", "data": {"output": "x"}, "error": None}},
        "flat": {**_OF_TASK, "status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "nope"}},
    },
    JobsEvent: {
        "progress": {
            "event_type": "progress",
            "payload": {"progress": 0.5, "message": "half"},
            "target_job_id": JOB_ID,
            "target_task_id": TASK_ID,
        }
    },
}
