"""Cursors, frames, and a stream that is never in its reader's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from actors.clock import Clock
from orchestrator.views import Frame
from serve_app.sse import BACKLOG, RETRY, EventStream, cursor, frame, keep_alive, written


@pytest.mark.parametrize(("header", "query", "after"), [
    (None, None, None), ("3", None, 3), (None, "3", 3), ("3", "7", 3), ("x", "7", None), ("", "7", None),
    ("0", None, 0), ("007", None, 7), ("-1", None, None), ("1.0", None, None), ("٣", None, None), ("+1", None, None),
    ("9" * 5000, None, 10**15), (" 3", None, None),
])  # fmt: skip
def test_the_header_wins_and_what_is_no_integer_means_from_the_first(
    header: str | None, query: str | None, after: int | None
) -> None:
    assert cursor(header, query) == after


def test_frames_have_the_contracts_form() -> None:
    assert frame(3, "task_state", {"seq": 3}) == b'id: 3\nevent: task_state\ndata: {"seq":3}\n\n'
    assert frame(None, "end", {"state": "success"}) == b'event: end\ndata: {"state":"success"}\n\n'
    assert frame("2026-01-02T03:04:05.678Z", "checkpoint", b'{"n":1.0}') == (
        b'id: 2026-01-02T03:04:05.678Z\nevent: checkpoint\ndata: {"n":1.0}\n\n'
    )
    assert keep_alive(1795380373794) == b": keep-alive 1795380373794\n\n"


async def test_a_frame_is_written_once_for_all_of_its_readers_and_who_stops_reading_closes_the_stream() -> None:
    shared, closed, made = Frame(1, "task_state", {"seq": 1}), [], []

    async def chunks() -> AsyncIterator[Sequence[Frame]]:
        try:
            yield [shared, Frame(None, "keep_alive")]
            yield [shared]
        finally:
            closed.append(True)

    def write(each: Frame) -> bytes:
        made.append(each)
        return frame(each.seq, each.kind, each.data)

    for reader in (1, 2):
        stream = written(chunks(), write, Clock())
        text = await anext(stream)
        assert text.startswith(b'id: 1\nevent: task_state\ndata: {"seq":1}\n\n: keep-alive ')
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert len(closed) == reader
    assert made == [shared]


class Reader:
    """A client of one stream."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.has_frames = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.may_read.wait()
        self.messages.append(message)
        if b"first" in message.get("body", b""):
            self.has_frames.set()

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


async def follow(reader: Reader, frames: AsyncIterator[bytes], **options: Any) -> None:
    await asyncio.wait_for(EventStream(frames, **options)({"type": "http"}, reader.receive, reader.send), 5)


async def test_frames_that_are_ready_together_leave_together_and_in_order() -> None:
    async def frames() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d " % number

    reader = Reader()
    await follow(reader, frames())
    assert reader.text == b"retry: 1000\n\n" + b"".join(b"%d " % number for number in range(100))
    assert len(reader.messages) < 10
    assert reader.messages[-1]["more_body"] is False


async def test_a_slow_reader_holds_the_frames_back() -> None:
    produced = 0

    async def frames() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(10 * BACKLOG):
            produced += 1
            yield b"."

    reader = Reader()
    reader.may_read.clear()
    following = asyncio.create_task(follow(reader, frames()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert produced <= BACKLOG + 1
    reader.may_read.set()
    await following
    assert reader.text.count(b".") == 10 * BACKLOG


async def endless(ended: asyncio.Event) -> AsyncIterator[bytes]:
    try:
        yield b"first"
        await asyncio.Event().wait()
    finally:
        ended.set()


async def test_a_stream_ends_when_its_reader_is_gone() -> None:
    reader, ended = Reader(), asyncio.Event()
    following = asyncio.create_task(follow(reader, endless(ended)))
    await reader.has_frames.wait()
    reader.gone.set()
    await following
    assert ended.is_set()


async def test_a_stream_has_a_bounded_life() -> None:
    reader, ended = Reader(), asyncio.Event()
    await follow(reader, endless(ended), life_s=0.01)
    assert ended.is_set()
    assert reader.messages[-1]["more_body"] is False


async def test_a_stream_whose_source_fails_is_closed_for_the_client_to_resume() -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError

    reader = Reader()
    await follow(reader, frames())
    assert reader.text.endswith(b"first")


async def test_a_cancelled_handler_leaves_nothing_behind() -> None:
    reader, ended = Reader(), asyncio.Event()
    following = asyncio.create_task(follow(reader, endless(ended)))
    await reader.has_frames.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert ended.is_set()


# -- what a surface chooses


async def nothing() -> AsyncIterator[bytes]:
    for each in ():
        yield each


@pytest.mark.parametrize(("options", "text"), [({}, RETRY), ({"opening": b"hello"}, b"hello")])
async def test_a_stream_opens_with_a_retry_unless_told_otherwise(options: dict[str, bytes], text: bytes) -> None:
    reader = Reader()
    await follow(reader, nothing(), **options)
    assert reader.text == text


async def test_a_stream_without_a_bound_lives_on() -> None:
    reader, ended = Reader(), asyncio.Event()
    following = asyncio.create_task(follow(reader, endless(ended)))
    await reader.has_frames.wait()
    await asyncio.sleep(0.05)
    assert not following.done()
    reader.gone.set()
    await following


async def test_a_reader_that_is_too_slow_is_cut_off_in_the_middle() -> None:
    produced, closed = 0, asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        nonlocal produced
        try:
            while True:
                produced += 1
                yield b"."
        finally:
            closed.set()

    reader, ends = Reader(), []
    reader.may_read.clear()
    await follow(reader, frames(), patience_s=0.01, ended=lambda: ends.append(1))
    assert produced == BACKLOG + 1
    assert closed.is_set()
    assert ends == [1]
    assert reader.messages == []


async def test_a_patient_reader_of_a_long_history_is_not_cut_off() -> None:
    async def frames() -> AsyncIterator[bytes]:
        for _ in range(10 * BACKLOG):
            yield b"."

    reader = Reader()
    await follow(reader, frames(), patience_s=0.01)
    assert reader.text.count(b".") == 10 * BACKLOG
    assert reader.messages[-1]["more_body"] is False


async def test_the_end_is_told_once_however_it_comes() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError

    ends: list[str] = []
    await follow(Reader(), nothing(), ended=lambda: ends.append("of frames"))
    await follow(Reader(), failing(), ended=lambda: ends.append("of a source that fails"))
    await follow(Reader(), endless(asyncio.Event()), life_s=0.01, ended=lambda: ends.append("of life"))
    gone = Reader()
    gone.gone.set()
    await follow(gone, endless(asyncio.Event()), ended=lambda: ends.append("of the reader"))
    waiting = Reader()
    following = asyncio.create_task(follow(waiting, endless(asyncio.Event()), ended=lambda: ends.append("of the task")))
    await waiting.has_frames.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert ends == ["of frames", "of a source that fails", "of life", "of the reader", "of the task"]


async def test_a_timeout_that_is_not_ours_is_no_end_of_patience() -> None:
    async def send(_: Any) -> None:
        raise TimeoutError

    reader = Reader()
    with pytest.raises(TimeoutError):
        await EventStream(nothing(), patience_s=5)({"type": "http"}, reader.receive, send)
