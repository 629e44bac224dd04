"""CI jobs for tests, with everything defaulted that is not under test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator import pipeline_events as e
from orchestrator.pipeline_job import (
    Claim,
    Command,
    Complete,
    PipelineJob,
    Rules,
    apply,
    decide,
    own_lines,
    revived,
)
from orchestrator.pipeline_views import JobResult

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
JOB_ID = "a01111c1-2a09-42b9-baf1-3e38f799d8e3"
PIPELINE_ID = "0ccbc0eb-3a56-4f5d-8d86-c4a35c8eb451"
GOOD = JobResult(True, 0)
BAD = JobResult(False, 2)


def launched(**given: Any) -> e.JobLaunched:
    defaults: dict[str, Any] = {
        "at": AT,
        "job_id": JOB_ID,
        "tenant": "default",
        "pipeline_id": PIPELINE_ID,
        "pipeline_version": 1,
    }
    return e.JobLaunched(**(defaults | given))


def claim(runner_id: str = "r1", **given: Any) -> Claim:
    return Claim(runner_id, given.pop("tenant", "default"), **given)


def completion(result: JobResult = GOOD, word: str | None = None) -> Complete:
    return Complete(result, word, digest=f"{word} {result!r}")


class JobStory:
    """One job, its events and lines, and a clock that tests move."""

    def __init__(self, rules: Rules | None = None, **given: Any) -> None:
        self.rules = rules or Rules()
        first = launched(**given)
        self.events: list[e.PipelineEvent] = [first]
        self.lines: list[tuple[str, str]] = []
        self.job: PipelineJob = revived(first)
        self.now = AT

    def later(self, seconds: float) -> JobStory:
        self.now += timedelta(seconds=seconds)
        return self

    def do(self, *commands: Command) -> list[e.PipelineEvent]:
        """Events of the last of them."""
        events: list[e.PipelineEvent] = []
        for command in commands:
            events = decide(self.job, command, self.now, self.rules)
            for event in events:
                self.lines += [(line.level, line.message) for line in own_lines(self.job, event)]
                apply(self.job, event)
            self.events += events
        return events
