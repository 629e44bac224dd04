"""actors.webhook_post against a real server on loopback, and against names that resolve to where nobody may go."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from actors import webhook_post
from actors.webhook_post import PostFailed, WebhookPost


class Answers(BaseHTTPRequestHandler):
    """Answers by path, and keeps what it was asked."""

    seen: list[tuple[str, dict[str, str], bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        if self.path == "/slow":
            time.sleep(1.0)
        status = int(self.path.rpartition("/")[2]) if self.path.startswith("/status/") else 200
        text = b"y" * 1_000_000 if self.path == "/long" else b"thanks"
        self.send_response(status)
        self.send_header("Location", "/moved")
        self.send_header("Set-Cookie", "a=b")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def seen() -> list[tuple[str, dict[str, str], bytes]]:
    Answers.seen.clear()
    return Answers.seen


async def post(url: str, allow_private: bool = True) -> int:
    return await WebhookPost(allow_private)(
        url, b'{"a":1}', {"content-type": "application/json", "webhook-id": "msg_1"}
    )


async def test_the_body_and_the_headers_arrive_as_they_are(
    base: str, seen: list[tuple[str, dict[str, str], bytes]]
) -> None:
    assert await post(f"{base}/hook?k=1") == 200
    [(path, headers, body)] = seen
    assert (path, json.loads(body)) == ("/hook?k=1", {"a": 1})
    assert (headers["content-type"], headers["webhook-id"], headers["host"]) == (
        "application/json",
        "msg_1",
        base.removeprefix("http://"),
    )


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(
    base: str, seen: list[tuple[str, dict[str, str], bytes]], status: int
) -> None:
    assert await post(f"{base}/status/{status}") == status
    assert [path for path, *_ in seen] == [f"/status/{status}"]


@pytest.mark.parametrize("status", [204, 404, 410, 500])
async def test_any_status_is_the_answer(base: str, status: int) -> None:
    assert await post(f"{base}/status/{status}") == status


async def test_no_cookie_is_carried_on(base: str, seen: list[tuple[str, dict[str, str], bytes]]) -> None:
    send = WebhookPost(True)
    for _ in range(2):
        await send(f"{base}/hook", b"{}", {})
    assert all("cookie" not in headers for _, headers, _ in seen)


async def test_a_long_answer_is_cut_off(base: str) -> None:
    assert await post(f"{base}/long") == 200


async def test_a_receiver_that_takes_too_long_has_failed(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_post, "TIMEOUT_S", 0.1)
    with pytest.raises(PostFailed, match=r"no answer within 0.1 s"):
        await post(f"{base}/slow")


async def test_nobody_there_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(PostFailed, match="ConnectError"):
            await post(f"http://127.0.0.1:{taken.getsockname()[1]}/")


async def test_a_private_address_is_refused_unless_allowed(
    base: str, seen: list[tuple[str, dict[str, str], bytes]]
) -> None:
    with pytest.raises(PostFailed, match=r"127\.0\.0\.1, which is not a public address$"):
        await post(f"{base}/hook", allow_private=False)
    assert seen == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"])
async def test_a_name_that_resolves_into_a_private_range_is_refused(
    base: str, seen: list[tuple[str, dict[str, str], bytes]], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        assert host == "callback.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    port = base.rpartition(":")[2]
    with pytest.raises(PostFailed, match=r"callback\.example is at .*, which is not a public address"):
        await post(f"http://callback.example:{port}/hook", allow_private=False)
    assert seen == []


@pytest.mark.parametrize("url", ["http://xn--\u0000/", "http://" + "a" * 70 + ".example/", "http://..../"])
async def test_a_name_that_cannot_be_one_is_a_failure(url: str) -> None:
    with pytest.raises(PostFailed):
        await post(url, allow_private=False)
