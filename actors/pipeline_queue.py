"""Where CI jobs are: waiting, oldest first, and by the runner that has them. Both follow the jobs' own state."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from datetime import datetime

from actors.held_pipeline_job import HeldPipelineJob
from orchestrator.pipeline_job import JobState

#: (tenant, id) of a runner
RunnerKey = tuple[str, str]


class PipelineQueue:
    """Held jobs by what they wait for. `place` and `drop` keep it true; listing costs what is queued."""

    def __init__(self) -> None:
        #: (requested_at, job id) of queued jobs, in order
        self._order: list[tuple[datetime, str]] = []
        self._queued: dict[str, HeldPipelineJob] = {}
        self._runner_of: dict[str, RunnerKey] = {}
        self._jobs_of: dict[RunnerKey, dict[str, HeldPipelineJob]] = {}

    def place(self, held: HeldPipelineJob) -> None:
        """The job may be in another state now."""
        is_queued, was_queued = held.job.state is JobState.QUEUED, held.run_id in self._queued
        if is_queued and not was_queued:
            bisect.insort(self._order, (held.job.launched.at, held.run_id))
            self._queued[held.run_id] = held
        elif was_queued and not is_queued:
            self._unqueue(held.run_id)
        self._give(held.run_id, held.job.held_by, held)

    def drop(self, run_id: str) -> None:
        """The job is forgotten."""
        if run_id in self._queued:
            self._unqueue(run_id)
        self._give(run_id, None, None)

    def queued(self, now: datetime) -> Iterator[HeldPipelineJob]:
        """Queued jobs whose retry delay is over, oldest first."""
        for _, run_id in self._order:
            held = self._queued[run_id]
            if held.job.due <= now:
                yield held

    def of_runner(self, runner: RunnerKey) -> list[HeldPipelineJob]:
        """Jobs that the runner has now."""
        return list(self._jobs_of.get(runner, {}).values())

    def __len__(self) -> int:
        return len(self._queued)

    def _unqueue(self, run_id: str) -> None:
        held = self._queued.pop(run_id)
        del self._order[bisect.bisect_left(self._order, (held.job.launched.at, run_id))]

    def _give(self, run_id: str, runner: RunnerKey | None, held: HeldPipelineJob | None) -> None:
        before = self._runner_of.pop(run_id, None)
        if before is not None:
            self._jobs_of[before].pop(run_id, None)
            if not self._jobs_of[before]:
                del self._jobs_of[before]
        if runner is not None and held is not None:
            self._runner_of[run_id] = runner
            self._jobs_of.setdefault(runner, {})[run_id] = held
