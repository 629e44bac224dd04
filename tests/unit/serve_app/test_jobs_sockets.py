"""The workers' WebSocket over jobs in memory: who may open one, what it carries, how it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from orchestrator import errors, remote
from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from tests.asgi_sockets import Closed, Dialled, Refused, dial, talk
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_jobs import FakeJobs
from tests.jobs_surface import UNKNOWN
from tests.unit.serve_app.conftest import GRANTS, TOKENS

OWN = "own-token-of-worker-a"
CANCEL = {"command": "cancel_task", "type": "cancel_task", "task_id": "t1", "job_id": UNKNOWN}
WORKER = {"x_worker_token": TOKENS["worker"]}


@pytest.fixture
def draining() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def app(jobs: FakeJobs, draining: asyncio.Event, tmp_path: Path) -> ASGIApp:
    options = ServerOptions(home=str(tmp_path))
    return build_app(FakeGateway(), Tokens(GRANTS), options, FakeClock(), jobs=jobs, draining=draining)


@pytest.fixture
def own(jobs: FakeJobs) -> dict[str, str]:
    """Headers of worker `a`, which has a token of its own."""
    jobs.tokens["a"] = hashlib.sha256(OWN.encode()).hexdigest()
    return {"x_worker_token": OWN}


async def refused(app: ASGIApp, path: str, **headers: str) -> tuple[int, Any]:
    """Status and body of a handshake that fails."""
    with pytest.raises(Refused) as failed:
        await dial(app, path, **headers).accepted()
    return failed.value.status, json.loads(failed.value.body or b"null")


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/_worker/ws", "/_worker/ws/w1"])
async def test_a_handshake_without_a_valid_token_is_answered_401(app: ASGIApp, jobs: FakeJobs, path: str) -> None:
    assert await refused(app, path) == (401, {"error": "Missing X-Worker-Token header"})
    no_token_fits = (401, {"error": "Unauthorized: No valid token found"})
    assert await refused(app, path, x_worker_token="zzz") == no_token_fits
    assert await refused(app, path, authorization="Bearer zzz") == no_token_fits
    assert (await refused(app, path, x_worker_token=TOKENS["client"]))[0] == 403
    assert (await refused(app, path, **WORKER, origin="http://evil.com"))[0] == 403
    assert jobs.sockets == []


async def test_a_worker_with_a_token_of_its_own_needs_that_one(app: ASGIApp, own: dict[str, str]) -> None:
    for path, headers in (("/_worker/ws/a", {}), ("/_worker/ws", {"x_worker_id": "a"})):
        error = {"error": "Unauthorized: Invalid individual worker token"}
        assert await refused(app, path, **WORKER, **headers) == (401, error)
        await talk(app, path, **own, **headers)
    assert await refused(app, "/_worker/ws/b", **own) == (401, {"error": "Unauthorized: No valid token found"})
    assert await refused(app, "/_worker/ws/a.b", **WORKER) == (400, {"error": "Invalid worker_id"})


async def test_a_socket_is_a_workers_or_anonymous(app: ASGIApp, jobs: FakeJobs, own: dict[str, str]) -> None:
    await talk(app, "/_worker/ws/w1", **WORKER)
    await talk(app, "/_worker/ws", **WORKER, x_worker_id="w2")
    await talk(app, "/_worker/ws", **own)
    await talk(app, "/_worker/ws", **WORKER)
    await talk(app, "/_worker/ws", authorization=f"Bearer {TOKENS['other']}")
    assert [(each.tenant, each.worker_id) for each in jobs.sockets] == [
        *(("default", name) for name in ("w1", "w2", "a", "")),
        ("other", ""),
    ]


async def test_commands_are_told_as_json(app: ASGIApp, jobs: FakeJobs) -> None:
    client = await talk(app, "/_worker/ws", **WORKER)
    jobs.sockets[0].bodies.put_nowait(CANCEL)
    assert await client.frame() == CANCEL


PROGRESS = {"task_id": "t1", "job_id": UNKNOWN, "progress": 0.5, "message": "half"}
TOLD = remote.Progress("default", "w1", UNKNOWN, "t1", 0.5, "half")


@pytest.mark.parametrize(
    "said",
    [
        {"type": "progress_update", **PROGRESS},
        {"event": "progress_update", **PROGRESS},
        {"event_type": "progress", "payload": {"progress": 0.5, "message": "half"}, "target_job_id": UNKNOWN,
         "target_task_id": "t1", "event_id": "e", "worker_id": "w1"},
    ],
)  # fmt: skip
async def test_progress_is_heard_from_every_generation(app: ASGIApp, jobs: FakeJobs, said: dict[str, Any]) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    client.say(text=json.dumps(said))
    await settled()
    assert jobs.asked == [TOLD]


@pytest.mark.parametrize(("given", "kept"), [(-1, 0.0), (7, 1.0), (1, 1.0), (0.25, 0.25)])
async def test_progress_is_a_share(app: ASGIApp, jobs: FakeJobs, given: float, kept: float) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    client.say(text=json.dumps({"type": "progress_update", **PROGRESS, "progress": given}))
    await settled()
    assert [each.progress for each in jobs.asked if isinstance(each, remote.Progress)] == [kept]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"type": "pong"}', '{"type":"progress_update"}', "\x00",
                                  json.dumps({"type": "progress_update", **PROGRESS, "progress": None})])  # fmt: skip
async def test_anything_else_is_ignored(app: ASGIApp, jobs: FakeJobs, text: str) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    client.say(text=text)
    client.say(bytes=b"\xff")
    client.say(text=json.dumps({"type": "progress_update", **PROGRESS}))
    await settled()
    assert jobs.asked == [TOLD]


async def test_progress_that_cannot_be_kept_is_dropped(app: ASGIApp, jobs: FakeJobs) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    for error in (errors.ActorUnreachable("gateway-0", "x"), errors.NotFound("job", "x"), None):
        jobs.broken = error
        client.say(text=json.dumps({"type": "progress_update", **PROGRESS}))
        await settled()
    assert jobs.asked == [TOLD]


async def closed_with(client: Dialled) -> int:
    with pytest.raises(Closed) as closed:
        await client.text()
    return closed.value.code


async def test_a_replaced_socket_is_closed_with_1008(app: ASGIApp, jobs: FakeJobs) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    jobs.sockets[0].bodies.put_nowait(None)
    assert await closed_with(client) == 1008
    assert jobs.sockets[0].closed


async def test_sockets_are_closed_with_1012_when_the_server_goes(
    app: ASGIApp, jobs: FakeJobs, draining: asyncio.Event
) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    draining.set()
    assert await closed_with(client) == 1012
    assert jobs.sockets[0].closed


async def test_while_the_gateway_is_away_a_socket_is_closed_with_1013(app: ASGIApp, jobs: FakeJobs) -> None:
    jobs.broken = errors.ActorUnreachable("gateway-0", "restarting")
    assert await closed_with(await talk(app, "/_worker/ws", **WORKER)) == 1013


async def test_a_worker_that_hangs_up_in_the_handshake_leaves_nothing_behind(app: ASGIApp, jobs: FakeJobs) -> None:
    client = dial(app, "/_worker/ws/w1", **WORKER)
    client.hold("websocket.accept")
    await settled()
    client.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.task
    assert [each.closed for each in jobs.sockets] == [True]


async def test_a_worker_that_hangs_up_leaves_nothing_behind(app: ASGIApp, jobs: FakeJobs) -> None:
    client = await talk(app, "/_worker/ws/w1", **WORKER)
    client.hang_up()
    await client.task
    assert jobs.sockets[0].closed
