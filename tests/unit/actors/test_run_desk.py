"""What clients ask of a run: one effect and one answer, or none and a reason."""

from __future__ import annotations

from actors.mail import Asked
from actors.run_desk import RunDesk
from tests.turn_builders import House, a_backfill, a_run, asked
from tests.virtual_time import virtually


def test_a_command_is_answered_when_it_is_durable_with_what_became_of_the_run() -> None:
    async def story() -> None:
        run, turn, message = a_run(), House().turn(), asked("pause", key="k")
        turn.messages["run_1"].append(message)
        RunDesk([].append).asked(turn, run, message)
        assert not message.answer.done()
        assert run.idem is not None
        assert run.idem.key == "k"
        turn.answer(())
        reply = message.answer.result()
        assert (reply.before, reply.state) == ("running", "paused")

    virtually(story())


def test_a_command_that_changes_nothing_is_kept_under_its_key_all_the_same() -> None:
    async def story() -> None:
        run, turn, message = a_run(), House().turn(), asked("resume", key="k")
        RunDesk([].append).asked(turn, run, message)
        assert run.append().count == 0
        assert run.dirty
        assert turn.touched == {"run_1": run}

    virtually(story())


def test_a_command_that_is_refused_changes_nothing_and_is_forgotten() -> None:
    async def story() -> None:
        run, turn = a_run(), House().turn()
        for message, word in ((asked("retry_task", task="a", key="k"), "conflict"), (asked("dance"), "invalid")):
            turn.messages["run_1"].append(message)
            RunDesk([].append).asked(turn, run, message)
            assert message.answer.result().refused == word
        assert not run.dirty
        assert not turn.touched
        assert not turn.messages["run_1"]

    virtually(story())


def test_of_two_commands_with_keys_the_second_goes_into_the_next_turn() -> None:
    async def story() -> None:
        later: list[Asked] = []
        run, turn, desk = a_run(), House().turn(), RunDesk(later.append)
        first, second = asked("pause", key="k1"), asked("resume", key="k2")
        for message in (first, second):
            turn.messages["run_1"].append(message)
            desk.asked(turn, run, message)
        assert later == [second]
        assert turn.messages["run_1"] == [first]
        run.committed()
        desk.asked(House().turn(), run, second)
        assert run.run.state == "running"

    virtually(story())


def test_a_backfill_is_asked_what_is_asked_of_backfills() -> None:
    async def story() -> None:
        backfill, turn = a_backfill(), House().turn()
        for kind, refused in (("cap", None), ("skip_task", "conflict"), ("cancel", None)):
            message = asked(kind, "run_b", max_active_runs=3)
            turn.messages["run_b"].append(message)
            RunDesk([].append).asked(turn, backfill, message)
            turn.answer(())
            assert message.answer.result().refused == refused, kind
            turn.answers.clear()
        assert turn.touched == {"run_b": backfill}
        assert backfill.backfill.state == "cancelling"

    virtually(story())
