"""What this surface takes and gives. Component names and fields are those of the contract, section 1.

Bodies are read through these models, as FastAPI would. Answers are written by `words` without them: there they
only describe, and tests check that they tell the truth.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

INSTANCE_ID = r"orch-[0-9a-z-]+"
#: names of plans and ids of tasks in paths
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

InstanceState = Literal["running", "stopping", "stopped", "crashed"]
WorkState = Literal["running", "paused", "stopping", "stopped"]
TaskState = Literal["pending", "in_progress", "completed", "failed", "skipped"]
ExitReason = Literal["complete", "error", "blocked", "max_iterations", "shutdown"]


def _number(value: object) -> object:
    """pydantic would take "5" and true for numbers; JSON does not."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


Whole = Annotated[int, BeforeValidator(_number)]


class OrchestratorInfo(BaseModel):
    """An orchestrator instance as the registry knows it."""

    id: str = Field(pattern=f"^{INSTANCE_ID}$")
    pid: int = Field(description="process id of the instance actor")
    plan_path: str
    plan_name: str
    worktree_path: str | None = None
    started_at: datetime
    last_heartbeat: datetime
    status: InstanceState
    socket_path: str | None = None
    is_alive: bool = Field(description="the actor answers")
    is_stale: bool = Field(description="the last heartbeat is older than 60 s")
    exit_reason: ExitReason | None = None
    executor: str | None = None


class StatusSummary(BaseModel):
    """How far a plan is, in numbers."""

    total_tasks: int = 0
    completed: int = 0
    pending: int = 0
    in_progress: int = 0
    failed: int = 0
    skipped: int = 0
    current_phase: str | None = None
    progress_percent: float = Field(0.0, description="completed of total; skipped tasks are not completed")


class TaskInfo(BaseModel):
    """One task of a plan; `description` is its text as written."""

    id: str
    description: str
    status: TaskState
    phase: str | None = None
    retry_count: int = 0
    last_error: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


class PhaseSummary(BaseModel):
    """One phase of a plan."""

    phase_number: int
    name: str
    total_tasks: int
    completed_tasks: int
    pending_tasks: int
    failed_tasks: int
    is_current: bool = False


class StatusResponse(BaseModel):
    """A plan with its tasks and phases; `instance_id` is empty when no instance works on it."""

    instance_id: str
    plan_path: str
    plan_name: str
    status: WorkState
    summary: StatusSummary
    tasks: list[TaskInfo] = []
    phases: list[PhaseSummary] = []
    started_at: datetime | None = None
    iteration: int = 0
    max_iterations: int = 0
    exit_reason: ExitReason | None = None


class PlanInfo(BaseModel):
    """A plan file."""

    name: str
    path: str = Field(description="absolute")
    has_status: bool = False
    last_modified: datetime | None = None
    output_dir: str | None = None


class FindingInfo(BaseModel):
    """What a task of a plan left behind."""

    task_id: str
    file_path: str = Field(description="absolute")
    size_bytes: int
    last_modified: datetime


class CommandResponse(BaseModel):
    """What came of a command."""

    success: bool
    message: str
    error: str | None = None


class SkipTaskRequest(BaseModel):
    """Which task is to count as done, and why."""

    task_id: str
    reason: str | None = Field(None, max_length=10_000)


class RetryTaskRequest(BaseModel):
    """Which failed or skipped task is to be pending again."""

    task_id: str


class StartOrchestratorRequest(BaseModel):
    """A plan to work through. `max_iterations` 0 = unlimited."""

    plan: str = Field(description="name of the plan file, without `.md`")
    executor: str | None = Field(None, description="a name that the server's operator gave; null = the default one")
    batch_size: Whole = Field(5, ge=1, le=50)
    max_iterations: Whole = Field(50, ge=0)
    max_retries: Whole = Field(2, ge=0, le=10)


class ValidationError(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int]
    msg: str
    type: str
    input: Any = None
    ctx: dict[str, Any] = {}


class HTTPValidationError(BaseModel):
    """Everything that is wrong with a request."""

    detail: list[ValidationError] = []


