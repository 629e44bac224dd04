"""Files of one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.task_files import TaskFiles
from orchestrator.errors import Invalid


@pytest.fixture
def files(tmp_path: Path) -> TaskFiles:
    return TaskFiles(tmp_path / "artifacts" / "job")


@pytest.mark.parametrize("name", ["a.txt", "sub/folder/a.txt", "./a", "ä b"])
def test_what_was_written_is_read(files: TaskFiles, name: str) -> None:
    files.write(name, b"one")
    files.write(name, bytearray(b"two"))
    assert files.read(name) == b"two"


def test_files_lie_in_the_folder_and_nothing_else_does(files: TaskFiles, tmp_path: Path) -> None:
    files.write("sub/a", b"x")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "artifacts/job/sub/a"
    ]


@pytest.mark.parametrize("name", ["../other/a", "/etc/passwd", "sub/../../a", "a/../b", "", ".", "..", "a\0b"])
def test_a_name_that_leads_out_is_refused(files: TaskFiles, name: str) -> None:
    with pytest.raises(Invalid, match="must be a path below the job's folder"):
        files.write(name, b"x")
    with pytest.raises(Invalid, match="must be a path below the job's folder"):
        files.read(name)


def test_a_link_that_leads_out_is_refused(files: TaskFiles, tmp_path: Path) -> None:
    files.write("a", b"x")
    (tmp_path / "artifacts" / "job" / "out").symlink_to(tmp_path)
    with pytest.raises(Invalid, match="below the job's folder"):
        files.write("out/a", b"x")


def test_text_is_not_bytes(files: TaskFiles) -> None:
    with pytest.raises(Invalid, match="task file 'a' holds bytes, not str"):
        files.write("a", "text")  # type: ignore[arg-type] # the mistake


def test_a_file_that_is_not_there_is_told(files: TaskFiles) -> None:
    with pytest.raises(FileNotFoundError):
        files.read("a")


def test_a_failed_write_leaves_what_was_there(
    files: TaskFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a", b"old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        files.write("a", b"new")
    assert files.read("a") == b"old"
    assert [path.name for path in (tmp_path / "artifacts" / "job").iterdir()] == ["a"]
