"""What time does to runs: looked at twice, late or too early it comes to the same."""

from __future__ import annotations

from typing import Any

from actors.due_runs import DueRuns
from actors.hosted import HostedRun, milliseconds
from actors.turn import Turn
from orchestrator import codec
from orchestrator import events as e
from orchestrator.run_state import RunState
from tests.builders import AT, a_task
from tests.turn_builders import House, a_queued_run, a_run


class Timers(House):
    """A clock to look at, and the timers that are set."""

    def __init__(self) -> None:
        super().__init__()
        self.set_for: list[str] = []
        self.due = DueRuns(self)  # type: ignore[arg-type]  # it sets timers

    def set(self, hosted: HostedRun) -> None:
        self.set_for.append(hosted.run.run_id)

    def look(self, run: HostedRun, after_s: float) -> Turn:
        """So many seconds after the run was made."""
        self.time.passed_s = after_s
        turn = self.turn()
        self.due.look(turn, run)
        return turn


def kinds(run: HostedRun) -> list[type[Any]]:
    """What happened since the last commit."""
    return [type(event) for event in codec.decode_events(run.append().events or b"[]")]


def test_a_run_that_exceeds_its_limit_times_out_once() -> None:
    run, timers = a_run(run_timeout_s=60), Timers()
    assert timers.look(run, 60.0).touched == {"run_1": run}
    assert run.run.state is RunState.TIMED_OUT
    run.committed()
    assert not timers.look(run, 61.0).touched


def test_a_timer_that_is_early_by_the_clock_is_set_again() -> None:
    run, timers = a_run(run_timeout_s=60), Timers()
    assert not timers.look(run, 59.0).touched
    assert timers.set_for == ["run_1"]
    assert run.run.state is RunState.RUNNING


def test_a_run_whose_caller_is_silent_for_too_long_fails() -> None:
    run, timers = a_run(driven_ttl_s=5), Timers()
    timers.look(run, 4.0)
    assert not run.dirty
    timers.look(run, 5.0)
    assert run.run.state is RunState.FAILED


def test_a_missed_sla_is_said_once() -> None:
    run, timers = a_run(), Timers()
    run.sla_ms = milliseconds(AT) + 10_000
    for after_s, said in ((9.0, []), (10.0, [e.SlaMissed]), (11.0, [e.SlaMissed])):
        timers.time.passed_s = after_s
        timers.due.check_sla(timers.turn(), run)
        assert kinds(run) == said


def test_a_queued_run_with_a_deadline_is_woken_for_it_and_then_is_too_late() -> None:
    run, timers = a_queued_run("run_1", queue_timeout_s=60.0), Timers()
    turn = timers.look(run, 10.0)
    assert turn.passive == {"run_1": milliseconds(AT) + 60_000}
    assert not turn.touched
    turn = timers.look(run, 61.0)
    assert turn.touched == {"run_1": run}
    assert run.run.state is RunState.TIMED_OUT


def test_a_run_that_goes_on_with_a_deadline_ahead_of_it_stays_in_memory() -> None:
    run, timers = a_run("run_1", a_task("a", sla_s=60)), Timers()
    assert not timers.look(run, 10.0).passive
    assert timers.set_for == ["run_1"]
    assert timers.look(run, 60.0).touched == {"run_1": run}
    assert kinds(run) == [e.SlaMissed]
