"""Setups and teardowns: what was set up is torn down, whatever happened between, also when the run is cancelled."""

from __future__ import annotations

import pytest

from orchestrator import run_commands, run_duties
from orchestrator.errors import Conflict
from orchestrator.run_state import going, startable
from tests.builders import Story, a_task
from tests.invariants import check_history, check_owed, check_replay


def cluster(run_timeout_s: float | None = None, **teardown: object) -> Story:
    """up -> {a, b} -> c -> down: the author names only the last task before the teardown."""
    return Story(
        a_task("up"),
        a_task("a", "up"),
        a_task("b", "up"),
        a_task("c", "a", "b"),
        a_task("down", "c", teardown_of=("up",), **teardown),
        run_timeout_s=run_timeout_s,
    ).start()


def checked(story: Story) -> Story:
    check_history(story.events, lambda version: story.compiled(version).definition)
    check_replay(story.run, story.replayed())
    check_owed(story.run)
    return story


def test_a_teardown_runs_last_when_all_goes_well() -> None:
    story = cluster().ok("up", "a", "b", "c")
    assert story.ready == ["down"]
    assert checked(story.ok("down")).run.state == "succeeded"


def test_a_teardown_waits_for_everything_between_also_what_its_author_did_not_name() -> None:
    story = cluster().ok("up").begin("b").fail("a")
    assert story.states == {"up": "succeeded", "a": "failed", "b": "running", "c": "upstream_failed", "down": "pending"}
    assert story.ready == []
    assert story.ok("b").ready == ["down"]
    assert checked(story.ok("down")).run.state == "failed"
    assert story.run.error == "a: Boom"


def test_what_was_not_set_up_is_not_torn_down() -> None:
    assert checked(cluster().fail("up")).states["down"] == "upstream_failed"
    story = cluster().begin("up")
    story.do(story.report("up", "skipped"))
    assert checked(story).states["down"] == "skipped"
    assert story.run.state == "succeeded"


def test_a_teardown_does_not_decide_what_becomes_of_the_run() -> None:
    story = checked(cluster().ok("up", "a", "b", "c").fail("down"))
    assert (story.run.state, story.run.error) == ("succeeded", None)


def test_a_teardown_decides_when_its_author_says_so() -> None:
    story = checked(cluster(on_failure_fail_run=True).ok("up", "a", "b", "c").fail("down"))
    assert (story.run.state, story.run.error) == ("failed", "down: Boom")


def test_a_teardown_that_failed_can_be_retried_after_the_run_succeeded() -> None:
    story = cluster().ok("up", "a", "b", "c").fail("down")
    assert story.kinds(run_commands.RetryTask("down")) == ["run_revived", "task_reset"]
    assert story.ready == ["down"]
    assert checked(story.ok("down")).run.state == "succeeded"


def test_a_cancelled_run_tears_down_what_it_has_set_up() -> None:
    story = cluster().ok("up").begin("a", "b")
    assert story.kinds(run_commands.Cancel()) == [
        "run_cancelling",
        "task_cancelled",
        "task_cancelled",
        "task_cancelled",
    ]
    assert [abort.task for abort in story.aborts] == ["a", "b"]
    assert (checked(story).run.state, story.ready) == ("cancelling", ["down"])
    assert story.kinds(run_commands.Cancel()) == []
    assert checked(story.ok("down")).run.state == "cancelled"


def test_a_cancelled_run_that_has_set_nothing_up_ends_at_once() -> None:
    assert cluster().begin("up").kinds(run_commands.Cancel())[-1] == "run_cancelled"
    story = cluster().ok("up", "a", "b", "c").fail("down", error="gone")
    assert story.run.state == "succeeded"


def test_a_failing_teardown_ends_a_cancelled_run_too() -> None:
    story = cluster().ok("up")
    story.do(run_commands.Cancel())
    assert checked(story.fail("down")).run.state == "cancelled"


def test_a_paused_run_that_is_cancelled_tears_down() -> None:
    story = cluster().ok("up")
    story.do(run_commands.Pause())
    story.do(run_commands.Cancel())
    assert (story.ready, going(story.run)) == (["down"], True)


