"""The commands on bundles against a scripted HTTP server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.bundle_store import BundleStore
from orchestrator import bundle
from orchestrator.bundle_folder import read_folder
from serve_app import up
from tests.cli_stub import Stub, call, stub

__all__ = ["call", "stub"]
Call = Callable[..., tuple[int, str, str]]

DEFINED = {"dag_id": "flow", "status": "active", "version": 2}
VIEW = {
    "bundle": "3f" * 32, "size_bytes": 10, "files": 2, "touched_at": "2026-01-02T03:04:05Z",
    "dags": ["flow", "old"], "current": ["flow"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "flows"
    made.mkdir()
    (made / "flow.py").write_text("raise RuntimeError('never imported here')\n")
    (made / ".env").write_text("SECRET=1")
    return made


def test_a_folder_becomes_a_bundle_that_the_server_compiles(
    call: Call, stub: Stub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bundle.id_of_files(read_folder(folder))
    stub.on("POST", f"/bundles/{name}/deploy", {"bundle": name, "items": [DEFINED]})
    offered = []
    monkeypatch.setattr(BundleStore, "offer", lambda store, *given: offered.append((store.folder, *given)))
    status, out, err = call("dags", "deploy", str(folder))
    assert status == 0, err
    assert out.strip() == f"flow version 2 active bundle {name[:12]}"
    assert offered == [(tmp_path / "bundles", name, bundle.pack(read_folder(folder)))]
    assert [method for method, *_ in stub.asked] == ["POST"], "it lies on this machine's disk already"
    assert json.loads(call("dags", "deploy", str(folder), "--json")[1])["items"] == [{**DEFINED, "bundle": name}]


def test_a_server_elsewhere_gets_it_over_http(
    call: Call, stub: Stub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bundle.id_of_files(read_folder(folder))
    monkeypatch.setenv("ORCHESTRATOR_URL", stub.url)
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "t")
    stub.on("PUT", f"/bundles/{name}", {"bundle": name, "size_bytes": 1, "files": 1, "created": True})
    stub.on("POST", f"/bundles/{name}/deploy", {"bundle": name, "items": [DEFINED]})
    status, _, err = call("dags", "deploy", str(folder), local=False)
    assert status == 0, err
    assert [(method, path) for method, path, _ in stub.asked] == [
        ("PUT", f"/bundles/{name}"),
        ("POST", f"/bundles/{name}/deploy"),
    ]
    assert stub.headers[0]["content-type"] == "application/octet-stream"
    assert bundle.id_of(stub.raw[0]) == name


def test_a_server_here_that_takes_no_offer_gets_it_over_http(
    call: Call, stub: Stub, folder: Path, tmp_path: Path
) -> None:
    name = bundle.id_of_files(read_folder(folder))
    stub.on("POST", f"/bundles/{name}/deploy", {"error": "not_found", "message": "no bundle"}, status=404)
    stub.on("PUT", f"/bundles/{name}", {"bundle": name, "size_bytes": 1, "files": 1, "created": True})
    stub.on("POST", f"/bundles/{name}/deploy", {"bundle": name, "items": [DEFINED]})
    status, out, err = call("dags", "deploy", str(folder))
    assert status == 0, err
    assert out.strip() == f"flow version 2 active bundle {name[:12]}"
    assert [method for method, *_ in stub.asked] == ["POST", "PUT", "POST"]
    assert BundleStore(tmp_path).offered(name) is None


def test_a_broken_bundle_is_an_error_with_its_traceback(call: Call, stub: Stub, folder: Path) -> None:
    name = bundle.id_of_files(read_folder(folder))
    details = [{"field": "traceback", "message": 'Traceback\n  File "flow.py", line 1'}]
    refusal = {"error": "invalid_request", "message": "flow.py: RuntimeError", "details": details}
    stub.on("POST", f"/bundles/{name}/deploy", refusal, status=400)
    status, out, err = call("dags", "deploy", str(folder))
    assert (status, out) == (1, "")
    assert "flow.py: RuntimeError" in err
    assert 'File "flow.py", line 1' in err


def test_bundles_are_listed_and_pruned(call: Call, stub: Stub) -> None:
    stub.on("GET", "/bundles", {"items": [VIEW]})
    status, out, _ = call("bundles", "list")
    assert status == 0
    assert "flow, (old)" in out
    assert json.loads(call("bundles", "list", "--json")[1]) == {"items": [VIEW]}
    for span in ("172800", "3600"):
        stub.on("DELETE", f"/bundles?older_than_s={span}", {"items": [VIEW["bundle"]]})
    status, out, err = call("bundles", "prune", "--older-than", "2d")
    assert (status, out.strip(), err.strip()) == (0, VIEW["bundle"], "1 removed")
    assert json.loads(call("bundles", "prune", "--json")[1]) == {"items": [VIEW["bundle"]]}


def test_a_line_of_a_narrow_terminal_is_a_bundle(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.on("GET", "/bundles", {"items": [{**VIEW, "size_bytes": 12_345_678, "files": 1_234, "dags": ["sales"] * 3}]})
    monkeypatch.setenv("COLUMNS", "80")
    header, line = call("bundles", "list")[1].splitlines()
    assert header.split() == ["bundle", "size", "files", "touched", "dags"]
    assert "12.3 MB" in line


def test_a_bundle_is_deleted_by_the_digits_that_are_shown(call: Call, stub: Stub) -> None:
    name = VIEW["bundle"]
    stub.on("GET", "/bundles", {"items": [VIEW, {**VIEW, "bundle": "a0" * 32}]})
    stub.on("DELETE", f"/bundles/{name}", {"bundle": name, "deleted": True})
    status, _, err = call("bundles", "delete", "3f" * 6)
    assert (status, err.strip()) == (0, f"{'3f' * 6} removed")
    refusal = {"error": "conflict", "message": "bundle a0 is in use: the current version of DAG flow names it"}
    stub.on("DELETE", f"/bundles/{'a0' * 32}", refusal, status=409)
    status, _, err = call("bundles", "delete", "a0" * 32)
    assert status == 1
    assert "in use" in err
    for given in ("3f", "00" * 6):
        assert call("bundles", "delete", given)[0] == 1


def test_who_may_not_send_code_is_told_where_to_go(
    call: Call, stub: Stub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_URL", stub.url)
    name = bundle.id_of_files(read_folder(folder))
    refusal = {"error": "forbidden", "message": "bundles over HTTP need ORCHESTRATOR_ALLOW_BUNDLES=1 on the server"}
    stub.on("PUT", f"/bundles/{name}", refusal, status=403)
    status, _, err = call("dags", "deploy", str(folder), local=False)
    assert status == 1
    assert "deploy on the server's machine" in err


@pytest.mark.parametrize("no_bundle", [False, True])
def test_up_deploys_a_folder_as_the_command_does(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, no_bundle: bool
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps({"items": [DEFINED]}), "")

    monkeypatch.setattr(up.subprocess, "run", run)
    said: list[str] = []
    up.deploy(folder, tmp_path, said.append, no_bundle=no_bundle)
    assert said == ["deployed flow"]
    ((*_, where, option, home, last),) = [[each for each in command if each != "--no-bundle"] for command in ran]
    assert (where, option, home, last) == (str(folder), "--data-dir", str(tmp_path), "--json")
    assert ("--no-bundle" in ran[0]) == no_bundle
