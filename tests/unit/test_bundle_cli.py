"""The commands on bundles against a scripted HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.bundle_store import BundleStore
from orchestrator import bundle
from orchestrator.bundle_folder import read_folder
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
    call: Call, stub: Stub, folder: Path, tmp_path: Path
) -> None:
    name = bundle.id_of_files(read_folder(folder))
    stub.on("POST", f"/bundles/{name}/deploy", {"bundle": name, "items": [DEFINED]})
    status, out, err = call("dags", "deploy", str(folder))
    assert status == 0, err
    assert out.strip() == f"flow version 2 active bundle {name[:12]}"
    assert dict(bundle.entries(BundleStore(tmp_path).packed(name))) == read_folder(folder)
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
