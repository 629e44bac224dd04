"""What the pipelines surface says."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

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
