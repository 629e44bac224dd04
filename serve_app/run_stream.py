"""A run's event stream as the dags surface has it: each event a frame, then `end`.

A frame's `seq` is the version of its event, so that a stream resumes after any frame. A run may leave the journal for
the archive between the look at its row and the end of its events: then the rest comes from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from orchestrator import events as e
from orchestrator.narration import Narrator
from orchestrator.rows import TERMINAL
from orchestrator.views import Frame
from serve_app.channel import Chunk, Pause
from serve_app.hub import Hub

KEEP_ALIVE = (Frame(None, "keep_alive"),)
_KIND = "narration"
#: what followed that version, when the run has left the journal by now; None = it has not
Left = Callable[[int], Awaitable[AsyncIterator[Sequence[Frame]] | None]]


class Narration:
    """`channel.Voice` of the dags surface."""

    def __init__(self, run_id: str) -> None:
        self._narrator = Narrator(run_id)

    @property
    def state(self) -> str | None:
        """Core state after the last event."""
        return self._narrator.state

    def frames(self, commit: Sequence[e.Event]) -> list[Frame]:
        """One frame an event."""
        return [self._narrator.tell(event) for event in commit]


async def run_frames(hub: Hub, run_id: str, after: int, left: Left | None = None) -> AsyncIterator[Sequence[Frame]]:
    """Frames after `after`, then live, then `end`. Raises JournalUnavailable: a reader comes back with its last id."""
    channel = await hub.channel(run_id, _KIND, lambda: Narration(run_id))
    state: str | None = None
    looked = left is None
    try:
        chunks = channel.follow(after if after >= channel.base else 0)
        async for chunk in chunks:
            if isinstance(chunk, Chunk):
                state = chunk.state
                if frames := [frame for frame in chunk.frames if frame.seq is not None and frame.seq > after]:
                    after = chunk.version
                    yield frames
                continue
            if state in TERMINAL:
                yield [Frame(None, "end", {"run_id": run_id, "state": state})]
                return
            if left is not None and (not looked or chunk is Pause.SILENCE):
                looked = True
                if (rest := await left(after)) is not None:
                    async for later in rest:
                        yield later
                    return
            if chunk is Pause.SILENCE:
                yield KEEP_ALIVE
    finally:
        hub.part(channel, _KIND)
