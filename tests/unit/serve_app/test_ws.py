"""The WebSocket session: its machine without a socket, and the loop around it with sockets made of queues."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Router, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from orchestrator.errors import JournalUnavailable
from serve_app.ws import (
    CODES,
    KEEP_ALL,
    KEEP_NEWEST,
    TRANSITIONS,
    Happening,
    Hear,
    Manner,
    Replaced,
    Session,
    State,
    converse,
    turn_away,
)
from tests.asgi_sockets import Closed, Dialled, dial, talk
from tests.virtual_time import virtually

SMALL = Manner(capacity=3, patience_s=1.0, drops_oldest=False)
SMALL_NEWEST = Manner(capacity=3, patience_s=0.0, drops_oldest=True)


# -- the machine


def test_every_state_has_a_row_and_nothing_leads_out_of_closed() -> None:
    assert set(TRANSITIONS) == set(State)
    assert not TRANSITIONS[State.CLOSED]


def test_every_way_to_closed_has_a_code_of_its_meaning() -> None:
    ways = {what for row in TRANSITIONS.values() for what, to in row.items() if to is State.CLOSED}
    assert ways == set(CODES)
    assert {CODES[each] for each in ways} == {1000, 1008, 1011, 1012, 1013, None}


def test_what_waits_still_goes_out_after_the_source_has_ended() -> None:
    session = Session(SMALL)
    session.offer("a")
    session.offer("b")
    session.happens(Happening.ENDED)
    session.offer("too late")
    assert [session.take(), session.take(), session.state] == ["a", "b", State.ENDING]
    assert [session.take(), session.state, session.code] == [None, State.CLOSED, 1000]


def test_a_text_without_room_ends_the_session_that_keeps_all() -> None:
    session = Session(SMALL)
    for each in "abcd":
        session.offer(each)
    assert (session.state, session.code, session.take()) == (State.CLOSED, 1013, None)


def test_a_text_without_room_takes_the_place_of_the_oldest_where_the_newest_matter() -> None:
    session = Session(SMALL_NEWEST)
    for each in "abcde":
        session.offer(each)
    assert [session.take() for _ in range(4)] == ["c", "d", "e", None]
    assert session.state is State.OPEN


def test_the_contracts_bounds_hold() -> None:
    assert (KEEP_ALL.capacity, KEEP_ALL.drops_oldest) == (256, False)
    assert (KEEP_NEWEST.capacity, KEEP_NEWEST.drops_oldest) == (100, True)


steps = st.lists(st.one_of(st.just("offer"), st.just("take"), st.sampled_from(Happening)), max_size=60)


@given(steps, st.sampled_from((SMALL, SMALL_NEWEST)))
def test_any_history_is_ordered_bounded_and_stops_at_closed(history: list[str], manner: Manner) -> None:
    session = Session(manner)
    taken: list[int] = []
    code: int | None = None
    for number, step in enumerate(history):
        was_closed = session.state is State.CLOSED
        if step == "offer":
            session.offer(str(number))
        elif step == "take":
            taken += [int(text)] if (text := session.take()) is not None else []
            assert not (was_closed and text)
        else:
            session.happens(Happening(step))
        assert len(session._waiting) <= manner.capacity
        if was_closed:
            assert (session.state, session.code) == (State.CLOSED, code)
        code = session.code
    assert taken == sorted(set(taken))


# -- the loop


class Source:
    """Texts that a test gives one by one; `None` ends them, an exception fails."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.closed = False

    def give(self, *texts: str | Exception | None) -> None:
        for each in texts:
            self.queue.put_nowait(each)

    async def texts(self) -> AsyncIterator[str]:
        try:
            while (each := await self.queue.get()) is not None:
                if isinstance(each, Exception):
                    raise each
                yield each
        finally:
            self.closed = True


class Server:
    """An application with one socket over one source."""

    def __init__(self, manner: Manner, hear: Hear | None = None) -> None:
        self.source = Source()
        self._hear: dict[str, Hear] = {} if hear is None else {"hear": hear}
        self.draining = asyncio.Event()
        self.app: ASGIApp = Router([WebSocketRoute("/", self._serve)])
        self._manner = manner

    async def _serve(self, socket: WebSocket) -> None:
        await socket.accept()
        await converse(socket, self.source.texts(), self._manner, self.draining, **self._hear)


async def opened(manner: Manner = SMALL, hear: Hear | None = None) -> tuple[Server, Dialled]:
    server = Server(manner, hear)
    return server, await talk(server.app, "/")


