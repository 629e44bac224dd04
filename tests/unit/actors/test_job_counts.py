"""What the end of a job adds to the metrics."""

from __future__ import annotations

from datetime import timedelta

import pytest

from actors.job_engine import _counts
from orchestrator.job import Status
from tests.job_stories import JobStory


@pytest.mark.parametrize(("took_s", "counted_ms"), [(2.0, 2000), (-5.0, 0)])
def test_a_clock_that_goes_back_takes_nothing_from_what_was_counted(took_s: float, counted_ms: int) -> None:
    story = JobStory()
    story.now += timedelta(seconds=took_s)
    story.begin().fail_visit(again=False)
    assert story.job.status is Status.FAILED
    counts = dict(_counts(story.job))
    assert counts["orchestrator_job_duration_seconds|sum_ms"] == counted_ms
    assert counts["orchestrator_jobs_failed_total|flow"] == 1
