"""Work that comes again, on virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from actors.recurring import Recurring
from orchestrator.errors import JournalUnavailable
from tests.virtual_time import virtually

PAUSE_S, AGAIN_S = 100.0, 10.0


class Rounds(Recurring):
    """Notes when it looks; each look takes `takes_s`, and ends with what `ends` says of it, or asks for PAUSE_S."""

    def __init__(self, *ends: float | Exception | None, takes_s: float = 0.0, first_s: float = 0.0) -> None:
        super().__init__("rounds", PAUSE_S, AGAIN_S, first_s)
        self.ends = list(ends)
        self.takes_s = takes_s
        #: seconds, since the loop began, at which looks began
        self.looks: list[int] = []
        self.finished = 0

    async def look(self) -> float | None:
        self.looks.append(round(asyncio.get_running_loop().time()))
        await asyncio.sleep(self.takes_s)
        self.finished += 1
        end = self.ends.pop(0) if self.ends else PAUSE_S
        if isinstance(end, Exception):
            raise end
        return end


def play(rounds: Rounds, *then: tuple[float, Callable[[], None]], until_s: float = 250.0) -> list[int]:
    """When it looks if these things happen at those seconds."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        rounds.start()
        for at_s, what in then:
            loop.call_at(at_s, what)
        await asyncio.sleep(until_s)
        rounds.stop()
        await asyncio.sleep(0)

    virtually(story())
    return rounds.looks


def test_it_looks_at_once_and_then_after_each_pause_that_a_look_asks_for() -> None:
    assert play(Rounds(5.0, 20.0)) == [0, 5, 25, 125, 225]


def test_the_first_look_may_be_put_off() -> None:
    assert play(Rounds(first_s=60.0)) == [60, 160]


def test_who_wakes_it_ends_the_pause() -> None:
    rounds = Rounds()
    assert play(rounds, (30.0, rounds.wake), until_s=100.0) == [0, 30]


def test_a_look_that_asks_for_no_pause_is_followed_by_one_as_soon_as_somebody_wakes_it() -> None:
    rounds = Rounds(None)
    assert play(rounds, (1000.0, rounds.wake), until_s=1050.0) == [0, 1000]


def test_a_wake_during_a_look_is_not_lost_and_many_of_them_are_one() -> None:
    rounds = Rounds(takes_s=20.0)
    assert play(rounds, (5.0, rounds.wake), (6.0, rounds.wake), (19.0, rounds.wake), until_s=100.0) == [0, 20]


def test_there_is_never_more_than_one_look_at_a_time() -> None:
    rounds = Rounds(takes_s=20.0)
    play(rounds, (5.0, rounds.wake), until_s=39.0)
    assert (rounds.looks, rounds.finished) == ([0, 20], 1)


def test_a_stop_during_a_look_cuts_it_off_and_none_follows() -> None:
    rounds = Rounds(takes_s=20.0)
    assert play(rounds, (5.0, rounds.stop), (6.0, rounds.wake)) == [0]
    assert rounds.finished == 0


def test_a_stop_before_the_start_does_no_harm() -> None:
    rounds = Rounds()
    rounds.stop()
    assert play(rounds, until_s=1.0) == [0]


@pytest.mark.parametrize(
    ("error", "pause_s", "level", "told"),
    [
        (JournalUnavailable("it is away"), AGAIN_S, logging.WARNING, "rounds goes on later"),
        (RuntimeError("a bug"), PAUSE_S, logging.ERROR, "rounds failed"),
    ],
)
def test_a_look_that_fails_is_logged_and_tried_again_after_a_pause_that_stays_the_same(
    error: Exception, pause_s: float, level: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    looks = play(Rounds(*[error] * 4), until_s=4 * pause_s + 1.0)
    assert looks == [round(n * pause_s) for n in range(5)]
    assert [(record.levelno, record.getMessage().startswith(told)) for record in caplog.records] == [(level, True)] * 4


def test_the_reason_of_a_bug_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    play(Rounds(RuntimeError("a bug")), until_s=1.0)
    assert "RuntimeError: a bug" in caplog.text


def test_who_wakes_it_after_a_failure_need_not_wait() -> None:
    rounds = Rounds(RuntimeError("a bug"))
    assert play(rounds, (3.0, rounds.wake), until_s=50.0) == [0, 3]
