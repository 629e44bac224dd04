"""Folders of artifacts, as a sweep goes through them: nothing outside of them, nothing young."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from actors.artifact_folders import Folder, Place, StoreFolders
from actors.artifacts import Artifacts
from orchestrator.errors import Unavailable
from orchestrator.ids import run_id
from orchestrator.reclaim import Tally

R1, R2 = (str(run_id(0, 0, number)) for number in (1, 2))
JOB = "6f2f1b1e-0d6c-4c0a-9a3b-0123456789ab"
OLD, CUTOFF = 1_000.0, 2_000.0


def put(path: Path, at: float = OLD, size: int = 10) -> Path:
    """A file of that age, in folders that are as old as the oldest file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (at, at))
    os.utime(path.parent, (OLD, OLD))
    return path


def cleared(place: Place, *run_ids: str, held: frozenset[str] = frozenset(), **options: Any) -> dict[str, Tally]:
    return place.clear(dict.fromkeys(run_ids, held), CUTOFF, **({"dry_run": False} | options))


def test_what_is_old_goes_with_its_folder_and_what_is_young_or_held_stays(tmp_path: Path) -> None:
    for name in ("a.1", "b.1", ".crashed"):
        put(tmp_path / R1 / name)
    young, held = put(tmp_path / R1 / "a.2", CUTOFF + 1), put(tmp_path / R1 / "c.1")
    assert cleared(Folder(tmp_path), R1, held=frozenset({"c.1"})) == {R1: Tally(3, 30)}
    assert sorted((tmp_path / R1).iterdir()) == [young, held]
    assert (tmp_path / R1).stat().st_mtime == OLD, "it is looked at again"
    os.utime(young, (OLD, OLD))
    assert cleared(Folder(tmp_path), R1) == {R1: Tally(2, 20)}
    assert list(tmp_path.iterdir()) == []
    assert cleared(Folder(tmp_path), R1) == {}, "it may be gone already"


def test_a_dry_run_tells_the_same_and_removes_nothing(tmp_path: Path) -> None:
    file = put(tmp_path / R1 / "a.1")
    assert cleared(Folder(tmp_path), R1, dry_run=True) == {R1: Tally(1, 10)}
    assert file.exists()


def test_files_of_jobs_go_with_the_folders_that_they_are_in(tmp_path: Path) -> None:
    put(tmp_path / JOB / "report/2026/summary.txt")
    kept = put(tmp_path / JOB / "report/last.txt", CUTOFF + 1)
    assert cleared(Folder(tmp_path), JOB) == {JOB: Tally(1, 10)}
    assert [path for path in (tmp_path / JOB).rglob("*") if path.is_file()] == [kept]
    assert not (tmp_path / JOB / "report/2026").exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    precious = put(tmp_path / "elsewhere/precious.1")
    root = tmp_path / "artifacts"
    put(root / R1 / "a.1")
    for name, target in (("file", precious), ("folder", precious.parent), ("nowhere", tmp_path / "gone")):
        (root / R1 / name).symlink_to(target)
        os.utime(root / R1 / name, (OLD, OLD), follow_symlinks=False)
    (root / R2).symlink_to(precious.parent)
    os.utime(root / R1, (OLD, OLD))
    os.utime(root / R2, (OLD, OLD), follow_symlinks=False)
    folder = Folder(root)
    assert folder.runs(CUTOFF, "", 10) == [R1], "a folder that is a link is nobody's"
    assert cleared(folder, R1, R2)[R1].files == 4
    assert not (root / R1).exists()
    assert precious.exists()


def test_folders_come_by_name_as_many_as_wanted_and_foreign_ones_never(tmp_path: Path) -> None:
    for name in (R2, R1, "data", "run_1"):
        put(tmp_path / name / "a.1")
    put(tmp_path / "loose file")
    folder = Folder(tmp_path)
    assert folder.runs(CUTOFF, "", 1) == [R1]
    assert folder.runs(CUTOFF, R1, 10) == [R2]
    os.utime(tmp_path / R2, (CUTOFF + 1,) * 2)
    assert folder.runs(CUTOFF, R1, 10) == [], "something was added to it"
    assert folder.here() == Tally(2, 20)


def test_nothing_is_there_before_the_first_value(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "nowhere")
    assert (folder.runs(CUTOFF, "", 10), folder.here(), cleared(folder, R1)) == ([], Tally(), {})


