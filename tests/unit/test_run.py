"""One run: the tables of contracts/dags.md sections 3, 4 and 9a, rule by rule."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import events as e
from orchestrator import run as runs
from orchestrator import run_commands, run_duties
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, NotFound, StaleAttempt
from orchestrator.run_state import ENDED, TRANSITIONS, RunState
from orchestrator.task import TaskState
from tests.builders import AT, Story, a_dag, a_task
from tests.invariants import check_history, check_replay

S, T = RunState, TaskState


def check(story: Story, *later: Definition) -> Story:
    """The story keeps the rules, told live or again."""
    definitions = (story.run.compiled_by_version(1).definition, *later)
    check_history(story.events, lambda version: definitions[version - 1])
    check_replay(story.run, story.replayed())
    return story


def chain(*changes: object) -> Story:
    """a → b → c, started."""
    return Story(a_task("a"), a_task("b", "a"), a_task("c", "b")).start()


def fork() -> Story:
    """a → b, and c alone; started."""
    return Story(a_task("a"), a_task("b", "a"), a_task("c")).start()


# ── the table ──


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(RunState)


def test_only_an_explicit_retry_or_restart_leads_out_of_a_terminal_state() -> None:
    for state in ENDED:
        assert TRANSITIONS[state] == {e.RunRestarted: S.QUEUED, e.RunRevived: S.RUNNING}


def test_states_that_are_not_terminal_can_all_be_cancelled() -> None:
    for state in set(RunState) - ENDED:
        assert TRANSITIONS[state][e.RunCancelled] is S.CANCELLED


# ── starting ──


def test_an_admitted_run_offers_its_roots() -> None:
    story = Story(a_task("a"), a_task("b", "a"), a_task("c"))
    assert story.kinds(run_commands.Start()) == ["run_started"]
    assert (story.run.state, story.run.attempts, story.ready) == (S.RUNNING, 1, ["a", "c"])


def test_a_run_without_tasks_succeeds_when_it_is_admitted() -> None:
    assert Story().kinds(run_commands.Start()) == ["run_started", "run_succeeded"]


def test_a_run_starts_once() -> None:
    with pytest.raises(Conflict, match="already running"):
        fork().do(run_commands.Start())


def test_nothing_starts_while_the_run_is_queued() -> None:
    with pytest.raises(Conflict, match="queued"):
        Story(a_task("a")).begin("a")


def test_ready_tasks_go_by_priority_then_by_the_authors_order() -> None:
    story = Story(a_task("a"), a_task("b", priority=7), a_task("c"), a_task("d", priority=7)).start()
    assert story.ready == ["b", "d", "a", "c"]


def test_a_task_that_is_not_ready_is_left_out_of_a_batch() -> None:
    story = fork()
    new = story.do(run_commands.Begin((0, 1, 2), "w0", "i1"))
    assert [event.task for event in new if isinstance(event, e.TaskStarted)] == ["a", "c"]
    assert not story.do(run_commands.Begin((0,), "w1", "i1"))


# ── going through ──


def test_a_chain_runs_one_after_another_and_succeeds() -> None:
    story = chain()
    assert story.ready == ["a"]
    story.ok("a")
    assert story.ready == ["b"]
    story.ok("b", "c")
    assert (story.run.state, story.run.finished_at, story.run.error) == (S.SUCCEEDED, AT, None)
    check(story)


def test_a_join_waits_for_all_its_dependencies() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", "a", "b")).start().ok("a")
    assert story.ready == ["b"]
    assert story.ok("b").ready == ["c"]


def test_values_are_kept_for_dependents_only() -> None:
    story = fork().ok("a", "c")
    assert {story.run.compiled.graph.names[i] for i in story.run.values} == {"a"}


def test_independent_branches_finish_even_when_one_failed() -> None:
    story = fork().fail("a")
    assert (story.run.state, story.ready) == (S.RUNNING, ["c"])
    story.ok("c")
    assert story.states == {"a": "failed", "b": "upstream_failed", "c": "succeeded"}
    assert (story.run.state, story.run.error) == (S.FAILED, "a: Boom")
    check(story)


def test_everything_below_a_failure_fails_upstream_at_once() -> None:
    story = Story(a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "c", "x"), a_task("x")).start().fail("a")
    assert story.states == {
        "a": "failed",
        "b": "upstream_failed",
        "c": "upstream_failed",
        "d": "upstream_failed",
        "x": "pending",
    }


def test_the_first_final_failure_is_the_error_of_the_run() -> None:
    story = Story(a_task("a"), a_task("b")).start().begin("a", "b").fail("b", error="First").fail("a", error="Second")
    assert story.run.error == "b: First"


def test_a_retry_waits_for_its_delay() -> None:
    story = Story(a_task("a", retries=1, retry_delay_s=8.0)).start().fail("a")
    assert (story.state("a"), story.ready, run_duties.next_wake(story.run)) == (
        T.RETRYING,
        [],
        AT + timedelta(seconds=4),
    )
    assert story.wait(3.9).ready == []
    assert story.wait(0.2).ready == ["a"]
    story.ok("a")
    assert (story.attempt("a"), story.run.state) == (2, S.SUCCEEDED)
    check(story)


def test_a_retry_that_is_read_again_from_the_journal_still_waits_for_its_delay() -> None:
    story = Story(a_task("a", retries=1, retry_delay_s=8.0)).start().fail("a")
    again = story.replayed()
    assert not run_duties.take_ready(again, 9)
    assert run_duties.next_wake(again) == AT + timedelta(seconds=4)


def test_what_runs_is_not_offered_after_the_run_is_read_again() -> None:
    story = fork().begin("a")
    assert [effect for effect in run_duties.owed(story.replayed()) if isinstance(effect, run_duties.Dispatch)] == [
        run_duties.Dispatch(1)
    ]


def test_a_lost_task_is_ready_again_at_once() -> None:
    story = fork().lose("a").wait(0)
    assert (story.state("a"), "a" in story.ready) == (T.RETRYING, True)


def test_a_returned_task_is_ready_again_and_its_number_is_used_up() -> None:
    story = fork().begin("a")
    story.do(run_commands.GiveBack("a", 1))
    assert (story.state("a"), story.ready) == (T.PENDING, ["a", "c"])
    assert story.ok("a").attempt("a") == 2


@pytest.mark.parametrize("outcome", ["ok", "error"])
def test_a_late_report_changes_nothing(outcome: str) -> None:
    story = fork().lose("a").wait(0).begin("a")
    with pytest.raises(StaleAttempt):
        story.do(story.report("a", outcome, attempt=1))
    assert story.state("a") is T.RUNNING
    with pytest.raises(StaleAttempt):
        story.do(run_commands.Lose("a", 1))
    with pytest.raises(StaleAttempt):
        story.do(run_commands.GiveBack("a", 1))


def test_a_report_on_a_task_of_another_version_is_stale() -> None:
    story = fork()
    story.compiled(1)
    report = story.report("a", "ok", attempt=1)
    with pytest.raises(StaleAttempt):
        story.do(run_commands.Lose("nowhere", 1))
    with pytest.raises(StaleAttempt):
        story.do(report)


# ── notes ──


def test_a_checkpoint_is_kept_for_the_next_attempt() -> None:
    story = fork().begin("a")
    assert story.kinds(story.note("a", {"row": 3})) == ["task_checkpointed"]
    story.lose("a")
    checkpoint = story.run.tasks[0].checkpoint
    assert checkpoint is not None
    assert bytes(checkpoint) == b'{"row":3}'
    check(story)


def test_progress_is_told_and_changes_nothing() -> None:
    story = fork().begin("a")
    assert story.kinds(story.note("a", 0.5, kind="progress")) == ["task_progressed"]
    assert story.run.tasks[0].checkpoint is None


def test_a_note_of_an_old_attempt_is_refused() -> None:
    story = fork().begin("a")
    note = story.note("a", 1)
    story.lose("a")
    with pytest.raises(StaleAttempt):
        story.do(note)


# ── pause ──


def test_a_paused_run_starts_nothing_and_lets_what_runs_finish() -> None:
    story = fork().begin("a")
    assert story.kinds(run_commands.Pause()) == ["run_paused"]
    with pytest.raises(Conflict):
        story.begin("c")
    story.ok("a")
    assert (story.run.state, story.state("a")) == (S.PAUSED, T.SUCCEEDED)
    assert story.kinds(run_commands.Resume()) == ["run_resumed"]
    assert story.ready == ["b", "c"]
    check(story.ok("b", "c"))


def test_pausing_twice_is_done_once() -> None:
    story = fork()
    story.do(run_commands.Pause())
    assert story.do(run_commands.Pause()) == []
    story.do(run_commands.Resume())
    assert story.do(run_commands.Resume()) == []


def test_the_last_task_ends_a_paused_run() -> None:
    story = Story(a_task("a")).start().begin("a")
    story.do(run_commands.Pause())
    assert story.ok("a").run.state is S.SUCCEEDED


@pytest.mark.parametrize("command", [run_commands.Pause(), run_commands.Resume()])
def test_only_an_active_run_can_be_paused_or_resumed(command: run_commands.Command) -> None:
    for story in (Story(a_task("a")), Story(a_task("a")).start().ok("a")):
        with pytest.raises(Conflict):
            story.do(command)


# ── cancel ──


def test_cancel_ends_the_run_and_stops_what_runs() -> None:
    story = (
        Story(a_task("a"), a_task("b", "a"), a_task("c"), a_task("d", retries=1)).start().ok("a").fail("d").begin("b")
    )
    assert story.kinds(run_commands.Cancel()) == ["task_cancelled"] * 3 + ["run_cancelled"]
    assert story.states == {"a": "succeeded", "b": "cancelled", "c": "cancelled", "d": "cancelled"}
    assert story.aborts == [run_duties.Abort("b", 1, "w0")]
    assert run_duties.owed(story.run) == []
    check(story)


def test_a_queued_run_can_be_cancelled() -> None:
    story = Story(a_task("a"))
    assert story.kinds(run_commands.Cancel()) == ["task_cancelled", "run_cancelled"]


def test_cancelling_twice_is_done_once() -> None:
    story = fork()
    story.do(run_commands.Cancel())
    assert story.do(run_commands.Cancel()) == []


@pytest.mark.parametrize("end", ["ok", "fail"])
def test_a_run_that_ended_by_itself_cannot_be_cancelled(end: str) -> None:
    story = Story(a_task("a")).start()
    getattr(story, end)("a")
    with pytest.raises(Conflict, match="is already"):
        story.do(run_commands.Cancel())


def test_a_result_after_the_cancel_has_no_effect() -> None:
    story = fork().begin("a")
    story.do(run_commands.Cancel())
    with pytest.raises(StaleAttempt):
        story.do(story.report("a", "ok"))


# ── the run's own limits ──


def test_a_run_that_takes_too_long_times_out() -> None:
    story = Story(a_task("a"), run_timeout_s=60.0).start().begin("a").wait(60)
    assert run_duties.deadline(story.run) == story.now
    assert story.kinds(run_commands.TimeOut()) == ["task_cancelled", "run_timed_out"]
    assert story.aborts == [run_duties.Abort("a", 1, "w0")]
    assert (story.run.state, run_duties.next_wake(story.run)) == (S.TIMED_OUT, None)
    check(story)


def test_a_run_that_waits_for_admission_does_not_time_out() -> None:
    assert run_duties.deadline(Story(a_task("a"), run_timeout_s=60.0).run) is None


def test_a_revived_run_has_its_whole_time_again() -> None:
    story = Story(a_task("a"), run_timeout_s=60.0).start().wait(61)
    story.do(run_commands.TimeOut())
    story.wait(10).do(run_commands.RetryTask("a"))
    assert run_duties.deadline(story.run) == story.now + timedelta(seconds=60)
    assert story.run.started_at == AT
    check(story)


def test_a_missed_sla_changes_no_state() -> None:
    story = fork()
    deadline = AT + timedelta(seconds=1)
    assert story.kinds(run_commands.MissSla(deadline)) == ["sla_missed"]
    assert story.run.state is S.RUNNING
    story.do(run_commands.Cancel())
    assert story.do(run_commands.MissSla(deadline)) == []


# ── retry ──


def test_retrying_a_failed_task_resumes_the_run_from_there() -> None:
    story = Story(a_task("x"), a_task("a", "x"), a_task("b", "a"), a_task("c", "b")).start().ok("x").fail("a")
    assert story.run.state is S.FAILED
    assert story.kinds(run_commands.RetryTask("a")) == ["run_revived", "task_reset", "task_reset", "task_reset"]
    assert (story.run.state, story.run.attempts, story.run.error, story.run.finished_at) == (S.RUNNING, 2, None, None)
    assert story.states == {"x": "succeeded", "a": "pending", "b": "pending", "c": "pending"}
    story.ok("a", "b", "c")
    assert (story.run.state, story.attempt("a"), story.attempt("x")) == (S.SUCCEEDED, 2, 1)
    check(story)


def test_a_task_can_be_retried_while_its_run_goes_on() -> None:
    story = fork().fail("a")
    assert story.kinds(run_commands.RetryTask("a")) == ["task_reset", "task_reset"]
    assert (story.run.attempts, story.run.error) == (1, None)


def test_a_retried_task_has_all_its_retries_again() -> None:
    story = Story(a_task("a", retries=1, retry_delay_s=0.0)).start().fail("a").wait(0).fail("a")
    story.do(run_commands.RetryTask("a"))
    story.fail("a")
    assert (story.state("a"), story.attempt("a")) == (T.RETRYING, 3)


@pytest.mark.parametrize("state", ["pending", "running", "succeeded", "skipped", "retrying"])
def test_only_what_failed_or_was_cancelled_can_be_retried(state: str) -> None:
    story = Story(a_task("a", retries=1), a_task("z")).start()
    match state:
        case "running":
            story.begin("a")
        case "succeeded":
            story.ok("a")
        case "skipped":
            story.do(run_commands.SkipTask("a"))
        case "retrying":
            story.fail("a")
    assert story.state("a") == state
    with pytest.raises(Conflict, match=state):
        story.do(run_commands.RetryTask("a"))


def test_nothing_is_retried_in_a_queued_run() -> None:
    for command in (run_commands.RetryTask("a"), run_commands.RetryFailed()):
        with pytest.raises(Conflict):
            Story(a_task("a")).do(command)


def test_retrying_below_a_failure_names_the_ancestor() -> None:
    story = chain().fail("a")
    with pytest.raises(Conflict, match="task a, which stays failed"):
        story.do(run_commands.RetryTask("c"))


def test_retrying_one_of_two_failed_parents_does_not_free_the_child() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", "a", "b")).start().fail("a").fail("b")
    story.do(run_commands.RetryTask("a"))
    assert story.states == {"a": "pending", "b": "failed", "c": "upstream_failed"}
    story.ok("a")
    assert story.run.state is S.FAILED
    story.do(run_commands.RetryTask("b"))
    story.ok("b", "c")
    assert (story.run.state, story.run.attempts) == (S.SUCCEEDED, 3)
    check(story)


def test_retrying_a_task_of_a_cancelled_run_revives_all_that_was_cancelled() -> None:
    story = fork()
    story.do(run_commands.Cancel())
    story.do(run_commands.RetryTask("c"))
    assert (story.run.state, set(story.states.values())) == (S.RUNNING, {"pending"})
    check(story.ok("a", "b", "c"))


def test_retrying_a_run_takes_every_failed_task() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", "a"), a_task("d")).start().ok("d").fail("a").fail("b")
    story.do(run_commands.RetryFailed())
    assert story.states == {"a": "pending", "b": "pending", "c": "pending", "d": "succeeded"}
    with pytest.raises(Conflict, match="no failed task"):
        story.do(run_commands.RetryFailed())


def test_a_command_on_an_unknown_task_is_not_found() -> None:
    for command in (run_commands.RetryTask("zz"), run_commands.SkipTask("zz")):
        with pytest.raises(NotFound, match="task zz"):
            fork().do(command)


# ── skip ──


def test_dependents_of_a_skipped_task_proceed_as_if_it_were_done() -> None:
    story = chain()
    story.do(run_commands.SkipTask("a"))
    assert story.ready == ["b"]
    check(story.ok("b", "c"))


def test_a_dependent_of_a_skipped_task_waits_for_its_other_dependencies() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", "a", "b")).start()
    story.do(run_commands.SkipTask("a"))
    assert story.ready == ["b"]


def test_skipping_a_running_task_stops_its_attempt() -> None:
    story = fork().begin("a")
    assert story.kinds(run_commands.SkipTask("a")) == ["task_skipped"]
    assert story.aborts == [run_duties.Abort("a", 1, "w0")]
    with pytest.raises(StaleAttempt):
        story.do(story.report("a", "ok"))


def test_skipping_a_retrying_task_forgets_its_retry() -> None:
    story = Story(a_task("a", retries=1), a_task("b")).start().fail("a")
    story.do(run_commands.SkipTask("a"))
    assert story.wait(99).ready == ["b"]


def test_skipping_the_last_failed_task_resumes_the_run() -> None:
    story = fork().fail("a").ok("c")
    assert story.run.state is S.FAILED
    assert story.kinds(run_commands.SkipTask("a")) == ["run_revived", "task_skipped", "task_reset"]
    story.ok("b")
    assert (story.run.state, story.run.error, story.run.attempts) == (S.SUCCEEDED, None, 2)
    check(story)


def test_skipping_what_failed_last_ends_the_run_well() -> None:
    story = Story(a_task("a")).start().fail("a")
    assert story.kinds(run_commands.SkipTask("a")) == ["run_revived", "task_skipped", "run_succeeded"]
    check(story)


def test_skipping_one_of_two_failures_leaves_the_run_failed() -> None:
    story = Story(a_task("a"), a_task("b")).start().fail("a").fail("b")
    assert story.kinds(run_commands.SkipTask("a")) == ["run_revived", "task_skipped", "run_failed"]
    assert story.run.error
    check(story)


def test_an_upstream_failed_task_can_be_skipped() -> None:
    story = chain().fail("a")
    story.do(run_commands.SkipTask("b"))
    assert story.states == {"a": "failed", "b": "skipped", "c": "pending"}
    story.ok("c")
    assert story.run.state is S.FAILED
    check(story)


def test_skipping_twice_is_done_once() -> None:
    story = fork()
    story.do(run_commands.SkipTask("a"))
    assert story.do(run_commands.SkipTask("a")) == []


def test_what_is_done_cannot_be_skipped() -> None:
    with pytest.raises(Conflict, match="succeeded"):
        fork().ok("a").do(run_commands.SkipTask("a"))


def test_nothing_of_a_cancelled_run_can_be_skipped() -> None:
    story = fork().fail("a")
    story.do(run_commands.Cancel())
    for name in ("a", "c"):
        with pytest.raises(Conflict):
            story.do(run_commands.SkipTask(name))


def test_skipping_every_task_of_a_queued_run_leaves_its_end_to_its_admission() -> None:
    story = Story(a_task("a"))
    assert story.kinds(run_commands.SkipTask("a")) == ["task_skipped"]
    assert story.run.state is S.QUEUED
    assert story.kinds(run_commands.Start()) == ["run_started", "run_succeeded"]
    check(story)


def test_skipping_in_a_timed_out_run_takes_up_what_was_cancelled() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", "a"), run_timeout_s=60.0).start().fail("a").wait(61)
    story.do(run_commands.TimeOut())
    assert story.states == {"a": "failed", "b": "cancelled", "c": "upstream_failed"}
    story.do(run_commands.SkipTask("a"))
    assert story.states == {"a": "skipped", "b": "pending", "c": "pending"}
    check(story.ok("b", "c"))


# ── restart ──


def test_a_restart_queues_the_run_with_all_tasks_pending() -> None:
    story = fork().fail("a").ok("c")
    assert story.kinds(run_commands.Restart(1)) == ["run_restarted"]
    assert (story.run.state, set(story.states.values()), story.run.error) == (S.QUEUED, {"pending"}, None)
    story.start().ok("a", "b", "c")
    assert (story.run.attempts, story.attempt("a"), story.attempt("b")) == (2, 2, 1)
    check(story)


def test_attempts_count_on_over_restarts_even_when_a_version_left_the_task_out() -> None:
    without = a_dag(a_task("z"))
    story = Story(a_task("a"), later=(without,)).start().ok("a")
    story.do(run_commands.Restart(2))
    story.start().ok("z")
    story.do(run_commands.Restart(1))
    story.start().ok("a")
    assert story.attempt("a") == 2
    check(story, without)


def test_a_report_from_before_the_restart_is_stale() -> None:
    story = fork().begin("a")
    late = story.report("a", "ok")
    story.do(run_commands.Cancel())
    story.do(run_commands.Restart(1))
    story.start().begin("a")
    with pytest.raises(StaleAttempt):
        story.do(late)
    assert story.attempt("a") == 2


def test_only_a_terminal_run_is_restarted() -> None:
    for story in (Story(a_task("a")), fork()):
        with pytest.raises(Conflict, match="still"):
            story.do(run_commands.Restart(1))


# ── owed, folded ──


def test_a_running_run_is_owed_its_attempts_its_dispatch_and_its_wake_up() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", retries=1, retry_delay_s=8.0)).start().fail("c").begin("a")
    assert run_duties.owed(story.run) == [
        run_duties.Await("a", 1, "w0", "i1"),
        run_duties.Dispatch(1),
        run_duties.WakeAt(AT + timedelta(seconds=4)),
    ]


def test_a_paused_run_is_owed_only_what_runs() -> None:
    story = fork().begin("a")
    story.do(run_commands.Pause())
    assert run_duties.owed(story.run) == [run_duties.Await("a", 1, "w0", "i1")]


def test_a_fold_needs_the_versions_its_history_names() -> None:
    story = Story(a_task("a"), later=(a_dag(a_task("z")),)).start().ok("a")
    story.do(run_commands.Restart(2))
    assert runs.dag_versions(story.events) == {1, 2}


def test_a_worker_is_told_the_window_and_the_params() -> None:
    context = fork().run.context("run-actor-0")
    assert (context.run_id, context.owner, context.window, context.params) == ("run_1", "run-actor-0", None, {})
