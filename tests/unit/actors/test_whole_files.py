"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from actors import whole_files


def test_a_file_is_put_into_a_folder_that_is_made_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    whole_files.put(path, b"one")
    whole_files.put(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_content_is_on_the_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    fsync, path = os.fsync, tmp_path / "a"

    def noted(handle: int) -> None:
        what = "folder" if os.fstat(handle).st_ino == tmp_path.stat().st_ino else f"{os.fstat(handle).st_size} bytes"
        seen.append((what, path.exists()))
        fsync(handle)

    monkeypatch.setattr("os.fsync", noted)
    whole_files.put(path, b"one")
    assert seen == [("3 bytes", False), ("folder", True)]


def test_what_could_not_be_put_changes_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_files.put(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        whole_files.put(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_block_that_raises_writes_nothing(tmp_path: Path) -> None:
    def cut_off() -> None:
        with whole_files.aside(tmp_path / "a") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_there_before_the_block_ends(tmp_path: Path) -> None:
    with whole_files.aside(tmp_path / "a") as file:
        file.write(b"whole")
        [fresh] = tmp_path.iterdir()
        assert fresh.name.startswith(".")
        assert fresh.suffix == ".new"
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_folder_that_goes_in_the_moment_in_which_it_was_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, made = Path.mkdir, []

    def swept(folder: Path, **named: Any) -> None:
        mkdir(folder, **named)
        made.append(folder)
        if len(made) < 3:
            folder.rmdir()

    monkeypatch.setattr(Path, "mkdir", swept)
    whole_files.put(tmp_path / "run/a", b"x")
    assert (tmp_path / "run/a").read_bytes() == b"x"
    assert len(made) == 3


def test_what_a_kill_left_aside_goes_after_a_while_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("os.unlink", lambda _: None)  # a kill runs no handlers
        patched.setattr("os.fsync", lambda _: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                whole_files.put(tmp_path / "a", b"half")
    old, young = tmp_path.iterdir()
    theirs, hidden = tmp_path / "theirs.new", tmp_path / ".hidden.new"
    for each in (old, theirs, hidden):
        each.touch()
        os.utime(each, (1.0, 1.0))
    whole_files.tidy(tmp_path, 60.0)
    assert sorted(tmp_path.iterdir()) == sorted([young, theirs, hidden])
    whole_files.tidy(tmp_path / "nowhere", 60.0)
