"""A run that its caller drives by checkpoints (contracts/runs.md, section 3)."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from orchestrator import events as e
from orchestrator import run_commands, run_duties
from orchestrator.errors import Conflict
from orchestrator.messages import NO_JSON
from orchestrator.run_state import RunState
from tests.builders import AT, Story, a_task
from tests.invariants import check_history, check_owed, check_replay

S = RunState


def driven(ttl_s: float = 60.0) -> Story:
    """A run without tasks that its caller drives."""
    return Story(driven_ttl_s=ttl_s)


def post(kind: str = "step") -> run_commands.Post:
    return run_commands.Post(kind, NO_JSON)


def check(story: Story) -> Story:
    """The story keeps the rules, told live or again."""
    definition = story.run.compiled.definition
    check_history(story.events, lambda _: definition)
    check_replay(story.run, story.replayed())
    check_owed(story.run)
    return story


def test_it_does_not_end_because_it_has_no_tasks() -> None:
    story = driven()
    assert story.kinds(run_commands.Start()) == ["run_started"]
    assert check(story).run.state is S.RUNNING


@pytest.mark.parametrize(
    ("kind", "last", "state"),
    [("run.completed", "run_succeeded", S.SUCCEEDED), ("run.failed", "run_failed", S.FAILED)],
)
def test_its_caller_ends_it(kind: str, last: str, state: RunState) -> None:
    story = driven().start()
    assert story.kinds(post()) == ["checkpoint_posted"]
    assert story.kinds(post(kind)) == ["checkpoint_posted", last]
    assert check(story).run.state is state


@pytest.mark.parametrize(("kind", "state"), [("run.completed", S.SUCCEEDED), ("run.failed", S.FAILED)])
def test_an_end_that_comes_before_the_start_is_kept_for_it(kind: str, state: RunState) -> None:
    story = driven()
    assert story.kinds(post(kind)) == ["checkpoint_posted"]
    assert story.kinds(post("run.completed")) == ["checkpoint_posted"]
    story.start()
    assert check(story).run.state is state


def test_checkpoints_are_taken_in_every_state_and_change_none_that_is_terminal() -> None:
    story = driven()
    story.do(post())
    story.start().do(post())
    story.do(run_commands.Cancel())
    for kind in ("step", "run.completed", "run.failed"):
        assert story.kinds(post(kind)) == ["checkpoint_posted"]
    assert check(story).run.state is S.CANCELLED


def test_on_a_run_with_tasks_they_are_opaque() -> None:
    story = Story(a_task("a")).start()
    assert story.kinds(post("run.completed")) == ["checkpoint_posted"]
    assert story.run.state is S.RUNNING
    story.ok("a")
    assert check(story).run.state is S.SUCCEEDED


def test_it_fails_when_nobody_drives_it_any_more() -> None:
    story = driven(60.0).start()
    assert run_duties.next_wake(story.run) == AT + timedelta(seconds=60)
    story.wait(50).do(post())
    assert run_duties.idle_deadline(story.run) == AT + timedelta(seconds=110)
    [end] = story.wait(60).do(run_commands.GoIdle())
    assert isinstance(end, e.RunFailed)
    assert end.reason == "idle"
    assert check(story).run.state is S.FAILED
    assert run_duties.next_wake(story.run) is None


def test_without_a_limit_it_waits_for_ever() -> None:
    story = driven(0.0).start()
    assert run_duties.next_wake(story.run) is None
    check(story)


def test_it_is_cancelled_once() -> None:
    story = driven().start()
    assert story.kinds(run_commands.Cancel()) == ["run_cancelled"]
    with pytest.raises(Conflict):
        story.do(run_commands.GoIdle())
    check(story)


def test_a_checkpoint_keeps_its_json_as_it_was_written() -> None:
    story = driven().start()
    [posted] = story.do(run_commands.Post("step", msgspec.Raw(b'{"n": 1.0}')))
    assert isinstance(posted, e.CheckpointPosted)
    again = msgspec.json.decode(msgspec.json.encode(posted), type=e.CheckpointPosted)
    assert bytes(again.data) == b'{"n": 1.0}'
    [bare] = story.do(post())
    assert b"data" not in msgspec.json.encode(bare)
