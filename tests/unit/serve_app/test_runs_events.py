"""Streams of the runs surface over runs in memory: framing, replay, resume, life and limits (contracts/runs.md, 4)."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import msgspec
import pytest

from orchestrator import errors
from orchestrator.views import Frame
from serve_app.surfaces.runs import parse, words
from serve_app.surfaces.runs.handlers import STREAMS_MAX
from tests.asgi_stream import OpenResponse, opened
from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_requests import KEY, KEYED, SCHEMAS, UNKNOWN, create, is_error, listed
from tests.unit.serve_app.conftest import TOKENS, Connect

Headers = dict[str, str]


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token."""
    return connect(None)


def follow(
    client: httpx.AsyncClient, run_id: str, query: str = "", headers: Headers | None = None
) -> AbstractAsyncContextManager[OpenResponse]:
    """An open stream of the run."""
    app: Any = client._transport.app  # type: ignore[attr-defined] # an ASGITransport
    return opened(app, f"/runs/{run_id}/events{query}", headers)


async def post(client: httpx.AsyncClient, run_id: str, kind: str, data: Any = None) -> None:
    response = await client.post(f"/runs/{run_id}/checkpoints", json={"type": kind, "data": data})
    assert response.status_code == 201


async def run_with(client: httpx.AsyncClient, count: int) -> tuple[str, list[dict[str, Any]]]:
    """A run with `count` checkpoints, and these."""
    run_id = await create(client)
    for number in range(count - 1):
        await post(client, run_id, f"t{number}")
    return run_id, await listed(client, run_id)


# -- framing (example 9)


async def test_a_stream_says_hello_then_checkpoints_then_what_happens_and_stays_open(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns
) -> None:
    run_id, (started,) = await run_with(client, 1)
    async with follow(client, run_id) as stream:
        assert await stream.block() == f'event: hello\ndata: {{"runId":"{run_id}"}}'
        ts = started["ts"]
        text = f'{{"id":"{started["id"]}","runId":"{run_id}","ts":"{ts}","type":"started"}}'
        assert await stream.block() == f"id: {ts}\nevent: checkpoint\ndata: {text}"
        await post(client, run_id, "step", {"n": [1]})
        mark, name, step = await stream.event()
        assert (mark, name, step["type"], step["data"]) == (step["ts"], "checkpoint", "step", {"n": [1]})
        await client.delete(f"/runs/{run_id}")
        assert await stream.block() == f'event: status\ndata: {{"runId":"{run_id}","status":"canceled"}}'
        assert (await stream.event())[2]["type"] == "canceled"
        live_runs.keep_silence(run_id)
        assert await stream.block() == ": keep-alive 1767323045678"
        await post(client, run_id, "late")
        assert (await stream.event())[2]["type"] == "late"
        assert await stream.silent()
        assert not stream.ended


async def test_a_stream_has_the_contracts_headers(client: httpx.AsyncClient) -> None:
    run_id, _ = await run_with(client, 1)
    async with follow(client, run_id, headers={"X-Request-Id": "r-7", "Accept-Encoding": "gzip"}) as stream:
        await stream.block()
        expected = {
            "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "connection": "keep-alive",
            "x-accel-buffering": "no", "x-request-id": "r-7",
        }  # fmt: skip
        assert (stream.status, stream.headers | expected) == (200, stream.headers)
        assert not {"content-length", "content-encoding"} & set(stream.headers)


