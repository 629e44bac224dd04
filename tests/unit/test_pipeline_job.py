"""One CI job: claims, completions, retries, lost runners, limits, cancel; the contract's table and its texts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator import pipeline_events as e
from orchestrator.errors import Conflict, Invalid
from orchestrator.pipeline_fold import fold, view
from orchestrator.pipeline_job import (
    STATES,
    TERMINAL,
    TRANSITIONS,
    WORDS,
    Cancel,
    Command,
    JobState,
    Lose,
    Rules,
    SetStatus,
    Tick,
    next_wake,
)
from orchestrator.pipeline_views import JobResult
from tests.pipeline_builders import AT, BAD, GOOD, JOB_ID, JobStory, claim, completion


def refusal(story: JobStory, command: Command) -> str:
    before, state = len(story.events), story.job.state
    with pytest.raises(Invalid) as refused:
        story.do(command)
    assert (len(story.events), story.job.state) == (before, state)
    return str(refused.value)


def ended(word: str) -> JobStory:
    story = JobStory()
    story.do(claim(), completion(GOOD, word))
    return story


def shown(story: JobStory) -> dict[str, Any]:
    job = view(story.job)
    assert job == view(fold(story.events)), "replay equals live"
    return {name: getattr(job, name) for name in job.__struct_fields__}


def test_every_state_has_a_row_and_terminal_rows_are_empty() -> None:
    assert set(TRANSITIONS) == set(JobState) == set(WORDS) == set(STATES.values())
    assert {state for state, row in TRANSITIONS.items() if not row} == TERMINAL


def test_a_launched_job_is_queued_and_shows_no_runner() -> None:
    assert shown(JobStory(parameters={"message": "hi"}, timeout_seconds=60)) == {
        "id": JOB_ID,
        "pipeline_id": "0ccbc0eb-3a56-4f5d-8d86-c4a35c8eb451",
        "status": "Queued",
        "requested_at": AT,
        "started_at": None,
        "completed_at": None,
        "runner_id": None,
        "parameters": {"message": "hi"},
        "result": None,
        "retry_count": 0,
        "timeout_seconds": 60,
    }


# ── claims


def test_one_claim_wins_and_the_same_runner_is_refused_as_well() -> None:
    story = JobStory()
    story.later(5).do(claim("r1"))
    job = shown(story)
    assert (job["status"], job["runner_id"], job["started_at"]) == ("Running", "r1", AT + timedelta(seconds=5))
    for runner in ("r1", "r2"):
        assert refusal(story, claim(runner)) == f"Job {JOB_ID} is not in Queued state (current: Running)"


def test_a_runner_that_lacks_modules_is_refused_and_one_that_says_nothing_is_not() -> None:
    needy = JobStory(required_modules=("docker", "gpu", "log"))
    message = "Runner r1 lacks required modules: docker, gpu"
    assert refusal(needy, claim("r1", capabilities=frozenset({"log", "env"}))) == message
    needy.do(claim("r1", capabilities=None))
    assert (
        refusal(needy, claim("r2", capabilities=frozenset()))
        == f"Job {JOB_ID} is not in Queued state (current: Running)"
    )


def test_order_and_surplus_of_capabilities_do_not_matter() -> None:
    story = JobStory(required_modules=("b", "a"))
    assert story.do(claim(capabilities=frozenset({"c", "a", "b"})))


def test_a_claim_under_an_equal_key_is_answered_again_and_another_body_is_a_conflict() -> None:
    story = JobStory()
    story.do(claim(key="k", fingerprint="f"))
    assert story.do(claim(key="k", fingerprint="f")) == []
    with pytest.raises(Conflict, match="Idempotency key reused"):
        story.do(claim(key="k", fingerprint="g"))
    story.do(completion(GOOD))
    assert story.do(claim(key="k", fingerprint="f")) == [], "also when the job has gone on"
    story.later(24 * 3600)
    assert (
        refusal(story, claim(key="k", fingerprint="f")) == f"Job {JOB_ID} is not in Queued state (current: Succeeded)"
    )


# ── status


def test_running_on_a_running_job_is_a_no_op_and_on_a_queued_one_claims_it_without_a_runner() -> None:
    story = JobStory()
    story.do(SetStatus("Running"))
    job = shown(story)
    assert (job["status"], job["runner_id"], job["started_at"]) == ("Running", None, AT)
    assert story.do(SetStatus("Running")) == []


@pytest.mark.parametrize("word", ["Succeeded", "Failed", "Cancelled", "TimedOut"])
def test_a_terminal_status_ends_a_running_job_without_a_result_and_retries(word: str) -> None:
    story = JobStory(max_retries=3)
    story.do(claim())
    story.later(1).do(SetStatus(word))
    job = shown(story)
    assert (job["status"], job["result"], job["completed_at"]) == (word, None, AT + timedelta(seconds=1))
    assert story.do(SetStatus(word)) == [], "its answer got lost"


def test_nothing_is_set_to_queued_and_nothing_leaves_a_terminal_status() -> None:
    story = JobStory()
    assert refusal(story, SetStatus("Succeeded")) == "Invalid status transition: Queued -> Succeeded"
    assert refusal(story, SetStatus("Queued")) == "Invalid status transition: Queued -> Queued"
    story.do(claim())
    assert refusal(story, SetStatus("Queued")) == "Invalid status transition: Running -> Queued"
    story.do(completion(GOOD))
    assert refusal(story, SetStatus("Running")) == "Invalid status transition: Succeeded -> Running"
    assert refusal(story, SetStatus("Failed")) == "Invalid status transition: Succeeded -> Failed"


def test_a_queued_job_can_be_set_to_cancelled() -> None:
    story = JobStory()
    story.do(SetStatus("Cancelled"))
    assert shown(story)["status"] == "Cancelled"


# ── completions


@pytest.mark.parametrize(
    ("result", "word", "status"),
    [
        (GOOD, None, "Succeeded"),
        (BAD, None, "Failed"),
        (BAD, "Succeeded", "Succeeded"),
        (GOOD, "Failed", "Failed"),
        (GOOD, "Cancelled", "Cancelled"),
        (BAD, "TimedOut", "TimedOut"),
    ],
)
def test_a_given_status_wins_over_the_result(result: JobResult, word: str | None, status: str) -> None:
    story = JobStory()
    story.do(claim(), completion(result, word))
    assert (shown(story)["status"], shown(story)["result"]) == (status, result)


def test_a_completion_status_is_a_terminal_one() -> None:
    story = JobStory()
    story.do(claim())
    assert refusal(story, completion(GOOD, "Running")) == "Invalid completion status: Running"
    assert refusal(story, completion(GOOD, "Queued")) == "Invalid completion status: Queued"


def test_a_job_that_was_never_claimed_takes_no_completion() -> None:
    assert refusal(JobStory(), completion(GOOD)) == f"Job {JOB_ID} is not running (current: Queued)"


@pytest.mark.parametrize("word", ["Succeeded", "Failed", "Cancelled", "TimedOut"])
def test_terminal_states_absorb_everything_but_the_repetition_that_changes_nothing(word: str) -> None:
    story = ended(word)
    assert story.do(completion(GOOD, word)) == []
    assert story.do(Lose(), Tick()) == []
    assert refusal(story, completion(BAD, word)) == f"Job {JOB_ID} is already completed (current: {word})"
    assert refusal(story, Cancel()) == f"Job {JOB_ID} is already completed (current: {word})"
    assert refusal(story, claim()) == f"Job {JOB_ID} is not in Queued state (current: {word})"
    assert refusal(story, SetStatus("Running")) == f"Invalid status transition: {word} -> Running"


# ── retries


def test_a_failure_with_retries_left_queues_the_job_again_and_the_next_one_ends_it() -> None:
    story = JobStory(max_retries=1)
    story.do(claim(), completion(BAD))
    job = shown(story)
    assert (job["status"], job["retry_count"], job["runner_id"], job["started_at"]) == ("Queued", 1, None, None)
    assert job["result"] is None
    assert story.lines == [("Info", "attempt 2 queued")]
    story.do(claim("r2"), completion(BAD))
    job = shown(story)
    assert (job["status"], job["retry_count"], job["runner_id"]) == ("Failed", 1, "r2")


def test_the_delay_before_a_retry_doubles_up_to_a_minute_without_chance() -> None:
    story = JobStory(max_retries=9)
    waits = []
    for _ in range(9):
        story.do(claim(), completion(BAD))
        waits.append((story.job.due - story.now).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_job_can_be_claimed_by_its_id_before_its_delay_is_over() -> None:
    story = JobStory(max_retries=1)
    story.do(claim(), completion(BAD))
    assert story.do(claim("r2"))


def test_a_repeated_completion_has_no_effect_until_the_job_is_claimed_again() -> None:
    story = JobStory(max_retries=2)
    story.do(claim(), completion(BAD))
    assert story.do(completion(BAD)) == []
    assert refusal(story, completion(GOOD)) == f"Job {JOB_ID} is not running (current: Queued)"
    story.do(claim())
    assert story.do(completion(BAD)), "now it is the outcome of the new attempt"
    assert shown(story)["retry_count"] == 2


# ── lost runners


def test_a_lost_runners_job_is_queued_once_more_even_without_retries() -> None:
    story = JobStory()
    story.do(claim("r1"), Lose())
    job = shown(story)
    assert (job["status"], job["retry_count"], job["runner_id"], job["started_at"]) == ("Queued", 1, None, None)
    story.do(claim("r2"))
    story.later(3).do(Lose())
    job = shown(story)
    assert (job["status"], job["runner_id"]) == ("Failed", "r2")
    assert job["result"] == JobResult(False, -1, None, "Runner r2 lost")
    assert story.lines == [("Warning", "runner r1 lost"), ("Info", "attempt 2 queued"), ("Warning", "runner r2 lost")]


def test_jobs_that_must_not_run_twice_fail_with_their_runner() -> None:
    story = JobStory(Rules(lost_runner_retries=0))
    story.do(claim("r1"), Lose())
    assert shown(story)["status"] == "Failed"


def test_losses_and_failures_share_the_count() -> None:
    story = JobStory(max_retries=2)
    story.do(claim(), Lose(), claim(), completion(BAD))
    assert shown(story)["retry_count"] == 2
    story.do(claim(), Lose())
    assert shown(story)["status"] == "Failed"


def test_a_job_without_a_runner_is_not_lost() -> None:
    story = JobStory()
    story.do(SetStatus("Running"))
    assert story.do(Lose()) == []


def test_a_job_that_is_queued_because_its_runner_was_silent_accepts_the_completion() -> None:
    story = JobStory()
    story.do(claim("r1"))
    story.later(90).do(Lose())
    story.later(10).do(completion(GOOD))
    job = shown(story)
    assert (job["status"], job["runner_id"], job["started_at"], job["retry_count"]) == ("Succeeded", "r1", AT, 1)


def test_after_a_new_claim_the_first_completion_wins_whosever_it_is() -> None:
    story = JobStory()
    story.do(claim("r1"), Lose(), claim("r2"), completion(BAD))
    assert shown(story)["status"] == "Failed"
    assert refusal(story, completion(GOOD)) == f"Job {JOB_ID} is already completed (current: Failed)"


def test_a_job_cancelled_after_a_loss_shows_no_runner() -> None:
    story = JobStory()
    story.do(claim("r1"), Lose(), Cancel())
    job = shown(story)
    assert (job["status"], job["runner_id"], job["started_at"]) == ("Cancelled", None, None)


# ── limits and cancel


def test_a_job_times_out_once_its_limit_has_passed_since_the_claim_without_a_retry() -> None:
    story = JobStory(timeout_seconds=3600, max_retries=5)
    story.later(50).do(claim())
    assert next_wake(story.job, story.rules) == story.now + timedelta(seconds=3600)
    assert story.later(3599).do(Tick()) == []
    story.later(1).do(Tick())
    job = shown(story)
    assert (job["status"], job["runner_id"]) == ("TimedOut", "r1")
    assert job["result"] == JobResult(False, 124, None, "Timed out after 3600 s")
    assert refusal(story, completion(GOOD)) == f"Job {JOB_ID} is already completed (current: TimedOut)"


def test_a_job_without_a_limit_runs_for_ever() -> None:
    story = JobStory(timeout_seconds=None)
    story.do(claim())
    assert next_wake(story.job, story.rules) is None
    assert story.later(10**8).do(Tick()) == []


def test_a_limit_beyond_all_dates_is_no_error() -> None:
    story = JobStory(timeout_seconds=10**15)
    story.do(claim())
    assert next_wake(story.job, story.rules) is not None


def test_a_job_that_nobody_claims_times_out() -> None:
    story = JobStory()
    assert story.later(86_399).do(Tick()) == []
    story.later(1).do(Tick())
    job = shown(story)
    assert (job["status"], job["result"].error_message) == ("TimedOut", "No runner claimed the job")


def test_waiting_counts_from_the_last_time_the_job_was_queued() -> None:
    story = JobStory(Rules(queue_timeout_s=10), max_retries=1)
    story.later(9).do(claim())
    story.later(9).do(completion(BAD))
    assert story.later(9).do(Tick()) == []
    assert story.later(1).do(Tick())


@pytest.mark.parametrize("before", [(), (claim(),)])
def test_open_jobs_can_be_cancelled(before: tuple[Command, ...]) -> None:
    story = JobStory()
    story.do(*before, Cancel())
    job = shown(story)
    assert (job["status"], job["completed_at"], job["result"]) == ("Cancelled", AT, None)


def test_events_of_unknown_kinds_and_wrong_beginnings_are_our_bugs() -> None:
    with pytest.raises(Exception, match="begins with JobClaimed"):
        fold([e.JobClaimed(AT)])
    with pytest.raises(KeyError):
        fold([JobStory().events[0], e.JobEnded(AT, "succeeded"), e.JobEnded(AT, "failed")])
