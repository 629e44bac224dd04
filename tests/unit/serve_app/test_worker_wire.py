"""serve_app.worker_wire: what a worker sends, and how answers and sockets are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from orchestrator.errors import Unavailable
from serve_app.worker_wire import ServerRefused, WorkerWire

Answer = Callable[[httpx.Request], httpx.Response]


def wire(answer: Answer, token: str | None = "secret") -> WorkerWire:
    return WorkerWire("http://x/", token, "w-1", httpx.MockTransport(answer))


async def test_requests_are_those_of_the_contract() -> None:
    seen: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["X-Worker-Token"] == "secret"
        assert request.headers["X-Worker-ID"] == "w-1"
        body = request.read()
        seen.append((request.method, request.url.raw_path.decode(), json.loads(body) if body else None))
        return httpx.Response(200, json={"status": "ok"})

    server = wire(answer)
    await server.register({"worker_id": "w-1"})
    assert await server.heartbeat({"load": 0.5}) == {"status": "ok"}
    assert await server.result({"task_id": "t"}) == {"status": "ok"}
    await server.progress("j", "t", 0.5, "half")
    assert seen == [
        ("POST", "/_worker/workers/register", {"worker_id": "w-1"}),
        ("PATCH", "/_worker/workers/w-1", {"load": 0.5}),
        ("POST", "/_worker/tasks/result", {"task_id": "t"}),
        (
            "POST",
            "/_worker/events",
            {
                "event_type": "progress",
                "payload": {"progress": 0.5, "message": "half"},
                "target_job_id": "j",
                "target_task_id": "t",
            },
        ),
    ]


async def test_a_poll_gets_a_task_or_none() -> None:
    task = {"job_id": "j", "task_id": "t", "type": "a", "params": {}}
    answers = [httpx.Response(204), httpx.Response(200, json=task)]
    server = wire(lambda _: answers.pop(0))
    assert await server.next_task(["a", "b"]) is None
    assert await server.next_task(["a", "b"]) == task


@pytest.mark.parametrize("body", [b"", b"[]", b'{"job_id": "j"}'])
async def test_a_task_that_is_not_understood_is_an_error(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not understood"):
        await wire(lambda _: httpx.Response(200, content=body)).next_task([])


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_what_will_be_refused_again_is_refused(status: int) -> None:
    with pytest.raises(ServerRefused, match=f"POST /_worker/tasks/result: {status} no") as refused:
        await wire(lambda _: httpx.Response(status, text="no")).result({})
    assert refused.value.status == status


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_what_may_be_put_right_is_unavailable(status: int) -> None:
    with pytest.raises(Unavailable, match=str(status)):
        await wire(lambda _: httpx.Response(status)).result({})


async def test_commands_come_over_the_socket_of_the_worker() -> None:
    paths: list[tuple[str, str | None]] = []

    async def speak(socket: ServerConnection) -> None:
        assert socket.request is not None
        paths.append((socket.request.path, socket.request.headers.get("X-Worker-Token")))
        for message in ('{"command": "cancel_task", "task_id": "t"}', "no JSON", "[]", b'{"type": "x"}'):
            await socket.send(message)

    async with serve(speak, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        told = [each async for each in WorkerWire(f"http://127.0.0.1:{port}", "secret", "w-1").commands()]
    assert told == [{"command": "cancel_task", "task_id": "t"}, {"type": "x"}]
    assert paths == [("/_worker/ws/w-1", "secret")]


async def test_a_socket_that_is_refused_is_unavailable() -> None:
    def refuse(socket: ServerConnection, _request: Request) -> Response:
        return socket.respond(HTTPStatus.UNAUTHORIZED, "no")

    async def speak(socket: ServerConnection) -> None: ...

    async with serve(speak, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(Unavailable, match="401"):
            await anext(WorkerWire(f"http://127.0.0.1:{port}", "wrong", "w-1").commands())
    with pytest.raises(Unavailable):
        await anext(WorkerWire(f"http://127.0.0.1:{port}", "wrong", "w-1").commands())
