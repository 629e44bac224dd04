"""Which admissions count: for the present life of a run, until the journal has refused them."""

from __future__ import annotations

import pytest

from actors import admissions
from actors.admissions import Admissions
from actors.due_runs import DueRuns
from actors.hosted import HostedBackfill, HostedRun, milliseconds
from actors.mail import Admitted
from actors.run_timers import RunTimers
from actors.turn import Turn
from orchestrator import codec
from orchestrator import events as e
from orchestrator.backfill import CancelAll, Observe
from orchestrator.control import Admission
from orchestrator.run_state import RunState
from tests.builders import AT
from tests.turn_builders import House, Time, a_backfill, a_queued_run, a_run


class Door:
    """Admissions, and whom they told."""

    def __init__(self) -> None:
        self.caught_up: list[HostedBackfill] = []
        self.refused: list[tuple[str, int]] = []
        timers = RunTimers(Time(), lambda _: None)  # type: ignore[arg-type]  # none is set
        self.admissions = Admissions(
            DueRuns(timers), self.caught_up.append, lambda run_id, number: self.refused.append((run_id, number))
        )

    def admit(
        self, hosted: HostedRun | HostedBackfill, epoch: int = 1, after_s: float = 0.0, **changes: object
    ) -> Turn:
        """An admission comes, so many seconds after the run was made."""
        house = House()
        house.time.passed_s = after_s
        turn = house.turn()
        given = Admission(**({"run_id": hosted.machine.run_id, "number": 5, "since": 1} | changes))  # type: ignore[arg-type]  # fields of it
        self.admissions.admitted(turn, hosted, Admitted(given, epoch))
        return turn


def test_an_admitted_run_starts_under_the_epoch_of_its_scheduler() -> None:
    run = a_queued_run()
    turn = Door().admit(run, 4, lane="run_b")
    assert run.run.state is RunState.RUNNING
    assert (run.admission_epoch, run.admission_lane) == (4, "run_b")
    assert turn.touched == {"run_1": run}


def test_an_admission_that_comes_twice_starts_once() -> None:
    run, door = a_queued_run(), Door()
    door.admit(run)
    assert not door.admit(run).touched


def test_an_admission_for_a_former_life_of_the_run_is_void() -> None:
    run = a_queued_run()
    run.run.queued_version = 9
    assert not Door().admit(run, since=8).touched
    assert Door().admit(run, since=9).touched


def test_an_admission_that_the_journal_refused_is_void_when_it_comes_again_but_the_next_one_is_not() -> None:
    run, door = a_queued_run(), Door()
    door.admissions.decline(Admission("run_1", number=5, since=1))
    assert door.refused == [("run_1", 5)]
    assert not door.admit(run).touched
    assert door.admit(run, number=6).touched


def test_of_a_great_many_declined_admissions_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "DECLINED_MAX", 2)
    door = Door()
    for number in (4, 5, 6):
        door.admissions.decline(Admission("run_9", number=number))
    assert not door.admit(a_queued_run(), number=5).touched
    assert door.admit(a_queued_run(), number=4).touched


def test_a_run_that_goes_on_here_is_claimed_once_and_not_started() -> None:
    run = a_run()
    run.claimed = False
    turn = Door().admit(run, only_host=True)
    assert turn.touched == {"run_1": run}
    assert run.append().count == 0
    run.committed()
    assert run.claimed
    assert not Door().admit(run, only_host=True).touched
    queued = a_queued_run()
    assert not Door().admit(queued, only_host=True).touched


def test_a_run_that_missed_its_sla_while_it_waited_says_so_before_it_starts() -> None:
    run = a_queued_run()
    run.sla_ms = milliseconds(AT) - 1
    Door().admit(run)
    happened = [type(event) for event in codec.decode_events(run.append().events)]
    assert happened == [e.SlaMissed, e.RunStarted]


def test_a_run_that_waited_for_too_long_ends_instead_of_starting() -> None:
    run, door = a_queued_run("run_1", queue_timeout_s=60.0), Door()
    turn = door.admit(run, after_s=61.0)
    assert run.run.state is RunState.TIMED_OUT
    assert turn.touched == {"run_1": run}


def test_of_a_backfill_that_has_ended_the_windows_are_looked_at_again() -> None:
    door, backfill = Door(), a_backfill()
    door.admit(backfill)
    assert not door.caught_up
    backfill.step(CancelAll(), AT)
    backfill.step(Observe((("c1", "cancelled"), ("c2", "cancelled"))), AT)
    assert backfill.ended
    door.admit(backfill)
    assert door.caught_up == [backfill]
