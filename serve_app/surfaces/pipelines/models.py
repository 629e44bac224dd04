"""What this surface takes and gives. Names are the contract's (section 1), with the surface's prefix.

Bodies are read through these models, except those of log batches (`parse.entries`), whose refusals count entries.
Answers are written by `words` without them: there they only describe, and tests check that they tell the truth.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from pydantic_core import PydanticCustomError

from orchestrator.faults import json_fault

JobStatus = Literal["Queued", "Running", "Succeeded", "Failed", "Cancelled", "TimedOut"]
LogLevel = Literal["Debug", "Info", "Warning", "Error"]

ID_CHARACTERS_MAX = 255
TIMEOUT_S_MAX = 10 * 366 * 24 * 3600
RETRIES_MAX = 1000

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: RFC 3339, with up to nine digits of a second
LOG_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"


def _number(value: object) -> object:
    """pydantic would take "5" and true for numbers; JSON does not."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _kept(value: Any) -> Any:
    """The caller's own JSON must be such that the journal can keep it."""
    if (fault := json_fault(value)) is not None:
        raise PydanticCustomError(
            "unkept", "{where}{what}", {"where": f"{fault[0]} " * bool(fault[0]), "what": fault[1]}
        )
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Name = Annotated[str, AfterValidator(_kept)]


class PipelinesTag(BaseModel):
    """A label with a name; `key` "capability" requires the module `value`."""

    model_config = ConfigDict(extra="allow")

    key: str
    value: str


class PipelinesPipelineConfig(BaseModel):
    """How jobs of a pipeline run."""

    #: of one attempt; null = no limit
    timeout_seconds: Annotated[Whole, Field(ge=1, le=TIMEOUT_S_MAX)] | None = 3600
    max_retries: Annotated[Whole, Field(ge=0, le=RETRIES_MAX)] = 0
    env_vars: dict[str, str] = {}
    #: given to the runner that claims a job and to nobody else; shown as `***`, if there are any
    secret_env_vars: dict[str, str] | None = None


class PipelinesPipeline(BaseModel):
    """A pipeline."""

    id: str
    name: str
    description: str | None
    script: str = Field(description="Lua 5.4")
    required_modules: list[str]
    created_at: str
    updated_at: str
    tags: list[str | PipelinesTag] = Field(description="as they were given")
    config: PipelinesPipelineConfig
    version: int


class PipelinesJobResult(BaseModel):
    """How a job ended."""

    success: bool
    exit_code: int
    output: Any
    error_message: str | None


class PipelinesJob(BaseModel):
    """One execution of a pipeline. A job that is queued again after a failure has a `retry_count` one higher."""

    id: str
    pipeline_id: str
    status: JobStatus
    requested_at: str
    started_at: str | None
    completed_at: str | None
    runner_id: str | None
    parameters: dict[str, Any]
    result: PipelinesJobResult | None
    retry_count: int
    timeout_seconds: int | None = Field(description="of one attempt; null = no limit")


class PipelinesJobExecutionInfo(BaseModel):
    """What a runner needs to execute a job: the source that was current when the job was launched."""

    job_id: str
    pipeline_id: str
    pipeline_source: str
    parameters: dict[str, Any] = Field(description="with the values of secret inputs")
    env_vars: dict[str, str] = Field(description="`config.env_vars` of the pipeline, and the secret ones")


class PipelinesLogEntry(BaseModel):
    """A line that a job has written."""

    timestamp: str = Field(
        pattern=f"^{LOG_TIME}$", description="RFC 3339, up to nine digits of a second; kept as it is"
    )
    level: LogLevel
    message: str = Field(max_length=10_000)


class PipelinesRunner(BaseModel):
    """Who executes jobs; one that never told its capabilities has none here, and gets every job."""

    id: str
    capabilities: list[str]
    capability_count: int
    registered_at: str
    last_heartbeat_at: str
    status: Literal["Online", "Offline", "Busy"]


class PipelinesStub(BaseModel):
    """A file for a Lua editor that describes a module of stages."""

    name: str
    content: str


class PipelinesError(BaseModel):
    """What went wrong."""

    error: str


# -- bodies


class PipelinesRegisterRequest(BaseModel):
    """A runner is there. `capabilities` missing = unknown: it gets every job."""

    runner_id: Name = Field(description="1 to 255 characters")
    capabilities: list[Name] | None = Field(None, description="at least one, if given")


class PipelinesClaimJobRequest(BaseModel):
    """Who claims a job."""

    runner_id: Name | None = Field(None, description="mandatory; 1 to 255 characters")


class PipelinesUpdateStatusRequest(BaseModel):
    """What a job's status is to be."""

    status: JobStatus


