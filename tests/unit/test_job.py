"""Jobs, row by row of the contract's state machine (section 5): what each event leads to in each status."""

from __future__ import annotations

import pytest

from orchestrator import job as jobs
from orchestrator import job_events as e
from orchestrator.blueprint import Approval, Blueprint, Dispatch, Outcome, Parallel, State, SubBlueprint, Transition
from orchestrator.errors import Broken, Conflict, Invalid
from orchestrator.job import (
    CORE_STATES,
    ENDED,
    TRANSITIONS,
    Approve,
    Begin,
    Cancel,
    CancelChild,
    ChildEnded,
    ChildRefused,
    Fault,
    MakeVisit,
    Offer,
    Release,
    StartChild,
    Status,
    Tick,
    Visited,
)
from orchestrator.rows import TERMINAL
from tests.job_stories import AT, ON, JobStory, a_blueprint

ASK = Approval("mail", "ok?", {"approved": "finished", "rejected": "failed", "again": "review"})
SUB = SubBlueprint("other", {"x": 1}, {"success": "review"})


def sub_job() -> JobStory:
    return JobStory().begin(SUB)


def ended(outcome: str = "finished", error: str | None = None) -> ChildEnded:
    return ChildEnded("t1", outcome, outcome, error)


# ── created, begun, visited ───────────────────────────────────────────────────────────────────────


def test_every_status_has_a_row_and_terminal_rows_are_empty_but_for_a_release() -> None:
    assert set(TRANSITIONS) == set(Status) == set(CORE_STATES)
    assert {status for status, row in TRANSITIONS.items() if not row} == set(ENDED) - {Status.QUARANTINED}
    assert TRANSITIONS[Status.QUARANTINED] == {e.JobReleased}
    assert {CORE_STATES[status] for status in ENDED} == TERMINAL - {"timed_out"}


def test_a_created_job_is_pending_and_shows_its_start_state() -> None:
    story = JobStory()
    assert (story.status, story.job.state) == (Status.PENDING, "start")
    assert jobs.owed(story.job) == []


def test_the_engine_picks_it_and_the_start_state_is_visited() -> None:
    story = JobStory().begin()
    assert story.status is Status.RUNNING
    [effect] = story.owes(MakeVisit)
    assert (effect.visit.state, effect.visit.serial, effect.visit.initial_data) == ("start", 1, {"clip": "a"})
    assert story.do(Begin()) == []


def test_a_transition_goes_on_to_the_state_at_once() -> None:
    story = JobStory().begin().to("review")
    assert (story.status, story.job.state, story.job.serial) == (Status.RUNNING, "review", 2)


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled", "quarantined"])
def test_an_end_that_every_blueprint_has_gives_its_status(end: str) -> None:
    assert JobStory().begin().to(end).end == (end, end, None)


def test_any_other_end_gives_finished_and_keeps_its_name() -> None:
    assert JobStory(a_blueprint("start", ends=("shipped",))).begin().to("shipped").end == ("finished", "shipped", None)


def test_an_end_with_a_handler_is_visited_before_the_job_ends() -> None:
    story = JobStory(a_blueprint("start", handled_ends=("shipped",))).begin().to("shipped")
    assert (story.status, story.job.state) == (Status.RUNNING, "shipped")
    story.visit(None, bill=7)
    assert (story.end, story.job.state_history) == (("finished", "shipped", None), {"bill": 7})


def test_no_action_can_follow_an_end() -> None:
    story = JobStory(a_blueprint("start", handled_ends=("shipped",))).begin().to("shipped").to("start")
    assert story.end == ("failed", "failed", "State 'shipped' is an end: no action can follow")


def test_a_state_called_like_an_end_that_is_none_goes_on() -> None:
    story = JobStory(a_blueprint("start", "finished")).begin().to("finished")
    assert story.status is Status.RUNNING


def test_an_unknown_state_fails_the_job() -> None:
    assert JobStory().begin().to("nowhere").end == ("failed", "failed", "Unknown state 'nowhere'")


def test_no_action_fails_the_job() -> None:
    assert JobStory().begin().visit(None).end == ("failed", "failed", "State 'start' made no action")


