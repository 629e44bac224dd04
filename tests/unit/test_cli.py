"""The command line against a scripted HTTP server, and the parts of `up` that need no Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import rich.markup
import typer

from actors.settings import read_settings
from orchestrator.errors import Conflict, Invalid
from serve_app import cli, deploy, home, up
from serve_app.api_client import BASE, Api, ServerUnreachable
from serve_app.run_screen import Tally
from serve_app.session import find_target

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
            home.write_private(
                tmp_path / "credentials.json",
                json.dumps({"url": stub.url, "tokens": {"admin": "adm", "client": "cli"}}),
            )
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


# ------------------------------------------------------------------ commands


def test_a_list_is_a_table_or_json_and_uses_the_operators_token(call: Any, stub: Stub) -> None:
    stub.on("GET", "/dags?limit=200", {"items": [DAG], "next_cursor": None})
    status, out, _ = call("dags", "list")
    assert status == 0
    assert out.splitlines()[0].split() == ["dag_id", "status", "version", "schedule", "owner", "next_run_at"]
    assert out.splitlines()[1].split() == ["d", "active", "3", "me"]
    assert stub.headers[0]["authorization"] == "Bearer adm"
    assert json.loads(call("dags", "list", "--json")[1]) == {"items": [DAG]}


def test_a_long_list_is_read_page_by_page(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs?limit=200", {"items": [RUN] * 200, "next_cursor": "c"})
    stub.on("GET", "/runs?limit=50&cursor=c", {"items": [RUN] * 50, "next_cursor": "e"})
    _, out, _ = call("runs", "list", "--limit", "250", "--json")
    assert len(json.loads(out)["items"]) == 250


def test_a_preview_is_a_table_of_both_clocks_with_what_is_skipped(call: Any, stub: Stub) -> None:
    tick = {"at": "2026-03-29T01:00:00.000Z", "local": "2026-03-29T03:00:00+02:00", "moved": True, "skipped": None}
    window = {"from": "2026-03-29", "to": "2026-03-29"}
    skipped = {**tick, "moved": False, "skipped": "excluded", "runs_at": None, "window": None}
    told = {
        "timezone": "Europe/Berlin",
        "paused": True,
        "items": [{**tick, "runs_at": "2026-03-29T01:00:42.120Z", "window": window}, skipped],
    }
    stub.on("GET", "/dags/d/schedule/preview?n=2&from=2026-03-28T00%3A00%3A00Z", told)
    stub.on("GET", "/dags/d/schedule/preview?n=10", {"timezone": None, "paused": False, "items": []})
    status, out, _ = call("dags", "preview", "d", "-n", "2", "--from", "2026-03-28T00:00:00Z")
    assert status == 0
    words = " ".join(out.split())
    for word in (
        "Europe/Berlin",
        "2026-03-29 03:00",
        "01:00:42",
        "clocks change",
        "skipped: excluded",
        "d is paused",
    ):
        assert word in words
    assert "no schedule" in call("dags", "preview", "d")[1]
    assert json.loads(call("dags", "preview", "d", "--json")[1])["items"] == []


def test_a_run_carries_its_parameters_and_a_request_id(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    status, out, err = call("run", "d", "--param", "n=3", "--param", "name=x y", "--param", 'tags=["a"]')
    assert (status, out.split()) == (0, ["run_1", "queued"])
    assert "orchestrator runs events run_1 -f" in err
    assert stub.asked == [("POST", "/runs", {"dag_id": "d", "params": {"n": 3, "name": "x y", "tags": ["a"]}})]
    assert stub.headers[0]["x-request-id"].startswith("cli-")


def test_a_parameter_without_a_value_is_refused_before_anything_is_sent(call: Any, stub: Stub) -> None:
    status, _, err = call("run", "d", "--param", "n")
    assert status == 1
    assert "k=v expected" in err
    assert stub.asked == []


@pytest.mark.parametrize(("state", "expected"), [("success", 0), ("failed", 3), ("cancelled", 4)])
def test_the_exit_status_of_wait_is_the_end_of_the_run(call: Any, stub: Stub, state: str, expected: int) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    stub.on("GET", "/runs/run_1", RUN | {"state": "running"}, RUN | {"state": state})
    stub.on("GET", "/runs/run_1/events", HISTORY + frames((None, "end", {"state": state})))
    status, out, _ = call("run", "d", "--wait", "--json")
    assert status == expected
    assert json.loads(out)["state"] == state


def test_wait_outlives_a_cut_stream_and_goes_on_after_the_last_event(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    stub.on("GET", "/runs/run_1", RUN)
    stub.on("GET", "/runs/run_1/events", HISTORY, REST)
    status, _, _ = call("run", "d", "--wait")
    assert status == 0
    streams = [h for (_, path, _), h in zip(stub.asked, stub.headers, strict=True) if path.endswith("/events")]
    assert [each.get("last-event-id") for each in streams] == [None, "3"]


def test_a_backfill_says_which_days_and_what_to_redo(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    call("backfill", "d", "--from", "2025-10-01", "--to", "2025-10-04", "--reprocess", "failed", "--backwards")
    assert stub.asked[0][2] == {
        "dag_id": "d",
        "run_type": "backfill",
        "from": "2025-10-01",
        "to": "2025-10-04",
        "params": {},
        "reprocess": "failed",
        "run_backwards": True,
    }


def test_a_run_because_of_an_event_names_it(call: Any, stub: Stub) -> None:
    stub.on("POST", "/dags/d/trigger/order-7", {"run_id": "run_1", "state": "queued"})
    assert call("run", "d", "--event", "order-7", "--param", "n=1")[0] == 0
    assert stub.asked[0][2] == {"n": 1}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((), None),
        (("--partition", "eu", "--partition", "us"), ["eu", "us"]),
        (("--partition", "r=eu", "--partition", "d=1", "--partition", "r=us"), {"r": ["eu", "us"], "d": ["1"]}),
    ],
)
def test_a_backfill_is_over_partitions_where_no_days_are_given(
    call: Any, stub: Stub, given: tuple[str, ...], sent: object
) -> None:
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    assert call("backfill", "d", *given)[0] == 0
    assert stub.asked[0][2].get("partitions") == sent
    assert "from" not in stub.asked[0][2]


def test_values_with_and_without_a_name_are_refused(call: Any, stub: Stub) -> None:
    status, _, err = call("backfill", "d", "--partition", "eu", "--partition", "r=us")
    assert status != 0
    assert "name=value" in err
    assert stub.asked == []


def test_a_backfill_is_made_wider_and_tells_by_how_much(call: Any, stub: Stub) -> None:
    answer = {"run_id": "run_1", "state": "running", "added": 3, "counts": {"total": 7}}
    stub.on("POST", "/runs/run_1/widen", answer)
    status, out, _ = call("runs", "widen", "run_1", "--to", "2025-10-07", "--plan-hash", "sha256:3f")
    assert (status, out) == (0, "run_1 running: 3 more, 7 windows\n")
    assert stub.asked[0][2] == {"to": "2025-10-07", "params": {}, "reprocess": "none", "plan_hash": "sha256:3f"}


def test_the_tally_tells_when_a_backfill_will_be_through() -> None:
    counts = {"total": 4, "queued": 3, "running": 0, "success": 0, "failed": 0, "cancelled": 0, "skipped": 1}
    tally = Tally(RUN | {"state": "running", "counts": counts, "eta": "2026-01-02T03:04:05.000Z"})
    assert tally.note == "running, until 2026-01-02 03:04:05 UTC"
    tally.count("backfill_widened", {"total": 7, "added": 3, "skipped": 2})
    assert (tally.done, tally.total) == (2, 7)
    tally.count("run_state", {"to": "running"})
    assert tally.note == "running"


def test_a_dry_run_shows_the_windows_and_the_hash_that_pins_them(call: Any, stub: Stub) -> None:
    day = {"from": "2025-10-01", "to": "2025-10-01"}
    plan = {
        "plan_hash": "sha256:3f",
        "counts": {"total": 1, "create": 1, "restart": 0, "skip": 0},
        "windows": [{"window": day, "action": "create"}],
        "task_groups": [["a"], ["b", "c"]],
    }
    stub.on("POST", "/runs", plan)
    status, out, _ = call("backfill", "d", "--from", "2025-10-01", "--to", "2025-10-01", "--dry-run")
    assert status == 0
    assert stub.asked[0][2]["dry_run"] is True
    assert "--plan-hash sha256:3f" in out
    assert "a > b, c" in out


def test_the_tally_of_a_backfill_follows_its_counts() -> None:
    counts = {"total": 4, "queued": 2, "running": 1, "success": 1, "failed": 0, "cancelled": 0, "skipped": 0}
    tally = Tally(RUN | {"state": "queued", "counts": counts | {"queued": 4, "running": 0, "success": 0}})
    assert (tally.done, tally.total) == (0, 4)
    tally.count("window_state", {"counts": counts})
    assert (tally.done, tally.note) == (1, "running")
    tally.count("window_state", {"counts": counts | {"queued": 1, "failed": 1}})
    assert (tally.done, tally.note) == (2, "1 failed")


def test_the_tally_of_a_run_counts_tasks_that_are_over() -> None:
    tally = Tally(RUN | {"state": "queued"})
    for state in ("running", "retrying", "running", "done"):
        assert tally.done == 0
        tally.count("task_state", {"task": "a", "to": state})
    assert (tally.done, tally.total) == (1, 2)


def test_events_are_one_a_line_and_in_json_one_object_a_line(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs/run_1/events", HISTORY + REST)
    _, out, _ = call("runs", "events", "run_1", "-f")
    assert [line.split()[0] for line in out.splitlines()] == ["1", "2", "3", "4"]
    _, out, _ = call("runs", "events", "run_1", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 2, 3, 4, None]


def test_logs_name_the_task_and_its_attempt(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs/run_1", RUN | {"tasks": {"a": "done", "b": "pending"}})
    chunk = {"task": "a", "attempt": 2, "text": "one\ntwo\n", "truncated": False}
    stub.on("GET", "/runs/run_1/tasks/a/logs", {"items": [chunk]})
    assert call("runs", "logs", "run_1")[1] == "a/2 | one\na/2 | two\n"


def test_instances_are_listed_page_by_page_with_a_summary(call: Any, stub: Stub) -> None:
    page = {"task": "w", "state": "running", "total": 2, "counts": {"done": 1, "pending": 1}, "next_cursor": None}
    items = [{"map_index": n, "task": f"w[{n}]", "state": state} for n, state in enumerate(("done", "pending"))]
    stub.on("GET", "/runs/run_1/tasks/w/instances?limit=200", {**page, "items": items})
    lines = call("runs", "instances", "run_1", "w")[1].splitlines()
    assert [line.split() for line in lines[:2]] == [["w[0]", "done"], ["w[1]", "pending"]]
    assert lines[2] == "w is running: 1 done, 1 pending"
    _, out, _ = call("runs", "instances", "run_1", "w", "--json")
    assert [json.loads(line) for line in out.splitlines()] == items


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("dags", "pause", "d"), "/dags/d/pause", {}),
        (("dags", "resume", "d"), "/dags/d/resume", {}),
        (("runs", "cancel", "r"), "/runs/r/cancel", {}),
        (("runs", "pause", "r"), "/runs/r/pause", {}),
        (("runs", "resume", "r"), "/runs/r/resume", {}),
        (("runs", "cap", "r", "2"), "/runs/r/cap", {"max_active_runs": 2}),
        (("runs", "cap", "r"), "/runs/r/cap", {"max_active_runs": None}),
        (("runs", "retry", "r"), "/runs/r/retry", {}),
        (("runs", "retry", "r", "t"), "/runs/r/tasks/t/retry", {}),
        (("workers", "scale", "4"), "/workers/scale", {"pool": "default", "n": 4}),
        (("workers", "drain", "w"), "/workers/w/drain", {}),
    ],
)
def test_a_command_is_one_post(call: Any, stub: Stub, arguments: tuple[str, ...], path: str, body: Json) -> None:
    answer = {"dag_id": "d", "run_id": "r", "worker_id": "w", "status": "active", "state": "running", "items": []}
    stub.on("POST", path, answer)
    assert call(*arguments)[0] == 0
    assert json.loads(call(*arguments, "--json")[1]) == answer
    assert stub.asked[0] == ("POST", path, body)


@pytest.mark.parametrize(("more", "query", "shown"), [((), "", "all tasks of d"), (("t",), "?task=t", "task t of d")])
def test_an_uncache_names_the_dag_and_perhaps_a_task(
    call: Any, stub: Stub, more: tuple[str, ...], query: str, shown: str
) -> None:
    stub.on("DELETE", f"/dags/d/cache{query}", {"dag_id": "d", "task": None, "uncached_at": "2026-01-02T03:04:05Z"})
    code, out, _ = call("dags", "uncache", "d", *more)
    assert (code, out.startswith(f"{shown}: results from before 2026-01-02T03:04:05Z")) == (0, True)


# ------------------------------------------------------------------ errors


def test_a_refusal_tells_the_fields_at_fault_and_what_to_do(call: Any, stub: Stub) -> None:
    details = [{"field": "to", "message": "before from"}]
    stub.on(
        "POST", "/runs", {"error": "invalid_request", "message": "to is before from", "details": details}, status=400
    )
    status, out, err = call("backfill", "d", "--from", "2025-10-04", "--to", "2025-10-01")
    assert (status, out) == (1, "")
    assert "to is before from" in err
    assert "to: before from" in err


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "missing or invalid bearer token", "--token"),
        (403, "scope admin required", "orchestrator token create"),
        (404, "dag x not found", "orchestrator dags list"),
        (404, "run x not found", "orchestrator runs list"),
        (409, "run x is already success", "orchestrator runs show"),
    ],
)
def test_an_error_says_what_to_do_next(call: Any, stub: Stub, status: int, message: str, hint: str) -> None:
    stub.on("POST", "/runs/x/cancel", {"error": "e", "message": message}, status=status)
    code, _, err = call("runs", "cancel", "x")
    assert code == 1
    assert message in err
    assert hint in err


def test_a_busy_server_is_asked_again_with_the_same_request_id(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs", {"error": "rate_limited", "message": "10 requests per second"}, status=429)
    stub.on("POST", "/runs", {"run_id": "run_1", "state": "queued"})
    assert call("run", "d")[0] == 0
    assert len({each["x-request-id"] for each in stub.headers}) == 1
    assert len(stub.asked) == 2


def test_no_server_is_an_error_with_a_way_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["dags", "list", "--url", "http://127.0.0.1:9", "--data-dir", str(tmp_path)])
    assert ended.value.code == 1
    assert "orchestrator up" in capfd.readouterr().err


def test_a_home_without_a_server_is_an_error_with_a_way_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["runs", "list", "--data-dir", str(tmp_path)])
    assert ended.value.code == 1
    assert "orchestrator up" in capfd.readouterr().err


def test_status_of_a_ready_server_is_zero_and_of_none_is_not(call: Any, stub: Stub, tmp_path: Path) -> None:
    stub.on("GET", "/ready", {"ok": True})
    stub.on("GET", "/health", {"status": "healthy", "version": "1.0.0"})
    status, out, _ = call("status", "--json")
    assert status == 0
    assert {"ready": True, "health": "healthy", "version": "1.0.0", "url": stub.url}.items() <= json.loads(out).items()
    stub.close()
    status, out, _ = call("status", "--json")
    assert (status, json.loads(out)["ready"]) == (1, False)


def test_an_unanswered_client_gives_up_at_once() -> None:
    with Api("http://127.0.0.1:9", None) as api, pytest.raises(ServerUnreachable):
        next(api.follow("run_1"))


# ------------------------------------------------------------------ which server


def test_options_win_over_the_environment_and_that_over_the_data_directory(tmp_path: Path) -> None:
    credentials = home.ensure_credentials(tmp_path, "http://here:1")
    assert find_target(None, None, tmp_path, {}).url == "http://here:1"
    assert find_target(None, None, tmp_path, {}).token == credentials["tokens"]["admin"]
    environ = {"ORCHESTRATOR_URL": "http://there:2", "ORCHESTRATOR_TOKEN": "t"}
    assert find_target(None, None, tmp_path, environ).url == "http://there:2"
    assert find_target("http://else:3/", "mine", tmp_path, environ).token == "mine"
    assert find_target("http://else:3/", None, tmp_path, {}).token is None  # never ours to a stranger
    assert not find_target("http://else:3", "mine", tmp_path, {}).local
    assert find_target("http://here:1", None, tmp_path, {}).local


# ------------------------------------------------------------------ deploying


HELLO = """
from orchestrator import dag, task
import phrases

