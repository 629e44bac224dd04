"""Leases of a job's tasks (jobs contract, section 4): delivery, redelivery, timeouts, and whose result counts."""

from __future__ import annotations

import pytest

from orchestrator import job as jobs
from orchestrator.blueprint import Dispatch, Parallel
from orchestrator.errors import Conflict
from orchestrator.job import Deliver, Offer, Recall, Redeliver, Report, Status, Undeliver
from tests.job_stories import AT, JobStory


def out(**rules: object) -> JobStory:
    """A job whose task t1 is at worker w1."""
    story = JobStory(**rules).dispatch(transitions={"success": "finished"})
    story.deliver()
    return story


def handed_over() -> JobStory:
    """Its task was at w1, whose lease lapsed, and is now at w2."""
    story = out()
    story.do(Redeliver("t1", "w1"))
    story.deliver("w2")
    return story


# ── results ───────────────────────────────────────────────────────────────────────────────────────


def test_the_same_result_again_is_answered_alike_and_changes_nothing() -> None:
    story = out()
    assert story.settle(data={"x": 1}) == "result_accepted_success"
    version = story.job.version
    assert story.settle("failure", task="t1", error="no") == "result_accepted_success"
    assert (story.job.version, story.job.state_history) == (version, {"x": 1})


def test_another_worker_is_told_that_it_is_stale() -> None:
    story = out()
    assert story.settle(worker="w2") == "stale_task"
    assert story.status is Status.WAITING_FOR_WORKER
    story.settle()
    assert story.settle(worker="w2", task="t1") == "stale_task"


def test_a_task_that_nobody_has_takes_no_result() -> None:
    assert JobStory().dispatch().settle() == "stale_task"


def test_a_task_of_no_attempt_of_this_job_is_a_mismatch() -> None:
    assert out().settle(task="foreign") == "worker_mismatch"


def test_a_failed_attempt_is_answered_alike_after_its_retry_was_queued() -> None:
    story = out()
    story.settle("failure", error="boom")
    story.deliver("w2")
    assert story.settle("failure", task="t1", error="boom") == "result_accepted_failure"
    assert story.settle(task="t1", worker="w2") == "stale_task"
    assert (story.status, story.task) == (Status.WAITING_FOR_WORKER, "t2")


def test_the_first_result_of_any_worker_that_had_it_counts() -> None:
    story = handed_over()
    assert story.settle(worker="w1") == "result_accepted_success"
    assert story.settle(worker="w2", task="t1") == "stale_task"
    assert jobs.owed(story.job) == [Recall("t1", "w2")]


def test_a_late_result_after_another_workers_is_stale() -> None:
    story = handed_over()
    assert story.settle(worker="w2") == "result_accepted_success"
    assert story.settle(worker="w1", task="t1") == "stale_task"


def test_a_result_after_the_lease_lapsed_and_before_anybody_else_has_it_counts() -> None:
    story = out()
    story.do(Redeliver("t1"))
    assert story.settle() == "result_accepted_success"


def test_a_result_for_a_job_that_ended_otherwise_is_stale() -> None:
    story = out()
    story.wait(300.0)
    assert story.settle(task="t1") == "stale_task"
    assert story.status is Status.FAILED


# ── delivery ──────────────────────────────────────────────────────────────────────────────────────


def test_a_task_is_leased_to_one_worker_at_a_time() -> None:
    story = out()
    with pytest.raises(Conflict):
        story.do(Deliver("t1", "w2"))
    with pytest.raises(Conflict):
        story.do(Deliver("unheard of", "w2"))


def test_what_never_arrived_is_queued_as_if_nothing_had_been() -> None:
    story = out(redeliveries_max=0)
    story.wait(100.0)
    assert story.do(Undeliver("t1", "w2")) == []
    story.do(Undeliver("t1", "w1"))
    [offer] = story.owes(Offer)
    assert (offer.task_id, offer.since, story.slot().redeliveries) == ("t1", AT, 0)
    assert (story.view.task_worker_id, story.view.task_dispatched_at) == (None, None)


def test_a_redelivery_keeps_the_task_id_and_the_attempt() -> None:
    story = handed_over()
    assert [(line.event_type, line.worker_id, line.attempt_number) for line in story.lines[3:]] == [
        ("task_dispatched", "w1", 1),
        ("task_redelivered", "w1", 1),
        ("task_dispatched", "w2", 1),
    ]
    assert story.do(Redeliver("t1", "w1")) == []


