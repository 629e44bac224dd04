"""Files that are there whole or not at all: written aside, then renamed. Nobody but their owner may read them.

    .aside-xyz.new ── written, synced ──▶ name ── folder synced

Who is killed in between leaves the file aside.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from actors.clock import Clock

#: what names of files aside begin and end with
_ASIDE, _NEW = ".aside-", ".new"
#: tries to make a file in a folder that a sweep of empty ones (`artifact_folders.py`) may remove in between
_TRIES = 3


@contextmanager
def aside(path: Path) -> Iterator[BufferedWriter]:
    """What is written in the block is the file of that path after it, unless the block raises. Raises OSError."""
    handle, fresh = _file_in(path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def put(path: Path, content: bytes) -> None:
    """The file of that path has the content, also after a crash. Raises OSError: then it is as it was."""
    with aside(path) as file:
        file.write(content)
        sync(file)
    sync_folder(path.parent)


def tidy(folder: Path, age_s: float) -> None:
    """Files aside that are older, so that those who wrote them were killed, are gone. Raises OSError."""
    before_s = Clock().now().timestamp() - age_s
    for left in folder.glob(f"{_ASIDE}*{_NEW}"):
        with suppress(FileNotFoundError):  # somebody else was faster
            if left.stat().st_mtime < before_s:
                left.unlink()


def sync(file: BufferedWriter) -> None:
    """What was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """What was renamed in the folder is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_in(folder: Path) -> tuple[int, str]:
    """A new file in it, open; it is made, too."""
    for _ in range(_TRIES):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            return tempfile.mkstemp(prefix=_ASIDE, suffix=_NEW, dir=folder)
    return tempfile.mkstemp(prefix=_ASIDE, suffix=_NEW, dir=folder)
