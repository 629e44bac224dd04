"""What is shown of CI pipelines, their jobs and runners, and what callers ask of them.

Source: pipelines contract, section 1.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class PipelineConfig(msgspec.Struct, frozen=True):
    """How jobs of a pipeline run. `timeout_seconds` None = no limit."""

    timeout_seconds: int | None = 3600
    max_retries: int = 0
    env_vars: dict[str, str] = {}
    #: additive, shown only when there are any: stored encrypted, shown as `***`, given to the claiming runner alone
    secret_env_vars: dict[str, str] = {}


class PipelineWanted(msgspec.Struct, frozen=True):
    """A pipeline to be created; what is None is taken from the script."""

    script: str
    name: str | None = None
    description: str | None = None
    required_modules: tuple[str, ...] = ()
    #: text or {key, value}, echoed
    tags: tuple[Any, ...] | None = None
    config: PipelineConfig = PipelineConfig()


class PipelineView(msgspec.Struct, frozen=True):
    """A pipeline."""

    id: str
    name: str
    description: str | None
    script: str
    required_modules: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    tags: tuple[Any, ...]
    config: PipelineConfig
    version: int = 1


class JobResult(msgspec.Struct, frozen=True):
    """How a job ended."""

    success: bool
    exit_code: int
    output: Any = None
    error_message: str | None = None


class PipelineJobView(msgspec.Struct, frozen=True):
    """A job of a pipeline; `status` as on the wire."""

    id: str
    pipeline_id: str
    status: str
    requested_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    runner_id: str | None
    parameters: dict[str, Any]
    result: JobResult | None
    retry_count: int
    timeout_seconds: int | None


class Claimed(msgspec.Struct, frozen=True):
    """What a runner needs to execute a job."""

    job_id: str
    pipeline_id: str
    pipeline_source: str
    parameters: dict[str, Any]
    #: additive: `config.env_vars` and the secret ones
    env_vars: dict[str, str] = {}


class CompletionWanted(msgspec.Struct, frozen=True):
    """A runner says that a job has ended."""

    result: JobResult
    status: str | None = None


class LogEntry(msgspec.Struct, frozen=True):
    """A line of output; `timestamp` is text as it came, up to nine fraction digits."""

    timestamp: str
    level: str
    message: str


class RunnerView(msgspec.Struct, frozen=True):
    """A runner; `status` is Online, Busy or Offline."""

    id: str
    capabilities: tuple[str, ...]
    registered_at: datetime
    last_heartbeat_at: datetime
    status: str
