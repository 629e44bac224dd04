"""What a turn notes of the steps that are taken in it."""

from __future__ import annotations

import pytest

from actors.turn import Turn
from orchestrator import run_commands
from orchestrator.errors import Conflict
from orchestrator.run_duties import Abort
from tests.builders import AT
from tests.turn_builders import House, a_run, begin


def test_a_run_that_took_a_step_is_looked_at_and_what_has_to_stop_is_noted() -> None:
    looked: list[str] = []
    run = a_run()
    turn = Turn(House().time.now, lambda hosted: looked.append(hosted.run.run_id))
    begin(turn, run, "a")
    turn.step(run, run_commands.Cancel())
    assert looked == ["run_1", "run_1"]
    assert turn.touched == {"run_1": run}
    assert turn.aborts == [("run_1", "w0", Abort("a", 1, "w0"))]


def test_a_step_that_is_refused_is_none() -> None:
    run, turn = a_run(), House().turn()
    with pytest.raises(Conflict):
        turn.step(run, run_commands.RetryTask("a"))
    assert not turn.touched
    assert not run.dirty


def test_each_step_is_taken_at_its_own_time() -> None:
    house, run = House(), a_run()
    turn = house.turn()
    begin(turn, run, "a")
    house.time.passed_s = 3.0
    begin(turn, run, "b")
    first, second = (run.run.tasks[run.run.position(task)].started_at for task in ("a", "b"))
    assert first == AT
    assert second == house.time.now()