def test_a_fault_of_the_handlers_form_fails_the_job_without_a_retry() -> None:
    story = JobStory().begin().fail_visit("Two actions", again=False)
    assert story.end == ("failed", "failed", "Two actions")


def test_what_a_handler_writes_is_kept_and_what_it_removes_is_gone() -> None:
    story = JobStory().begin().visit(Transition("review"), a=1, b={"x": 1})
    story.do(Visited(2, Outcome(Transition("start"), {"a": True})))
    assert story.job.state_history == {"a": True}
    assert isinstance(story.job.state_history["a"], bool)


def test_a_late_outcome_of_a_visit_changes_nothing() -> None:
    story = JobStory().begin().to("review")
    assert story.do(Visited(1, Outcome(Transition("finished")))) == []


def test_a_handler_that_raises_is_tried_again_after_a_while_then_the_job_is_quarantined() -> None:
    story = JobStory(retry_backoff_s=4.0).begin()
    for attempt, delay_s in ((1, 2.0), (2, 4.0), (3, 8.0)):
        story.fail_visit()
        assert (story.status, story.due_s, story.job.retry_count) == (Status.AWAITING_RETRY, delay_s, attempt)
        assert jobs.owed(story.job) == []
        story.wait(delay_s)
        assert (story.status, story.job.serial) == (Status.RUNNING, attempt + 1)
    story.fail_visit()
    text = "Handler of state 'start' failed after 4 attempts: ValueError: boom"
    assert story.end == ("quarantined", "quarantined", text)


def test_without_backoff_a_handler_is_tried_again_at_once() -> None:
    story = JobStory().begin().fail_visit()
    assert (story.status, story.job.serial) == (Status.RUNNING, 2)


def test_the_next_state_has_its_own_retries() -> None:
    story = JobStory(retries_max=1).begin().fail_visit().to("review").fail_visit()
    assert story.status is Status.RUNNING


def test_a_circle_of_states_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "VISITS_MAX", 5)
    story = JobStory().begin()
    while not story.job.ended:
        story.to("start")
    assert story.end == ("error", "error", "More than 5 visits of states")


def test_what_the_engine_cannot_go_on_with_is_an_error() -> None:
    story = JobStory().dispatch()
    story.do(Fault("its blueprint is lost"))
    assert story.end == ("error", "error", "its blueprint is lost")
    assert CORE_STATES[story.status] == "failed"


# ── a task ────────────────────────────────────────────────────────────────────────────────────────


def test_a_dispatched_task_is_offered_until_a_worker_has_it() -> None:
    story = JobStory().dispatch(priority=2.0, max_cost=0.5)
    [offer] = story.owes(Offer)
    assert (offer.task_id, offer.type, offer.priority, offer.max_cost, offer.since) == ("t1", "video", 2.0, 0.5, AT)
    assert story.status is Status.WAITING_FOR_WORKER
    story.deliver()
    assert story.owes(Offer) == []


def test_a_result_with_a_transition_leads_on_and_its_data_are_kept() -> None:
    story = JobStory().dispatch(transitions={"needs_review": "review"})
    assert story.work("needs_review", data={"output": "x"}) == "result_accepted_success"
    assert (story.status, story.job.state, story.job.state_history) == (Status.RUNNING, "review", {"output": "x"})


def test_data_that_are_no_object_are_not_kept() -> None:
    story = JobStory().dispatch()
    story.work(data=[1])
    assert (story.end, story.job.state_history) == (("finished", "finished", None), {})


@pytest.mark.parametrize(("status", "word"), [("odd", "failure"), ("success", "success")])
def test_a_status_without_transition_fails_the_job(status: str, word: str) -> None:
    story = JobStory().dispatch(transitions={"other": "finished"})
    assert story.work(status) == f"result_accepted_{word}"
    assert story.end == ("failed", "failed", f"Worker returned unhandled status: {status}")


