"""One task: its table, what a report amounts to, what a lost worker costs."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from orchestrator import events as e
from orchestrator.definition import TaskSpec
from orchestrator.errors import StaleAttempt
from orchestrator.messages import Report
from orchestrator.task import LOSSES_MAX, TERMINAL, TRANSITIONS, Task, TaskState, apply, fence, lose, settle, target
from tests.builders import AT, a_task, a_value

TASK_EVENTS = [
    e.TaskExpanded(AT, "a", 1),
    e.TaskStarted(AT, "a", 1, "w", "i"),
    e.TaskReturned(AT, "a", 1),
    e.TaskSucceeded(AT, "a", 1),
    e.TaskRetrying(AT, "a", 1, AT, "Boom"),
    e.TaskFailed(AT, "a", 1, "Boom"),
    e.TaskSkipped(AT, "a"),
    e.TaskMarked(AT, "a"),
    e.TaskUpstreamFailed(AT, "a"),
    e.TaskCancelled(AT, "a"),
    e.TaskWaiting(AT, "a", 1, e.Wait("time", AT)),
    e.TaskSuspended(AT, "a", 1, AT, 1),
    e.TaskReset(AT, "a"),
]


def running(attempt: int = 1, worker: str = "w") -> Task:
    task = Task()
    apply(task, e.TaskStarted(AT, "a", attempt, worker, "i"))
    return task


def report(outcome: str, attempt: int = 1, **changes: object) -> Report:
    return Report("run_1", "a", attempt, outcome, **changes)  # type: ignore[arg-type]  # fields by their names


def settled(spec: TaskSpec, task: Task, outcome: str, jitter: float = 0.5, **changes: object) -> e.Event:
    return settle(spec, task, report(outcome, task.attempt, **changes), AT, jitter)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(TaskState)


def test_only_a_person_leads_out_of_a_terminal_state() -> None:
    for state in TERMINAL:
        assert set(TRANSITIONS[state]) <= {e.TaskReset, e.TaskSkipped, e.TaskMarked}, state


def test_what_is_done_is_only_done_again_and_what_is_skipped_only_people_change() -> None:
    assert set(TRANSITIONS[TaskState.SUCCEEDED]) == {e.TaskReset}
    assert set(TRANSITIONS[TaskState.SKIPPED]) == {e.TaskReset, e.TaskMarked}


def test_only_people_lead_out_of_cancelled() -> None:
    assert set(TRANSITIONS[TaskState.CANCELLED]) == {e.TaskReset, e.TaskSkipped, e.TaskMarked}


def test_every_event_of_a_task_is_in_the_table() -> None:
    assert {kind for row in TRANSITIONS.values() for kind in row} == {type(event) for event in TASK_EVENTS}


def test_a_task_that_skips_itself_says_why_and_needs_no_retry() -> None:
    task = running()
    event = settled(a_task("a"), task, "skipped", error="nothing new")
    assert event == e.TaskSkipped(at=AT, task="a", reason="nothing new", by="task")
    apply(task, event)
    assert (task.state, task.skipped_by) == (TaskState.SKIPPED, "task")


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", TASK_EVENTS, ids=lambda event: event.__struct_config__.tag)
def test_a_step_is_legal_exactly_when_the_table_has_it(state: TaskState, event: e.Event) -> None:
    if type(event) in TRANSITIONS[state]:
        assert target(state, event) is TRANSITIONS[state][type(event)]
    else:
        with pytest.raises(KeyError):
            target(state, event)


def test_a_start_records_who_has_the_attempt() -> None:
    task = running(attempt=4, worker="w7")
    assert (task.state, task.attempt, task.worker, task.incarnation) == (TaskState.RUNNING, 4, "w7", "i")
    assert task.started_at == AT


def test_a_success_carries_its_value() -> None:
    event = settled(a_task("a"), running(), "ok", value=a_value({"rows": 3}))
    assert isinstance(event, e.TaskSucceeded)
    assert event.value == a_value({"rows": 3})


@pytest.mark.parametrize("attempt", [0, 2, 4])
def test_a_replaced_attempt_is_refused(attempt: int) -> None:
    task = running(attempt=3)
    with pytest.raises(StaleAttempt) as caught:
        settle(a_task("a"), task, report("ok", attempt), AT, 0.5)
    assert (caught.value.task, caught.value.attempt, caught.value.current) == ("a", attempt, 3)
    with pytest.raises(StaleAttempt):
        lose(a_task("a"), task, attempt, AT)


@pytest.mark.parametrize("event", TASK_EVENTS[2:-1], ids=lambda event: event.__struct_config__.tag)
def test_an_attempt_that_has_ended_is_refused(event: e.Event) -> None:
    fresh = isinstance(event, e.TaskUpstreamFailed | e.TaskWaiting)
    task = Task() if fresh else running()
    apply(task, event)
    with pytest.raises(StaleAttempt):
        fence(a_task("a"), task, 1)


def test_a_failure_is_retried_as_often_as_the_author_says() -> None:
    spec, task = a_task("a", retries=2), Task()
    for attempt in (1, 2):
        apply(task, e.TaskStarted(AT, "a", attempt, "w", "i"))
        retrying = settled(spec, task, "error", error="Boom")
        assert isinstance(retrying, e.TaskRetrying)
        assert not retrying.lost
        apply(task, retrying)
    apply(task, e.TaskStarted(AT, "a", 3, "w", "i"))
    assert settled(spec, task, "error", error="Boom") == e.TaskFailed(AT, "a", 3, "Boom")


def test_the_delay_doubles_and_is_capped() -> None:
    spec, task = a_task("a", retries=5, retry_delay_s=8.0, retry_cap_s=20.0), Task()
    delays = []
    for attempt in range(1, 5):
        apply(task, e.TaskStarted(AT, "a", attempt, "w", "i"))
        retrying = settled(spec, task, "error", jitter=0.5)
        assert isinstance(retrying, e.TaskRetrying)
        delays.append((retrying.due - AT) / timedelta(seconds=1))
        apply(task, retrying)
    assert delays == [4, 8, 10, 10]


def test_a_permanent_failure_is_not_retried() -> None:
    event = settled(a_task("a", retries=9), running(), "error", error="Bad", permanent=True)
    assert event == e.TaskFailed(AT, "a", 1, "Bad")


def test_a_timeout_counts_as_a_failure_and_keeps_its_name() -> None:
    assert isinstance(settled(a_task("a", retries=1), running(), "timed_out"), e.TaskRetrying)
    task = running()
    last = settled(a_task("a"), task, "timed_out", error="TaskTimedOut")
    apply(task, last)
    assert task.state is TaskState.TIMED_OUT


def test_a_report_without_words_is_called_by_its_outcome() -> None:
    assert settled(a_task("a"), running(), "cancelled") == e.TaskFailed(AT, "a", 1, "cancelled")


def test_a_lost_attempt_starts_again_at_once_and_uses_up_no_retry() -> None:
    spec, task = a_task("a", retries=1), running()
    lost = lose(spec, task, 1, AT)
    assert lost == e.TaskRetrying(AT, "a", 1, AT, "WorkerLost", True)
    apply(task, lost)
    assert (task.failures, task.losses) == (0, 1)
    apply(task, e.TaskStarted(AT, "a", 2, "w", "i"))
    assert isinstance(settled(spec, task, "error"), e.TaskRetrying)


def test_the_third_worker_that_dies_of_a_task_fails_it() -> None:
    spec, task = a_task("a", retries=20), Task()
    for attempt in range(1, LOSSES_MAX):
        apply(task, e.TaskStarted(AT, "a", attempt, "w", "i"))
        apply(task, lose(spec, task, attempt, AT))
    apply(task, e.TaskStarted(AT, "a", LOSSES_MAX, "w", "i"))
    last = lose(spec, task, LOSSES_MAX, AT)
    assert isinstance(last, e.TaskFailed)
    assert last.error.startswith("WorkerLost")


def test_a_reset_gives_all_tries_back_but_never_an_attempt_number() -> None:
    task = running(attempt=5)
    apply(task, settled(a_task("a"), task, "error"))
    apply(task, e.TaskReset(AT, "a"))
    assert (task.state, task.failures, task.losses, task.attempt) == (TaskState.PENDING, 0, 0, 5)


def test_a_returned_attempt_is_pending_again_without_a_failure() -> None:
    task = running()
    apply(task, e.TaskReturned(AT, "a", 1))
    assert (task.state, task.failures, task.losses, task.attempt) == (TaskState.PENDING, 0, 0, 1)


def test_the_due_time_is_only_there_while_retrying() -> None:
    task = running()
    apply(task, e.TaskRetrying(AT, "a", 1, AT + timedelta(seconds=9), "Boom"))
    assert task.due == AT + timedelta(seconds=9)
    apply(task, e.TaskStarted(AT, "a", 2, "w", "i"))
    assert task.due is None


def test_a_checkpoint_outlives_the_attempt() -> None:
    task = running()
    task.checkpoint = msgspec.Raw(b"7")
    apply(task, e.TaskRetrying(AT, "a", 1, AT, "Boom"))
    assert task.checkpoint is not None
    assert bytes(task.checkpoint) == b"7"