class PipelinesJobResultRequest(BaseModel):
    """How a job ended; without `exit_code` it is 0 for a success and 1 for a failure."""

    success: StrictBool
    exit_code: Annotated[Whole, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    output: Annotated[Any, AfterValidator(_kept)] = None
    error_message: str | None = None


class PipelinesCompleteJobRequest(BaseModel):
    """A job has ended. `status` wins over `result.success`."""

    result: PipelinesJobResultRequest
    status: JobStatus | None = Field(None, description="a terminal one")


class PipelinesSendLogsRequest(BaseModel):
    """A batch of lines; a bare array of entries does as well."""

    entries: list[PipelinesLogEntry] = Field(max_length=1000)


class PipelinesCreatePipelineRequest(BaseModel):
    """A pipeline to be; what is missing or null is what the script says."""

    script: str = Field(description="Lua 5.4 that returns a pipeline")
    name: Name | None = None
    description: str | None = None
    required_modules: list[Name] | None = Field(None, description="wins over the script's, when not empty")
    tags: Annotated[list[str | PipelinesTag], BeforeValidator(_kept)] | None = None
    config: PipelinesPipelineConfig | None = None


class PipelinesCreateJobRequest(BaseModel):
    """A pipeline to execute."""

    pipeline_id: str = Field(json_schema_extra={"pattern": f"^{UUID}$"})
    parameters: Annotated[dict[str, Any], AfterValidator(_kept)] | None = Field(
        None, description="at most 500 KiB; missing = none"
    )


_PIPELINE_ID = "0ccbc0eb-3a56-4f5d-8d86-c4a35c8eb451"
_JOB_ID = "a01111c1-2a09-42b9-baf1-3e38f799d8e3"
_SCRIPT = 'return { name = "Example", stages = { { name = "build", script = function() log.info("hi") end } } }'
_CONFIG = {"timeout_seconds": 60, "max_retries": 0, "env_vars": {}}
_ENTRY = {"timestamp": "2026-01-02T03:04:06.123456789Z", "level": "Info", "message": "Starting stage: build"}
_RESULT = {"success": True, "exit_code": 0, "output": None, "error_message": None}

#: example of each answer
ANSWERS: dict[type[BaseModel], dict[str, Any]] = {
    PipelinesPipeline: {
        "id": _PIPELINE_ID,
        "name": "Example",
        "description": None,
        "script": _SCRIPT,
        "required_modules": [],
        "created_at": "2026-01-02T03:04:05.678901Z",
        "updated_at": "2026-01-02T03:04:05.678901Z",
        "tags": ["ci"],
        "config": _CONFIG,
        "version": 1,
    },
    PipelinesJob: {
        "id": _JOB_ID,
        "pipeline_id": _PIPELINE_ID,
        "status": "Queued",
        "requested_at": "2026-01-02T03:04:05.678901Z",
        "started_at": None,
        "completed_at": None,
        "runner_id": None,
        "parameters": {"message": "hi"},
        "result": None,
        "retry_count": 0,
        "timeout_seconds": 60,
    },
    PipelinesJobExecutionInfo: {
        "job_id": _JOB_ID,
        "pipeline_id": _PIPELINE_ID,
        "pipeline_source": _SCRIPT,
        "parameters": {"message": "hi"},
        "env_vars": {},
    },
    PipelinesLogEntry: _ENTRY,
    PipelinesRunner: {
        "id": "r1",
        "capabilities": ["log", "env"],
        "capability_count": 2,
        "registered_at": "2026-01-02T03:04:05.678901Z",
        "last_heartbeat_at": "2026-01-02T03:04:05.678901Z",
        "status": "Online",
    },
    PipelinesStub: {"name": "log.lua", "content": "---@meta\n\nlog = {}\n"},
}

#: examples of each body: the two generations of callers, where they differ
BODIES: dict[type[BaseModel], dict[str, Any]] = {
    PipelinesRegisterRequest: {
        "capable": {"runner_id": "r1", "capabilities": ["log", "env"]},
        "any": {"runner_id": "g2"},
    },
    PipelinesClaimJobRequest: {"claim": {"runner_id": "r1"}},
    PipelinesUpdateStatusRequest: {"running": {"status": "Running"}},
    PipelinesCompleteJobRequest: {
        "success": {"result": _RESULT},
        "failure": {"status": "Failed", "result": {"success": False, "exit_code": 2}},
    },
    PipelinesSendLogsRequest: {"wrapped": {"entries": [_ENTRY]}, "bare": [_ENTRY]},
    PipelinesCreatePipelineRequest: {
        "script": {"script": _SCRIPT},
        "more": {"script": _SCRIPT, "name": "Example", "tags": ["ci"], "config": _CONFIG},
    },
    PipelinesCreateJobRequest: {"launch": {"pipeline_id": _PIPELINE_ID, "parameters": {"message": "hi"}}},
}

#: the body of a log stream
EVENTS = (
    'retry: 1000\n\nid: 1\nevent: log\ndata: {"timestamp":"2026-01-02T03:04:06.123456789Z","level":"Info",'
    '"message":"Starting stage: build"}\n\n: keep-alive 1767323060678\n\n'
    'event: end\ndata: {"status":"Succeeded"}\n\n'
)
