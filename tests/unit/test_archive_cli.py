"""The commands on the archive against a scripted HTTP server, and those that copy a data directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app.archive_commands import brief_size
from tests.cli_stub import Stub, call, stub

__all__ = ["call", "stub"]
Call = Callable[..., tuple[int, str, str]]

SWEEP = {
    "sweep_id": "s1", "state": "wanted", "before": "2025-12-03T03:04:05Z", "to": "", "runs": 0, "backfills": 0,
    "size_bytes": 0, "left": 0, "error": None, "asked_at": "2026-01-02T03:04:05Z", "updated_at": None,
}  # fmt: skip


def test_archive_tells_how_far_it_is_until_it_is_done(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.archive_commands._LOOK_S", 0.0)
    stub.on("POST", "/archive", SWEEP)
    running, done = SWEEP | {"state": "running", "runs": 2000}, SWEEP | {"state": "done", "runs": 4000}
    stub.on("GET", "/archive", {"items": [SWEEP | {"sweep_id": "s2"}, running]}, {"items": [done]})
    status, out, err = call("archive", "--older-than", "12h", "--to", "s3://b/x")
    assert status == 0
    assert stub.asked[0][2] == {"older_than_s": 43_200, "to": "s3://b/x"}
    assert "2,000 runs" in err
    assert "4000" in out
    stub.on("POST", "/archive", SWEEP | {"state": "failed", "error": "no bucket"})
    status, _, err = call("archive", "--no-wait")
    assert status == 0, "the first answer is repeated, and nobody waits"


def test_a_sweep_that_failed_is_an_error(call: Call, stub: Stub) -> None:
    stub.on("POST", "/archive", SWEEP | {"state": "failed", "error": "no bucket"})
    status, _, err = call("archive")
    assert status == 1
    assert "no bucket" in err
    assert stub.asked[0][2] == {"older_than_s": 2_592_000}
    assert call("archive", "--older-than", "soon")[0] == 1


def test_why_a_sweep_does_not_go_on_is_told(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.archive_commands._LOOK_S", 0.0)
    stub.on("POST", "/archive", SWEEP)
    away = SWEEP | {"state": "running", "error": "the archive at s3://b: no route"}
    stub.on("GET", "/archive", {"items": [away]}, {"items": [SWEEP | {"state": "done"}]})
    status, _, err = call("archive")
    assert (status, "no route" in err) == (0, True)


def test_a_line_of_a_narrow_terminal_is_a_sweep(call: Call, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"sweep_id": "0123456789abcdef", "runs": 12_345, "backfills": 12, "size_bytes": 12_345_678, "left": 12}
    stub.on("GET", "/archive", {"items": [SWEEP | large]})
    monkeypatch.setenv("COLUMNS", "80")
    header, line = call("archive", "--status")[1].splitlines()
    assert header.split() == ["sweep", "state", "before", "runs", "backfills", "left", "size", "to"]
    assert line.split() == ["0123456789abcdef", "wanted", "2025-12-03", "03:04", "12345", "12", "12", "12.3", "MB"]


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (2 * 10**18, "2000.0 PB")],
)
def test_a_size_is_told_in_a_few_letters(size_bytes: int, told: str) -> None:
    assert brief_size(size_bytes) == told


def test_archive_status_lists_what_left_last(call: Call, stub: Stub) -> None:
    stub.on("GET", "/archive", {"items": [SWEEP]})
    status, out, _ = call("archive", "--status", "--json")
    assert (status, json.loads(out)["items"]) == (0, [SWEEP])


def test_a_backup_is_made_and_brought_back(
    call: Call, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    copy = tmp_path_factory.mktemp("backups") / "copy"
    status, out, err = call("backup", str(copy), "--json")
    assert status == 0, err
    assert json.loads(out)["files"] == 1
    assert (copy / "credentials.json").read_text() == (tmp_path / "credentials.json").read_text()
    assert call("restore", str(copy))[0] == 1, "it is not empty"
    (tmp_path / "credentials.json").unlink()
    status, out, err = call("restore", str(copy), local=False)
    assert status == 0, err
    assert (copy / "credentials.json").read_text() == (tmp_path / "credentials.json").read_text()
