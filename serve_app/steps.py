"""What the journal steps that create runs and backfills have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from actors.hosted import milliseconds
from orchestrator.definition import Definition
from orchestrator.errors import Conflict
from orchestrator.idempotency import Idempotency
from orchestrator.rows import RunRow
from orchestrator.starts import Trigger
from orchestrator.steps import StoredReply

#: how often a step is planned again when the world changed in between
TRIES = 8


def plan_changed(trigger: Trigger) -> Conflict:
    """The plan hash that was given is not that of the plan made now."""
    return Conflict(f"the plan for DAG {trigger.dag_id} has changed since it was made: dry-run again")


def existing_runs(rows: Mapping[str, RunRow]) -> dict[str, tuple[str, str]]:
    """Rows by window, as a plan wants them: (run id, core state)."""
    return {key: (row.run_id, row.state) for key, row in rows.items()}


def stored(idem: Idempotency | None, note: bytes) -> StoredReply | None:
    """The record to be kept under the caller's key, if it sent one."""
    return None if idem is None else StoredReply(idem.key, idem.fingerprint, note)


def id_of(idem: Idempotency) -> str:
    """The same for the same key."""
    return hashlib.sha256(idem.key.encode()).hexdigest()[:16]


def deadline_ms(definition: Definition, now: datetime) -> int | None:
    """When a run that is created now misses its SLA."""
    return None if definition.sla_s is None else milliseconds(now) + definition.sla_s * 1000
