"""Live run streams of one replica: one blocking read of the feed, any number of readers.

    feed ──▶ Hub: which runs changed ──▶ wakes their Followers ──▶ each reads on in its run's own history

A follower is told only *that* there is more, and reads from the journal at its own pace: order and
exactly-once come from the versions there, a slow reader costs nothing but its own delay, and what a
reader holds is bounded by one read. When the feed breaks off, every follower is woken and looks for itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator

from orchestrator import codec
from orchestrator.errors import OrchestratorError
from orchestrator.narration import Narrator
from orchestrator.ports import FEED, TERMINAL, Journal
from orchestrator.views import Frame

KEEP_ALIVE_S = 14.0
#: event batches per read
BATCHES = 64
_BLOCK_MS = 10_000
_PAUSE_S = 0.25


class Follower:
    """One reader of one run. `changed` is set when there may be more to read."""

    __slots__ = ("changed", "run_id", "state")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        #: core state that the feed told last; "" = look for yourself
        self.state = ""
        self.changed = asyncio.Event()


class Hub:
    """Wakes followers. It reads the feed only while there are any."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._followers: dict[str, set[Follower]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()

    async def follow(self, run_id: str) -> Follower:
        """A follower that misses no change from now on."""
        follower = Follower(run_id)
        self._followers.setdefault(run_id, set()).add(follower)
        if self._reader is None:
            self._reading.clear()
            self._reader = asyncio.create_task(self._read(), context=contextvars.Context())
        await self._reading.wait()
        return follower

    def leave(self, follower: Follower) -> None:
        """Nobody reads there any more."""
        others = self._followers.get(follower.run_id, set())
        others.discard(follower)
        if not others:
            self._followers.pop(follower.run_id, None)
        if not self._followers:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _read(self) -> None:
        cursor: str | None = None
        while True:
            try:
                if cursor is None:
                    cursor = await self._journal.position(FEED)
                    self._wake_all()
                self._reading.set()
                for entry in await self._journal.tail(FEED, cursor, _BLOCK_MS):
                    cursor = entry.cursor
                    for run_id, _, state in codec.decode_feed(entry.item):
                        for follower in self._followers.get(run_id, ()):
                            follower.state = state
                            follower.changed.set()
            except OrchestratorError:
                cursor = None
                self._reading.set()
                await asyncio.sleep(_PAUSE_S)

    def _wake_all(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.state = ""
                follower.changed.set()


class RunStream:
    """Frames of one run after a version, then live, then `end`; `keep_alive` in silence."""

    def __init__(self, journal: Journal, hub: Hub, run_id: str, after: int) -> None:
        self._journal = journal
        self._hub = hub
        self._run_id = run_id
        self._after = after
        self._narrator = Narrator(run_id)
        self._ready: deque[Frame] = deque()

    async def frames(self) -> AsyncIterator[Frame]:
        """Each event once, in order. Raises JournalUnavailable: the reader comes back with its last id."""
        follower = await self._hub.follow(self._run_id)
        try:
            while True:
                follower.changed.clear()
                while await self._read_on():
                    while self._ready:
                        yield self._ready.popleft()
                if self._narrator.state in TERMINAL:
                    yield self._narrator.end()
                    return
                while not await _changed(follower):
                    yield Frame(None, "keep_alive")
        finally:
            self._hub.leave(follower)

    async def _read_on(self) -> bool:
        """Read the next batches into `_ready`; False when there are none."""
        batches = await self._journal.events(self._run_id, self._narrator.seq, BATCHES)
        for batch in batches:
            events = codec.decode_events(batch.events, batch.schema)
            already_told = self._narrator.seq - (batch.last_version - len(events))
            for event in events[already_told:]:
                frame = self._narrator.tell(event)
                if self._narrator.seq > self._after:
                    self._ready.append(frame)
        return bool(batches)


async def _changed(follower: Follower) -> bool:
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            await follower.changed.wait()
    except TimeoutError:
        return False
    return True
