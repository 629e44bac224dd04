"""What is shown of a CI job: the fold of its events, and its log by time; nothing is stored for either.

Source: pipelines contract, section 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from orchestrator.errors import Broken
from orchestrator.pipeline_events import AnyPipelineEvent
from orchestrator.pipeline_job import JobState, PipelineJob, apply, revived
from orchestrator.pipeline_views import LogEntry, PipelineJobView

_INSTANT = re.compile(r"([0-9-]{10}[Tt ][0-9:]{8})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


def fold(events: Iterable[AnyPipelineEvent]) -> PipelineJob:
    """The job that these events make, the first of them included."""
    job: PipelineJob | None = None
    for event in events:
        if job is None:
            job = revived(event)
        else:
            apply(job, event)
    if job is None:
        raise Broken("a CI job without events")
    return job


def view(job: PipelineJob) -> PipelineJobView:
    """The job as callers see it. While it is queued, it has no runner and has not started."""
    queued = job.state is JobState.QUEUED
    return PipelineJobView(
        id=job.job_id,
        pipeline_id=job.launched.pipeline_id,
        status=job.word,
        requested_at=job.launched.at,
        started_at=None if queued else job.started_at,
        completed_at=job.completed_at,
        runner_id=None if queued or job.runner is None else job.runner[1],
        parameters=job.launched.parameters,
        result=job.result,
        retry_count=job.retry_count,
        timeout_seconds=job.launched.timeout_seconds,
    )


def by_time(entries: Iterable[LogEntry]) -> list[LogEntry]:
    """A log in the order of its times, and of arrival where they are equal.

    A line whose time cannot be read stands behind the latest of those that came before it.
    """
    placed: list[tuple[int, LogEntry]] = []
    latest = 0
    for entry in entries:
        at = _nanoseconds(entry.timestamp)
        latest = max(latest, at or 0)
        placed.append((latest if at is None else at, entry))
    return [entry for _, entry in sorted(placed, key=lambda each: each[0])]


def _nanoseconds(text: str) -> int | None:
    """Of an RFC 3339 instant since the epoch; microseconds would lose digits."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    head, fraction, zone = found.groups()
    try:
        at = datetime.fromisoformat((head + zone).upper().replace(" ", "T"))
    except ValueError:
        return None
    return int(at.timestamp()) * 10**9 + int((fraction or "").ljust(9, "0")[:9])
