"""Backup and restore drill on the real journal server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from actors import embedded
from actors.archive_store import ArchiveStore
from actors.archiver import Archiver
from actors.clock import Clock
from actors.journal import Journal
from actors.settings import Settings
from orchestrator.archive import Sweep
from orchestrator.errors import Conflict, Invalid, Unavailable
from orchestrator.rows import History
from serve_app import backup
from serve_app.home import claimed, ensure_credentials, ensure_secret_key, read_credentials
from tests.conformance.journal_builders import NOW_MS, Owner, append, create, new_run
from tests.conformance.retention_suite import ended


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    found = (tmp_path / "one", tmp_path / "two")
    yield found
    for each in found:
        embedded.stop(each)


async def histories(home: Path, runs: list[str]) -> list[History]:
    journal = Journal(embedded.ensure_running(home).url)
    try:
        return await journal.load(runs)
    finally:
        await journal.close()


async def test_a_copy_made_under_load_has_all_that_was_acknowledged_before(
    homes: tuple[Path, Path], tmp_path: Path
) -> None:
    home, other = homes
    journal = Journal(embedded.ensure_running(home).url)
    ensure_credentials(home, "http://127.0.0.1:1")
    key = ensure_secret_key(home)
    artifact = home / "artifacts" / "run_1" / "a.1"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"value")
    (artifact.parent / "b.1.new").write_bytes(b"half")
    owner = await Owner(journal).start()
    runs = await create(journal, *(new_run() for _ in range(20)))
    gone, *kept = runs
    await ended(journal, owner, gone)
    await Archiver(journal, Clock(), Settings(home=str(home))).sweep(Sweep(id="one", before_ms=NOW_MS + 1, to=""))
    known = await journal.load(kept)
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await owner.commit(*(append(run, 1 + written) for run in kept))
            written += 1

    writer = asyncio.create_task(write())
    while written < 3:  # noqa: ASYNC110 # the writer tells nobody
        await asyncio.sleep(0.001)
    before, told = written, await asyncio.to_thread(backup.backup, home, tmp_path / "copy")
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    await journal.close()
    assert told["journal"]
    assert told["files"] > 5

    backup.restore(other, tmp_path / "copy")
    found = await histories(other, kept)
    versions = {history.row.version for history in found}
    assert len(versions) == 1, "a step is in the copy as a whole or not at all"
    assert before + 1 <= versions.pop() <= written + 2
    assert [history.batches[: len(first.batches)] for history, first in zip(found, known, strict=True)] == [
        first.batches for first in known
    ]
    shelved = ArchiveStore(other).run(gone)
    assert shelved is not None
    assert shelved.row.version == 4
    assert read_credentials(other) == read_credentials(home)
    assert ensure_secret_key(other) == key
    assert (other / "artifacts/run_1/a.1").read_bytes() == b"value"
    assert not (other / "artifacts/run_1/b.1.new").exists()
    assert embedded.ensure_running(other).socket != embedded.ensure_running(home).socket


def test_the_file_is_rewritten_again_after_a_backup(homes: tuple[Path, Path]) -> None:
    home, _ = homes
    with redis.Redis.from_url(embedded.ensure_running(home).url, decode_responses=True) as client:
        setting = "auto-aof-rewrite-percentage"
        with embedded.unreplaced(home):
            assert client.config_get(setting) == {setting: "0"}
        assert client.config_get(setting) == {setting: "100"}


def test_a_backup_that_is_told_to_end_leaves_everything_as_it_was(homes: tuple[Path, Path], tmp_path: Path) -> None:
    home, _ = homes
    copy = tmp_path / "copy"
    code = f"""