@pytest.mark.parametrize(
    ("code", "end", "text"),
    [
        ("PERMANENT_ERROR", "quarantined", "Task failed with permanent error: nope"),
        ("INVALID_INPUT_ERROR", "failed", "Task failed: nope"),
        ("INTEGRITY_MISMATCH_ERROR", "failed", "Task failed: nope"),
    ],
)
def test_an_error_that_no_retry_mends_ends_the_job(code: str, end: str, text: str) -> None:
    story = JobStory().dispatch(transitions={"failure": "failed"})
    assert story.work("failure", error={"code": code, "message": "nope", "details": None}) == "result_accepted_failure"
    assert story.end == (end, end, text)


@pytest.mark.parametrize("error", ["boom", {"code": "TRANSIENT_ERROR", "message": "boom"}, {"message": "boom"}])
def test_any_other_failure_is_retried_under_new_ids_then_quarantined(error: object) -> None:
    story = JobStory().dispatch()
    tasks = []
    for _ in range(4):
        tasks.append(story.task)
        assert story.work("failure", error=error) == "result_accepted_failure"
    assert len(set(tasks)) == 4
    assert story.end == ("quarantined", "quarantined", "Task failed after 4 attempts: boom")
    assert story.view.retry_count == 3


@pytest.mark.parametrize("error", [None, "", {}, {"message": None}])
def test_a_failure_that_says_nothing_has_a_message_all_the_same(error: object) -> None:
    story = JobStory(retries_max=0).dispatch()
    story.work("failure", error=error)
    assert story.job.error == "Task failed after 1 attempts: No error details provided."


def test_between_two_attempts_the_job_awaits_its_retry() -> None:
    story = JobStory(retry_backoff_s=2.0).dispatch()
    story.work("failure", error="boom")
    assert (story.status, story.due_s) == (Status.AWAITING_RETRY, 1.0)
    assert (story.view.current_task_id, story.view.retry_count) == (None, 1)
    story.wait(0.9)
    assert story.status is Status.AWAITING_RETRY
    story.wait(0.1)
    assert (story.status, story.task, story.view.retry_count) == (Status.WAITING_FOR_WORKER, "t2", 1)


@pytest.mark.parametrize("target", ["failed", "quarantined", "finished", "nowhere"])
def test_a_failure_transition_to_an_end_does_not_hide_the_quarantine(target: str) -> None:
    story = JobStory(retries_max=0).dispatch(transitions={"failure": target})
    story.work("failure", error="boom")
    assert story.status is Status.QUARANTINED


def test_a_failure_transition_to_a_working_state_compensates_once_the_error_is_final() -> None:
    story = JobStory(retries_max=1).dispatch(transitions={"failure": "review"})
    story.work("failure", error="boom")
    assert story.status is Status.WAITING_FOR_WORKER
    story.work("failure", error="boom", data={"half": 1})
    assert (story.status, story.job.state, story.job.error) == (Status.RUNNING, "review", None)
    assert story.job.state_history == {}


def test_a_cancelled_result_cancels_the_job_unless_it_has_a_transition() -> None:
    story = JobStory().dispatch()
    assert story.work("cancelled") == "result_accepted_cancelled"
    assert story.end == ("cancelled", "cancelled", None)
    story = JobStory().dispatch(transitions={"cancelled": "review"})
    assert story.work("cancelled") == "result_accepted_cancelled"
    assert (story.status, story.job.state) == (Status.RUNNING, "review")


def test_a_second_task_starts_afresh() -> None:
    story = JobStory().dispatch(transitions={"success": "review"})
    story.work("failure", error="boom")
    story.deliver()
    story.do(jobs.Report(story.task, "w1", 0.5, "half"))
    story.settle(data_metadata={"output": {"uri": "s3://x"}})
    story.visit(Dispatch("audio", transitions=ON))
    seen = story.view
    assert (seen.retry_count, seen.progress, seen.progress_message) == (0, 0.0, "")
    assert seen.data_metadata == {"output": {"uri": "s3://x"}}


# ── parallel ──────────────────────────────────────────────────────────────────────────────────────


def branches(*types: str, into: str = "review", **rules: object) -> JobStory:
    story = JobStory(**rules).begin(Parallel(tuple(Dispatch(kind) for kind in types), into))
    for number in range(len(types)):
        story.deliver(f"w{number}", number)
    return story


