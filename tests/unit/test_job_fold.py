"""What readers see of a job: the contract's example, and each line of a history."""

from __future__ import annotations

import typing
from datetime import timedelta

from orchestrator import codec, job_fold
from orchestrator import job_events as e
from orchestrator.blueprint import Approval, Dispatch, Parallel, SubBlueprint
from orchestrator.job import Approve, Cancel, ChildEnded, Report, Status
from orchestrator.job_views import HistoryEvent, JobView
from tests.job_stories import AT, JobStory


def line(lines: list[HistoryEvent], event_type: str, n: int = 0) -> HistoryEvent:
    return [each for each in lines if each.event_type == event_type][n]


def test_a_job_in_the_middle_of_a_task_looks_as_in_the_contract() -> None:
    story = JobStory().dispatch(type="video_processing", params={"clip": "a"})
    story.now += timedelta(seconds=0.078)
    task = story.deliver("worker-123")
    story.now += timedelta(seconds=0.4)
    story.do(Report(task, "worker-123", 0.5, "half"))
    assert story.view == JobView(
        id="job",
        blueprint_name="flow",
        current_state="start",
        status="waiting_for_worker",
        initial_data={"clip": "a"},
        state_history={},
        webhook_url=None,
        error_message=None,
        parent_job_id=None,
        child_job_id=None,
        current_task_id=task,
        task_worker_id="worker-123",
        retry_count=0,
        progress=0.5,
        progress_message="half",
        current_task_info={
            "type": "video_processing",
            "params": {"clip": "a"},
            "transitions": {"success": "finished"},
            "dispatch_strategy": "default",
            "resource_requirements": None,
            "timeout_seconds": None,
            "max_cost": None,
            "priority": 0.0,
        },
        current_task_transitions={"success": "finished"},
        aggregation_target=None,
        active_branches=(),
        aggregation_results={},
        data_metadata={},
        client_config={"name": "c", "plan": None},
        task_dispatched_at=AT + timedelta(seconds=0.078),
        cancel_requested=False,
        created_at=AT,
        updated_at=AT + timedelta(seconds=0.478),
        finished_at=None,
    )


def test_at_the_end_status_and_state_both_hold_the_end_and_no_task_is_current() -> None:
    story = JobStory().dispatch()
    story.work(data={"output": "x"})
    seen = story.view
    assert (seen.status, seen.current_state, seen.finished_at) == ("finished", "finished", AT)
    assert (seen.current_task_id, seen.task_worker_id, seen.current_task_info, seen.current_task_transitions) == (
        None,
        None,
        None,
        {},
    )


def test_the_history_of_a_task_tells_who_had_it_for_how_long_and_where_it_led() -> None:
    story = JobStory().dispatch(transitions={"success": "review"})
    story.deliver()
    story.now += timedelta(seconds=1.5)
    story.settle(data={})
    story.to("finished")
    assert story.told == [
        "job_created",
        "state_started",
        "state_finished",
        "task_dispatched",
        "task_finished",
        "state_started",
        "state_finished",
        "job_finished",
    ]
    finished = line(story.lines, "task_finished")
    assert (finished.state, finished.next_state, finished.worker_id) == ("start", "review", "w1")
    assert (finished.duration_ms, finished.attempt_number) == (1500, 1)
    second = line(story.lines, "state_started", 1)
    assert (second.state, second.previous_state) == ("review", "start")
    left = line(story.lines, "state_finished", 1)
    assert (left.next_state, left.duration_ms) == ("finished", 0)
    end = line(story.lines, "job_finished")
    assert (end.state, end.previous_state, end.duration_ms) == ("finished", "review", 1500)


def test_attempts_count_and_a_failed_handler_is_told() -> None:
    story = JobStory().begin().fail_visit("boom")
    assert [each.attempt_number for each in story.lines if each.event_type == "state_started"] == [1, 2]
    failed = line(story.lines, "state_failed")
    assert (failed.attempt_number, failed.context_snapshot) == (1, {"error": "boom"})
    story.visit(Dispatch("video"))
    story.work("failure", error="no")
    story.deliver("w2")
    assert [each.attempt_number for each in story.lines if each.event_type == "task_dispatched"] == [1, 2]


def test_approvals_cancels_and_sub_jobs_are_told() -> None:
    story = JobStory().begin(Approval("mail", "ok?", {"yes": "review"}))
    story.do(Approve("yes"))
    assert line(story.lines, "approval_received").next_state == "review"
    story.visit(SubBlueprint("other", {}, {"success": "start"}))
    assert line(story.lines, "sub_blueprint_started").context_snapshot == {"child_job_id": "t1"}
    story.do(ChildEnded("t1", "finished", "finished", None))
    story.do(Cancel())
    assert story.told[-2:] == ["cancel_requested", "job_finished"]


def test_ids_of_lines_are_the_same_whenever_they_are_read() -> None:
    story = JobStory().dispatch()
    early = story.lines
    story.work()
    assert story.lines[: len(early)] == early
    assert [each.event_id for each in story.lines] == [
        "job-1",
        "job-2",
        "job-3",
        "job-5",
        "job-6",
        "job-7",
    ]


def test_branches_that_are_done_are_active_no_more() -> None:
    story = JobStory().begin(Parallel((Dispatch("a"), Dispatch("b")), "review"))
    assert story.view.active_branches == ("t1", "t2")
    assert story.view.current_task_info is None
    story.work()
    assert (story.view.active_branches, list(story.view.aggregation_results)) == (("t2",), ["t1"])


def test_every_event_of_a_job_can_be_read_back_and_folded() -> None:
    kinds = typing.get_args(e.AnyJobEvent)
    assert {kind for kind in vars(e).values() if isinstance(kind, type) and issubclass(kind, e.JobEvent)} == {
        *kinds,
        e.JobEvent,
    }
    assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)
    story = JobStory().dispatch()
    story.work()
    again = codec.decode_job_events(codec.encode_job_events(story.events))
    assert job_fold.view(again) == story.view
    assert job_fold.view(again).status == Status.FINISHED