async def test_every_event_keeps_to_the_published_schema(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    live_runs.held = True
    run_id = await create(client)
    async with follow(client, run_id) as stream:
        hello = await stream.event()
        for state in ("running", "paused", "succeeded"):
            live_runs.settle(run_id, state)
        events = [hello, *await stream.events(5)]
        for _, name, data in events:
            SCHEMAS.check("event", {"type": name, "data": data})
        told = [data.get("status", data.get("type", "hello")) for _, _, data in events]
        assert told == ["hello", "running", "started", "running", "completed", "completed"]
        assert [mark is not None for mark, _, _ in events] == [name == "checkpoint" for _, name, _ in events]


@pytest.mark.parametrize("data", ['{"n":12345678901234567890123}', '"a\\nb"', "1.0", "null"])
async def test_data_streams_as_it_was_posted_on_one_line(client: httpx.AsyncClient, data: str) -> None:
    run_id, _ = await run_with(client, 1)
    body = f'{{\n "type": "x",\n "data": \n{data}\n}}'.encode()
    await client.post(f"/runs/{run_id}/checkpoints", content=body)
    async with follow(client, run_id, "?replay=1") as stream:
        await stream.block()
        assert (await stream.block()).endswith(f'"type":"x","data":{data}}}')


def test_a_frame_may_bring_its_time_as_text_and_its_data_as_a_value() -> None:
    told = {"id": "EGKj8m", "runId": "r", "ts": "2026-01-02T03:04:05.678Z", "type": "x", "data": {"n": 2**70}, "seq": 3}
    text = words.event(Frame(None, "checkpoint", told)).decode()
    assert text.startswith("id: 2026-01-02T03:04:05.678Z\n")
    assert text.endswith('"type":"x","data":{"n":1180591620717411303424}}\n\n')
    without = words.event(Frame(None, "checkpoint", {**told, "data": msgspec.Raw(b"")})).decode()
    assert without.endswith('"type":"x"}\n\n')


async def test_status_is_never_replayed(client: httpx.AsyncClient) -> None:
    run_id, _ = await run_with(client, 1)
    await client.delete(f"/runs/{run_id}")
    async with follow(client, run_id) as stream:
        assert [name for _, name, _ in await stream.events(3)] == ["hello", "checkpoint", "checkpoint"]
        assert await stream.silent()
        assert not stream.ended


# -- replay


@pytest.mark.parametrize(("query", "count"), [
    ("", 10), ("?replay=0", 0), ("?replay=3", 3), ("?replay=abc", 10), ("?replay=-5", 0), ("?replay=250", 12),
    ("?replay=0x10", 0), ("?replay=2.9", 2), ("?replay=", 10),
])  # fmt: skip
async def test_a_fresh_stream_starts_with_the_last_checkpoints(
    client: httpx.AsyncClient, query: str, count: int
) -> None:
    run_id, every = await run_with(client, 12)
    async with follow(client, run_id, query) as stream:
        events = await stream.events(1 + count)
        assert [data for _, _, data in events[1:]] == every[12 - count :]
        assert await stream.silent()


@pytest.mark.parametrize(("text", "count"), [
    (None, 10), ("", 10), ("7", 7), ("+7", 7), (" 7", 7), ("\t 7 x", 7), ("7px", 7), ("1e3", 1), ("007", 7), ("000", 0),
    ("-1", 0), ("-abc", 10), ("--1", 10), ("abc", 10), (".5", 10), ("100", 100), ("101", 100), ("9" * 5000, 100),
    ("-" + "9" * 5000, 0), ("0" * 5000 + "5", 5), ("٣", 10), ("Infinity", 10), ("0x10", 0),
])  # fmt: skip
def test_replay_is_read_like_parse_int_and_clamped(text: str | None, count: int) -> None:
    assert parse.replay(text) == count


# -- resume (example 10)


@pytest.mark.parametrize("query", ["", "?replay=1", "?lastEventId=2026-01-02T03:04:05.678Z"])
async def test_a_stream_resumes_after_the_last_id_whatever_the_replay(client: httpx.AsyncClient, query: str) -> None:
    run_id, every = await run_with(client, 30)
    async with follow(client, run_id, query, {"Last-Event-ID": every[2]["ts"]}) as stream:
        events = await stream.events(28)
        assert events[0] == (None, "hello", {"runId": run_id})
        assert [data for _, _, data in events[1:]] == every[3:]
        assert await stream.silent()
        await post(client, run_id, "next")
        assert (await stream.event())[2]["type"] == "next"


async def test_who_cannot_set_the_header_resumes_by_the_query(client: httpx.AsyncClient) -> None:
    run_id, every = await run_with(client, 12)
    async with follow(client, run_id, f"?replay=1&lastEventId={every[9]['ts']}") as stream:
        assert [data for _, _, data in (await stream.events(3))[1:]] == every[10:]
        assert await stream.silent()


@pytest.mark.parametrize("header", ["x", "", "7", "2026-01-02", "2026-01-02T03:04:05", "2026-02-30T03:04:05Z"])
async def test_an_id_that_is_no_instant_counts_as_absent(client: httpx.AsyncClient, header: str) -> None:
    run_id, every = await run_with(client, 12)
    async with follow(client, run_id, "?replay=1", {"Last-Event-ID": header}) as stream:
        assert [data for _, _, data in (await stream.events(2))[1:]] == every[11:]
        assert await stream.silent()


@pytest.mark.parametrize(("text", "seen"), [
    ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678000+00:00"),
    ("2026-01-02t03:04:05z", "2026-01-02T03:04:05+00:00"),
    ("2026-01-02T05:04:05.1+02:00", "2026-01-02T03:04:05.100000+00:00"),
    ("2026-01-02T03:04:05.123456789-00:30", "2026-01-02T03:34:05.123456+00:00"),
    ("2026-01-02 03:04:05Z", None), ("20260102T030405Z", None), ("2026-01-02T03:04Z", None),
    ("2026-01-02T24:00:01Z", None),
    ("9999-12-31T23:59:59-01:00", None), ("2026-01-02T03:04:05Zx", None), ("٢026-01-02T03:04:05Z", None),
])  # fmt: skip
def test_an_instant_is_what_rfc_3339_says(text: str, seen: str | None) -> None:
    found = parse.instant(text)
    assert (None if found is None else found.isoformat()) == seen


async def test_a_long_replay_is_no_overflow(client: httpx.AsyncClient) -> None:
    run_id, every = await run_with(client, 700)
    async with follow(client, run_id, headers={"Last-Event-ID": "2026-01-01T00:00:00Z"}) as stream:
        assert [data for _, _, data in (await stream.events(701))[1:]] == every


# -- what has no stream


async def test_an_unknown_or_foreign_run_is_404_without_a_body(client: httpx.AsyncClient, connect: Connect) -> None:
    foreign = await create(connect("other"))
    for run_id in ("nope", UNKNOWN, foreign):
        response = await client.get(f"/runs/{run_id}/events")
        assert (response.status_code, response.content) == (404, b"")
        assert "content-type" not in response.headers


@pytest.mark.parametrize(("query", "headers"), [
    (f"?api_key={KEY}", {}), ("", {"Cookie": f"a=b; orchestrator_api_key={KEY}"}), ("", {"x-api-key": KEY}),
    ("", {"Authorization": f"Bearer {KEY}"}), (f"?api_key={TOKENS['admin']}", {}),
])  # fmt: skip
async def test_a_stream_takes_the_key_where_a_browser_can_put_it(
    connect: Connect, query: str, headers: Headers
) -> None:
    client = connect(None, grants=KEYED)
    run_id = await create(connect("client"))
    async with follow(client, run_id, query, headers) as stream:
        assert (await stream.event())[1] == "hello"
    for wrong in ("?api_key=wrong", f"?api_key={KEY}x", "?api_key=", ""):
        is_error(await client.get(f"/runs/{run_id}/events{wrong}"), 401, "unauthorized")
    header_wins = await client.get(f"/runs/{run_id}/events?api_key={KEY}", headers={"Authorization": "Bearer wrong"})
    is_error(header_wins, 401, "unauthorized")


# -- the life of a stream


async def test_a_stream_is_released_when_its_reader_is_gone(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    run_id, _ = await run_with(client, 1)
    async with follow(client, run_id) as stream:
        await stream.events(2)
        assert live_runs.followers(run_id) == 1
    for _ in range(10):
        await asyncio.sleep(0)
    assert live_runs.followers(run_id) == 0


async def test_a_principal_has_at_most_100_streams(connect: Connect, live_runs: FakeLiveRuns) -> None:
    client, run_id = connect(None), await create(connect(None))
    streams = [follow(client, run_id) for _ in range(STREAMS_MAX)]
    assert STREAMS_MAX == 100
    for each in streams:
        await (await each.__aenter__()).block()
    refused = await client.get(f"/runs/{run_id}/events")
    is_error(refused, 429, "rate_limited")
    assert refused.headers["retry-after"] == "1"
    other = await create(connect("other"))
    async with follow(client, other, headers={"x-api-key": TOKENS["other"]}) as theirs:
        assert (await theirs.event())[1] == "hello"
    await streams.pop().__aexit__(None, None, None)
    async with follow(client, run_id) as again:
        assert (await again.event())[1] == "hello"
    for each in streams:
        await each.__aexit__(None, None, None)


async def test_a_stream_that_does_not_come_about_is_not_counted(connect: Connect, live_runs: FakeLiveRuns) -> None:
    client = connect(None)
    for _ in range(STREAMS_MAX):
        assert (await client.get(f"/runs/{UNKNOWN}/events")).status_code == 404
    live_runs.broken = errors.JournalUnavailable("x")
    for _ in range(STREAMS_MAX):
        is_error(await client.get(f"/runs/{UNKNOWN}/events"), 503, "dependency down")
    live_runs.broken = None
    async with follow(client, await create(client)) as stream:
        assert (await stream.event())[1] == "hello"


async def test_a_stream_counts_as_one_request(connect: Connect) -> None:
    client = connect(None, runs_rate_max=3)
    run_id = await create(client)
    async with follow(client, run_id) as stream:
        await stream.events(2)
        await post(client, run_id, "x")
        await stream.event()
        is_error(await client.get(f"/runs/{run_id}"), 429, "rate_limited")


# -- what is no longer kept


async def test_a_stream_that_is_resumed_too_late_points_to_the_run(connect: Connect, live_runs: FakeLiveRuns) -> None:
    client = connect(None)
    run_id = await create(client)
    live_runs.broken = errors.HistoryGone(run_id, 41)
    for _ in range(STREAMS_MAX + 1):
        response = await client.get(f"/runs/{run_id}/events")
        assert response.json() == {"error": "gone", "details": ["/lastEventId later checkpoints are no longer kept"]}
        assert (response.status_code, response.headers["link"]) == (410, f'</runs/{run_id}>; rel="current"')
