"""Orders and settings for tests of what runs in Kubernetes; everything that is not under test has a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.kubernetes_job import job_name
from orchestrator.messages import Assignment, JobOrder, RunContext

RUN = "run_0352HJ3YI51dZum7DbHLak"
OWNER = "run-actor-0"


def an_order(
    task: str = "a",
    attempt: int = 1,
    *,
    run_id: str = RUN,
    epoch: int = 1,
    type: str = "acme.work",
    params: Mapping[str, Any] | None = None,
    run_params: Mapping[str, Any] | None = None,
    window: tuple[str, str] | None = None,
    timeout_s: float = 3600.0,
    image: str | None = "acme:1",
    command: tuple[str, ...] = (),
) -> JobOrder:
    """One attempt."""
    run = RunContext(run_id, "default", "d", 1, window, OWNER, dict(run_params or {}))
    own = msgspec.Raw(msgspec.json.encode(dict(params or {})))
    assignment = Assignment(run_id, task, attempt, type, None, own, {}, timeout_s)
    return JobOrder(OWNER, epoch, run, assignment, image, command)


def name_of(task: str = "a", attempt: int = 1, run_id: str = RUN) -> str:
    """The attempt's Job."""
    return job_name((run_id, task, attempt))
