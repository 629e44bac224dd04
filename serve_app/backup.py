"""A copy of a data directory, made while the server goes on, and the way back.

    journal's files ─▶ archive's index ─▶ everything else          into DIR.partial, synced, renamed to DIR

The journal first: what it names (artifacts, segments of the archive, deployed code) was there before it named it, and
runs that leave for the archive meanwhile are in both. Its append-only file is copied as far as it goes at that moment;
no rewrite replaces it meanwhile, and a step that is only half in the copy counts as not done when it is loaded. What is
about the running server only (its pid, its sockets, its logs) is left out, so a copy can be started elsewhere,
also beside the original: two servers then go on from the same state, and schedules fire in both. Nor has it the id of
the data directory: on a journal that both share, whoever comes from that directory need not wait for the lease.

A journal of one's own (`--redis-url`), and an archive at a URL of its own, are kept by whoever keeps them: back the
journal up first, as that server's manual says. Source: the issue "On a cluster, and watched", item 5.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from actors import embedded
from actors.artifact_places import FETCHED
from actors.clock import Clock
from orchestrator.errors import Conflict, Invalid, Unavailable
from serve_app import home as homes

_MANIFEST = "backup.json"
_JOURNAL = "valkey/appendonlydir"
_INDEX = "archive/index.sqlite"
#: of `bundles`, what is made of them where it is missing, and what is on its way
_MADE_ANEW = frozenset({"unpacked", "packages", "offered"})
#: of the data directory, what only the running server needs, what is its own, and what is copied by itself
_LEFT_OUT = frozenset({"valkey", "gcs", "logs", "seat.id", "server.json", "server.lock", f"artifacts{FETCHED}"})


def backup(folder: Path, to: Path) -> dict[str, Any]:
    """`to` holds a copy of the data directory, whole or not at all. Raises Invalid, Conflict, Unavailable."""
    if not folder.is_dir():
        raise Invalid(f"{folder} is no data directory")
    try:
        if to.exists():
            raise Conflict(f"{to} exists; a backup goes into a new folder")
        if to.resolve().is_relative_to(folder.resolve()):
            raise Invalid(f"{to} is inside the data directory")
        with _made_aside(to) as partial:
            told = _copied(folder, partial)
            os.sync()
            partial.rename(to)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"no backup was made: {_why(error)}") from error
    return told


def restore(folder: Path, source: Path) -> dict[str, Any]:
    """The data directory is what it was at the backup. No server may run on it, and it must be new or empty.

    Raises Invalid, Conflict, Unavailable.
    """
    told = _manifest(source)
    try:
        _check_target(folder, source)
        with _made_aside(folder) as partial:
            shutil.copytree(source, partial, symlinks=True, dirs_exist_ok=True)
            (partial / _MANIFEST).unlink()
            partial.chmod(0o700)
            os.sync()
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
    except OSError as error:
        raise Unavailable(f"nothing was restored: {_why(error)}") from error
    return told


def _check_target(folder: Path, source: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise Conflict(f"{folder} is no folder; move it away, or restore into a new folder with --data-dir")
    if folder.resolve().is_relative_to(source.resolve()):
        raise Invalid(f"{folder} is inside the backup")
    if homes.is_claimed(folder) or embedded.is_running(folder):
        raise Conflict(homes.who_runs(folder, homes.read_server(folder)))
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty; move it away, or restore into a new folder with --data-dir")


@contextmanager
def _made_aside(to: Path) -> Iterator[Path]:
    """An empty folder beside `to` that is nobody else's; should filling it fail, the disk has its room back."""
    partial = to.with_name(to.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(partial, os.O_RDONLY)
    try:
        _claim(handle, partial)
        try:
            for entry in partial.iterdir():  # what a kill left
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            partial.chmod(0o700)
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _claim(handle: int, partial: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(f"{partial} is being written by somebody else") from None
    except OSError:
        return  # NFS locks no folders: there it is up to who makes backups


def _why(error: Exception) -> str:
    """The first of the errors that a copy of many files ran into."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        (source, _, why), *others = error.args[0]
        return f"{source}: {why}" + (f" (and {len(others)} more)" if others else "")
    return str(error)


def _manifest(source: Path) -> dict[str, Any]:
    try:
        found = json.loads((source / _MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(f"{source} is no backup ({error})") from None
    if not isinstance(found, dict):
        raise Invalid(f"{source} is no backup")
    return found


def _copied(folder: Path, to: Path) -> dict[str, Any]:
    journal = folder / _JOURNAL
    if journal.is_dir():
        with embedded.unreplaced(folder):
            _copy_tree(journal, to / _JOURNAL)
    if (folder / _INDEX).exists():
        _copy_index(folder / _INDEX, to / _INDEX)
    for entry in sorted(folder.iterdir()):
        if entry.name not in _LEFT_OUT:
            _copy_rest(entry, to / entry.name)
    told = {
        "made_at": Clock().now().isoformat(timespec="seconds"),
        "journal": journal.is_dir(),
        "files": sum(1 for _ in _files(to)),
        "size_bytes": sum(path.stat().st_size for path in _files(to)),
    }
    (to / _MANIFEST).write_text(json.dumps(told, indent=2) + "\n")
    return told


def _copy_rest(entry: Path, to: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        _copy_tree(entry, to)
    elif entry.is_file() or entry.is_symlink():
        _copy_file(str(entry), str(to))


def _copy_tree(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, symlinks=True, ignore=_unfinished, copy_function=_copy_file, dirs_exist_ok=True)


def _unfinished(folder: str, names: list[str]) -> set[str]:
    """What is being written aside, or made anew where it is missing, and the index, which is copied as SQLite does."""
    left_out = {name for name in names if name.endswith(".new")}
    if Path(folder).name == "archive":
        left_out |= {name for name in names if name.startswith("index.sqlite")}
    return left_out | _MADE_ANEW if Path(folder).name == "bundles" else left_out


def _copy_file(source: str, to: str) -> None:
    try:
        shutil.copy2(source, to, follow_symlinks=False)
    except FileNotFoundError:
        if os.path.lexists(source):
            raise  # it is the target's folder that is missing
    # a file that went since the folder was read was finished with


def _copy_index(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(sqlite3.connect(source)) as index, closing(sqlite3.connect(to)) as copy:
        index.backup(copy)
    to.chmod(0o600)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