def test_the_last_branch_result_leads_to_the_aggregator() -> None:
    story = branches("a", "b")
    assert (story.status, story.view.active_branches) == (Status.WAITING_FOR_PARALLEL_TASKS, ("t1", "t2"))
    assert story.settle(worker="w1", branch=1, data={"n": 2}) == "parallel_branch_result_accepted"
    assert (story.status, story.view.aggregation_target) == (Status.WAITING_FOR_PARALLEL_TASKS, "review")
    assert story.settle("odd", worker="w0", data={"n": 1}, error="e") == "parallel_branch_result_accepted"
    assert (story.status, story.job.state, story.job.state_history) == (Status.RUNNING, "review", {})
    results = {
        "t1": {"status": "odd", "data": {"n": 1}, "error": "e"},
        "t2": {"status": "success", "data": {"n": 2}, "error": None},
    }
    [effect] = story.owes(MakeVisit)
    assert effect.visit.aggregation_results == results == story.view.aggregation_results


def test_the_last_two_results_at_once_aggregate_exactly_once() -> None:
    story = branches("a", "b")
    for branch, worker in ((0, "w0"), (1, "w1"), (0, "w0"), (1, "w1")):
        assert story.settle(worker=worker, task=f"t{branch + 1}") == "parallel_branch_result_accepted"
    assert [event.state for event in story.events if isinstance(event, e.StateStarted)] == ["start", "review"]


def test_a_branch_retries_alone_and_its_last_outcome_is_its_result() -> None:
    story = branches("a", "b", retries_max=1)
    story.settle("failure", worker="w0", error="boom")
    assert story.job.slots[1].task_id == "t2"
    assert story.status is Status.WAITING_FOR_PARALLEL_TASKS
    story.settle(worker="w1", branch=1)
    assert story.status is Status.WAITING_FOR_PARALLEL_TASKS
    assert story.work("failure", worker="w3", error="boom again") == "parallel_branch_result_accepted"
    assert story.job.aggregation_results["t3"] == {"status": "failure", "data": None, "error": "boom again"}
    assert set(story.job.aggregation_results) == {"t2", "t3"}


@pytest.mark.parametrize("code", ["PERMANENT_ERROR", "INVALID_INPUT_ERROR"])
def test_the_aggregator_decides_what_a_failed_branch_means(code: str) -> None:
    story = branches("a")
    story.settle("failure", worker="w0", error={"code": code, "message": "nope"})
    assert (story.status, story.job.state) == (Status.RUNNING, "review")


def test_branches_that_time_out_or_that_nobody_takes_have_a_result_too() -> None:
    story = JobStory().begin(Parallel((Dispatch("a", timeout_seconds=300.0), Dispatch("b")), "review"))
    story.deliver("w0", 0)
    story.wait(300.0)
    assert (story.status, story.job.state) == (Status.RUNNING, "review")
    assert [result["error"]["message"] for result in story.job.aggregation_results.values()] == [
        "Worker task timed out.",
        "No suitable workers for task type 'b'",
    ]


def test_no_branches_aggregate_at_once() -> None:
    story = JobStory().begin(Parallel((), "review"))
    assert (story.status, story.job.state, story.job.aggregation_results) == (Status.RUNNING, "review", {})


def test_an_aggregator_may_be_an_end_or_unknown() -> None:
    story = branches("a", into="finished")
    story.settle(worker="w0")
    assert story.end == ("finished", "finished", None)
    story = branches("a", into="nowhere")
    story.settle(worker="w0")
    assert story.job.error == "Unknown state 'nowhere'"


# ── humans ────────────────────────────────────────────────────────────────────────────────────────


def test_an_approval_leads_to_the_chosen_state_and_a_second_one_is_refused() -> None:
    story = JobStory().begin(ASK)
    assert (story.status, story.due_s, jobs.owed(story.job)) == (Status.WAITING_FOR_HUMAN, None, [])
    with pytest.raises(Invalid, match="Invalid decision 'zzz' for this job"):
        story.do(Approve("zzz"))
    story.do(Approve("again"))
    assert (story.status, story.job.state) == (Status.RUNNING, "review")
    with pytest.raises(Conflict, match="Job is not in a state that can be approved"):
        story.do(Approve("again"))


