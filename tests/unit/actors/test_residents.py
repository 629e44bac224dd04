"""Who is in memory: messages wait for their run, and a run that only waits may go."""

from __future__ import annotations

from datetime import timedelta

from actors.hosted import HostedBackfill, HostedRun
from actors.mail import Loaded, Redo, RunMessage, Told, Woken
from actors.turn import Turn
from orchestrator import run_commands
from orchestrator.run_state import RunState
from orchestrator.streams import TimerFired
from tests.builders import AT
from tests.turn_builders import House, a_backfill, a_queued_run, a_run, asked
from tests.virtual_time import virtually

LONG_S = 60.0


def told(run_id: str) -> Told:
    return Told(TimerFired(run_id, "wake", 0), "1-0")


class Handled:
    """What was handled, in order; `does` is what it does."""

    def __init__(self) -> None:
        self.messages: list[RunMessage] = []

    def __call__(self, _turn: Turn, message: RunMessage) -> None:
        self.messages.append(message)


def test_messages_for_a_run_that_is_not_here_wait_and_are_handled_in_their_order_when_it_comes() -> None:
    house, handled = House(), Handled()
    first, second, third = Woken("run_1"), told("run_1"), Woken("run_1")
    assert [house.residents.find("run_1", each) for each in (first, second, third)] == [None] * 3
    assert house.loads == ["run_1"]
    house.residents.came(house.turn(), Loaded("run_1", a_run()), handled)
    assert handled.messages == [first, second, third]
    assert isinstance(house.residents.here["run_1"], HostedRun)
    assert not house.residents.reading


def test_the_inbox_is_not_taken_off_while_items_of_it_wait_for_their_runs() -> None:
    house = House()
    house.residents.find("run_1", Woken("run_1"))
    assert not house.residents.mail_waits
    house.residents.find("run_1", told("run_1"))
    house.residents.find("run_2", told("run_2"))
    assert house.residents.mail_waits
    house.residents.came(house.turn(), Loaded("run_1", a_run()), Handled())
    assert house.residents.mail_waits
    house.residents.came(house.turn(), Loaded("run_2", None), Handled())
    assert not house.residents.mail_waits


def test_what_waits_for_somebody_elses_run_is_refused_as_moved() -> None:
    async def story() -> None:
        house, handled = House(), Handled()
        message, other = asked("cancel"), asked("cancel", "run_2")
        house.residents.find("run_1", message)
        house.residents.find("run_2", other)
        house.residents.came(house.turn(), Loaded("run_1", None, "run-actor-7"), handled)
        house.residents.came(house.turn(), Loaded("run_2", None), handled)
        assert message.answer.result().refused == "moved"
        assert other.answer.result().refused == "unavailable"
        assert not handled.messages
        assert not house.residents.here

    virtually(story())


def test_a_run_that_belongs_to_nobody_is_forgotten_once_its_messages_were_handled() -> None:
    house = House()
    house.residents.find("run_1", Woken("run_1"))
    house.residents.came(house.turn(), Loaded("run_1", a_queued_run()), Handled())
    assert not house.residents.here
    assert house.left == ["run_1"]


def test_a_run_that_is_changed_by_what_waited_for_it_stays_until_that_is_durable() -> None:
    house, turn, run = House(), House().turn(), a_queued_run()
    house.residents.find("run_1", Woken("run_1"))
    house.residents.came(turn, Loaded("run_1", run), lambda turn, _: turn.step(run, run_commands.Start()))
    assert house.residents.here == {"run_1": run}
    assert turn.touched == {"run_1": run}


def test_a_backfill_that_comes_is_claimed_by_the_turn() -> None:
    house, turn = House(), House().turn()
    house.residents.find("run_b", Woken("run_b"))
    house.residents.came(turn, Loaded("run_b", a_backfill()), Handled())
    assert isinstance(turn.touched["run_b"], HostedBackfill)
    assert turn.touched["run_b"].dirty


def test_a_run_that_is_read_again_is_not_here_meanwhile() -> None:
    house, handled = House(a_run()), Handled()
    house.residents.read_again("run_1")
    house.residents.read_again("run_1")
    assert house.loads == ["run_1"]
    assert not house.residents.here
    assert house.left[0] == "run_1"
    waiting = Woken("run_1")
    assert house.residents.find("run_1", waiting) is None
    house.residents.came(house.turn(), Loaded("run_1", a_run()), handled)
    assert handled.messages == [waiting]
    assert house.welcomed == ["run_1", "run_1"]


def test_nothing_is_read_for_the_sake_of_a_report_that_is_late() -> None:
    house, handled = House(), Handled()
    report = Redo("run_1", run_commands.Lose("a", 1))
    assert not house.residents.wait(report)
    assert not house.loads
    house.residents.find("run_1", Woken("run_1"))
    assert house.residents.wait(report)
    house.residents.came(house.turn(), Loaded("run_1", a_run()), handled)
    assert handled.messages[1] is report


# ── who may go ──


def gone(house: House, after_s: float = LONG_S) -> dict[str, int | None]:
    """Who goes when it was looked at, and again so many seconds later."""
    house.residents.let_idle_go(house.turn())
    house.time.passed_s += after_s
    turn = house.turn()
    house.residents.let_idle_go(turn)
    return turn.passive


def a_waiting_run(run_id: str = "run_1") -> HostedRun:
    """Paused by somebody who may come back in a year."""
    run = a_run(run_id)
    run.step(run_commands.Pause(), AT)
    run.committed()
    return run


def test_a_run_that_has_only_waited_for_long_goes() -> None:
    assert gone(House(a_waiting_run(), passivate_after_s=LONG_S)) == {"run_1": None}
    assert not gone(House(a_waiting_run(), passivate_after_s=LONG_S), LONG_S - 1)


def test_a_run_with_something_to_do_stays() -> None:
    ready, running = a_run("run_1"), a_waiting_run("run_2")
    house = House(ready, running, a_backfill(), passivate_after_s=LONG_S)
    running.run.running = 1
    assert not gone(house)
    running.run.running = 0
    assert list(gone(house)) == ["run_2"]


def test_a_run_with_a_call_under_way_stays_until_that_is_over() -> None:
    house = House(a_waiting_run(), passivate_after_s=LONG_S)
    house.busy.add("run_1")
    assert not gone(house)
    house.busy.clear()
    assert list(gone(house)) == ["run_1"]


def test_a_run_that_this_turn_has_touched_stays() -> None:
    run = a_waiting_run()
    house = House(run, passivate_after_s=LONG_S)
    gone(house, 0.0)
    house.time.passed_s += LONG_S
    turn = house.turn()
    turn.touch(run)
    house.residents.let_idle_go(turn)
    assert not turn.passive


def test_a_run_that_goes_is_woken_when_its_time_comes() -> None:
    run = a_run("run_1", run_timeout_s=3600)
    run.step(run_commands.Pause(), AT)
    assert run.run.state is RunState.PAUSED
    house = House(run, passivate_after_s=LONG_S)
    due = AT + timedelta(hours=1)
    assert gone(house) == {"run_1": round(due.timestamp() * 1000)}
    house.time.passed_s = 3600 - LONG_S + 1
    assert not gone(house, 0.0), "it would be back at once"
