"""Places that hold artifacts, as a sweep sees them: folders named by run, of this machine or behind an fsspec URL.

    runs(before, after, limit) ──▶ folders to look at        clear(held, before, …) ──▶ what is old in them is gone
    here() ──▶ what is there

A file goes when it was last written, or used (`fetched_values.touched`), at or before `before`: that is looked at again
right before it goes, so that one which was used meanwhile stays. No link is followed: a link in a folder is a file like
any other, which goes without what it points to, and a folder that is replaced by a link while it is walked is not
entered. Files that vanish by themselves, and folders that are not empty, are no error. An empty folder goes too; who
writes to it at that moment makes it again. All methods block: call them in a thread. Instants are epoch seconds.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from actors.filesystems import filesystem
from orchestrator import reclaim
from orchestrator.errors import Unavailable
from orchestrator.reclaim import Tally

_log = logging.getLogger(__name__)


class Place(Protocol):
    """Where artifacts are."""

    def runs(self, before: float, after: str, limit: int) -> list[str]:
        """Runs that have a folder in which something may be old: the first `limit` after `after`, by name."""

    def clear(self, held: Mapping[str, frozenset[str]], before: float, *, dry_run: bool) -> dict[str, Tally]:
        """Old files of these runs are gone, but for those of these names; what went, of runs of which something did."""

    def here(self) -> Tally:
        """Everything that is in folders of runs; of nothing where looking would cost too much."""


class Folder:
    """A directory of this machine. It need not exist."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def runs(self, before: float, after: str, limit: int) -> list[str]:
        """As Place; a folder to which something was added since then is not looked at."""
        return heapq.nsmallest(limit, self._old(before, after))

    def clear(self, held: Mapping[str, frozenset[str]], before: float, *, dry_run: bool) -> dict[str, Tally]:
        """As Place. What cannot be removed is told in the log, and is in nobody's way."""
        gone = {run_id: self._cleared(self._root / run_id, names, before, dry_run) for run_id, names in held.items()}
        return {run_id: tally for run_id, tally in gone.items() if tally.files}

    def here(self) -> Tally:
        """As Place."""
        there = Tally()
        for entry in self._folders():
            with contextlib.suppress(FileNotFoundError):
                for _, _, files, folder in os.fwalk(entry.path):
                    sizes = [found.st_size for name in files if (found := _look(name, folder)) is not None]
                    there += Tally(len(sizes), sum(sizes))
        return there

    def _folders(self) -> Iterator[os.DirEntry[str]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root) as entries:
            for entry in entries:
                if reclaim.names_a_run(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield entry

    def _old(self, before: float, after: str) -> Iterator[str]:
        for entry in self._folders():
            with contextlib.suppress(FileNotFoundError):
                if entry.name > after and entry.stat(follow_symlinks=False).st_mtime <= before:
                    yield entry.name

    def _cleared(self, top: Path, held: frozenset[str], before: float, dry_run: bool) -> Tally:
        gone = Tally()
        try:
            for tally in self._clear(top, held, before, dry_run):
                gone += tally
        except FileNotFoundError:
            return gone  # somebody else was faster
        except OSError as error:
            _log.warning("artifacts in %s stay: %s", top, error)
        return gone

    def _clear(self, top: Path, held: frozenset[str], before: float, dry_run: bool) -> Iterator[Tally]:
        for path, folders, files, folder in os.fwalk(top, topdown=False):
            links = {name for name in folders if (found := _look(name, folder)) and stat.S_ISLNK(found.st_mode)}
            inside = Path(path).relative_to(top)
            loose = [name for name in (*files, *links) if str(inside / name) not in held]
            yield _remove(loose, folder, before, dry_run)
            if not dry_run:
                _remove_empty((name for name in folders if name not in links), folder)
        if not dry_run:
            with contextlib.suppress(OSError):
                top.rmdir()


def _remove(names: Iterable[str], folder: int, before: float, dry_run: bool) -> Tally:
    """The old ones of these files of an open directory are gone; its own time stays, so that it is looked at again."""
    gone, at = Tally(), os.fstat(folder)
    try:
        for name in names:
            found = _look(name, folder)
            if found is None or found.st_mtime > before:
                continue
            if not dry_run:
                try:
                    os.unlink(name, dir_fd=folder)
                except FileNotFoundError:
                    continue
            gone += Tally(1, found.st_size)
    finally:
        if gone.files and not dry_run:
            os.utime(folder, ns=(at.st_atime_ns, at.st_mtime_ns))
    return gone


def _remove_empty(names: Iterable[str], folder: int) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=folder)


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


class StoreFolders:
    """A store behind an fsspec URL. A file whose age it does not tell stays."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def runs(self, before: float, after: str, limit: int) -> list[str]:
        """As Place; stores tell no age of folders, so that all are looked at."""
        with self._reached() as (files, root):
            files.invalidate_cache()
            try:
                found = files.ls(root, detail=True)
            except FileNotFoundError:  # nothing was ever put there
                return []
            folders = (str(each["name"]) for each in found if each["type"] == "directory")
            names = (path.rstrip("/").rpartition("/")[2] for path in folders)
            return heapq.nsmallest(limit, (name for name in names if name > after and reclaim.names_a_run(name)))

    def clear(self, held: Mapping[str, frozenset[str]], before: float, *, dry_run: bool) -> dict[str, Tally]:
        """As Place."""
        with self._reached() as (files, root):
            gone = {
                run_id: sum(self._clear(files, f"{root}/{run_id}", names, before, dry_run), Tally())
                for run_id, names in held.items()
            }
        return {run_id: tally for run_id, tally in gone.items() if tally.files}

    def here(self) -> Tally:
        """Nothing: a bucket is asked for by who pays for it."""
        return Tally()

    def _clear(self, files: Any, top: str, held: frozenset[str], before: float, dry_run: bool) -> Iterator[Tally]:
        for path, info in files.find(top, detail=True).items():
            name = path[len(top) + 1 :]  # "" of a file where the folder was
            if not name or name in held or _written(files, path) > before:
                continue
            if not dry_run:
                try:
                    files.rm_file(path)
                except FileNotFoundError:
                    continue
            yield Tally(1, int(info.get("size") or 0))

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        try:
            files, root = filesystem(self._url)
            yield files, root.rstrip("/")
        except Exception as error:  # each kind of store has errors of its own
            raise Unavailable(f"artifacts at {self._url}: {error}") from error


def _written(files: Any, path: str) -> float:
    """When; far in the future where the store does not tell, or it has vanished."""
    try:
        at: datetime = files.modified(path)
    except (NotImplementedError, FileNotFoundError):
        return float("inf")
    if at.tzinfo is None:  # UTC with some stores, this machine's time with others: whichever is later
        return max(at.timestamp(), at.replace(tzinfo=UTC).timestamp())
    return at.timestamp()