# ── sub-jobs ──────────────────────────────────────────────────────────────────────────────────────


def test_a_sub_job_is_owed_until_it_has_ended() -> None:
    story = sub_job()
    assert (story.status, story.view.child_job_id) == (Status.WAITING_FOR_SUB_JOB, "t1")
    assert jobs.owed(story.job) == [StartChild("t1", "other", {"x": 1}, 1)]
    story.do(ended())
    assert (story.status, story.job.state) == (Status.RUNNING, "review")
    result = {"outcome": "finished", "final_state": "finished", "error_message": None}
    assert story.job.state_history == {"sub_job_t1_result": result}
    assert story.do(ended()) == []


@pytest.mark.parametrize("outcome", ["failed", "quarantined", "cancelled", "error"])
def test_a_sub_job_that_did_not_finish_leads_to_failure(outcome: str) -> None:
    story = JobStory().begin(SubBlueprint("other", {}, {"success": "finished", "failure": "review"}))
    story.do(ended(outcome, "why"))
    assert story.job.state == "review"
    story = sub_job()
    story.do(ended(outcome, "why"))
    assert story.end == ("failed", "failed", f"Sub-job {outcome}: why")


def test_a_sub_job_that_finished_into_no_transition_fails_the_job() -> None:
    story = JobStory().begin(SubBlueprint("other"))
    story.do(ended())
    assert story.end == ("failed", "failed", "Sub-job finished, but 'success' has no transition")


def test_an_unknown_sub_blueprint_fails_the_job() -> None:
    story = sub_job()
    assert story.do(ChildRefused("t0", "not this one")) == []
    story.do(ChildRefused("t1", "Unknown blueprint 'other'"))
    assert story.end == ("failed", "failed", "Unknown blueprint 'other'")


def test_sub_jobs_do_not_nest_for_ever() -> None:
    story = JobStory(depth=jobs.DEPTH_MAX).begin(SUB)
    assert story.job.error == "Sub-blueprints are nested more than 16 deep"
    assert story.owes(StartChild) == []


# ── cancel ────────────────────────────────────────────────────────────────────────────────────────


def queued() -> JobStory:
    return JobStory().dispatch()


def awaiting_retry() -> JobStory:
    story = JobStory(retry_backoff_s=10.0).dispatch()
    story.work("failure")
    return story


@pytest.mark.parametrize(
    "make", [JobStory, lambda: JobStory().begin(), queued, awaiting_retry, lambda: JobStory().begin(ASK)]
)
def test_without_a_task_out_a_cancel_ends_the_job_at_once(make: object) -> None:
    story = make()  # type: ignore[operator]  # a table of builders
    serial = story.job.serial
    story.do(Cancel())
    assert story.end == ("cancelled", "cancelled", None)
    assert story.view.cancel_requested
    assert jobs.owed(story.job) == []
    assert story.do(Visited(serial, Outcome(Transition("finished")))) == []
    assert story.do(Tick()) == []


def test_a_job_that_has_ended_cannot_be_cancelled_and_says_what_it_is() -> None:
    with pytest.raises(Conflict, match=r"^finished$"):
        JobStory().begin().to("finished").do(Cancel())


def test_a_cancel_with_a_task_out_changes_no_status_and_asks_the_worker_to_stop() -> None:
    story = JobStory().dispatch(transitions={"cancelled": "review"})
    task = story.deliver()
    story.do(Cancel())
    assert (story.status, story.view.cancel_requested, story.due_s) == (Status.WAITING_FOR_WORKER, True, 30.0)
    assert jobs.owed(story.job) == [jobs.Recall(task, "w1")]
    assert story.do(Cancel()) == []
    assert story.settle("cancelled") == "result_accepted_cancelled"
    assert story.end == ("cancelled", "cancelled", None)


@pytest.mark.parametrize("status", ["success", "failure"])
def test_any_other_result_during_the_grace_period_is_ignored_and_ends_the_job(status: str) -> None:
    story = JobStory().dispatch()
    task = story.deliver()
    story.do(Cancel())
    assert story.settle(status, data={"x": 1}) == "job_cancelled"
    assert (story.end, story.job.state_history) == (("cancelled", "cancelled", None), {})
    assert story.settle(status, task=task) == "job_cancelled"


