"""The run of a plan: members of a sequence keep their order, whatever is retried, lost or given back meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator import events as e
from orchestrator import plan_run, run_commands
from orchestrator.definition import Conduct, TaskSpec
from orchestrator.run_state import RunState
from tests.builders import Story, a_dag, a_plan
from tests.invariants import check_history, check_owed, check_replay


class Ordered(Story):
    """1.1 and 1.2 are a sequence. 1.1 has failed for good, and 1.2 and 1.4 are the present batch."""

    def __init__(self) -> None:
        tasks = [TaskSpec(id=name) for name in ("1.1", "1.2", "1.3", "1.4")]
        conduct = Conduct(batch_size=2, sequences=(("1.1", "1.2"),))
        super().__init__(*tasks, conduct=conduct, plan=a_plan(a_dag(*tasks)))
        self.start().fail("1.1").ok("1.3")
        assert self.batches == [("1.1", "1.3"), ("1.2", "1.4")]

    @property
    def batches(self) -> list[tuple[str, ...]]:
        """All batches so far."""
        return [event.tasks for event in self.events if isinstance(event, e.BatchFormed)]

    def retry(self, name: str) -> None:
        """A person wants it done again."""
        self.do(run_commands.RetryTask(name))

    def check(self) -> None:
        """Its history is one that the rules allow, the run is the fold of it, and goes on."""
        check_history(self.events, lambda version: self.compiled(version).definition)
        check_replay(self.run, self.replayed())
        check_owed(self.run)


def test_a_task_waits_for_its_turn_again_when_what_goes_before_it_is_retried() -> None:
    story = Ordered()
    story.retry("1.1")
    assert story.ready == ["1.4"]
    story.check()
    story.ok("1.4", "1.1", "1.2")
    assert story.batches[2:] == [("1.1",), ("1.2",)]
    assert story.run.state is RunState.SUCCEEDED
    story.check()


def test_a_batch_of_which_nothing_is_left_makes_room_for_the_task_that_is_retried() -> None:
    story = Ordered()
    story.ok("1.4")
    story.retry("1.1")
    assert story.batches[2:] == [("1.1",)]
    assert story.ready == ["1.1"]
    story.check()


def test_a_task_that_runs_already_is_not_disturbed_and_what_is_retried_waits_for_its_end() -> None:
    story = Ordered()
    story.begin("1.2").ok("1.4")
    story.retry("1.1")
    assert story.states["1.2"] == "running"
    assert story.ready == []
    story.ok("1.2", "1.1")
    assert story.batches[2:] == [("1.1",)]
    assert story.run.state is RunState.SUCCEEDED
    story.check()


@pytest.mark.parametrize("command", [run_commands.Lose, run_commands.GiveBack])
def test_a_task_that_did_not_come_to_its_end_starts_after_the_one_before_it_that_was_retried(
    command: Callable[[str, int], run_commands.Command],
) -> None:
    story = Ordered()
    story.begin("1.2").ok("1.4")
    story.retry("1.1")
    story.do(command("1.2", story.attempt("1.2")))
    story.check()
    assert story.wait(1.0).ready == ["1.1"]
    story.ok("1.1")
    assert story.ready == ["1.2"]
    story.ok("1.2")
    assert story.batches[2:] == [("1.1",), ("1.2",)]
    story.check()


@pytest.mark.parametrize("command", [run_commands.Lose, run_commands.GiveBack])
def test_a_task_that_did_not_come_to_its_end_starts_again_within_its_batch(
    command: Callable[[str, int], run_commands.Command],
) -> None:
    story = Ordered()
    story.begin("1.2")
    story.do(command("1.2", story.attempt("1.2")))
    story.check()
    assert story.wait(1.0).ready == ["1.2", "1.4"]
    story.ok("1.4", "1.2")
    assert len(story.batches) == 2
    story.check()


def test_a_shut_down_after_the_batch_does_not_wait_for_what_waits_for_its_turn() -> None:
    story = Ordered()
    story.begin("1.4")
    story.do(plan_run.ShutDown())
    story.retry("1.1")
    story.ok("1.4")
    assert story.run.state is RunState.CANCELLED
    assert story.states["1.2"] == "cancelled"
    story.check()