import time
from serve_app import backup, cli
backup._copy_index = backup._copy_tree = lambda *_: (print("under way", flush=True), time.sleep(60))
cli.main(["backup", {str(copy)!r}, "--data-dir", {str(home)!r}])
"""
    with redis.Redis.from_url(embedded.ensure_running(home).url, decode_responses=True) as client:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "under way\n"
            setting = "auto-aof-rewrite-percentage"
            assert client.config_get(setting) == {setting: "0"}
            process.terminate()
            process.communicate(timeout=20)
        assert process.returncode == 143
        assert client.config_get(setting) == {setting: "100"}
    assert not copy.with_name("copy.partial").exists()


def test_a_stopped_server_is_copied_too(homes: tuple[Path, Path], tmp_path: Path) -> None:
    home, other = homes
    with redis.Redis.from_url(embedded.ensure_running(home).url) as client:
        client.set("k", "v")
    embedded.stop(home)
    backup.backup(home, tmp_path / "copy")
    backup.restore(other, tmp_path / "copy")
    with redis.Redis.from_url(embedded.ensure_running(other).url) as client:
        assert client.get("k") == b"v"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    (home / "credentials.json").write_text("{}")
    told = backup.backup(home, copy)
    assert (told["journal"], told["files"]) == (False, 1)
    with pytest.raises(Conflict, match="exists"):
        backup.backup(home, copy)
    with pytest.raises(Conflict, match="not empty"):
        backup.restore(home, copy)
    with pytest.raises(Invalid, match="inside"):
        backup.backup(home, home / "copy")
    with pytest.raises(Invalid, match="no data directory"):
        backup.backup(tmp_path / "nothing", tmp_path / "copy2")
    with pytest.raises(Invalid, match="no backup"):
        backup.restore(tmp_path / "new", home)
    with claimed(tmp_path / "claimed"), pytest.raises(Conflict, match="already runs"):
        backup.restore(tmp_path / "claimed", copy)


def test_a_backup_that_fails_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    (home / "credentials.json").write_text("{}")

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("serve_app.backup._copy_rest", full)
        with pytest.raises(Exception, match="no space left"):
            backup.backup(home, copy)
    assert list(tmp_path.iterdir()) == [home], "a full disk has its room back"
    backup.backup(home, copy)
    assert (copy / "credentials.json").exists()
    assert not copy.with_name("copy.partial").exists()
    with monkeypatch.context() as patched:
        patched.setattr("serve_app.backup.shutil.copytree", partly)
        with pytest.raises(Unavailable, match="no space left"):
            backup.restore(tmp_path / "new", copy)
    assert sorted(tmp_path.iterdir()) == [copy, home]


def partly(_: Path, to: Path, **__: object) -> None:
    to.mkdir(exist_ok=True)
    (to / "half").touch()
    raise OSError("no space left")


def test_where_a_link_leads_is_what_counts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "artifacts").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home / "artifacts")
    with pytest.raises(Invalid, match="inside"):
        backup.backup(home, tmp_path / "link/copy")
    told = backup.backup(home, home / "../copy")
    assert told["files"] == 0
    with pytest.raises(Invalid, match="inside"):
        backup.restore(tmp_path / "copy/artifacts/new", tmp_path / "copy")


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    backup.backup(tmp_path / "home", tmp_path / "copy")
    (tmp_path / "file").touch()
    for there in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises((Conflict, Unavailable)):
            backup.restore(there, tmp_path / "copy")
    with pytest.raises((Conflict, Unavailable)):
        backup.backup(tmp_path / "home", tmp_path / "file/below")


def test_two_backups_to_one_place_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    for name in ("a", "b"):
        (home / name).write_text("x")
    copied = backup._copy_rest
    refused: list[Exception] = []

    def meanwhile(entry: Path, to: Path) -> None:
        copied(entry, to)
        if entry.name == "a":
            try:
                backup.backup(home, copy)
            except Conflict as conflict:
                refused.append(conflict)

    monkeypatch.setattr("serve_app.backup._copy_rest", meanwhile)
    backup.backup(home, copy)
    assert len(refused) == 1
    assert sorted(path.name for path in copy.iterdir()) == ["a", "b", "backup.json"]


def test_what_is_made_anew_is_not_copied(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for path in (
        "seat.id",
        "gcs/CURRENT",
        "bundles/3f.zip",
        "bundles/unpacked/3f/flow.py",
        "bundles/packages/a0/numpy.py",
        "bundles/offered/a0.zip",
        "dags/packages/a.py",
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(path)
    backup.backup(home, tmp_path / "copy")
    found = {str(file.relative_to(tmp_path / "copy")) for file in (tmp_path / "copy").rglob("*") if file.is_file()}
    assert found == {"backup.json", "bundles/3f.zip", "dags/packages/a.py"}
