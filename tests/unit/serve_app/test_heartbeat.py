"""Signs of life: their arithmetic, and frames with them in between, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serve_app.heartbeat import Beat, Rhythm, with_beats
from tests.virtual_time import virtually


def beats(rhythm: Rhythm, until_s: float, frames_s: tuple[float, ...] = ()) -> list[tuple[float, str]]:
    """What a stream says until then, when frames are sent at these times."""
    said: list[tuple[float, str]] = []
    waiting = list(frames_s)
    while (now_s := min([rhythm.next_s, *waiting])) <= until_s:
        if waiting and now_s == waiting[0]:
            rhythm.sent(waiting.pop(0))
        if (beat := rhythm.due(now_s)) is not None:
            said.append((now_s, beat.value))
    return said


def test_an_idle_stream_comments_and_pings_in_turn() -> None:
    assert beats(Rhythm(0), 90) == [
        (15, "comment"), (30, "ping"), (45, "comment"), (60, "ping"), (75, "comment"), (90, "ping"),
    ]  # fmt: skip


def test_a_frame_puts_the_comment_off_and_the_ping_not() -> None:
    assert beats(Rhythm(0), 50, frames_s=(10, 20)) == [(30, "ping"), (45, "comment")]
    assert beats(Rhythm(0), 61, frames_s=tuple(range(1, 61))) == [(30, "ping"), (60, "ping")]


def test_beats_that_were_missed_are_not_made_up_for() -> None:
    rhythm = Rhythm(0)
    assert [rhythm.due(100), rhythm.due(100)] == [Beat.PING, None]
    assert beats(rhythm, 120) == [(115, "comment"), (120, "ping")]


async def ticking(*gaps_s: float) -> AsyncIterator[int]:
    for number, gap_s in enumerate(gaps_s):
        await asyncio.sleep(gap_s)
        yield number


def test_frames_keep_their_order_and_beats_come_in_between() -> None:
    async def story() -> list[tuple[int, object]]:
        time_s = asyncio.get_running_loop().time
        return [(round(time_s()), each) async for each in with_beats(ticking(0, 0, 20, 20))]

    assert virtually(story()) == [(0, 0), (0, 1), (15, Beat.COMMENT), (20, 2), (30, Beat.PING), (40, 3)]


def test_a_flood_of_frames_does_not_keep_the_ping_from_coming() -> None:
    async def story() -> list[object]:
        return [each async for each in with_beats(ticking(*[0.5] * 100)) if isinstance(each, Beat)]

    assert virtually(story()) == [Beat.PING]


def test_the_source_is_closed_by_who_leaves_early_and_its_error_is_passed_on() -> None:
    async def story() -> list[str]:
        told: list[str] = []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.sleep(1000)
            finally:
                told.append("closed")

        items = with_beats(source())
        async for each in items:
            told.append(str(each))
            if each is Beat.PING:
                break
        await items.aclose()
        return told

    async def eager() -> list[str]:
        told: list[str] = []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                told.append("closed")

        kept = source()  # or else its collection would close it
        items = with_beats(kept)
        await anext(items)
        await asyncio.sleep(1)
        await items.aclose()
        return list(told)

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    async def failure() -> None:
        assert [each async for each in with_beats(failing())] == []

    assert virtually(story()) == ["1", "comment", "ping", "closed"]
    assert virtually(eager()) == ["closed"]
    with pytest.raises(ZeroDivisionError):
        virtually(failure())
