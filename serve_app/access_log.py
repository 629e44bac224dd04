"""What was asked and what was answered, one line of JSON each (contracts/runs.md, section 5, for every surface).

    {"ts":"2026-01-02T03:04:05.678000Z","msg":"req","id":"5f0c","method":"GET","path":"/runs/BCbPVCdF3kqz"}
    {"ts":…,"msg":"res","id":"5f0c","method":"GET","path":"/runs/BCbPVCdF3kqz","status":200,"duration_ms":1.234}

A path is told without its query, which may hold a token. A stream's `res` comes when it ends.

On by default, because it is cheap: a request only notes two tuples, and once a second a thread writes them out. A
handler of `logging` would format and write twice within each request. The price: who is killed loses the last second.

All replicas append to one file. It is kept to `MOST_BYTES`; what was before is in `access.log.1`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

import orjson

PERIOD_S = 1.0
MOST_BYTES = 64 * 1024 * 1024
#: lines kept while they cannot be written
KEPT = 100_000

_log = logging.getLogger(__name__)


class Line(NamedTuple):
    """One line. Only a `res` has a status and a duration."""

    at: datetime
    msg: str
    id: str
    method: str
    path: str
    status: int | None = None
    seconds: float = 0.0


class AccessLog:
    """Lines on their way to a file."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._waiting: deque[Line] = deque(maxlen=KEPT)

    def add(self, line: Line) -> None:
        """Note one line."""
        self._waiting.append(line)

    async def flush(self) -> None:
        """Write what is noted, in a thread. What cannot be written is dropped, and the reason told."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, deque(maxlen=KEPT)
        try:
            await asyncio.to_thread(self._append, batch)
        except OSError as error:
            _log.warning("%d lines of the access log are lost: %s", len(batch), error)

    async def keep_flushing(self) -> None:
        """Flush every second, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.flush()

    def _append(self, batch: Iterable[Line]) -> None:
        text = b"".join(_written(line) for line in batch)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._current() as file:
            size = os.fstat(file.fileno()).st_size
            if size and size + len(text) > self._most_bytes:
                os.replace(self._path, f"{self._path}.1")
                with self._opened() as fresh:
                    fresh.write(text)
            else:
                file.write(text)

    def _current(self) -> IO[bytes]:
        """The file, locked: another replica may have moved it away while we waited for the lock."""
        while True:
            file = self._opened()
            fcntl.flock(file, fcntl.LOCK_EX)
            if self._path.exists() and os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                return file
            file.close()

    def _opened(self) -> IO[bytes]:
        return open(self._path, "ab", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _written(line: Line) -> bytes:
    told = {"ts": line.at, "msg": line.msg, "id": line.id, "method": line.method, "path": line.path}
    if line.status is not None:
        told |= {"status": line.status, "duration_ms": round(line.seconds * 1000, 3)}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
