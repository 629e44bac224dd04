"""The command line against a scripted HTTP server, and the parts of `up` that need no Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.markup
import typer

from serve_app import cli, deploy, home
from serve_app.api_client import Api, ServerUnreachable
from serve_app.session import find_target
from tests.cli_stub import Stub, call, stub

__all__ = ["call", "stub"]


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
        (404, "pool gpu not found", "orchestrator pools list"),
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


def test_what_a_refusal_says_is_said_once(call: Any, stub: Stub) -> None:
    details = [{"field": "from", "message": "from or partitions expected"}, {"field": "to", "message": "later"}]
    answer = {"error": "invalid_request", "message": "from: from or partitions expected", "details": details}
    stub.on("POST", "/runs", answer, status=400)
    _, _, err = call("backfill", "d")
    assert err.splitlines() == ["error: from: from or partitions expected", "  to: later"]


def test_a_token_that_is_not_there_is_an_error_with_a_way_out(call: Any) -> None:
    status, _, err = call("token", "revoke", "nobodys")
    assert status == 1
    assert "token nobodys not found" in err
    assert "orchestrator token list" in err


def test_a_folder_that_is_in_the_way_is_no_question_of_what_runs(call: Any, tmp_path: Path) -> None:
    status, _, err = call("backup", str(tmp_path))
    assert status == 1
    assert "a backup goes into a new folder" in err
    assert "hint" not in err


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


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, form: list[str]) -> None:
    """`orchestrator ... | head`: the status of a refusal would end scripts with `pipefail`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "serve_app.cli", "token", "list", "--data-dir", str(tmp_path), *form]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("url", ["here:8000", "here", "ftp://here"])
def test_what_is_no_address_of_a_server_is_said_to_be_none(call: Any, url: str) -> None:
    status, _, err = call("dags", "list", "--url", url)
    assert status == 1
    assert f"{url}: http://HOST:PORT expected" in err


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
    assert find_target("http://here:1/", None, tmp_path, {}) == find_target(None, None, tmp_path, {})


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
