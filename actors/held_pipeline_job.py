"""A CI job in the gateway's memory, and what one turn changed of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from actors.hosted import milliseconds
from orchestrator import codec
from orchestrator import pipeline_events as e
from orchestrator.masking import Mask
from orchestrator.pipeline_fold import view
from orchestrator.pipeline_job import Command, PipelineJob, Rules, apply, decide, next_wake, own_lines, revived
from orchestrator.pipeline_messages import SecretsOfJob
from orchestrator.pipeline_views import LogEntry
from orchestrator.rows import EventBatch
from orchestrator.steps import Append

#: bytes of an error in lists of runs
ERROR_MAX = 2_000


class HeldPipelineJob:
    """`holder.Held`. Memory is ahead of the journal only within a turn."""

    def __init__(self, job: PipelineJob, version: int, rules: Rules, told: Sequence[LogEntry] = ()) -> None:
        self.job = job
        #: what its events so far have said in its log
        self.told = tuple(told)
        #: unsealed; None = not yet
        self.secrets: SecretsOfJob | None = None
        self.mask: Mask | None = None
        self._rules = rules
        self._version = version
        self._pending: list[e.PipelineEvent] = []
        self._view: msgspec.Raw | None = None

    @property
    def run_id(self) -> str:
        """As Held."""
        return self.job.job_id

    @property
    def ended(self) -> bool:
        """As Held."""
        return self.job.ended

    def decide(self, command: Command, now: datetime) -> tuple[list[e.PipelineEvent], list[LogEntry]]:
        """What has happened now, and what the job's log is to say about it. Raises Invalid, Conflict."""
        events = decide(self.job, command, now, self._rules)
        lines: list[LogEntry] = []
        for event in events:
            lines += own_lines(self.job, event)
            apply(self.job, event)
        self._pending += events
        self._view = None
        return events, lines

    def append(self) -> Append | None:
        """As Held."""
        if not self._pending:
            return None
        job, shown = self.job, view(self.job)
        why = None if shown.result is None else shown.result.error_message
        return Append(
            run_id=job.job_id,
            expected=self._version,
            count=len(self._pending),
            events=codec.encode_pipeline_events(self._pending),
            schema=e.SCHEMA,
            state=job.state,
            attempts=job.claims,
            started_ms=0 if shown.started_at is None else milliseconds(shown.started_at),
            finished_ms=None if shown.completed_at is None else milliseconds(shown.completed_at),
            error=None if why is None else why[:ERROR_MAX],
        )

    def committed(self) -> None:
        """As Held."""
        self._version += len(self._pending)
        self._pending.clear()
        if self.ended:
            self._view = None  # only lists of queued jobs need it

    def next_wake(self) -> datetime | None:
        """As Held."""
        return next_wake(self.job, self._rules)

    def view_json(self) -> msgspec.Raw:
        """PipelineJobView of it as it stands."""
        if self._view is None:
            self._view = msgspec.Raw(msgspec.json.encode(view(self.job)))
        return self._view


def held_from(batches: Sequence[EventBatch], rules: Rules) -> HeldPipelineJob:
    """The job that these events make."""
    events = [event for batch in batches for event in codec.decode_pipeline_events(batch.events, batch.schema)]
    job = revived(events[0])
    told: list[LogEntry] = []
    for event in events[1:]:
        told += own_lines(job, event)
        apply(job, event)
    return HeldPipelineJob(job, len(events), rules, told)
