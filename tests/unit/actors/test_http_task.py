"""actors.http_task and guarded_http against a real server on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.messages import RunContext
from orchestrator.traces import span_of_attempt
from tests.worker_builders import RUN, Bench, InThread, task


class Answers(BaseHTTPRequestHandler):
    """Answers by path; /echo tells what it was asked."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size).decode()
        if path == "/echo":
            told = {
                "method": self.command,
                "body": body,
                "x": self.headers.get("X-Test"),
                "trace": self.headers.get("traceparent"),
                "type": self.headers.get("Content-Type"),
            }
            self.answer(200, json.dumps(told), "application/json")
        elif path.startswith("/status/"):
            self.answer(int(path.rpartition("/")[2]), "why it is so", "text/plain")
        elif path == "/slow":
            self.server.asked.set()  # type: ignore[attr-defined]  # an attribute of ours
            time.sleep(2)
        elif path == "/away":
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/long":
            self.answer(200, "y" * 100_000, "text/plain")
        elif path == "/liar":
            self.answer(200, "not json", "application/json")
        elif path == "/empty":
            self.answer(200, "", "text/plain")

    do_POST = do_PUT = do_GET

    def answer(self, status: int, text: str, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.block_on_close = False
    server.asked = threading.Event()  # type: ignore[attr-defined]  # an attribute of ours
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def base(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("ORCHESTRATOR_HTTP_ALLOW", "127.0.0.1")
    return Bench(tmp_path)


def http(url: str, **params: Any) -> Any:
    return task("h", "http", url=url, **params)


def test_json_becomes_the_value(bench: Bench, base: str) -> None:
    assert bench.value(http(f"{base}/echo")) == {"method": "GET", "body": "", "x": None, "trace": None, "type": None}


def test_method_headers_and_body_are_sent(bench: Bench, base: str) -> None:
    told = bench.value(http(f"{base}/echo", method="post", headers={"X-Test": 5}, body={"a": 1}))
    assert (told["method"], told["x"], told["type"]) == ("POST", "5", "application/json")
    assert json.loads(told["body"]) == {"a": 1}
    assert bench.value(http(f"{base}/echo", method="PUT", body="plain"))["body"] == "plain"


def test_the_trace_is_passed_on_unless_the_task_gives_one(
    bench: Bench, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setattr(
        "tests.worker_builders.RunContext", lambda *facts: RunContext(*facts, traceparent=given, traced=True)
    )
    passed_on = f"00-0af7651916cd43dd8448eb211c80319c-{span_of_attempt(RUN, 'h', 1)}-01"
    assert bench.value(http(f"{base}/echo"))["trace"] == passed_on
    assert bench.value(http(f"{base}/echo", headers={"traceparent": "mine"}))["trace"] == "mine"


@pytest.mark.parametrize(("path", "value"), [("/liar", "not json"), ("/empty", None), ("/status/201", "why it is so")])
def test_other_answers_become_text(bench: Bench, base: str, path: str, value: object) -> None:
    assert bench.value(http(base + path)) == value


def test_text_is_cut_at_64_kib(bench: Bench, base: str) -> None:
    value = bench.run(http(f"{base}/long")).value
    assert value.artifact is not None  # with its quotes it is just above the limit of what travels inline
    assert 64 * 1024 < value.size_bytes < 66 * 1024


@pytest.mark.parametrize(
    ("status", "permanent"), [(400, True), (404, True), (408, False), (429, False), (500, False), (503, False)]
)
def test_refusals_are_permanent_unless_they_may_pass(bench: Bench, base: str, status: int, permanent: bool) -> None:
    report = bench.run(http(f"{base}/status/{status}?token=secret"))
    assert (report.outcome, report.permanent) == ("error", permanent)
    assert f"GET {base}/status/{status}: {status} " in (report.error or "")
    assert "why it is so" in (report.error or "")
    assert "secret" not in (report.error or "")


def test_a_server_that_is_not_there_may_come_back(bench: Bench) -> None:
    report = bench.run(http("http://127.0.0.1:1/"))
    assert (report.outcome, report.permanent) == ("error", False)
    assert "ConnectError" in (report.error or "")


def test_a_slow_answer_is_given_up(bench: Bench, base: str) -> None:
    report = bench.run(http(f"{base}/slow", timeout_s=0.1))
    assert (report.permanent, report.error) == (False, f"GET {base}/slow: no answer within 0.1 s")


def test_a_cancel_ends_the_request(bench: Bench, base: str, server: Any) -> None:
    server.asked.clear()
    pending = InThread(bench.run, http(f"{base}/slow"))
    assert server.asked.wait(5)
    assert bench.worker.cancel(RUN, "h", 1, "cancelled")
    assert pending.result(1).outcome == "cancelled"


@pytest.mark.parametrize("url", ["ftp://example.com/", "nonsense", "http://", 5])
def test_other_urls_are_permanent_errors(bench: Bench, url: object) -> None:
    report = bench.run(http(url))  # type: ignore[arg-type]  # a part of it will do
    assert (report.outcome, report.permanent) == ("error", True)


def test_a_private_address_is_refused_unless_allowed(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_HTTP_ALLOW", raising=False)
    report = Bench(tmp_path).run(http(f"{base}/echo"))
    assert (report.outcome, report.permanent) == ("error", True)
    assert "127.0.0.1, which is not a public address" in (report.error or "")


def test_a_redirect_is_followed_to_allowed_addresses_only(bench: Bench, base: str) -> None:
    assert bench.value(http(f"{base}/away?{base}/echo"))["method"] == "GET"
    report = bench.run(http(f"{base}/away?http://127.0.0.2:{base.rpartition(':')[2]}/echo"))
    assert (report.outcome, report.permanent) == ("error", True)
    assert "127.0.0.2" in (report.error or "")
