"""`up` and `down`, and the data directory between them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.settings import read_settings
from orchestrator.errors import Conflict, Invalid, Unavailable
from serve_app import cli, home, up
from tests.cli_stub import call, stub

__all__ = ["call", "stub"]


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


def test_who_stops_a_server_that_is_starting_does_not_stop_the_process_that_has_the_number_of_a_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_END_S", 0.0)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        home.write_server(tmp_path, home.Server(pid=bystander.pid, url="http://x", version="1", started_at="t"))
        with home.claimed(tmp_path), pytest.raises(Unavailable, match="a server is starting"):
            up.down(tmp_path, lambda _: None)
        assert bystander.poll() is None
        bystander.kill()


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


def test_tokens_are_listed_and_revoked_without_being_shown(call: Any) -> None:
    made = json.loads(call("token", "create", "--tenant", "t2", "--scope", "client", "--name", "ci", "--json")[1])
    listed = call("token", "list", "--json")[1]
    assert made["token"] not in listed
    assert json.loads(listed) == {"items": [{"id": made["id"], "name": "ci", "tenant": "t2", "scopes": ["client"]}]}
    assert made["id"] in call("token", "list")[1]
    assert call("token", "revoke", "ci")[0] == 0
    assert json.loads(call("token", "list", "--json")[1]) == {"items": []}
    status, _, err = call("token", "revoke", "ci")
    assert (status, "ci" in err) == (1, True)


@pytest.mark.parametrize("arguments", [("create", "--tenant", "t", "--scope", "client"), ("list",), ("revoke", "ci")])
def test_tokens_of_a_server_elsewhere_are_not_made_here(call: Any, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It reads its own file; what is printed here would open nothing, and what is revoked go on."""
    status, out, err = call("token", *arguments, "--url", "http://elsewhere:8000")
    assert (status, out) == (1, "")
    assert "on the server's machine" in err
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.parametrize("tenant", ["", "a:b", "a|b", "a/b", "a b", "a\n"])
def test_a_name_of_a_tenant_that_would_be_taken_apart_is_refused(call: Any, tmp_path: Path, tenant: str) -> None:
    status, _, err = call("token", "create", "--tenant", tenant, "--scope", "client")
    assert status == 1
    assert "--tenant" in err
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.parametrize("tenant", ["acme", "ada@acme.example", "Größe-1_a"])
def test_other_names_of_tenants_are_fine(call: Any, tenant: str) -> None:
    assert call("token", "create", "--tenant", tenant, "--scope", "client")[0] == 0


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
    plan = up.Plan(settings, dags, no_bundle=dags is None)
    assert up.Plan.from_json(plan.to_json()) == plan


def test_a_detached_server_that_may_not_start_says_why_as_up_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIENT_TOKEN", "changeme")
    home_of_it = tmp_path / "home"
    settings = read_settings({}, home=str(home_of_it), host="0.0.0.0", port=free_port())
    with pytest.raises(up.WeakTokens, match="CLIENT_TOKEN"):
        up.detach(up.Plan(settings), lambda _: None)
    assert stat.S_IMODE(home_of_it.stat().st_mode) == 0o700, "results and code of tasks are nobody else's to read"


def test_down_where_nothing_runs_does_nothing(tmp_path: Path) -> None:
    assert not up.down(tmp_path, lambda _: None)