def test_a_folder_that_cannot_be_cleared_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / R1 / "a.1")
    put(tmp_path / R2 / "a.1")
    unlink = os.unlink

    def stubborn(name: str, *, dir_fd: int) -> None:
        if os.fstat(dir_fd).st_ino == (tmp_path / R1).stat().st_ino:
            raise PermissionError(name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr("actors.artifact_folders.os.unlink", stubborn)
    assert cleared(Folder(tmp_path), R1, R2) == {R2: Tally(1, 10)}


def test_who_writes_while_its_empty_folder_goes_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkstemp, sweeps = tempfile.mkstemp, iter(range(2))

    def swept_before(*, dir: Path, **named: str) -> tuple[int, str]:
        if next(sweeps, None) is not None:
            assert cleared(Folder(tmp_path), R1) == {}
            assert not dir.exists()
        return mkstemp(dir=dir, **named)

    monkeypatch.setattr(tempfile, "mkstemp", swept_before)
    artifacts = Artifacts(tmp_path)
    assert artifacts.read(artifacts.keep(R1, "a", 1, {1: "x"})) == {1: "x"}


@pytest.fixture
def store() -> Iterator[Any]:
    from fsspec.implementations.memory import MemoryFileSystem

    files = MemoryFileSystem()
    files.store.clear()
    for name in (f"{R1}/a.1", f"{R1}/b.1", f"{R2}/a.1", "data/x"):
        files.pipe_file(f"/values/{name}", b"x" * 10)
        files.store[f"/values/{name}"].modified = datetime.fromtimestamp(OLD, UTC)
    yield files
    files.store.clear()


def test_a_store_is_cleared_like_a_folder(store: Any) -> None:
    store.store[f"/values/{R1}/b.1"].modified = datetime.now(UTC)
    place = StoreFolders("memory://values/")
    assert place.runs(CUTOFF, "", 10) == [R1, R2]
    assert place.runs(CUTOFF, R1, 10) == [R2]
    assert cleared(place, R1, R2, dry_run=True) == {R1: Tally(1, 10), R2: Tally(1, 10)}
    assert cleared(place, R1, R2, held=frozenset({"x"})) == {R1: Tally(1, 10), R2: Tally(1, 10)}
    assert sorted(store.store) == ["/values/data/x", f"/values/{R1}/b.1"]
    assert cleared(place, R1, held=frozenset({"b.1"})) == {}


def test_a_store_in_which_nothing_is_has_no_folders(store: Any) -> None:
    assert StoreFolders("memory://nothing").runs(CUTOFF, "", 10) == []


def test_a_file_stays_whose_age_the_store_does_not_tell(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def modified(_: str) -> datetime:
        raise NotImplementedError

    monkeypatch.setattr(store, "modified", modified)
    assert cleared(StoreFolders("memory://values"), R1) == {}


def test_a_store_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    def ls(*_: Any, **__: Any) -> list[str]:
        raise ConnectionError("no route")

    monkeypatch.setattr(store, "ls", ls)
    with pytest.raises(Unavailable, match="no route"):
        StoreFolders("memory://values").runs(time.time(), "", 10)


def test_a_file_of_a_store_that_is_named_like_a_run_is_somebody_elses(store: Any) -> None:
    store.pipe_file(f"/values/{JOB}", b"theirs")
    store.store[f"/values/{JOB}"].modified = datetime.fromtimestamp(OLD, UTC)
    place = StoreFolders("memory://values")
    assert place.runs(CUTOFF, "", 10) == [R1, R2]
    assert cleared(place, JOB) == {}
    assert f"/values/{JOB}" in store.store


@pytest.mark.parametrize("root", ["", "sub"])
def test_what_is_held_stays_whatever_the_store_calls_its_files(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirfs = pytest.importorskip("fsspec.implementations.dirfs")
    local = pytest.importorskip("fsspec.implementations.local")
    files = dirfs.DirFileSystem(str(tmp_path), local.LocalFileSystem())  # its paths begin with no slash
    monkeypatch.setattr("actors.artifact_folders.filesystem", lambda _: (files, root))
    held, loose = put(tmp_path / root / R1 / "a.1"), put(tmp_path / root / R1 / "b.1")
    place = StoreFolders("some://where")
    assert place.runs(CUTOFF, "", 10) == [R1]
    assert cleared(place, R1, held=frozenset({"a.1"})) == {R1: Tally(1, 10)}
    assert (held.exists(), loose.exists()) == (True, False)


def test_a_time_without_a_zone_is_never_taken_for_an_earlier_one(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone in ("America/Los_Angeles", "Asia/Tokyo"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            for told in (
                datetime.fromtimestamp(CUTOFF + 60, UTC).replace(tzinfo=None),
                datetime.fromtimestamp(CUTOFF + 60),
            ):
                for file in store.store.values():
                    file.modified = told
                assert cleared(StoreFolders("memory://values"), R1) == {}
    finally:
        monkeypatch.undo()
        time.tzset()
