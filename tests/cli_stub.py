"""A scripted HTTP server, and the command line run against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors import whole_files
from serve_app import cli
from serve_app.api_client import BASE

Json = dict[str, Any]
RUN = {
    "run_id": "run_1",
    "dag_id": "d",
    "dag_version": 1,
    "run_type": "manual",
    "state": "success",
    "window": None,
    "attempts": 1,
    "tasks": {"a": "done", "b": "done"},
    "created_at": "2026-01-02T03:04:05Z",
    "error": None,
}
DAG = {"dag_id": "d", "status": "active", "version": 3, "owner": "me", "schedule": None, "tasks": []}


class Stub:
    """An HTTP server that answers what it is told and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Json]] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self._answers: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub._handle(self)

            def do_POST(self) -> None:
                stub._handle(self)

            def do_PUT(self) -> None:
                stub._handle(self)

            def do_DELETE(self) -> None:
                stub._handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def on(self, method: str, path: str, *answers: Any, status: int = 200) -> None:
        """Answers to `path` in turn; the last one is repeated. A str is an event stream."""
        self._answers.setdefault((method, path), []).extend((status, each) for each in answers)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix(BASE)
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.raw.append(body)
        is_json = request.headers.get("Content-Type", "application/json") == "application/json"
        self.asked.append((request.command, path, json.loads(body or b"{}") if is_json else {}))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        left = self._answers.get((request.command, path)) or [(404, {"error": "not_found", "message": "not found"})]
        status, answer = left.pop(0) if len(left) > 1 else left[0]
        stream = isinstance(answer, str)
        content = answer.encode() if stream else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "text/event-stream" if stream else "application/json")
        request.send_header("Content-Length", str(len(content)))
        if status == 429:
            request.send_header("Retry-After", "0")
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def call(stub: Stub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command against the stub: (exit status, standard output, standard error)."""

    def run(*arguments: str, local: bool = True) -> tuple[int, str, str]:
        if local:
            credentials = {"url": stub.url, "tokens": {"admin": "adm", "client": "cli"}}
            whole_files.put(tmp_path / "credentials.json", json.dumps(credentials).encode())
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--data-dir", str(tmp_path)])
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def frames(*events: tuple[int | None, str, Json]) -> str:
    """Body of an event stream."""
    return ": keep-alive 1\n\nretry: 1000\n\n" + "".join(
        (f"id: {number}\n" if number is not None else "") + f"event: {kind}\ndata: {json.dumps(data)}\n\n"
        for number, kind, data in events
    )


HISTORY = frames(
    (1, "run_state", {"seq": 1, "ts": "t", "run_id": "run_1", "from": None, "to": "queued"}),
    (2, "run_state", {"seq": 2, "ts": "t", "run_id": "run_1", "from": "queued", "to": "running"}),
    (3, "task_state", {"seq": 3, "ts": "t", "run_id": "run_1", "task": "a", "from": "pending", "to": "running"}),
)
REST = frames(
    (4, "task_state", {"seq": 4, "ts": "t", "run_id": "run_1", "task": "a", "from": "running", "to": "done"}),
    (None, "end", {"run_id": "run_1", "state": "success"}),
)
