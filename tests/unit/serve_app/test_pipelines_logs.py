"""Following the log of a CI job: framing, resuming, silence, the end, and a drain (contracts/pipelines.md 2)."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from tests.asgi_stream import OpenResponse, opened
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_pipelines import FakePipelines

DONE = {"result": {"success": True}}


def line(message: str) -> dict[str, str]:
    return {"timestamp": "2026-01-02T03:04:05.123456789Z", "level": "Info", "message": message}


@pytest.fixture
def client(anybody: httpx.AsyncClient) -> httpx.AsyncClient:
    return anybody


@pytest.fixture
async def job_id(client: httpx.AsyncClient) -> str:
    """A job that is running."""
    pipeline = (await client.post("/api/pipeline/create", json={"script": "return {}"})).json()
    job = (await client.post("/api/pipeline/launch", json={"pipeline_id": pipeline["id"]})).json()
    await client.post(f"/api/jobs/{job['id']}/claim", json={"runner_id": "r1"})
    return str(job["id"])


async def write(client: httpx.AsyncClient, job_id: str, *messages: str) -> None:
    response = await client.post(f"/api/jobs/{job_id}/logs", json=[line(each) for each in messages])
    assert response.status_code == 201


async def end(client: httpx.AsyncClient, job_id: str) -> None:
    assert (await client.post(f"/api/jobs/{job_id}/complete", json=DONE)).status_code == 204


def follow(
    client: httpx.AsyncClient, job_id: str, last: str | None = None
) -> AbstractAsyncContextManager[OpenResponse]:
    """An open stream of the job's log."""
    app: Any = client._transport.app  # type: ignore[attr-defined] # an ASGITransport
    return opened(app, f"/api/jobs/{job_id}/logs/stream", None if last is None else {"Last-Event-ID": last})


async def test_lines_come_as_they_are_written_and_the_end_last(
    client: httpx.AsyncClient, pipelines: FakePipelines, job_id: str
) -> None:
    await write(client, job_id, "a", "b")
    async with follow(client, job_id) as stream:
        assert await stream.block() == "retry: 1000"
        data = '{"timestamp":"2026-01-02T03:04:05.123456789Z","level":"Info","message":"a"}'
        assert await stream.block() == f"id: 1\nevent: log\ndata: {data}"
        assert await stream.event() == ("2", "log", line("b"))
        await write(client, job_id, "c")
        assert await stream.event() == ("3", "log", line("c"))
        await pipelines.silence(job_id)
        assert await stream.block() == ": keep-alive 1767323045678"
        assert await stream.silent()
        await end(client, job_id)
        assert await stream.block() == 'event: end\ndata: {"status":"Succeeded"}'
        assert await stream.silent()
        assert stream.ended
    assert pipelines.readers(job_id) == 0


async def test_a_stream_has_the_usual_headers(client: httpx.AsyncClient, job_id: str) -> None:
    async with follow(client, job_id) as stream:
        await stream.block()
        expected = {
            "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no",
        }  # fmt: skip
        assert (stream.status, stream.headers | expected) == (200, stream.headers)
        assert "content-length" not in stream.headers


@pytest.mark.parametrize(("last", "first"), [("1", "2"), ("01", "2"), ("0", "1"), ("x", "1"), ("", "1"), ("-1", "1")])
async def test_a_stream_goes_on_after_the_last_id(
    client: httpx.AsyncClient, job_id: str, last: str, first: str
) -> None:
    await write(client, job_id, "a", "b")
    async with follow(client, job_id, last) as stream:
        await stream.block()
        assert (await stream.event())[0] == first


async def test_after_the_end_there_is_nothing_to_come_back_for(client: httpx.AsyncClient, job_id: str) -> None:
    await write(client, job_id, "a", "b")
    await end(client, job_id)
    for last in ("2", "7", "9" * 40):
        response = await client.get(f"/api/jobs/{job_id}/logs/stream", headers={"Last-Event-ID": last})
        assert (response.status_code, response.content) == (204, b"")
    rest = await client.get(f"/api/jobs/{job_id}/logs/stream", headers={"Last-Event-ID": "1"})
    assert rest.text.split("\n\n")[1:3] == [
        'id: 2\nevent: log\ndata: {"timestamp":"2026-01-02T03:04:05.123456789Z","level":"Info","message":"b"}',
        'event: end\ndata: {"status":"Succeeded"}',
    ]


async def test_who_hangs_up_reads_no_more(client: httpx.AsyncClient, pipelines: FakePipelines, job_id: str) -> None:
    async with follow(client, job_id) as stream:
        await stream.block()
        await stream.silent()
        assert pipelines.readers(job_id) == 1
        stream.hang_up()
    assert pipelines.readers(job_id) == 0


async def test_a_drain_ends_streams_in_good_order(pipelines: FakePipelines, tmp_path: Path) -> None:
    draining = asyncio.Event()
    options = ServerOptions(home=str(tmp_path))
    app = build_app(FakeGateway(), Tokens(()), options, FakeClock(), pipelines=pipelines, draining=draining)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        pipeline = (await client.post("/api/pipeline/create", json={"script": "return {}"})).json()
        job = (await client.post("/api/pipeline/launch", json={"pipeline_id": pipeline["id"]})).json()
        async with follow(client, job["id"]) as stream:
            await stream.block()
            draining.set()
            await stream.silent()
            assert stream.ended