def test_too_many_redeliveries_are_a_failed_attempt() -> None:
    story = out(redeliveries_max=3, retries_max=1)
    for _ in range(3):
        story.do(Redeliver("t1"))
        story.deliver()
    story.do(Redeliver("t1"))
    assert (story.status, story.task, story.slot().redeliveries) == (Status.WAITING_FOR_WORKER, "t2", 0)
    assert story.settle(task="t1") == "stale_task"
    for _ in range(3):
        story.deliver()
        story.do(Redeliver("t2"))
    story.deliver()
    story.do(Redeliver("t2"))
    assert story.end == ("quarantined", "quarantined", "Task failed after 2 attempts: Worker lost")


def test_a_lost_branch_retries_alone() -> None:
    story = JobStory(redeliveries_max=0).begin(Parallel((Dispatch("a"), Dispatch("b")), "review"))
    story.deliver("w0", 0)
    story.do(Redeliver("t1"))
    assert [slot.task_id for slot in story.job.slots] == ["t3", "t2"]


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_times_out_since_its_delivery_and_its_worker_is_told_to_stop() -> None:
    story = JobStory().dispatch(timeout_seconds=10.0)
    story.wait(200.0)
    story.deliver()
    assert story.due_s == 10.0
    assert jobs.deadline(story.job, "t1", story.rules) == jobs.next_wake(story.job, story.rules)
    story.wait(10.0)
    assert story.end == ("failed", "failed", "Worker task timed out.")
    assert jobs.owed(story.job) == [Recall("t1", "w1")]


def test_without_a_timeout_of_its_own_the_default_holds() -> None:
    assert out(worker_timeout_s=7.0).due_s == 7.0


def test_a_timeout_that_is_out_of_this_world_does_no_harm() -> None:
    story = JobStory().dispatch(timeout_seconds=1e300)
    story.deliver()
    assert story.due_s == 366 * 86_400.0


def test_a_timeout_can_be_compensated() -> None:
    story = JobStory().dispatch(transitions={"failure": "review"}, timeout_seconds=10.0)
    story.deliver()
    story.wait(10.0)
    assert (story.status, story.job.state) == (Status.RUNNING, "review")
    assert jobs.owed(story.job)[0] == Recall("t1", "w1")


def test_a_task_that_nobody_can_take_quarantines_the_job() -> None:
    story = JobStory(dispatch_timeout_s=60.0).dispatch()
    story.wait(59.0)
    assert story.status is Status.WAITING_FOR_WORKER
    story.wait(1.0)
    assert story.end == ("quarantined", "quarantined", "No suitable workers for task type 'video'")


def test_a_task_that_a_busy_worker_can_take_goes_on_waiting() -> None:
    story = JobStory(dispatch_timeout_s=60.0).dispatch()
    story.wait(60.0, "t1")
    assert (story.status, story.due_s) == (Status.WAITING_FOR_WORKER, 60.0)
    story.wait(60.0)
    assert story.status is Status.QUARANTINED


def test_after_a_redelivery_a_task_may_wait_as_long_again() -> None:
    story = JobStory(dispatch_timeout_s=60.0).dispatch()
    story.wait(50.0)
    story.deliver()
    story.wait(50.0)
    story.do(Redeliver("t1"))
    assert story.due_s == 60.0
    assert story.owes(Offer)[0].since == AT


# ── progress ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("told", "kept"), [(0.5, 0.5), (-1.0, 0.0), (7.0, 1.0)])
def test_progress_of_the_current_task_is_kept_within_bounds(told: float, kept: float) -> None:
    story = out()
    story.do(Report("t1", "w1", told, "half"))
    assert (story.view.progress, story.view.progress_message) == (kept, "half")


def test_other_progress_is_dropped() -> None:
    story = out()
    for report in (
        Report("t1", "w2", 0.5, ""),
        Report("t0", "w1", 0.5, ""),
        Report("t1", "w1", float("nan"), "x"),
        Report("t1", "w1", 0.0, ""),
    ):
        assert story.do(report) == []
    story.settle()
    assert story.do(Report("t1", "w1", 0.9, "")) == []