def test_a_run_that_takes_too_long_tears_down_what_it_has_set_up() -> None:
    story = cluster(run_timeout_s=60.0).ok("up").begin("a")
    story.do(run_commands.Pause())
    assert story.kinds(run_commands.TimeOut()) == ["run_overdue", "task_cancelled", "task_cancelled", "task_cancelled"]
    assert (checked(story).run.state, story.ready, run_duties.deadline(story.run)) == ("running", ["down"], None)
    for command in (run_commands.RetryFailed(), run_commands.SkipTask("a"), run_commands.TimeOut()):
        with pytest.raises(Conflict):
            story.do(command)
    story.ok("down")
    assert (checked(story).run.state, story.run.error) == ("timed_out", "RunTimedOut: longer than 60.0 s")
    story.do(run_commands.RetryTask("a"))
    assert checked(story).states == dict.fromkeys(("up", "a", "b", "c", "down"), "pending")
    assert (story.run.overdue, story.run.state) == (None, "running")


def test_a_run_that_takes_too_long_can_be_cancelled_while_it_tears_down() -> None:
    story = cluster().ok("up")
    story.do(run_commands.TimeOut())
    assert story.kinds(run_commands.Cancel()) == ["run_cancelling"]
    assert checked(story.ok("down")).run.state == "cancelled"


def test_while_it_winds_up_a_run_takes_no_other_command() -> None:
    story = cluster().ok("up")
    story.do(run_commands.Cancel())
    for command in (
        run_commands.RetryTask("a"),
        run_commands.RetryFailed(),
        run_commands.SkipTask("a"),
        run_commands.TimeOut(),
        run_commands.Pause(),
    ):
        with pytest.raises(Conflict):
            story.do(command)
    assert run_duties.deadline(story.run) is None
    assert story.kinds(run_commands.SkipTask("down")) == ["task_skipped", "run_cancelled"]


def test_a_task_is_retried_with_its_setup_once_that_is_gone() -> None:
    story = cluster().ok("up").fail("a").ok("b", "down")
    assert story.run.state == "failed"
    story.do(run_commands.RetryTask("a"))
    assert story.states == {"up": "pending", "a": "pending", "b": "succeeded", "c": "pending", "down": "pending"}
    assert checked(story.ok("up", "a", "c", "down")).run.state == "succeeded"


def test_a_task_is_retried_without_its_setup_while_that_stands() -> None:
    story = cluster().ok("up").begin("b").fail("a")
    story.do(run_commands.RetryTask("a"))
    assert checked(story).states["up"] == "succeeded"


def test_nothing_is_retried_while_its_teardown_is_under_way() -> None:
    story = cluster().ok("up").fail("a").ok("b").begin("down")
    with pytest.raises(Conflict, match="down of run run_1 is under way"):
        story.do(run_commands.RetryTask("a"))


def test_teardowns_end_one_inside_the_other() -> None:
    story = Story(
        a_task("net"),
        a_task("vm", "net"),
        a_task("work", "vm"),
        a_task("vm_down", "work", teardown_of=("vm",)),
        a_task("net_down", "vm_down", teardown_of=("net",)),
    ).start()
    story.ok("net", "vm").begin("work")
    story.do(run_commands.Cancel())
    assert story.ready == ["vm_down"]
    assert story.ok("vm_down").ready == ["net_down"]
    assert checked(story.ok("net_down")).run.state == "cancelled"


def test_a_retry_that_is_due_while_its_setup_is_done_again_waits_for_it() -> None:
    story = Story(
        a_task("up"),
        a_task("work", "up", retries=1, retry_delay_s=1.0),
        a_task("other"),
        a_task("down", "other", teardown_of=("up",)),
    ).start()
    story.ok("up").fail("other").ok("down")
    story.begin("work")
    story.do(story.report("work", "error"))
    story.do(run_commands.RetryTask("other"))
    assert story.states["up"] == "pending"
    story.wait(60.0)
    assert all(startable(story.run, position) for _, position in story.run.ready)
    assert set(story.ready) == {"up", "other"}
    story.ok("up", "other").wait(0.0)
    assert set(story.ready) == {"work", "down"}
