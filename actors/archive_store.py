"""The archive's files: segments of runs that have ended, and an index of them.

    <home>/archive/index.sqlite                  run -> segment, place in it, row; window -> run
    <home>/archive/segments/<sha256>.jsonl.gz    or any folder or fsspec URL: one line of JSON a run (`zcat` reads it)

A segment is named by its content and never changes; each line is a gzip member of its own, so that one run is read by
one ranged read. `add` is durable first: the segment is written aside, synced and renamed, and only then one SQLite
transaction names it. A kill in between leaves a segment that nobody names; the same runs written again make the same
file. An entry is never removed: a run that went back to the journal, changed and left again gets a newer one.

The index is local, and not beside the segments: planning asks it for hundreds of windows at a time, and an object store
has neither a query nor a lock. So API replicas must see the data directory, as they do for artifacts already. Segments
tell all that the index does. Methods block: call them in a thread. What the operating system or the store refuses
raises Unavailable.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from actors import whole_files
from actors.filesystems import filesystem
from orchestrator import archive, ids
from orchestrator.archive import Shelved
from orchestrator.errors import Invalid, Unavailable
from orchestrator.rows import RunFilter, RunPage, RunRow

#: as `ids.place`: where a run stands in lists
_PLACE_OF = "CASE substr(run_id, 1, 4) WHEN 'run_' THEN run_id ELSE 'run_' || run_id END"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS segments (id INTEGER PRIMARY KEY, place TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, version INTEGER NOT NULL, tenant TEXT NOT NULL, dag_id TEXT NOT NULL,
    window_key TEXT NOT NULL, run_type TEXT NOT NULL, state TEXT NOT NULL, parent TEXT NOT NULL,
    row BLOB NOT NULL, segment INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS windows ON runs (tenant, dag_id, window_key) WHERE window_key != '';
CREATE INDEX IF NOT EXISTS listed ON runs (tenant, {_PLACE_OF});
CREATE INDEX IF NOT EXISTS listed_by_dag ON runs (tenant, dag_id, {_PLACE_OF});
CREATE INDEX IF NOT EXISTS listed_by_parent ON runs (parent, {_PLACE_OF}) WHERE parent != '';
"""
#: values in one query
_CHUNK = 500
_BUSY_S = 4.0
#: age at which a segment that is being written counts as left behind
_DAY_S = 86_400.0

_row = msgspec.json.Decoder(RunRow).decode
_encode = msgspec.json.Encoder().encode


class _Place(NamedTuple):
    """Where a run is."""

    segment: str
    start: int
    size: int


class Shelf(Protocol):
    """Where segments are."""

    def write(self, name: str, data: bytes) -> str:
        """Durable; the place by which `read` knows it."""
        ...


