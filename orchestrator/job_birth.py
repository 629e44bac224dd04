"""How a job comes into the world: the run that its creator writes, held by the gateway from then on.

Its row's definition is `@job/<blueprint>`, its first event JobCreated. Who creates the same id again changes nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Any

import msgspec

from orchestrator import codec
from orchestrator.blueprint import Blueprint
from orchestrator.job_events import SCHEMA, JobCreated
from orchestrator.steps import NewRun

#: kind of the definitions whose runs are jobs
KIND = "@job"


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job before it exists."""

    job_id: str
    tenant: str
    initial_data: dict[str, Any]
    #: {"name", "plan"}
    client: dict[str, Any]
    webhook_url: str | None = None
    parent_job_id: str | None = None
    #: how many jobs are above it
    depth: int = 0


def new_job(birth: Birth, blueprint: Blueprint, version: int, owner: str, now: datetime) -> NewRun:
    """The run that stands for the job, pinned to that version of its blueprint."""
    created = JobCreated(
        now,
        birth.job_id,
        birth.tenant,
        blueprint.name,
        version,
        birth.initial_data,
        birth.webhook_url,
        birth.client,
        birth.parent_job_id,
        birth.depth,
        blueprint.start,
    )
    return NewRun(
        run_id=birth.job_id,
        tenant=birth.tenant,
        dag_id=f"{KIND}/{blueprint.name}",
        dag_version=version,
        run_type="job",
        created_ms=round(now.timestamp() * 1000),
        event=codec.encode_job_events([created]),
        schema=SCHEMA,
        owner=owner,
        parent=birth.parent_job_id or "",
    )


def fired_id(schedule: str, fire: datetime) -> str:
    """The id of the job that a firing of a schedule makes, always the same one; in the form of a uuid4."""
    digest = hashlib.sha256(f"{schedule}\n{fire.timestamp()!r}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
