"""orchestrator.bundle_folder: which files of a folder belong into a bundle."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from orchestrator import bundle_folder
from orchestrator.bundle import id_of_files
from orchestrator.bundle_folder import IGNORE_FILE, patterns, read_folder
from orchestrator.errors import Invalid


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


def test_code_data_and_requirements_belong_to_it_and_nothing_else(tmp_path: Path) -> None:
    wanted = ("flow.py", "flow.yaml", "lib/__init__.py", "lib/deep/query.sql", "requirements.txt")
    write(tmp_path, *wanted)
    write(tmp_path, ".env", ".git/config", ".venv/bin/x", "lib/__pycache__/a.pyc", "lib/b.pyc", "node_modules/a/b.js")
    write(tmp_path, "env/pyvenv.cfg", "env/lib/a.py", "x/site-packages/b.py", IGNORE_FILE)
    (tmp_path / IGNORE_FILE).write_text("")
    (tmp_path / "empty").mkdir()
    assert read_folder(tmp_path) == {path: path.encode() for path in wanted}


def test_the_ignore_file_leaves_out_what_it_names(tmp_path: Path) -> None:
    write(tmp_path, "flow.py", "notes.md", "lib/notes.md", "data/a.csv", "data/b/c.csv", "keep/a.csv", "keep/b.csv")
    write(tmp_path, "docs/a.png", "docs/deep/a.png", "lib/data")
    (tmp_path / IGNORE_FILE).write_text("# no data\n\ndata/\n*.csv\n!a.csv\n/notes.md\ndocs/*.png\n")
    assert sorted(read_folder(tmp_path)) == [
        "docs/deep/a.png", "flow.py", "keep/a.csv", "lib/data", "lib/notes.md",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["a/**/b", "/", "!", "**"])
def test_a_pattern_that_means_nothing_here_is_refused(line: str) -> None:
    with pytest.raises(Invalid, match="line 2"):
        patterns(f"# first\n{line}\n")


def test_the_same_files_have_the_same_id_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("here", "there"):
        write(tmp_path / name, "b.py", "a/c.py")
    (tmp_path / "here" / "b.py").chmod(0o755)
    (tmp_path / "there" / "empty").mkdir()
    assert id_of_files(read_folder(tmp_path / "here")) == id_of_files(read_folder(tmp_path / "there"))


def test_names_are_told_in_one_normal_form(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "é.py")
    write(tmp_path, unicodedata.normalize("NFD", composed))
    assert list(read_folder(tmp_path)) == [composed]


def test_a_link_to_a_file_is_the_file_and_one_to_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "flows"
    write(tmp_path, "shared.py", "other/a.py")
    folder.mkdir()
    (folder / "shared.py").symlink_to(tmp_path / "shared.py")
    assert read_folder(folder) == {"shared.py": b"shared.py"}
    (folder / "other").symlink_to(tmp_path / "other")
    with pytest.raises(Invalid, match="link to a folder"):
        read_folder(folder)
    (folder / IGNORE_FILE).write_text("other/\n")
    assert list(read_folder(folder)) == ["shared.py"]


def test_too_much_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.py", "b.py", "c.py")
    monkeypatch.setattr(bundle_folder, "FILES_MAX", 2)
    with pytest.raises(Invalid, match="more than 2 files"):
        read_folder(tmp_path)


def test_an_empty_folder_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nothing"):
        read_folder(tmp_path)
    with pytest.raises(Invalid):
        read_folder(tmp_path / "none")
