"""Logs of CI jobs: batches of runners and lines of our own, masked, capped, in the order in which they came.

A batch is one atomic step of the journal. How much text a log has is counted in memory, and read again when it is not
known: after a restart, or when a step may or may not have happened. A log that is full gets one line that says so, and
nothing more.

Lines of our own tell what the job's events say. They are written once those are durable, and as often as it takes; what
a process that died did not get to write its successor does (`mend`), unless the job has ended.
Source: pipelines contract, section 2, "logs".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from actors.clock import Clock
from orchestrator import outside_codec
from orchestrator.errors import NotFound, OrchestratorError
from orchestrator.masking import Mask
from orchestrator.pipeline_job import log_time
from orchestrator.pipeline_views import LogEntry
from orchestrator.ports import Journal

#: bytes of text
TEXT_MAX = 50 * 1024 * 1024
FULL = "log limit of 50 MiB reached: further lines are dropped"
#: logs whose size is remembered, and lines read at once
SIZES_MAX = 10_000
READ_LINES = 2_000


@dataclass(slots=True)
class _Size:
    text_bytes: int = 0
    full: bool = False


class PipelineLogs:
    """Appends to logs. One job's lines are written one step after the other."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._sizes: OrderedDict[str, _Size] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def add(self, job_id: str, entries: Sequence[LogEntry], mask: Mask) -> None:
        """The batch is in the log, durably, or dropped because the log is full. Raises NotFound, JournalUnavailable."""
        masked = [LogEntry(each.timestamp, each.level, mask.text(each.message)) for each in entries]
        if not masked:
            return
        async with self._lock(job_id):
            size = await self._size(job_id)
            if size.full:
                return
            text_bytes = sum(len(each.message.encode()) for each in masked)
            if size.text_bytes + text_bytes > TEXT_MAX:
                await self._write(job_id, [LogEntry(log_time(self._clock.now()), "Warning", FULL)])
                size.full = True
                return
            await self._write(job_id, masked)
            size.text_bytes += text_bytes

    async def tell(self, job_id: str, lines: Sequence[LogEntry]) -> None:
        """Lines of our own are in the log. Raises NotFound, JournalUnavailable."""
        async with self._lock(job_id):
            await self._write(job_id, lines)

    async def mend(self, job_id: str, lines: Sequence[LogEntry]) -> None:
        """Those of our own lines that are missing are in the log. Raises NotFound, JournalUnavailable."""
        async with self._lock(job_id):
            missing = {outside_codec.encode_log_entry(line): line for line in lines}
            async for chunk in self._read(job_id):
                for line in chunk:
                    missing.pop(line, None)
            if missing:
                await self._write(job_id, list(missing.values()))

    def forget(self, job_id: str) -> None:
        """The log is gone."""
        self._sizes.pop(job_id, None)

    async def _write(self, job_id: str, entries: Sequence[LogEntry]) -> None:
        try:
            kept = await self._journal.add_lines(job_id, [outside_codec.encode_log_entry(each) for each in entries])
        except OrchestratorError:
            self.forget(job_id)  # it may have happened
            raise
        if not kept:
            raise NotFound("job", job_id)

    async def _size(self, job_id: str) -> _Size:
        size = self._sizes.get(job_id)
        if size is None:
            size = _Size()
            async for chunk in self._read(job_id):
                for line in chunk:
                    entry = outside_codec.decode_log_entry(line)
                    size.text_bytes += len(entry.message.encode())
                    size.full = size.full or (entry.level == "Warning" and entry.message == FULL)
        self._sizes[job_id] = size
        self._sizes.move_to_end(job_id)
        while len(self._sizes) > SIZES_MAX:
            self._sizes.popitem(last=False)
        return size

    async def _read(self, job_id: str) -> AsyncIterator[list[bytes]]:
        after = 0
        while chunk := await self._journal.lines(job_id, after, READ_LINES):
            yield chunk
            after += len(chunk)

    def _lock(self, job_id: str) -> asyncio.Lock:
        lock = self._locks.get(job_id)
        if lock is None:
            lock = self._locks[job_id] = asyncio.Lock()
        return lock