#: every component of this surface; the last two are FastAPI's own
COMPONENTS: tuple[type[BaseModel], ...] = (
    OrchestratorInfo,
    StatusResponse,
    StatusSummary,
    TaskInfo,
    PhaseSummary,
    PlanInfo,
    FindingInfo,
    CommandResponse,
    SkipTaskRequest,
    RetryTaskRequest,
    StartOrchestratorRequest,
    HTTPValidationError,
    ValidationError,
)

_INSTANCE = {
    "id": "orch-1767323045678",
    "pid": 4711,
    "plan_path": "/srv/app/docs/plans/demo.md",
    "plan_name": "demo",
    "worktree_path": None,
    "started_at": "2026-01-02T03:04:05.678901Z",
    "last_heartbeat": "2026-01-02T03:04:15.000000Z",
    "status": "running",
    "socket_path": None,
    "is_alive": True,
    "is_stale": False,
    "exit_reason": None,
    "executor": "echo",
}
_TASK = {
    "id": "1.1",
    "description": "Create the folder",
    "status": "completed",
    "phase": "Phase 1: Setup",
    "retry_count": 0,
    "last_error": None,
    "started_at": "2026-01-02T03:04:06.000000Z",
    "completed_at": "2026-01-02T03:04:07.000000Z",
}
_STATUS = {
    "instance_id": "orch-1767323045678",
    "plan_path": "/srv/app/docs/plans/demo.md",
    "plan_name": "demo",
    "status": "stopped",
    "summary": {
        "total_tasks": 1,
        "completed": 1,
        "pending": 0,
        "in_progress": 0,
        "failed": 0,
        "skipped": 0,
        "current_phase": None,
        "progress_percent": 100.0,
    },
    "tasks": [_TASK],
    "phases": [
        {
            "phase_number": 1,
            "name": "Setup",
            "total_tasks": 1,
            "completed_tasks": 1,
            "pending_tasks": 0,
            "failed_tasks": 0,
            "is_current": False,
        }
    ],
    "started_at": "2026-01-02T03:04:05.678901Z",
    "iteration": 1,
    "max_iterations": 50,
    "exit_reason": "complete",
}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    OrchestratorInfo: _INSTANCE,
    StatusResponse: _STATUS,
    TaskInfo: _TASK,
    PlanInfo: {
        "name": "demo",
        "path": "/srv/app/docs/plans/demo.md",
        "has_status": True,
        "last_modified": "2026-01-01T00:00:00.000000Z",
        "output_dir": "/srv/app/docs/plan-outputs/demo",
    },
    FindingInfo: {
        "task_id": "1.1",
        "file_path": "/srv/app/docs/plan-outputs/demo/findings/1-1.md",
        "size_bytes": 18,
        "last_modified": "2026-01-02T03:04:07.000000Z",
    },
    CommandResponse: {
        "success": True,
        "message": "Orchestrator 'orch-1767323045678' pause requested",
        "error": None,
    },
}

#: example of each body
BODIES: dict[type[BaseModel], dict[str, Any]] = {
    StartOrchestratorRequest: {"plan": "demo", "executor": "echo"},
    SkipTaskRequest: {"task_id": "2.1", "reason": "later"},
    RetryTaskRequest: {"task_id": "2.1"},
}

#: the body of an event stream
EVENTS = (
    'retry: 1000\n\nid: 41\nevent: initial_status\ndata: {"type":"initial_status",'
    '"timestamp":"2026-01-02T03:04:05.678901Z","instance_id":"orch-1","data":{"…":"…"}}\n\n'
    'id: 42\nevent: phase_changed\ndata: {"type":"phase_changed","timestamp":"2026-01-02T03:04:07.000000Z",'
    '"instance_id":"orch-1","seq":42,"data":{"old_phase":"Phase 1: Setup","new_phase":null}}\n\n: keep-alive\n\n'
    'event: ping\ndata: {"type":"ping","timestamp":"2026-01-02T03:04:37.000000Z"}\n\n'
)