def test_the_grace_period_ends_the_job_without_an_answer_and_the_worker_stays_recalled() -> None:
    story = JobStory().dispatch(timeout_seconds=10.0)
    task = story.deliver()
    story.do(Cancel())
    story.wait(29.9)
    assert story.status is Status.WAITING_FOR_WORKER
    story.wait(0.1)
    assert story.end == ("cancelled", "cancelled", None)
    assert jobs.owed(story.job) == [jobs.Recall(task, "w1")]
    assert story.settle("cancelled", task=task) == "job_cancelled"


@pytest.mark.parametrize("command", [jobs.Undeliver, jobs.Redeliver])
def test_a_worker_that_is_gone_is_not_waited_for(command: type[jobs.Undeliver]) -> None:
    story = JobStory().dispatch()
    task = story.deliver()
    story.do(Cancel())
    story.do(command(task, "w1"))
    assert story.end == ("cancelled", "cancelled", None)


def test_a_cancelled_parallel_job_ends_with_the_last_branch_that_is_out() -> None:
    story = JobStory().begin(Parallel((Dispatch("a"), Dispatch("b"), Dispatch("c")), "review"))
    story.deliver("w0", 0)
    story.deliver("w1", 1)
    story.do(Cancel())
    assert story.owes(Offer) == []
    assert len(story.owes(jobs.Recall)) == 2
    assert story.settle(worker="w0") == "job_cancelled"
    assert story.status is Status.WAITING_FOR_PARALLEL_TASKS
    assert story.settle("cancelled", worker="w1", branch=1) == "parallel_branch_result_accepted"
    assert story.end == ("cancelled", "cancelled", None)


def test_a_cancelled_job_waits_for_its_sub_job_which_is_cancelled_too() -> None:
    story = sub_job()
    story.do(Cancel())
    assert jobs.owed(story.job) == [CancelChild("t1")]
    story.do(ended("cancelled"))
    assert story.end == ("cancelled", "cancelled", None)


def test_a_cancelled_job_does_not_wait_for_its_sub_job_beyond_the_grace_period() -> None:
    story = sub_job()
    story.do(Cancel())
    assert story.wait(30.0).end == ("cancelled", "cancelled", None)


# ── release ───────────────────────────────────────────────────────────────────────────────────────


def test_a_released_job_visits_the_state_in_which_it_stopped_afresh() -> None:
    story = JobStory(retries_max=0).begin().to("review").visit(Dispatch("video", transitions=ON))
    task = story.task
    story.work("failure", error="boom")
    assert story.status is Status.QUARANTINED
    story.do(Release())
    assert (story.status, story.job.state, story.job.error, story.view.finished_at) == (
        Status.RUNNING,
        "review",
        None,
        None,
    )
    assert story.settle("failure", task=task) == "result_accepted_failure"
    assert story.settle(task=task, worker="w2") == "stale_task"
    story.visit(Dispatch("video", transitions=ON))
    assert story.work() == "result_accepted_success"
    assert story.end == ("finished", "finished", None)
    assert story.told[-6:] == [
        "job_released",
        "state_started",
        "state_finished",
        "task_dispatched",
        "task_finished",
        "job_finished",
    ]


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled"])
def test_only_a_quarantined_job_can_be_released(end: str) -> None:
    story = JobStory().begin().to(end)
    with pytest.raises(Conflict, match=end):
        story.do(Release())


# ── read ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_was_folded_to_be_shown_decides_nothing() -> None:
    story = JobStory()
    shown = jobs.revive(story.events, None)
    with pytest.raises(Broken):
        jobs.decide(shown, Begin(), AT, story.chance, story.rules)
    with pytest.raises(Broken):
        jobs.revive([], None)


def test_a_declared_end_that_writes_is_visited_too() -> None:
    states = {"start": State("start", start=True, code=True), "done": State("done", end=True, set={"x": 1})}
    story = JobStory(Blueprint("flow", states)).begin().to("done")
    assert story.visit(None, x=1).end == ("finished", "done", None)
