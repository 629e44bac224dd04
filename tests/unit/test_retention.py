"""What stays of a run that ended long ago, as every reader of its history sees it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import events as e
from orchestrator import run_commands, run_duties
from orchestrator.checkpoints import Checkpoints, checkpoint_id
from orchestrator.errors import Conflict
from orchestrator.live_run_views import CheckpointView
from orchestrator.messages import NO_JSON
from orchestrator.narration import Narrator
from orchestrator.retention import removal
from orchestrator.run_state import Run, RunState
from tests.builders import AT, Story, a_dag, a_task

DAYS = timedelta(days=181)


def ended() -> Story:
    """a → b; a succeeded at its second attempt, b failed."""
    story = Story(a_task("a", retries=1, retry_delay_s=0.0), a_task("b", "a"), later=[a_dag(a_task("a"), a_task("c"))])
    story.start().fail("a").wait(1.0).ok("a").fail("b")
    assert story.run.state is RunState.FAILED
    return story


def trimmed(story: Story) -> Story:
    """Half a year later: the first event is left, and what stands for the others."""
    event = removal(story.run, story.events, story.now + DAYS)
    story.events = [story.events[0], event]
    story.now += DAYS
    story.run = story.replayed()
    return story


def test_a_trimmed_run_is_where_it_was() -> None:
    before = ended().run
    after = trimmed(ended()).run
    assert (after.version, after.state, after.attempts) == (before.version + 1, before.state, before.attempts)
    assert run_duties.owed(after) == []
    assert run_duties.next_wake(after) is None


@pytest.mark.parametrize(
    "command", [run_commands.RetryTask("b"), run_commands.RetryFailed(), run_commands.SkipTask("b")]
)
def test_single_tasks_of_it_are_left_alone(command: run_commands.Command) -> None:
    ended().do(command)
    with pytest.raises(Conflict, match="no longer kept"):
        trimmed(ended()).do(command)


@pytest.mark.parametrize("command", [run_commands.Cancel(), run_commands.Pause(), run_commands.Start()])
def test_it_has_ended_for_every_other_command_too(command: run_commands.Command) -> None:
    with pytest.raises(Conflict):
        trimmed(ended()).do(command)


def test_a_restarted_run_counts_its_attempts_on() -> None:
    story = trimmed(ended())
    story.do(run_commands.Restart(dag_version=1))
    story.start().ok("a", "b")
    assert (story.run.state, story.run.attempts) == (RunState.SUCCEEDED, 2)
    assert (story.attempt("a"), story.attempt("b")) == (3, 2)
    again = story.replayed()
    assert (again.version, again.state, again.attempts) == (story.run.version, RunState.SUCCEEDED, 2)
    assert [task.attempt for task in again.tasks] == [3, 2]


def test_a_restarted_run_can_be_commanded_like_any_other() -> None:
    story = trimmed(ended())
    story.do(run_commands.Restart(dag_version=1))
    story.start().ok("a").fail("b")
    story.do(run_commands.RetryTask("b"))
    assert story.ok("b").run.state is RunState.SUCCEEDED


def test_a_run_is_trimmed_again_after_a_restart_under_another_version() -> None:
    story = trimmed(ended())
    story.do(run_commands.Restart(dag_version=2))
    story.start().ok("a", "c")
    last = removal(story.run, story.events, story.now)
    assert last.task_attempts == {"a": 3, "b": 1, "c": 1}
    assert (last.through, last.attempts, last.state) == (story.run.version, 2, "succeeded")


def test_a_run_that_goes_on_is_not_trimmed() -> None:
    story = Story(a_task("a")).start()
    with pytest.raises(AssertionError):
        removal(story.run, story.events, AT)


def checkpoints_of(story: Story) -> list[CheckpointView]:
    fold = Checkpoints("R", lambda _: None)
    told = [each for event in story.events for each in fold.tell(event)]
    assert (fold.version, fold.state) == (story.run.version, str(story.run.state))
    return [each for each in told if isinstance(each, CheckpointView)]


def numbers(story: Story, run: Run) -> list[int]:
    narrator = Narrator(run.run_id)
    return [narrator.tell(event).seq or 0 for event in story.events]


def test_frames_of_a_trimmed_run_keep_their_numbers() -> None:
    through = ended().run.version
    story = trimmed(ended())
    story.do(run_commands.Restart(dag_version=1))
    story.start()
    assert numbers(story, story.run) == [1, through + 1, through + 2, through + 3]
    assert story.run.version == through + 3


def test_frames_after_the_gap_say_where_things_come_from() -> None:
    story = trimmed(ended())
    story.do(run_commands.Restart(dag_version=1))
    story.start().begin("a")
    narrator = Narrator("run_1")
    told = [narrator.tell(event).data or {} for event in story.events]
    assert (told[1]["until"][:19], narrator.state) == ("2026-01-02T03:04:06", "running")
    assert (told[2]["from"], told[2]["to"]) == ("failed", "queued")
    assert told[3]["attempts"] == 2
    assert (told[4]["task"], told[4]["attempt"]) == ("a", 3)


def test_checkpoints_of_a_trimmed_run_are_gone_and_later_ones_are_numbered_on() -> None:
    story = trimmed(ended())
    story.do(run_commands.Post("note", NO_JSON))
    [note] = checkpoints_of(story)
    assert (note.kind, note.id) == ("note", checkpoint_id(story.run.version))
    assert note.at > checkpoints_of(ended())[-1].at


def test_a_later_checkpoint_is_later_whatever_the_clock_says() -> None:
    story = trimmed(ended())
    story.now = AT
    story.do(run_commands.Post("note", NO_JSON))
    [note] = checkpoints_of(story)
    assert note.at > checkpoints_of(ended())[-1].at


def test_a_removal_is_an_event_like_any_other() -> None:
    story = ended()
    event = removal(story.run, story.events, AT + DAYS)
    assert event == e.HistoryRemoved(AT + DAYS, 9, event.until, "failed", 1, {"a": 2, "b": 1})
    assert event.until == checkpoints_of(story)[-1].at > story.events[-1].at, (
        "each is a millisecond after the one before"
    )
