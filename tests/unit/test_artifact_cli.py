"""The commands on artifacts against a scripted HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli_stub import Stub, call, stub

__all__ = ["call", "stub"]
Call = Callable[..., tuple[int, str, str]]

SWEEP = {
    "sweep_id": "s1", "state": "wanted", "before": "2025-12-03T03:04:05Z", "dry_run": True, "runs": 0, "files": 0,
    "size_bytes": 0, "there_files": None, "there_bytes": None, "error": None, "asked_at": "2026-01-02T03:04:05Z",
    "updated_at": None,
}  # fmt: skip


def test_a_sweep_tells_how_far_it_is_until_it_is_done(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.archive_commands._LOOK_S", 0.0)
    stub.on("POST", "/artifacts", SWEEP)
    running, done = SWEEP | {"state": "running", "files": 2000}, SWEEP | {"state": "done", "files": 4000}
    stub.on("GET", "/artifacts", {"items": [SWEEP | {"sweep_id": "s2"}, running]}, {"items": [done]})
    status, out, err = call("artifacts", "sweep", "--older-than", "12h", "--dry-run")
    assert status == 0
    assert stub.asked[0][2] == {"older_than_s": 43_200, "dry_run": True}
    assert "2,000 files" in err
    assert "4000" in out


def test_nothing_goes_before_somebody_says_how_old_it_is(call: Call, stub: Stub) -> None:
    assert call("artifacts", "sweep")[0] != 0
    assert call("artifacts", "sweep", "--older-than", "soon")[0] == 1
    assert stub.asked == []


def test_a_sweep_that_failed_is_an_error(call: Call, stub: Stub) -> None:
    stub.on("POST", "/artifacts", SWEEP | {"state": "failed", "error": "no disk"})
    status, _, err = call("artifacts", "sweep", "--older-than", "30d", "--no-wait")
    assert (status, stub.asked[0][2]) == (1, {"older_than_s": 2_592_000, "dry_run": False})
    assert "no disk" in err


def test_why_a_sweep_does_not_go_on_is_told(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.archive_commands._LOOK_S", 0.0)
    stub.on("POST", "/artifacts", SWEEP)
    away = SWEEP | {"state": "running", "error": "artifacts at s3://b: no route"}
    stub.on("GET", "/artifacts", {"items": [away]}, {"items": [SWEEP | {"state": "done"}]})
    status, _, err = call("artifacts", "sweep", "--older-than", "12h")
    assert (status, "no route" in err) == (0, True)


def test_a_line_of_a_narrow_terminal_is_a_sweep(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {
        "runs": 12_345,
        "files": 45_678,
        "size_bytes": 12_345_678_901,
        "there_files": 1,
        "there_bytes": 999_949 * 10**6,
    }
    sweep = SWEEP | large | {"sweep_id": "0123456789abcdef", "state": "done"}
    stub.on("GET", "/artifacts", {"items": [sweep, SWEEP]})
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call("artifacts", "list")
    header, first, second = out.splitlines()
    assert header.split() == ["sweep", "state", "before", "runs", "files", "size", "there"]
    told = ["0123456789abcdef", "done", "dry", "2025-12-03", "03:04", "12345", "45678", "12.3", "GB", "999.9", "GB"]
    assert first.split() == told
    assert second.split() == ["s1", "wanted", "dry", "2025-12-03", "03:04", "0", "0", "0", "B"]


def test_sweeps_are_listed(call: Call, stub: Stub) -> None:
    stub.on("GET", "/artifacts", {"items": [SWEEP]})
    status, out, _ = call("artifacts", "list", "--json")
    assert (status, json.loads(out)["items"]) == (0, [SWEEP])