@task
def greet(name="you"):
    return phrases.hello(name)

@dag(owner="me")
def hello():
    greet()
"""


def test_what_is_deployed_here_lies_where_the_workers_look(call: Any, stub: Stub, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "hello.py").write_text(HELLO)
    (source / "phrases.py").write_text("def hello(name):\n    return 'hello ' + name\n")
    (source / "other.py").write_text("raise SystemExit('not asked for')\n")
    stub.on("POST", "/dags/hello/deploy", {"dag_id": "hello", "status": "active", "version": 1})
    status, out, err = call("dags", "deploy", str(source / "hello.py"))
    assert status == 0, err
    assert out.split() == ["hello", "version", "1", "active"]
    assert sorted(path.name for path in (tmp_path / "dags").iterdir()) == ["hello.py", "phrases.py"]
    compiled = json.loads((tmp_path / "deployed" / "hello.json").read_text())
    assert (compiled["dag_id"], compiled["owner"], len(compiled["tasks"])) == ("hello", "me", 1)


def test_a_folder_is_deployed_with_its_packages_and_without_hidden_ones(tmp_path: Path) -> None:
    source, target = tmp_path / "src", tmp_path / "home" / "dags"
    for name in ("a.py", "pkg/__init__.py", "pkg/b.py", ".venv/c.py", "__pycache__/d.py", "notes.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x = 1\n")
    deploy.copy_sources(source, set(), target)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == ["a.py", "pkg/__init__.py", "pkg/b.py"]


def test_deploying_what_does_not_exist_is_refused(call: Any, stub: Stub, tmp_path: Path) -> None:
    status, _, err = call("dags", "deploy", str(tmp_path / "none.py"))
    assert status == 1
    assert "no such file or folder" in err


# ------------------------------------------------------------------ the data directory


def test_credentials_are_made_once_and_follow_the_url(tmp_path: Path) -> None:
    first = home.ensure_credentials(tmp_path, "http://127.0.0.1:8000")
    second = home.ensure_credentials(tmp_path, "http://127.0.0.1:9000")
    assert first["tokens"] == second["tokens"]
    assert set(first["tokens"]) == {"admin", "client", "worker"}
    assert len(set(first["tokens"].values())) == 3
    assert home.read_credentials(tmp_path) == second
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


def test_a_damaged_credentials_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(Invalid, match=r"credentials\.json is damaged"):
        home.read_credentials(tmp_path)


def test_one_server_per_home(tmp_path: Path) -> None:
    with home.claimed(tmp_path):
        home.write_server(tmp_path, home.Server(pid=7, url="http://x", version="1", started_at="t"))
        assert home.is_claimed(tmp_path)
        with pytest.raises(Conflict, match="pid 7, http://x"), home.claimed(tmp_path):
            pass
    assert not home.is_claimed(tmp_path)
    assert home.running(tmp_path) is None


def test_a_token_is_shown_once_and_kept_as_a_digest(call: Any, tmp_path: Path) -> None:
    status, out, _ = call("token", "create", "--tenant", "t2", "--scope", "client", "--scope", "worker", "--json")
    token = json.loads(out)["token"]
    kept = (tmp_path / "tokens.json").read_text()
    assert status == 0
    assert token not in kept
    assert json.loads(kept)[0]["tenant"] == "t2"
    from serve_app import auth

    grants = auth.read_grants({}, tmp_path / "credentials.json", tmp_path / "tokens.json")
    principal = auth.Tokens(grants).principal(token)
    assert principal is not None
    assert (principal.tenant, principal.scopes) == ("t2", {"client", "worker"})


def test_an_unknown_scope_is_refused(call: Any) -> None:
    status, _, err = call("token", "create", "--tenant", "t", "--scope", "root")
    assert status == 1
    assert "admin, client, worker" in err


# ------------------------------------------------------------------ up


@pytest.fixture
def restored() -> Iterator[None]:
    """Working directory, environment and signal handlers are what they were."""
    where, environ = os.getcwd(), dict(os.environ)
    yield
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environ)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_serves_until_a_signal_and_ends_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    ended: list[str] = []
    seen: list[home.Server | None] = []

    def start(settings: Any, server: home.Server, say: Any, ends: Any) -> home.Server:
        ends.callback(ended.append, "journal")
        ends.callback(ended.append, "ray")
        return home.Server(**{**{f: getattr(server, f) for f in server.__struct_fields__}, "ready": True})

    def ready(server: home.Server) -> None:
        seen.append(home.running(tmp_path))
        os.kill(os.getpid(), number)

    monkeypatch.setattr(up, "_start", start)
    handler = signal.getsignal(number)
    up.serve(up.Plan(read_settings({}, home=str(tmp_path), port=free_port())), lambda _: None, ready)
    assert ended == ["ray", "journal"]
    assert seen[0] is not None
    assert (seen[0].pid, seen[0].ready) == (os.getpid(), True)
    assert home.running(tmp_path) is None
    assert signal.getsignal(number) is handler


@pytest.mark.usefixtures("restored")
def test_what_was_started_ends_when_the_rest_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def start(settings: Any, server: Any, say: Any, ends: Any) -> home.Server:
        ends.callback(ended.append, "journal")
        raise Conflict("no")

    monkeypatch.setattr(up, "_start", start)
    with pytest.raises(Conflict):
        up.serve(up.Plan(read_settings({}, home=str(tmp_path), port=free_port())), lambda _: None, lambda _: None)
    assert ended == ["journal"]
    assert not home.is_claimed(tmp_path)


@pytest.mark.usefixtures("restored")
def test_a_taken_port_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = read_settings({}, home=str(tmp_path), port=taken.getsockname()[1])
        with pytest.raises(Conflict, match="--port"):
            up.serve(up.Plan(settings), lambda _: None, lambda _: None)


@pytest.mark.usefixtures("restored")
def test_a_weak_token_on_an_open_address_is_refused_with_status_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", "changeme")
    with pytest.raises(SystemExit) as ended:
        cli.main(["up", "--host", "0.0.0.0", "--port", str(free_port()), "--data-dir", str(tmp_path)])
    assert ended.value.code == 78
    assert "CLIENT_TOKEN" in capfd.readouterr().err


def test_ray_gets_our_settings_unless_the_caller_has_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "5")
    values = up.ray_environment(read_settings({}, home="/h"))
    assert values["RAY_worker_niceness"] == "5"
    assert (values["RAY_AUTH_MODE"], values["RAY_AUTH_TOKEN_PATH"]) == ("token", "/h/ray.token")
    assert values["RAY_maximum_gcs_destroyed_actor_cached_count"] == "10000"
    assert "RAY_AUTH_MODE" not in up.ray_environment(read_settings({}, home="/h", ray_address="auto"))


@pytest.mark.parametrize("dags", [Path("/d"), None])
def test_a_detached_server_gets_the_same_plan(dags: Path | None) -> None:
    settings = read_settings({"REDIS_URL": "redis://:pw@r"}, home="/h", port=7, workers=3, dashboard=False)
    plan = up.Plan(settings, dags)
    assert up.Plan.from_json(plan.to_json()) == plan


def test_a_detached_server_that_may_not_start_says_why_as_up_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", "changeme")
    settings = read_settings({}, home=str(tmp_path), host="0.0.0.0", port=free_port())
    with pytest.raises(up.WeakTokens, match="CLIENT_TOKEN"):
        up.detach(up.Plan(settings), lambda _: None)


def test_down_where_nothing_runs_does_nothing(tmp_path: Path) -> None:
    assert not up.down(tmp_path, lambda _: None)


# ---------------------------------------------------------------- help


def commands_of(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, each in getattr(command, "commands", {}).items():
        yield from commands_of(each, f"{name} {word}")


@pytest.mark.parametrize(("name", "command"), list(commands_of(typer.main.get_command(cli.app), "orchestrator")))
def test_a_help_text_is_shown_as_it_is_written(name: str, command: Any) -> None:
    """Brackets with a word in them are markup, and vanish."""
    texts = [command.help, *(parameter.help for parameter in command.params)]
    assert [text for text in texts if text and rich.markup.render(text).plain != text] == []


def test_a_signal_carries_json_or_text_and_an_id(call: Any, stub: Stub) -> None:
    stub.on("POST", "/runs/r/signals/go", {"run_id": "r", "name": "go", "signal_id": "x", "state": "running"})
    code, out, _ = call("runs", "signal", "r", "go", "--data", '{"n": 1}', "--id", "x")
    assert (code, "running" in out) == (0, True)
    call("runs", "signal", "r", "go", "--data", "not json")
    call("runs", "signal", "r", "go")
    assert [body for _, _, body in stub.asked] == [
        {"data": {"n": 1}, "signal_id": "x"},
        {"data": "not json"},
        {"data": None},
    ]


def test_approvals_are_listed_and_decided(call: Any, stub: Stub) -> None:
    approval = {"run_id": "r", "task": "ask", "prompt": "Well?", "choices": ["yes", "no"], "votes": [1], "quorum": 2}
    stub.on("GET", "/approvals", {"items": [{**approval, "expires_at": "2026-01-02T03:04:05Z"}]})
    out = call("approvals", "list")[1]
    assert [part for part in ("ask", "Well?", "1/2") if part not in out] == []
    assert json.loads(call("approvals", "list", "--json")[1])["items"][0]["choices"] == ["yes", "no"]
    stub.on("POST", "/runs/r/tasks/ask/decision", {"run_id": "r", "task": "ask", "state": "done", "attempts": 1})
    code, out, _ = call("approvals", "decide", "r", "ask", "yes", "--comment", "fine", "--by", "ada")
    assert (code, "done" in out) == (0, True)
    assert stub.asked[-1][2] == {"choice": "yes", "comment": "fine", "by": "ada"}


def test_a_run_is_asked_for_one_value_or_all(call: Any, stub: Stub) -> None:
    stub.on("GET", "/runs/r/query/rows", {"name": "rows", "value": [4]})
    stub.on("GET", "/runs/r/query", {"items": [{"name": "rows", "value": [4]}, {"name": "progress", "value": {}}]})
    assert "[4]" in call("runs", "query", "r", "rows")[1]
    assert json.loads(call("runs", "query", "r", "rows", "--json")[1]) == {"name": "rows", "value": [4]}
    assert "progress" in call("runs", "query", "r")[1]


def test_a_tree_shows_what_a_run_called_and_what_that_called(call: Any, stub: Stub) -> None:
    child = {"run_id": "r2", "dag_id": "sales", "state": "failed"}
    lowest = {"run_id": "r3", "dag_id": "load", "state": "success"}
    stub.on("GET", "/runs/r", {"run_id": "r", "dag_id": "report", "state": "running", "children": {"south": child}})
    stub.on("GET", "/runs/r2", {**child, "children": {"rows": lowest}})
    stub.on("GET", "/runs/r3", lowest)
    told = call("runs", "tree", "r")[1].splitlines()
    assert told == ["report  running  r", "  south: sales  failed  r2", "    rows: load  success  r3"]
    tree = json.loads(call("runs", "tree", "r", "--json")[1])
    assert tree["children"]["south"]["children"]["rows"]["run_id"] == "r3"


# ------------------------------------------------------------------ pools

POOL: Json = {
    "name": "gpu",
    "defined": True,
    "num_cpus": 0.5,
    "num_gpus": 1.0,
    "memory_bytes": 4 * 2**30,
    "resources": {"tpu": 4.0},
    "labels": {"tier": "a"},
    "min": 0,
    "max": 4,
    "idle_timeout_s": 60.0,
    "tasks_per_worker": 1,
    "scale_up_wait_s": 1.0,
    "step": 10,
    "wanted": 2,
    "workers": 2,
    "starting": 1,
    "busy": 1,
    "draining": 0,
    "waiting": 7,
    "waiting_s": 2.0,
}


def test_pools_are_listed_defined_and_forgotten(call: Any, stub: Stub) -> None:
    stub.on("GET", "/pools", {"items": [POOL]})
    stub.on("PUT", "/pools/gpu", POOL)
    stub.on("DELETE", "/pools/gpu", {"name": "gpu", "deleted": True})
    words = call("pools", "list")[1].split()
    assert words[words.index("shape") + 1 :][:10] == ["gpu", "0", "4", "2", "2", "1", "1", "0", "7", "0.5"]
    assert {"GPU,", "4096", "tier=a"} <= set(words)
    assert json.loads(call("pools", "list", "--json")[1]) == {"items": [POOL]}
    shape = ("--num-cpus", "0.5", "--num-gpus", "1", "--memory", "4G", "--resource", "tpu=4", "--label", "tier=a")
    assert call("pools", "set", "gpu", "--max", "4", *shape)[0] == 0
    kept = {"name", "defined", "wanted", "workers", "starting", "busy", "draining", "waiting", "waiting_s"}
    assert stub.asked[-1] == ("PUT", "/pools/gpu", {key: value for key, value in POOL.items() if key not in kept})
    assert call("pools", "rm", "gpu")[1] == "gpu deleted\n"


@pytest.mark.parametrize(
    "wrong", [("--memory", "much"), ("--resource", "tpu"), ("--resource", "x=y"), ("--label", "=a")]
)
def test_a_pool_that_nobody_can_read_is_refused_before_it_is_sent(
    call: Any, stub: Stub, wrong: tuple[str, str]
) -> None:
    status, _, err = call("pools", "set", "gpu", "--max", "1", *wrong)
    assert (status, stub.asked) == (1, [])
    assert wrong[0] in err
