"""What one replica hears of the feed: one blocking read, any number of listeners.

    feed ──▶ Hub: which runs changed ──▶ Follower (waits for a run)  |  Channel (reads on, for all who follow the run)

The feed also says when this server is about to go away: `draining` is set, and streams end in good order.

A listener is told only *that* there is more, and which state the run is in: what it was is in the run's own log. When
the feed breaks off, every listener is told, with the state "", and looks for itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Hashable
from typing import Protocol

from orchestrator import codec
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Journal
from orchestrator.streams import FEED, PARTING, FeedItem
from serve_app.channel import Channel, Voice

_BLOCK_MS = 10_000
_PAUSE_S = 0.25


class Listener(Protocol):
    """Who wants to hear of one run."""

    run_id: str

    def notify(self, state: str) -> None:
        """There may be more to read. `state` is the core state that the feed tells; "" = look for yourself."""


class Follower:
    """Waits for a change of one run. `changed` is set when there was one."""

    __slots__ = ("changed", "run_id", "state")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        #: core state that the feed told last; "" = look for yourself
        self.state = ""
        self.changed = asyncio.Event()

    def notify(self, state: str) -> None:
        """As Listener."""
        self.state = state
        self.changed.set()


class Hub:
    """Tells listeners. It reads the feed only while there are any."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._listeners: dict[str, set[Listener]] = {}
        #: (run, kind of voice) -> what all followers of that kind share
        self._channels: dict[tuple[str, Hashable], Channel] = {}
        self._reader: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()
        #: set once this server is about to go away
        self.draining = asyncio.Event()

    async def follow(self, run_id: str) -> Follower:
        """A follower that misses no change from now on."""
        follower = Follower(run_id)
        await self._listen(follower)
        return follower

    def leave(self, listener: Listener) -> None:
        """Nobody listens there any more."""
        others = self._listeners.get(listener.run_id, set())
        others.discard(listener)
        if not others:
            self._listeners.pop(listener.run_id, None)
        if not self._listeners:
            self.close()

    async def channel(self, run_id: str, kind: Hashable, voice: Callable[[], Voice]) -> Channel:
        """The channel of that run and kind; `voice` makes the fold when it is the first. Every join needs a `part`."""
        channel = self._channels.get((run_id, kind))
        if channel is None or channel.failure is not None:
            channel = self._channels[run_id, kind] = Channel(self._journal, run_id, voice)
        channel.users += 1
        try:
            await self._listen(channel)
        except BaseException:
            self.part(channel, kind)
            raise
        channel.notify("")
        return channel

    def part(self, channel: Channel, kind: Hashable) -> None:
        """One user less; the last one takes the channel along."""
        channel.users -= 1
        if not channel.users:
            if self._channels.get((channel.run_id, kind)) is channel:
                del self._channels[channel.run_id, kind]
            self.leave(channel)

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _listen(self, listener: Listener) -> None:
        self._listeners.setdefault(listener.run_id, set()).add(listener)
        if self._reader is None:
            self._reading.clear()
            self._reader = asyncio.create_task(self._read(), context=contextvars.Context())
        await self._reading.wait()

    async def _read(self) -> None:
        cursor: str | None = None
        while True:
            try:
                if cursor is None:
                    cursor = await self._journal.position(FEED)
                    self._tell_all()
                self._reading.set()
                for entry in await self._journal.tail(FEED, cursor, _BLOCK_MS):
                    cursor = entry.cursor
                    for item in codec.decode_feed(entry.item):
                        self._tell(item)
            except OrchestratorError:
                cursor = None
                self._reading.set()
                await asyncio.sleep(_PAUSE_S)

    def _tell(self, item: FeedItem) -> None:
        if item == PARTING:
            self.draining.set()
        run_id, _, state = item
        for listener in self._listeners.get(run_id, ()):
            listener.notify(state)

    def _tell_all(self) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.notify("")
