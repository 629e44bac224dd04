"""Durable records of one kind, written one step at a time: whoever waits meanwhile shares the next step.

Records have no owner in the journal, so after each step its writer makes sure that it is still the one that it thinks
it is: had it been replaced before, its successor might have read the records without these.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from orchestrator.errors import JournalUnavailable
from orchestrator.ports import Journal

_log = logging.getLogger(__name__)
_AGAIN_S = 0.2


class RecordWriter:
    """Writes records of `kind`, under each key the newest value. `fence` raises once its owner was replaced."""

    def __init__(self, journal: Journal, kind: str, fence: Callable[[], Awaitable[None]]) -> None:
        self._journal = journal
        self._kind = kind
        self._fence = fence
        self._wanted: dict[str, bytes | None] = {}
        self._under_way: dict[str, bytes | None] = {}
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, key: str, value: bytes | None) -> None:
        """To be written with the next step; None removes it."""
        self._wanted[key] = value

    def pending(self, key: str) -> bool:
        """Is what was noted under the key not durable yet?"""
        return key in self._wanted or key in self._under_way

    async def put(self, key: str, value: bytes | None) -> None:
        """The same, and it is durable. Waits as long as the journal is away."""
        self.note(key, value)
        await self.flush()

    async def flush(self) -> None:
        """Everything noted so far is durable."""
        if (written := self.begin()) is not None:
            await asyncio.shield(written)

    def begin(self) -> asyncio.Future[None] | None:
        """Everything noted so far is going to be durable: when. None = it is."""
        if not self._wanted and self._writing is None:
            return None
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())
        return self._written

    async def _write_all(self) -> None:
        try:
            while self._written is not None:
                written, self._written = self._written, None
                self._under_way, self._wanted = self._wanted, {}
                try:
                    await self._insist()
                    await self._fence()
                except Exception as error:
                    written.set_exception(error)
                    raise
                written.set_result(None)
        finally:
            self._writing = None

    async def _insist(self) -> None:
        while self._under_way:
            try:
                await self._journal.put_records(self._kind, self._under_way)
                self._under_way = {}
            except JournalUnavailable as unavailable:
                _log.warning("records %s: %s", self._kind, unavailable)
                await asyncio.sleep(_AGAIN_S)
