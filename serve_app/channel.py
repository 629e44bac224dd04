"""One run's frames, made once for everybody who follows it in one replica.

    run's log ──read, fold (Voice)──▶ chunks, the latest of them kept ──▶ any number of followers, each at its own place

A chunk is what one commit told. The channel reads the log from its first event, since a frame says where something came
from, and keeps the chunks that some follower has yet to take, and some more for those who come back after a cut.
Followers pull: a slow one delays nobody, and what is held for it is bounded. Whoever needs older chunks than are kept,
a late comer or one that fell far behind, reads the log by itself until it is among the others again.

Order and exactly-once come from the versions in the log: every follower gets each chunk once, in order, whatever is
told twice, late or not at all.
"""

from __future__ import annotations

import asyncio
import contextvars
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from orchestrator import codec
from orchestrator import events as e
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Journal
from orchestrator.views import Frame

#: seconds of silence that a follower hears of
KEEP_ALIVE_S = 14.0
#: batches of events per read: a bound on how long the event loop is held
BATCHES = 16
#: frames kept although everybody has taken them
KEPT = 512
#: frames, and bytes of events, kept for slow followers
FRAMES_MAX = 20_000
BYTES_MAX = 16 * 1024 * 1024


class Voice(Protocol):
    """A fold from a run's events to frames."""

    @property
    def state(self) -> str | None:
        """Core state of the run after the last event."""

    def frames(self, commit: Sequence[e.Event]) -> list[Frame]:
        """What the next commit tells."""


class Pause(Enum):
    """Nothing to tell."""

    #: everything that there is has been told; said once after each chunk
    UP_TO_DATE = "up to date"
    #: nothing has come for KEEP_ALIVE_S
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one commit told."""

    #: of its last event
    version: int
    frames: tuple[Frame, ...]
    #: core state of the run after it
    state: str | None
    #: bytes of its events
    size: int


class Reading:
    """Reads a log from its first event, and folds it."""

    def __init__(self, journal: Journal, run_id: str, voice: Voice) -> None:
        self._journal = journal
        self._run_id = run_id
        self._voice = voice
        self._read_to = 0
        self._ahead: deque[Chunk] = deque()

    async def next(self) -> Chunk | None:
        """The next chunk, or None when there is none yet. Raises JournalUnavailable."""
        if not self._ahead:
            for batch in await self._journal.events(self._run_id, self._read_to, BATCHES):
                events = codec.decode_events(batch.events, batch.schema)
                frames = tuple(self._voice.frames(events))
                self._ahead.append(Chunk(batch.last_version, frames, self._voice.state, len(batch.events)))
                self._read_to = batch.last_version
        return self._ahead.popleft() if self._ahead else None


class Channel:
    """The chunks of one run in one voice. Made and counted by `hub.Hub`."""

    def __init__(self, journal: Journal, run_id: str, voice: Callable[[], Voice]) -> None:
        self.run_id = run_id
        self.users = 0
        #: why it reads no further
        self.failure: OrchestratorError | None = None
        #: version before the first chunk kept
        self.base = 0
        self._journal = journal
        self._voice = voice
        self._log = Reading(journal, run_id, voice())
        self._chunks: list[Chunk] = []
        self._places: set[_Place] = set()
        self._frames = self._bytes = 0
        self._reader: asyncio.Task[None] | None = None
        self._again = False

    def notify(self, _state: str) -> None:
        """Read on: there may be more."""
        if self._reader is None:
            # not in the caller's context: Ray cancels by context, and this reads for others too
            self._reader = asyncio.create_task(self._read_on(), context=contextvars.Context())
        else:
            self._again = True

    def kept(self) -> list[Chunk]:
        """The chunks that are kept, oldest first."""
        return self._chunks

    async def follow(self, after: int) -> AsyncIterator[Chunk | Pause]:
        """Chunks later than the version `after`, each once, in order, for ever. Raises JournalUnavailable.

        Whoever takes too long over one is not waited for: it gets the next ones out of the log.
        """
        place = _Place(after)
        self._places.add(place)
        alone: Reading | None = None
        told = Pause.SILENCE
        try:
            while True:
                if place.version < self.base:
                    alone = alone or Reading(self._journal, self.run_id, self._voice())
                    chunk = await alone.next()
                else:
                    alone, chunk = None, self._after(place.version)
                if chunk is not None:
                    if chunk.version > place.version:
                        place.version, told = chunk.version, Pause.SILENCE
                        yield chunk
                elif self.failure is not None:
                    raise self.failure
                elif self._reader is None and told is not Pause.UP_TO_DATE:
                    told = Pause.UP_TO_DATE
                    yield told
                elif not await place.changes_within(KEEP_ALIVE_S):
                    yield Pause.SILENCE
        finally:
            self._places.discard(place)

    def _after(self, version: int) -> Chunk | None:
        at = bisect_right(self._chunks, version, key=lambda chunk: chunk.version)
        return self._chunks[at] if at < len(self._chunks) else None

    async def _read_on(self) -> None:
        try:
            self._again = True
            while self._again:
                self._again = False
                while (chunk := await self._log.next()) is not None:
                    self._add(chunk)
        except OrchestratorError as failure:
            self.failure = failure
        finally:
            self._reader = None
            self._wake()

    def _add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._frames += len(chunk.frames)
        self._bytes += chunk.size
        self._wake()
        self._let_go()

    def _let_go(self) -> None:
        """Forget the oldest chunks that nobody needs, or that are too many."""
        slowest = min((place.version for place in self._places), default=chunk_version(self._chunks))
        drop = 0
        while drop < len(self._chunks) - 1 and self._frames > KEPT:
            chunk = self._chunks[drop]
            if chunk.version > slowest and self._frames <= FRAMES_MAX and self._bytes <= BYTES_MAX:
                break
            self._frames -= len(chunk.frames)
            self._bytes -= chunk.size
            self.base = chunk.version
            drop += 1
        if drop:
            del self._chunks[:drop]

    def _wake(self) -> None:
        for place in self._places:
            place.changed.set()


class _Place:
    """Where one follower stands."""

    __slots__ = ("changed", "version")

    def __init__(self, version: int) -> None:
        #: of the last chunk it took
        self.version = version
        self.changed = asyncio.Event()

    async def changes_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True


def chunk_version(chunks: list[Chunk]) -> int:
    """Of the newest chunk; 0 = there is none."""
    return chunks[-1].version if chunks else 0
