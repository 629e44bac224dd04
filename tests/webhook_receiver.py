"""A server that is told of the ends of jobs, and checks who tells."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from tests.jobs_api import Jobs, answered

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four.").decode()


# ---------------------------------------------------------------- 12: webhooks


class Receiver(HTTPServer):
    """Notes what is posted to it; answers 500 so often, then 200."""

    def __init__(self, failures: int = 1) -> None:
        self.failures = failures
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.both = threading.Event()
        super().__init__(("127.0.0.1", 0), _Note)


class _Note(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posts.append(({name.lower(): each for name, each in self.headers.items()}, body))
        self.send_response(500 if len(self.server.posts) <= self.server.failures else 200)
        self.end_headers()
        if len(self.server.posts) == 2:
            self.server.both.set()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(failures: int) -> Iterator[Receiver]:
    """A receiver for the length of a `with` block."""
    receiver = Receiver(failures)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        receiver.server_close()


def told(jobs: Jobs, receiver: Receiver, worker_id: str) -> str:
    """Id of a job that has finished, of which the receiver is told."""
    jobs.register(worker_id)
    job_id = jobs.create(webhook_url=f"http://127.0.0.1:{receiver.server_port}/hook")
    jobs.result(jobs.take(worker_id), worker_id, data={})
    return job_id


def until_told(jobs: Jobs, status: str) -> Any:
    """The newest webhook, once it has that status."""
    deadline = time.monotonic() + 10
    while (found := answered(jobs.client.get("/api/v1/webhooks?limit=1"))) == [] or found[0]["status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found[0]


def signature(headers: dict[str, str], body: bytes) -> str:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
