"""The cheapest HTTP/1.1 client that is still one, so that a benchmark measures the server.

Blocking keep-alive sockets, request bytes made ahead, no header parsing beyond what tells where a
body ends. httpx costs about 1 ms a request on the development machine, this about 0.03 ms.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.dags_api import BASE

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class BadAnswer(Exception):
    """The server answered something else than 200."""


@dataclass(slots=True)
class Wire:
    """One connection to the dags surface, with one principal's token."""

    url: str
    token: str
    _socket: socket.socket | None = field(default=None, init=False)

    def get(self, path: str) -> Any:
        """Parsed body of a GET."""
        return json.loads(self.exchange(self.request("GET", path)))

    def post(self, path: str, body: object) -> Any:
        """Parsed body of a POST."""
        return json.loads(self.exchange(self.request("POST", path, json.dumps(body).encode())))

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of one request."""
        head = (
            f"{method} {BASE}{path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\n"
        )
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    def exchange(self, request: bytes) -> bytes:
        """Body of the answer to `request`; raises BadAnswer unless it is 200."""
        if self._socket is None:
            self._socket = self.connect()
        self._socket.sendall(request)
        got = b""
        while (body := answer(got)) is None:
            more = self._socket.recv(1 << 20)
            if not more:
                raise BadAnswer(f"connection closed after {got[:300]!r}")
            got += more
        return body

    def exchange_all(self, requests: Sequence[bytes], connections: int) -> list[bytes]:
        """Bodies of the answers, in the order in which they came; at most `connections` requests are under way."""
        waiting = list(reversed(requests))
        bodies: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            for _ in range(min(connections, len(requests))):
                opened = self.connect()
                selector.register(opened, selectors.EVENT_READ, bytearray())
                opened.sendall(waiting.pop())
            while len(bodies) < len(requests):
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    key.data.extend(key.fileobj.recv(1 << 16))
                    if (body := answer(bytes(key.data))) is not None:
                        bodies.append(body)
                        key.data.clear()
                        if waiting:
                            key.fileobj.sendall(waiting.pop())
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
        return bodies

    def follow(self, run_id: str) -> int:
        """Reads a run's event stream to its `end`; returns how many bytes that were."""
        size, tail = 0, b""
        with self.connect() as stream:
            stream.sendall(self.request("GET", f"/runs/{run_id}/events"))
            while b"event: end" not in tail:
                more = stream.recv(1 << 20)
                if not more:
                    raise BadAnswer(f"stream closed without an end, after {tail[-300:]!r}")
                size += len(more)
                tail = tail[-64:] + more
        return size

    def connect(self) -> socket.socket:
        """A new connection to the server."""
        parts = urlsplit(self.url)
        opened = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=300)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened


def answer(got: bytes) -> bytes | None:
    """The body in `got` once it is complete; raises BadAnswer unless the status is 200."""
    head, blank, rest = got.partition(b"\r\n\r\n")
    if not blank:
        return None
    body = _body(head, rest)
    if body is not None and b" 200 " not in head[:16]:
        raise BadAnswer(f"{head[:60]!r} {body[:500]!r}")
    return body


def _body(head: bytes, rest: bytes) -> bytes | None:
    if length := _LENGTH.search(head):
        return rest if len(rest) >= int(length[1]) else None
    if _CHUNKED.search(head):
        return _joined(rest) if rest.endswith(b"0\r\n\r\n") else None
    raise BadAnswer(f"neither a length nor chunks: {head!r}")


def _joined(chunks: bytes) -> bytes:
    body = b""
    while True:
        size, _, chunks = chunks.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            return body
        body += chunks[:length]
        chunks = chunks[length + 2 :]