async def settled() -> None:
    """Whatever is ready has run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_texts_go_out_in_order_and_the_end_is_1000() -> None:
    server, client = await opened()
    server.source.give(*"abcdefgh", None)
    assert await client.rest() == (list("abcdefgh"), 1000)
    assert server.source.closed


@pytest.mark.parametrize(
    "said", [{"text": '{"type":"pong"}'}, {"text": "not json"}, {"bytes": b"\x00"}, {"text": "x" * 10**6}]
)
async def test_whatever_the_client_says_is_ignored(said: dict[str, object]) -> None:
    server, client = await opened()
    client.say(**said)
    server.source.give("a")
    assert await client.text() == "a"
    client.say(**said)
    server.source.give("b")
    assert await client.text() == "b"


async def test_texts_that_the_client_says_are_heard_in_order_and_one_at_a_time() -> None:
    heard: list[str] = []
    may_go_on = asyncio.Event()

    async def hear(text: str) -> None:
        heard.append(text)
        await may_go_on.wait()

    _, client = await opened(hear=hear)
    client.say(bytes=b"not a text")
    for each in "abc":
        client.say(text=each)
    await settled()
    assert heard == ["a"]
    may_go_on.set()
    await settled()
    assert heard == ["a", "b", "c"]


async def test_hearing_that_breaks_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    async def hear(_: str) -> None:
        raise ZeroDivisionError

    _, client = await opened(hear=hear)
    client.say(text="a")
    assert await client.rest() == ([], 1011)
    assert "hearing a socket's client broke" in caplog.text


async def test_a_replaced_socket_is_closed_with_1008() -> None:
    server, client = await opened()
    server.source.give("a")
    assert await client.text() == "a"
    server.source.give(Replaced())
    assert await client.rest() == ([], 1008)
    assert server.source.closed


async def test_a_client_that_leaves_is_told_nothing_and_leaves_nothing_behind() -> None:
    server, client = await opened()
    server.source.give("a")
    assert await client.text() == "a"
    client.hang_up()
    await asyncio.wait_for(client.task, 1)
    assert (server.source.closed, client.unread) == (True, 0)


async def test_a_client_that_leaves_while_a_text_waits_for_room_leaves_nothing_behind_either() -> None:
    server, client = await opened()
    client.hold()
    server.source.give(*"abcde")
    await settled()
    client.hang_up()
    await asyncio.wait_for(client.task, 0.5)
    assert server.source.closed


async def test_a_drain_closes_with_1012_whatever_waits() -> None:
    server, client = await opened()
    client.hold()
    server.source.give("a", "b")
    await settled()
    server.draining.set()
    assert await client.rest() == ([], 1012)


@pytest.mark.parametrize(("error", "code"), [(JournalUnavailable("x"), 1013), (ZeroDivisionError("secret"), 1011)])
async def test_a_source_that_fails_closes_with_a_code_that_brings_the_client_back(error: Exception, code: int) -> None:
    server, client = await opened()
    server.source.give("a")
    assert await client.text() == "a"
    server.source.give(error)
    assert await client.rest() == ([], code)


def test_a_reader_that_takes_nothing_is_cut_off_once_the_buffer_is_full_and_patience_is_over() -> None:
    async def story() -> tuple[float, int]:
        server, client = await opened()
        client.hold()
        server.source.give(*"abcd")
        await asyncio.sleep(10)
        assert (client.unread, client.task.done()) == (0, False)
        at_s = asyncio.get_running_loop().time()
        server.source.give("e")
        _, code = await client.rest()
        return asyncio.get_running_loop().time() - at_s, code

    seconds, code = virtually(story())
    assert (round(seconds), code) == (1, 1013)


def test_a_slow_reader_that_takes_something_gets_everything() -> None:
    async def story() -> tuple[list[str], int]:
        server, client = await opened()
        client.hold()
        server.source.give(*map(str, range(20)), None)
        for _ in range(40):
            client.read_on()
            await settled_once()
            client.hold()
            await asyncio.sleep(0.5)
        client.read_on()
        return await client.rest()

    async def settled_once() -> None:
        await asyncio.sleep(0)

    assert virtually(story()) == ([str(each) for each in range(20)], 1000)


async def test_a_burst_is_no_overflow_for_a_reader_that_keeps_up() -> None:
    server, client = await opened(KEEP_ALL)
    many = [str(each) for each in range(3 * KEEP_ALL.capacity)]
    server.source.give(*many, None)
    assert await client.rest() == (many, 1000)


async def test_where_the_newest_matter_a_slow_reader_misses_the_oldest() -> None:
    server, client = await opened(SMALL_NEWEST)
    client.hold()
    server.source.give(*"abcdefgh", None)
    await settled()
    await settled()
    client.read_on()
    texts, code = await client.rest()
    # the first one was on its way when the client stopped reading
    assert (texts, code) == (["a", "f", "g", "h"], 1000)


def test_a_client_that_does_not_take_the_close_frame_either_is_left() -> None:
    async def story() -> float:
        server, client = await opened()
        client.hold("websocket.send", "websocket.close")
        server.draining.set()
        await client.task
        return asyncio.get_running_loop().time()

    assert round(virtually(story())) == 5


async def test_a_cancelled_handler_leaves_nothing_behind() -> None:
    server, client = await opened()
    server.source.give("a")
    assert await client.text() == "a"
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    assert server.source.closed


async def test_who_is_turned_away_learns_why(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(socket: WebSocket) -> None:
        await turn_away(socket, Happening.FAILED)

    client = await dial(Router([WebSocketRoute("/", refuse)]), "/").accepted()
    with pytest.raises(Closed) as closed, caplog.at_level(logging.ERROR):
        await client.text()
    assert closed.value.code == 1013
