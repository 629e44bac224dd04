"""Values that were made elsewhere, as this node has them: a directory that is a cache, shared by the node's workers.

    get ──▶ <home>/artifacts-fetched/<run id>/<task>.<attempt>        else from its node, else from the store

A value is fetched once for all workers of a node, under a lock on its name: eight consumers of an array make one
transfer. What is here can be had again, so the directory is bounded: when it is over `limit_bytes`, files go that were
not used for longest. With a store at an fsspec URL (`ORCHESTRATOR_ARTIFACTS_URL`), what this node makes is put there
before it counts as stored, and its file is part of the cache like any other.

Where it is asked for first: the node that wrote it has it at hand, and knows at once when it has not; the store is what
stays when nodes go.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Any, Protocol, TextIO

from actors.filesystems import filesystem
from actors.whole_files import aside
from orchestrator.errors import Unavailable
from orchestrator.messages import Value

#: bytes of one piece on its way from node to node
CHUNK_BYTES = 16 * 1024 * 1024
#: times that a folder is made anew
_AGAIN = 3


class Nodes(Protocol):
    """The way to other nodes."""

    def copy(self, value: Value, to: BufferedWriter) -> None:
        """The artifact, as its node has it, is in the file. Raises FileNotFoundError when it has not, or is gone."""


class Store:
    """Artifacts behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opened: tuple[Any, str] | None = None

    def put(self, name: str, path: Path) -> None:
        """The file's content is kept under `name`, whole or not at all. Raises Unavailable."""
        with self._reached() as (files, root):
            target = f"{root}/{name}"
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), target)

    def copy(self, name: str, to: BufferedWriter) -> None:
        """What is kept under `name` is in the file. Raises FileNotFoundError, and Unavailable."""
        with self._reached() as (files, root), files.open(f"{root}/{name}", "rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                to.write(chunk)

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        try:
            if self._opened is None:
                self._opened = filesystem(self._url)
            yield self._opened
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise Unavailable(f"artifacts at {self._url}: {error}") from error


class FetchedValues:
    """The cache directory `folder`. `nodes` and `store` are where values come from; None = not from there."""

    def __init__(self, folder: Path, limit_bytes: int, nodes: Nodes | None = None, store: Store | None = None) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._nodes = nodes
        self._store = store

    @property
    def has_store(self) -> bool:
        """Do values go to a store?"""
        return self._store is not None

    def get(self, value: Value, elsewhere: bool) -> tuple[Path, int]:
        """The file of the value, and how many bytes of it had to come from elsewhere; `elsewhere`: not from this node.

        Raises FileNotFoundError when nobody has it, and Unavailable.
        """
        name = value.artifact or ""
        path = self._path(name)
        if touched(path):
            return path, 0
        if self._store is None and (self._nodes is None or not elsewhere):
            raise FileNotFoundError(name)
        with _opened(_lock_of(path)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if touched(path):
                return path, 0
            size_bytes = self._fetch(value, path, elsewhere)
        self._evict(keep=path)
        return path, size_bytes

    def store(self, name: str, write: Callable[[Path], int]) -> int:
        """The store has what `write` writes; its size in bytes. Raises Unavailable, and what `write` raises."""
        assert self._store is not None, "there is a store"
        path = self._path(name)
        size_bytes = write(path)
        try:
            self._store.put(name, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._evict(keep=path)
        return size_bytes

    def _fetch(self, value: Value, path: Path, elsewhere: bool) -> int:
        with aside(path) as file:
            self._copy(value, file, elsewhere)
            size_bytes = file.tell()
            if size_bytes != value.size_bytes:
                raise Unavailable(f"{value.artifact} came cut off: {size_bytes:,} of {value.size_bytes:,} bytes")
        return size_bytes

    def _copy(self, value: Value, to: BufferedWriter, elsewhere: bool) -> None:
        if self._nodes is not None and elsewhere:
            try:
                self._nodes.copy(value, to)
                return
            except FileNotFoundError:
                if self._store is None:
                    raise
                to.seek(0)
                to.truncate()
        if self._store is None:
            raise FileNotFoundError(value.artifact)
        self._store.copy(value.artifact or "", to)

    def _evict(self, keep: Path) -> None:
        """Of what is here, as much as there may be; who has mapped a file keeps what it has."""
        files = sorted(_listed(self._folder))
        over = sum(size for _, size, _ in files) - self._limit_bytes
        for _, size, path in files:
            if over <= 0:
                return
            if path == keep:
                continue
            path.unlink(missing_ok=True)
            _lock_of(path).unlink(missing_ok=True)  # who waits for it fetches once more than needed
            with suppress(OSError):  # others are in it, or somebody was faster
                path.parent.rmdir()
            over -= size

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if ".." in path.parts or not path.is_relative_to(self._folder):
            raise ValueError(name)
        return path


def chunks(paths: Sequence[Path]) -> Iterator[bytes]:
    """The content of the first of these files that is there, piece by piece. Raises FileNotFoundError."""
    for path in paths:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    raise FileNotFoundError(str(paths[0]))


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _opened(lock: Path) -> TextIO:
    """Its folder is made, again should a sweep remove it while it is empty."""
    for _ in range(_AGAIN):
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            return lock.open("w")
    return lock.open("w")


def touched(path: Path) -> bool:
    """Is it there? Then it was used now, which sweeps see (`artifact_folders.py`)."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # somebody else wrote it
        return path.is_file()
    return True


def _listed(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(when it was used last, bytes, path) of every value; others may remove some meanwhile."""
    for run in os.scandir(folder):
        try:
            files = list(os.scandir(run)) if run.is_dir() else []
        except FileNotFoundError:
            continue
        for file in files:
            if not file.name.startswith("."):
                try:
                    stat = file.stat()
                except FileNotFoundError:
                    continue
                yield stat.st_mtime, stat.st_size, Path(file.path)