class ArchiveStore:
    """The archive of one data directory. Without an index there is nothing in it, and reading makes none."""

    def __init__(self, home: Path | str) -> None:
        #: what is local of it
        self.folder = Path(home, "archive")
        self._index = self.folder / "index.sqlite"

    @property
    def empty(self) -> bool:
        """Did nothing ever leave?"""
        return not self._index.exists()

    def add(self, runs: Sequence[Shelved], to: str = "") -> int:
        """These are kept, durably; bytes written. Raises Invalid about `to`, and Unavailable."""
        shelf = shelf_at(to, self.folder)
        members = [gzip.compress(archive.encode(run), 6, mtime=0) for run in runs]
        data = b"".join(members)
        place = shelf.write(f"{hashlib.sha256(data).hexdigest()[:40]}.jsonl.gz", data)
        with self._opened(make=True) as index, index:
            index.execute("INSERT OR IGNORE INTO segments (place) VALUES (?)", (place,))
            [[segment]] = index.execute("SELECT id FROM segments WHERE place = ?", (place,))
            index.executemany(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _entries(runs, members, segment),
            )
        return len(data)

    def versions(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Version at which each of these left last; unknown ones are left out."""
        return dict(self._select("SELECT run_id, version FROM runs WHERE run_id IN ({})", run_ids))

    def rows(self, run_ids: Sequence[str]) -> dict[str, RunRow]:
        """These runs as they were when they left; unknown ones are left out."""
        found = self._select("SELECT run_id, row FROM runs WHERE run_id IN ({})", run_ids)
        return {run_id: _row(row) for run_id, row in found}

    def read(self, run_ids: Sequence[str]) -> dict[str, Shelved]:
        """These runs, unknown ones left out."""
        query = (
            "SELECT run_id, place, start, size FROM runs JOIN segments ON segments.id = segment WHERE run_id IN ({})"
        )
        return {run_id: self._at(_Place(*where)) for run_id, *where in self._select(query, run_ids)}

    def run(self, run_id: str) -> Shelved | None:
        """One run."""
        return self.read([run_id]).get(run_id)

    def by_window(self, tenant: str, dag_id: str, window_keys: Sequence[str]) -> list[str]:
        """Runs that stand for these windows, as far as they were here."""
        query = (
            "SELECT run_id FROM runs WHERE tenant = ? AND dag_id = ? AND window_key != '' AND run_type != 'backfill'"
            " AND window_key IN ({})"
        )
        return [run_id for [run_id] in self._select(query, window_keys, (tenant, dag_id))]

    def backfill_by_window(self, tenant: str, dag_id: str, window_key: str) -> Shelved | None:
        """The latest backfill that is over just that."""
        query = (
            "SELECT max(run_id) FROM runs WHERE tenant = ? AND dag_id = ? AND window_key != ''"
            " AND run_type = 'backfill' AND window_key IN ({})"
        )
        found = [run_id for [run_id] in self._select(query, [window_key], (tenant, dag_id)) if run_id]
        return self.run(found[0]) if found else None

    def page(self, wanted: RunFilter, cursor: str | None, limit: int) -> RunPage:
        """Rows as they were when they left, newest first."""
        filters = {
            "tenant = ?": wanted.tenant,
            f"{_PLACE_OF} < ?": cursor,
            "dag_id = ?": wanted.dag_id,
            "state = ?": wanted.state,
            "run_type = ?": wanted.run_type,
            "parent != '' AND parent = ?": wanted.parent,
        }
        given = {text: value for text, value in filters.items() if value is not None}
        query = f"SELECT row FROM runs WHERE {' AND '.join(given)} ORDER BY {_PLACE_OF} DESC LIMIT ?"
        with self._opened() as index:
            found = [] if index is None else list(index.execute(query, (*given.values(), limit + 1)))
        rows = tuple(_row(row) for [row] in found[:limit])
        return RunPage(rows, ids.place(rows[-1].run_id) if len(found) > limit else None)

    def _at(self, place: _Place) -> Shelved:
        try:
            member = _read(self.folder, place)
            if len(member) != place.size:
                raise EOFError("it ends too early")
            line = gzip.decompress(member)
        except (OSError, EOFError, zlib.error) as error:
            raise Unavailable(f"the archive's segment {place.segment} is damaged: {error}") from error
        return archive.decode(line)

    def _select(self, query: str, values: Sequence[str], before: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        with self._opened() as index:
            for first in range(0, len(values) if index is not None else 0, _CHUNK):
                chunk = values[first : first + _CHUNK]
                assert index is not None
                found += index.execute(query.format(", ".join("?" * len(chunk))), (*before, *chunk))
        return found

    @contextmanager
    def _opened(self, make: bool = False) -> Iterator[Any]:
        """A connection to the index; None when there is none."""
        if not make and self.empty:
            yield None
            return
        import sqlite3  # who never archived anything need not have it in memory

        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(sqlite3.connect(self._index, timeout=_BUSY_S)) as index:
                index.execute("PRAGMA synchronous = FULL")
                if make:
                    os.chmod(self._index, 0o600)
                    index.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
                [[tables]] = index.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'")
                yield index if tables else None  # nothing left before who made it died, or had no room
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the archive's index: {error}") from error


def _entries(runs: Sequence[Shelved], members: Sequence[bytes], segment: int) -> Iterable[tuple[object, ...]]:
    start = 0
    for run, member in zip(runs, members, strict=True):
        r = run.row
        where = (segment, start, len(member))
        window_key = "" if r.caller else r.window_key  # which a run that was called has to itself
        yield r.run_id, r.version, r.tenant, r.dag_id, window_key, r.run_type, r.state, r.parent, _encode(r), *where
        start += len(member)


# ── segments ──────────────────────────────────────────────────────────────────────────────────────


class _Folder:
    """Segments in a folder of this machine; `known_as` is the folder as places name it."""

    def __init__(self, folder: Path, known_as: str) -> None:
        self._folder = folder
        self._known_as = known_as

    def write(self, name: str, data: bytes) -> str:
        """Written aside, synced and renamed."""
        try:
            whole_files.tidy(self._folder, _DAY_S)
            whole_files.put(self._folder / name, data)
        except OSError as error:
            raise Unavailable(f"the archive's segment {name}: {error}") from error
        return f"{self._known_as}/{name}"


class _Remote:
    """Segments behind an fsspec URL: whole or not at all, as object stores write."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._files, self._root = filesystem(url)

    def write(self, name: str, data: bytes) -> str:
        """Kept by the store once this returns."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{name}", data)
        except Exception as error:  # each kind of store has errors of its own
            raise Unavailable(f"the archive at {self._url}: {error}") from error
        return f"{self._url}/{name}"


def shelf_at(to: str, folder: Path) -> Shelf:
    """Segments at `to`: "" = beside the index, an absolute folder, or a URL. Raises Invalid."""
    path = to.removeprefix("file://")
    if not to:
        return _Folder(folder / "segments", "segments")
    if "://" in path:
        return _Remote(to)
    if not path.startswith("/"):
        raise Invalid(
            f"{to}: an absolute folder, or a URL such as s3://bucket/folder, expected", (("to", "not absolute"),)
        )
    return _Folder(Path(path), path.rstrip("/"))


def _read(folder: Path, place: _Place) -> bytes:
    try:
        if "://" in place.segment:
            files, path = filesystem(place.segment)
            data: bytes = files.cat_file(path, start=place.start, end=place.start + place.size)
            return data
        with open(folder / place.segment, "rb") as file:  # an absolute place stays what it is
            file.seek(place.start)
            return file.read(place.size)
    except (Invalid, Unavailable):
        raise
    except Exception as error:
        raise Unavailable(f"the archive's segment {place.segment}: {error}") from error
