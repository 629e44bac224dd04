"""Live events of the instances surface: server-sent, and over its two WebSockets (contracts/instances.md 4)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import websockets
from starlette.types import ASGIApp, Message
from websockets.asyncio.client import connect as connect_socket

from orchestrator.errors import JournalUnavailable
from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from tests.asgi_server import listening
from tests.asgi_sockets import Refused, dial, talk
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_instances import FakeInstances
from tests.unit.serve_app.conftest import GRANTS, TOKENS, X
from tests.virtual_time import virtually

NOW = "2026-01-02T03:04:05.678000Z"
ONE = f"/api/orchestrators/{X}"
TOOL = {"tool_id": "t-1", "tool_name": "echo"}
DONE = {**TOOL, "duration": 0.012, "duration_ms": 12, "success": True}

Serve = Callable[..., ASGIApp]


@pytest.fixture
def serve(instances: FakeInstances, tmp_path: Path) -> Serve:
    """The application with these options."""

    def build(**options: Any) -> ASGIApp:
        given = ServerOptions(home=str(tmp_path), **options)
        return build_app(FakeGateway(), Tokens(GRANTS), given, FakeClock(), instances=instances)

    return build


@pytest.fixture
async def app(serve: Serve, instances: FakeInstances) -> ASGIApp:
    """The application, once an instance works on the plan."""
    app = serve()
    await begin(app)
    return app


async def begin(app: ASGIApp) -> None:
    async with caller(app) as client:
        headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
        assert (await client.post("/api/orchestrators", json={"plan": "demo"}, headers=headers)).status_code == 201


def caller(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


@contextlib.asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """The application lives as long as the block."""
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, said.get, heard.put))
    said.put_nowait({"type": "lifespan.startup"})
    assert (await heard.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        said.put_nowait({"type": "lifespan.shutdown"})
        await living


# -- server-sent events


def frames_of(text: str) -> list[dict[str, str]]:
    """Fields of each frame; a comment is a frame with the key ""."""
    blocks = [block for block in text.split("\n\n") if block]
    return [
        dict(line.split(": ", 1) if line[0] != ":" else ("", line) for line in block.split("\n")) for block in blocks
    ]


async def follow(app: ASGIApp, path: str = f"{ONE}/events-sse", **headers: str) -> list[dict[str, str]]:
    """Everything of an event stream that ends, after its `retry:`."""
    async with caller(app) as client:
        response = await client.get(path, headers=headers)
    first, *rest = frames_of(response.text)
    assert first == {"retry": "1000"}
    return rest


async def worked(instances: FakeInstances) -> None:
    """Three events and the end: seq 1 to 4."""
    await instances.move(X, "1.1", "in_progress")
    await instances.move(X, "1.1", "completed")
    await instances.emit(X, "phase_changed", old_phase="Phase 1: Setup", new_phase=None)
    await instances.stop(X)


async def test_a_stream_has_the_contracts_headers(app: ASGIApp, instances: FakeInstances) -> None:
    await worked(instances)
    async with caller(app) as client:
        response = await client.get(f"{ONE}/events-sse")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["connection"] == "keep-alive"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers


async def test_an_unknown_instance_has_no_stream(app: ASGIApp) -> None:
    async with caller(app) as client:
        response = await client.get("/api/orchestrators/orch-9/events-sse")
    assert (response.status_code, response.json()) == (404, {"detail": "Orchestrator 'orch-9' not found"})


async def test_a_fresh_stream_begins_with_a_snapshot_that_has_the_latest_id(
    app: ASGIApp, instances: FakeInstances
) -> None:
    following = asyncio.create_task(follow(app))
    await asyncio.sleep(0.01)
    await worked(instances)
    first, *rest = await following
    snapshot = orjson.loads(first["data"])
    assert (first["id"], first["event"]) == ("0", "initial_status")
    assert {**snapshot, "data": ...} == {
        "type": "initial_status",
        "timestamp": NOW,
        "instance_id": X,
        "data": ...,
    }
    assert (snapshot["data"]["instance_id"], snapshot["data"]["status"]) == (X, "running")
    assert [each["id"] for each in rest] == ["1", "2", "3", "4"]
    assert rest[1]["data"] == (
        f'{{"type":"task_changed","timestamp":"{NOW}","instance_id":"{X}","seq":2,"data":{{"task_id":"1.1",'
        '"old_status":"in_progress","new_status":"completed","description":"Create the folder",'
        '"phase":"Phase 1: Setup"}}'
    )
    assert orjson.loads(rest[-1]["data"])["data"] == {"old_state": "running", "new_state": "stopped"}
    again = await follow(app)
    assert [each["id"] for each in again] == ["4"]


@pytest.mark.parametrize(("last", "query", "ids"), [
    ("2", "", ["3", "4"]), ("", "?since=2", ["3", "4"]), ("3", "?since=1", ["4"]), ("4", "", []),
    ("0", "", ["1", "2", "3", "4"]), ("", "?since=0", ["1", "2", "3", "4"]),
])  # fmt: skip
async def test_a_resumed_stream_goes_on_after_the_last_id_and_its_snapshot_has_none(
    app: ASGIApp, instances: FakeInstances, last: str, query: str, ids: list[str]
) -> None:
    await worked(instances)
    headers = {"Last-Event-ID": last} if last else {}
    first, *rest = await follow(app, f"{ONE}/events-sse{query}", **headers)
    assert ("id" in first, first["event"]) == (False, "initial_status")
    assert [each["id"] for each in rest] == ids


@pytest.mark.parametrize("last", ["x", "-1", "1.0", "5", "9" * 30])
async def test_an_id_that_is_none_or_lies_ahead_is_ignored(app: ASGIApp, instances: FakeInstances, last: str) -> None:
    await worked(instances)
    (first,) = await follow(app, **{"Last-Event-ID": last})
    assert first["id"] == "4"


def test_silence_is_filled_with_comments_and_pings_of_our_own(serve: Serve, instances: FakeInstances) -> None:
    async def story() -> list[dict[str, str]]:
        app = serve()
        await begin(app)
        following = asyncio.create_task(follow(app))
        for _ in range(10):
            await asyncio.sleep(6.2)
            await instances.silence(X)
        await instances.stop(X)
        return await following

    _, *rest = virtually(story())
    comment, ping = {"": ": keep-alive"}, {"event": "ping", "data": f'{{"type":"ping","timestamp":"{NOW}"}}'}
    assert rest[:-1] == [comment, ping, comment, ping]
    assert rest[-1]["id"] == "1"


async def test_a_drain_ends_streams(app: ASGIApp) -> None:
    async with lifespan(app):
        following = asyncio.create_task(follow(app))
        await asyncio.sleep(0.01)
        assert not following.done()
    (first,) = await asyncio.wait_for(following, 1)
    assert first["event"] == "initial_status"


# -- the socket of all events


async def test_the_first_frame_is_the_snapshot_and_then_come_events(app: ASGIApp, instances: FakeInstances) -> None:
    client = await talk(app, f"{ONE}/events")
    first = await client.frame()
    assert (first["type"], first["instance_id"], first["data"]["instance_id"]) == ("initial_status", X, X)
    assert set(first) == {"type", "timestamp", "instance_id", "data"}
    await instances.move(X, "1.1", "in_progress")
    assert await client.frame() == {
        "type": "task_changed",
        "timestamp": NOW,
        "instance_id": X,
        "seq": 1,
        "data": {
            "task_id": "1.1",
            "old_status": "pending",
            "new_status": "in_progress",
            "description": "Create the folder",
            "phase": "Phase 1: Setup",
        },
    }


async def test_the_end_of_an_instance_is_its_last_frame_and_then_1000(app: ASGIApp, instances: FakeInstances) -> None:
    client = await talk(app, f"{ONE}/events")
    await worked(instances)
    texts, code = await client.rest()
    assert [orjson.loads(each).get("seq") for each in texts] == [None, 1, 2, 3, 4]
    assert orjson.loads(texts[-1])["type"] == "orchestrator_state"
    assert code == 1000
    assert [len((await (await talk(app, f"{ONE}/events")).rest())[0])] == [1]


@pytest.mark.parametrize(("query", "seqs"), [
    ("", []), ("?since=2", [3, 4]), ("?since=0", [1, 2, 3, 4]), ("?since=4", []), ("?since=5", []), ("?since=x", []),
])  # fmt: skip
async def test_a_socket_resumes_after_what_the_client_saw(
    app: ASGIApp, instances: FakeInstances, query: str, seqs: list[int]
) -> None:
    await worked(instances)
    texts, _ = await (await talk(app, f"{ONE}/events{query}")).rest()
    first, *rest = [orjson.loads(each) for each in texts]
    assert first["type"] == "initial_status"
    assert [each["seq"] for each in rest] == seqs


async def test_a_long_replay_is_no_overflow(app: ASGIApp, instances: FakeInstances) -> None:
    for number in range(1200):
        await instances.emit(X, "status_updated", number=number)
    client = await talk(app, f"{ONE}/events?since=0")
    await instances.stop(X)
    texts, code = await client.rest()
    assert [orjson.loads(each)["seq"] for each in texts[1:]] == list(range(201, 1202))
    assert code == 1000


@pytest.mark.parametrize("kind", ["events", "activity"])
def test_an_idle_socket_pings_every_30_s(serve: Serve, kind: str) -> None:
    async def story() -> list[tuple[str, int]]:
        app = serve()
        await begin(app)
        client = await talk(app, f"{ONE}/{kind}")
        await client.text()
        client.say(text="not json")
        return [(await client.text(), round(asyncio.get_running_loop().time())) for _ in "ab"]

    ping = f'{{"type":"ping","timestamp":"{NOW}"}}'
    assert virtually(story()) == [(ping, 30), (ping, 60)]


async def test_a_drain_closes_sockets_with_1012(app: ASGIApp) -> None:
    async with lifespan(app):
        clients = [await talk(app, f"{ONE}/{kind}") for kind in ("events", "activity")]
        for client in clients:
            await client.text()
    assert [await client.rest() for client in clients] == [([], 1012)] * 2


@pytest.mark.parametrize("kind", ["events", "activity"])
async def test_who_leaves_reads_no_more(app: ASGIApp, instances: FakeInstances, kind: str) -> None:
    client = await talk(app, f"{ONE}/{kind}")
    await client.text()
    await instances.emit(X, "tool_completed", **DONE)
    await client.text()
    assert instances.readers(X) == 1
    client.hang_up()
    await client.task
    assert instances.readers(X) == 0


# -- the socket of tool calls


async def test_tool_calls_are_flat_and_alone(app: ASGIApp, instances: FakeInstances) -> None:
    client = await talk(app, f"{ONE}/activity")
    assert await client.frame() == {
        "type": "connected",
        "timestamp": NOW,
        "instance_id": X,
        "message": "Activity stream connected",
    }
    await instances.move(X, "1.1", "in_progress")
    await instances.emit(X, "tool_started", **TOOL, input_summary={"task_id": "1.1"})
    await instances.emit(X, "tool_completed", **DONE)
    await instances.stop(X)
    head = {"timestamp": NOW, "instance_id": X, "tool_name": "echo", "tool_id": "t-1"}
    assert await client.frames(2) == [
        {"type": "tool_started", **head, "input_summary": {"task_id": "1.1"}},
        {
            "type": "tool_completed",
            **head,
            "input_summary": None,
            "duration": 0.012,
            "duration_ms": 12,
            "success": True,
        },
    ]
    assert await client.rest() == ([], 1000)


async def test_of_too_many_tool_calls_a_slow_reader_gets_the_last_hundred(
    app: ASGIApp, instances: FakeInstances
) -> None:
    client = await talk(app, f"{ONE}/activity")
    await client.text()
    client.hold()
    for number in range(300):
        await instances.emit(X, "tool_completed", **{**DONE, "tool_id": str(number)})
    await instances.stop(X)
    await asyncio.sleep(0.1)
    client.read_on()
    texts, code = await client.rest()
    ids = [orjson.loads(each)["tool_id"] for each in texts]
    # the first one was on its way when the client stopped reading
    assert (ids, code) == (["0", *map(str, range(200, 300))], 1000)


# -- who may open a socket

PATHS = [f"{ONE}/events", f"{ONE}/activity"]


@pytest.mark.parametrize("path", [
    "/api/orchestrators/nope/events", "/api/orchestrators/orch-9/events", "/api/orchestrators/orch-9/activity",
    f"{ONE}/events-sse", f"{ONE}/nope", ONE, "/api/v1/runtime/orchestrator/runs", "/nope", "/",
])  # fmt: skip
async def test_what_has_no_socket_refuses_the_handshake(app: ASGIApp, path: str) -> None:
    with pytest.raises(Refused):
        await talk(app, path)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"x:{password}".encode()).decode()


@pytest.mark.parametrize("path", PATHS)
async def test_off_loopback_a_socket_wants_a_token_of_scope_client(
    serve: Serve, instances: FakeInstances, path: str
) -> None:
    app = serve(host="0.0.0.0")
    await begin(app)
    refused: list[tuple[str, dict[str, str]]] = [
        ("", {}),
        ("?api_key=wrong", {}),
        (f"?api_key={TOKENS['worker']}", {}),
        (f"?api_key={TOKENS['other']}", {}),
        (f"?api_key={TOKENS['client']}", {"authorization": "Bearer wrong"}),
    ]
    for query, headers in refused:
        with pytest.raises(Refused):
            await talk(app, path + query, **headers)
    accepted: list[tuple[str, dict[str, str]]] = [
        (f"?api_key={TOKENS['client']}", {}),
        ("", {"authorization": f"Bearer {TOKENS['client']}"}),
        ("", {"x_api_key": TOKENS["client"]}),
        ("", {"authorization": basic(TOKENS["client"])}),
    ]
    for query, headers in accepted:
        assert await (await talk(app, path + query, **headers)).text()


@pytest.mark.parametrize(("named", "origin", "host", "welcome"), [
    ((), "http://localhost:3000", "localhost:8000", True), ((), "https://evil.example", "localhost:8000", False),
    ((), "http://localhost.evil.example", "localhost:8000", False), ((), "null", "localhost:8000", False),
    (("https://app.example",), "https://app.example", "localhost:8000", True),
    (("https://app.example",), "http://localhost:3000", "localhost:8000", False),
    (("https://app.example",), "http://localhost:8000", "localhost:8000", True),
    (("*",), "https://evil.example", "localhost:8000", True),
    # a name that was made to lead here: its page is at home, but nobody we know
    ((), "http://evil.example:8000", "evil.example:8000", False),
])  # fmt: skip
async def test_a_foreign_page_opens_no_socket(
    serve: Serve, named: tuple[str, ...], origin: str, host: str, welcome: bool
) -> None:
    app = serve(cors_origins=named)
    await begin(app)
    for path in PATHS:
        client = dial(app, path, origin=origin, host=host)
        if welcome:
            await client.accepted()
        else:
            with pytest.raises(Refused):
                await client.accepted()


@pytest.mark.parametrize(("error", "code"), [(JournalUnavailable("x"), 1013), (ZeroDivisionError(), 1011)])
async def test_an_outage_is_no_unknown_instance(
    app: ASGIApp, instances: FakeInstances, error: Exception, code: int
) -> None:
    instances.broken = error
    for path in PATHS:
        assert await (await talk(app, path)).rest() == ([], code)


# -- on the wire


async def test_on_the_wire_a_refused_handshake_is_http_403(app: ASGIApp) -> None:
    async with listening(app) as address:
        for path in ("/api/orchestrators/nope/events", f"{ONE}/nope", "/nope"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect_socket(f"ws://{address}{path}", proxy=None)
            assert refused.value.response.status_code == 403


async def test_on_the_wire_a_socket_tells_events_and_closes(app: ASGIApp, instances: FakeInstances) -> None:
    async with listening(app) as address, connect_socket(f"ws://{address}{ONE}/events", proxy=None) as client:
        assert orjson.loads(await client.recv())["type"] == "initial_status"
        await client.send("not json")
        await client.send(b"\x00\xff")
        await worked(instances)
        frames = [orjson.loads(each) async for each in client]
        assert [each["seq"] for each in frames] == [1, 2, 3, 4]
        assert client.close_code == 1000


async def test_on_the_wire_a_server_that_stops_says_1012(app: ASGIApp) -> None:
    async with listening(app) as address:
        client = await connect_socket(f"ws://{address}{ONE}/events", proxy=None)
        await client.recv()
    with pytest.raises(websockets.ConnectionClosed):
        await client.recv()
    assert client.close_code == 1012
