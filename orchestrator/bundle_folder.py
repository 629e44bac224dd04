"""The files of a folder that belong into a bundle.

Left out are what begins with `.` (version control, `.env` files with secrets, `.venv`), `__pycache__` and other byte
code, `node_modules`, folders of installed packages, virtual environments under any name, and what the file
`.orchestratorignore` at the top of the folder names: one pattern a line, as in a `.gitignore` without `**`.

    # comment          data/        folders of that name, with all that is in them
    *.csv              at any depth, since there is no slash before its end
    /notes.md          docs/*.png  from the top of the folder
    !small.csv         comes back in: the last pattern that fits counts, unless its folder stays out

This module touches files; like `load.py` it is for the operator's own ones.
"""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.bundle import FILES_MAX, UNPACKED_MAX
from orchestrator.errors import Invalid

IGNORE_FILE = ".orchestratorignore"
#: folders that never hold the author's own code
_FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__", "node_modules"})
_BYTE_CODE = (".pyc", ".pyo")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file."""

    #: of the names on the way, from the top; of one name it fits at any depth
    parts: tuple[str, ...]
    #: from the top only
    anchored: bool
    folders_only: bool
    #: what fits is not left out
    back: bool

    def fits(self, path: str, folder: bool) -> bool:
        """Does it speak of the file or folder at `path`?"""
        names = path.split("/")
        if self.folders_only and not folder:
            return False
        if not self.anchored:
            return fnmatch.fnmatchcase(names[-1], self.parts[0])
        return len(names) == len(self.parts) and all(map(fnmatch.fnmatchcase, names, self.parts))


def patterns(text: str) -> list[Pattern]:
    """The lines of an ignore file. Raises Invalid."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        told = line.strip()
        if not told or told.startswith("#"):
            continue
        back = told.startswith("!")
        told = told.removeprefix("!")
        parts = tuple(part for part in told.split("/") if part)
        if not parts or "**" in told:
            raise Invalid(f"{IGNORE_FILE}, line {number}: {line!r} is no pattern; `**` is not supported")
        anchored = "/" in told.rstrip("/")
        found.append(Pattern(parts, anchored, told.endswith("/"), back))
    return found


def read_folder(folder: Path) -> dict[str, bytes]:
    """Path -> content of what belongs into the bundle. Raises Invalid."""
    try:
        ignore = folder / IGNORE_FILE
        rules = patterns(ignore.read_text(encoding="utf-8")) if ignore.is_file() else []
        return _files(folder, rules)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{folder}: {error}") from error


def _files(folder: Path, rules: list[Pattern]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    size_bytes = 0
    for path, file in _walk(folder, "", rules):
        size_bytes += file.stat().st_size
        if len(found) >= FILES_MAX or size_bytes > UNPACKED_MAX:
            raise Invalid(
                f"{folder}: more than {FILES_MAX} files or {UNPACKED_MAX} bytes; name in {IGNORE_FILE} what is no code"
            )
        found[unicodedata.normalize("NFC", path)] = file.read_bytes()
    if not found:
        raise Invalid(f"{folder}: there is nothing in it that belongs into a bundle")
    return found


def _walk(folder: Path, prefix: str, rules: list[Pattern]) -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.iterdir()):
        path = prefix + entry.name
        is_folder = entry.is_dir()
        if _is_foreign(entry, is_folder) or _is_ignored(path, is_folder, rules):
            continue
        if not is_folder:
            yield path, entry
        elif entry.is_symlink():
            raise Invalid(f"{entry} is a link to a folder: copy what it leads to, or name it in {IGNORE_FILE}")
        else:
            yield from _walk(entry, path + "/", rules)


def _is_foreign(entry: Path, is_folder: bool) -> bool:
    if entry.name.startswith("."):
        return True
    if not is_folder:
        return entry.suffix in _BYTE_CODE or not entry.is_file()
    return entry.name in _FOREIGN or (entry / "pyvenv.cfg").exists()


def _is_ignored(path: str, folder: bool, rules: list[Pattern]) -> bool:
    fitting = [rule for rule in rules if rule.fits(path, folder)]
    return bool(fitting) and not fitting[-1].back
