"""The closed set of events of a CI job, under the same rules as `events.py`: what can be read in the journal.

No event carries the value of a secret: `parameters`, `result` and errors are masked before they get here, and what only
the claiming runner may read is in `sealed`, encrypted.
Source: pipelines contract, section 3.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from orchestrator.pipeline_views import JobResult

#: version of the meaning of the events below, written beside each batch
SCHEMA = 1


class PipelineEvent(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Anything that happened to a CI job. `at` is when it was decided, UTC."""

    at: datetime


class JobLaunched(PipelineEvent, frozen=True, tag="launched"):
    """The job exists and waits for a runner. It is pinned to this version of its pipeline."""

    job_id: str
    tenant: str
    pipeline_id: str
    pipeline_version: int
    #: as they are shown
    parameters: dict[str, Any] = {}
    #: what a runner must have
    required_modules: tuple[str, ...] = ()
    #: None = no limit
    timeout_seconds: int | None = None
    max_retries: int = 0
    #: the parameters as they were given, and all that is secret; "" = nothing is
    sealed: str = ""


class JobClaimed(PipelineEvent, frozen=True, tag="claimed"):
    """A runner has the job; or it runs without one (None), as somebody says."""

    runner_id: str | None = None
    runner_tenant: str = ""
    #: idempotency key of the claim and the fingerprint of its body
    key: str = ""
    fingerprint: str = ""


class JobRetried(PipelineEvent, frozen=True, tag="retried"):
    """The attempt failed, and the job is queued again; listed from `due` on."""

    due: datetime
    #: of the completion, see `JobEnded.completion`
    completion: str = ""


class JobLost(PipelineEvent, frozen=True, tag="lost"):
    """The runner was lost, and the job is queued again; listed from `due` on. A late completion is still accepted."""

    due: datetime


class JobEnded(PipelineEvent, frozen=True, tag="ended"):
    """Terminal."""

    #: core run state: succeeded | failed | cancelled | timed_out
    outcome: str
    result: JobResult | None = None
    #: tells the completion that ended it from others; "" = no completion did
    completion: str = ""
    #: it ended because its runner was lost
    lost: bool = False


#: the union the codec decodes into
AnyPipelineEvent = JobLaunched | JobClaimed | JobRetried | JobLost | JobEnded
