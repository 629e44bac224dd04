"""The access log: what is noted, what is written, and how its file is kept small."""

from __future__ import annotations

import asyncio
import fcntl
import json
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from serve_app import access_log
from serve_app.access_log import AccessLog, Line
from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from tests.asgi_stream import opened
from tests.fakes_gateway import EPOCH, FakeClock, FakeGateway
from tests.fakes_live_runs import FakeLiveRuns

ASKED = Line(EPOCH, "req", "r-1", "GET", "/runs")


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text(path).splitlines()]


class Watched(AccessLog):
    """Tells when it has opened its file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened = threading.Event()

    def _opened(self) -> IO[bytes]:
        file = super()._opened()
        self.opened.set()
        return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "access.log"


async def test_a_request_and_its_answer_are_two_lines_of_json(path: Path) -> None:
    log = AccessLog(path)
    log.add(ASKED)
    log.add(ASKED._replace(msg="res", status=404, seconds=0.0012346))
    assert not text(path)
    await log.flush()
    asked = {"ts": "2026-01-02T03:04:05.678000Z", "msg": "req", "id": "r-1", "method": "GET", "path": "/runs"}
    assert lines(path) == [asked, {**asked, "msg": "res", "status": 404, "duration_ms": 1.235}]
    await log.flush()
    assert len(lines(path)) == 2


def test_the_file_is_private(path: Path) -> None:
    AccessLog(path)._append([ASKED])
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_a_full_file_is_put_aside(path: Path) -> None:
    log = AccessLog(path, most_bytes=250)
    for number in range(5):
        log.add(ASKED._replace(id=str(number)))
        await log.flush()
    assert [each["id"] for each in lines(path)] == ["4"]
    assert [each["id"] for each in lines(path.with_name("access.log.1"))] == ["2", "3"]


def test_a_replica_that_waited_for_the_file_writes_where_it_is_now(path: Path) -> None:
    AccessLog(path)._append([ASKED])
    other = Watched(path)
    writing = threading.Thread(target=other._append, args=([ASKED._replace(id="last")],))
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing.start()
        assert other.opened.wait(10)
        path.rename(path.with_name("access.log.1"))
    writing.join(10)
    assert [each["id"] for each in lines(path)] == ["last"]
    assert [each["id"] for each in lines(path.with_name("access.log.1"))] == ["r-1"]


async def test_what_cannot_be_written_is_dropped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").write_text("no folder")
    log = AccessLog(tmp_path / "logs" / "access.log")
    log.add(ASKED)
    await log.flush()
    assert "1 lines of the access log are lost" in caplog.text
    assert not log._waiting


def test_lines_that_wait_are_bounded(path: Path) -> None:
    log = AccessLog(path)
    for _ in range(access_log.KEPT + 5):
        log.add(ASKED)
    assert len(log._waiting) == access_log.KEPT


# -- what the application notes


async def test_every_surface_is_logged_without_tokens(tmp_path: Path, path: Path) -> None:
    live_runs = FakeLiveRuns(streams_end=True)
    options = ServerOptions(home=str(tmp_path), access_log=True)
    app: Any = build_app(FakeGateway(), Tokens([]), options, FakeClock(), live_runs=live_runs)
    urls = ["/runs/Run999999999/events?api_key=s3cret", "/api/v1/runtime/orchestrator/dags?a=s3cret", "/health", "/no"]
    for number, url in enumerate(urls):
        async with opened(app, url, {"X-Request-Id": f"r-{number}", "Authorization": "Bearer s3cret"}):
            pass
    await app._access_log.flush()
    assert "s3cret" not in text(path)
    told = [(each["id"], each["msg"], each["path"], each.get("status")) for each in lines(path)]
    statuses = [404, 401, 200, 404]
    expected = []
    for number, (url, status) in enumerate(zip(urls, statuses, strict=True)):
        where = (f"r-{number}", url.partition("?")[0])
        expected += [(where[0], "req", where[1], None), (where[0], "res", where[1], status)]
    assert told == expected


async def test_the_server_writes_its_log_while_it_runs_and_when_it_ends(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "PERIOD_S", 0.01)
    options = ServerOptions(home=str(tmp_path), access_log=True)
    app: Any = build_app(FakeGateway(), Tokens([]), options, FakeClock())
    fastapi = app._app._without.app
    async with fastapi.router.lifespan_context(fastapi):
        async with opened(app, "/health"):
            pass
        for _ in range(500):
            if len(lines(path)) == 2:
                break
            await asyncio.sleep(0.01)
        assert len(lines(path)) == 2
        async with opened(app, "/ready"):
            pass
    assert len(lines(path)) == 4


async def test_no_log_is_written_unless_it_is_wanted(tmp_path: Path, path: Path) -> None:
    app: Any = build_app(FakeGateway(), Tokens([]), ServerOptions(home=str(tmp_path)), FakeClock())
    async with opened(app, "/health"):
        pass
    assert app._access_log is None
    assert not path.parent.exists()
