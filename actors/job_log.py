"""What a CI job logs, on its way from a runner to the server: at once when the way is free, in batches while it is not.

    write ─▶ buffer (TEXT_MAX characters a job) ─▶ batch ─▶ add_logs, again until it is taken

Each answer may carry a hint that somebody else has ended the job; it, or a job that no longer exists, sets `over`. A
job that logs nothing sends an empty batch now and then, just to be told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from actors.clock import Clock
from orchestrator.errors import NotFound, Refused, Unavailable
from orchestrator.pipeline_views import LogEntry

_log = logging.getLogger(__name__)

#: entries of a batch, and characters of one
BATCH_MAX = 1000
BATCH_TEXT_MAX = 1024 * 1024
#: characters a job may log; the server takes no more either
TEXT_MAX = 50 * 1024 * 1024
#: lines that come soon after each other travel together
GATHER_S = 0.1
#: silence after which an empty batch asks whether the job is still wanted
ASK_S = 5.0
#: between tries
PAUSE_S, PAUSE_MAX_S = 0.5, 10.0
#: `over` of a job that no longer exists
DELETED = "Deleted"


class LogPort(Protocol):
    """The way to the server."""

    async def add_logs(self, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """The status of a job that somebody else has ended. Raises NotFound, Refused, Unavailable."""


class JobLog:
    """The log of one job. `ship` runs beside the job, and ends after `close`."""

    def __init__(self, port: LogPort, job_id: str, clock: Clock) -> None:
        self._port = port
        self._job_id = job_id
        self._clock = clock
        self._waiting: deque[LogEntry] = deque()
        self._room = TEXT_MAX
        self._written = asyncio.Event()
        self._closed = False
        #: why the job is not wanted any more: a status, or DELETED
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def write(self, level: str, message: str) -> None:
        """One entry; dropped when the job has logged too much."""
        if self._room <= 0:
            return
        self._room -= len(message) + 1
        self._waiting.append(LogEntry(self._now(), level, message))
        if self._room <= 0:
            self._waiting.append(
                LogEntry(self._now(), "Warning", f"nothing more is logged after {TEXT_MAX} characters")
            )
        self._written.set()

    def close(self) -> None:
        """Nothing more is written."""
        self._closed = True
        self._written.set()

    async def ship(self) -> None:
        """Returns when the log is closed and all of it is at the server, or the server does not want it."""
        while self._waiting or not self._closed:
            try:
                await asyncio.wait_for(self._written.wait(), ASK_S)
                await asyncio.sleep(0 if self._closed else GATHER_S)
            except TimeoutError:
                pass  # an empty batch
            self._written.clear()
            await self._send()

    async def _send(self) -> None:
        batch = self._batch()
        hint = await self._insist(batch)
        for _ in range(min(len(batch), len(self._waiting))):
            self._waiting.popleft()
        if self._waiting or self._closed:
            self._written.set()
        if hint is not None and not self.over.done():
            self.over.set_result(hint)

    async def _insist(self, batch: list[LogEntry]) -> str | None:
        """The hint, once the batch was taken or refused."""
        pause_s = PAUSE_S
        while True:
            try:
                return await self._port.add_logs(self._job_id, batch)
            except NotFound:
                self._waiting.clear()
                return DELETED
            except Refused as refused:
                _log.warning("%d log entries of job %s were refused: %s", len(batch), self._job_id, refused)
                return None
            except Unavailable as unavailable:
                _log.warning("logs of job %s wait: %s", self._job_id, unavailable)
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_MAX_S, pause_s * 2)

    def _batch(self) -> list[LogEntry]:
        """From the head of the buffer, where it stays until it was taken: a batch that was cancelled is sent again."""
        batch: list[LogEntry] = []
        size = 0
        for entry in self._waiting:
            if len(batch) == BATCH_MAX or size > BATCH_TEXT_MAX:
                break
            batch.append(entry)
            size += len(entry.message)
        return batch

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
