"""A run's event stream as the dags surface has it: each event a frame, then `end`.

A frame's `seq` is the version of its event, so that a stream resumes after any frame.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from orchestrator import events as e
from orchestrator.narration import Narrator
from orchestrator.ports import TERMINAL
from orchestrator.views import Frame
from serve_app.channel import Pause
from serve_app.hub import Hub

KEEP_ALIVE = (Frame(None, "keep_alive"),)
_KIND = "narration"


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


async def run_frames(hub: Hub, run_id: str, after: int) -> AsyncIterator[Sequence[Frame]]:
    """Frames after `after`, then live, then `end`. Raises JournalUnavailable: a reader comes back with its last id."""
    channel = await hub.channel(run_id, _KIND, lambda: Narration(run_id))
    state: str | None = None
    try:
        chunks = channel.follow(after if after >= channel.base else 0)
        async for chunk in chunks:
            if chunk is Pause.SILENCE:
                yield KEEP_ALIVE
            elif chunk is not Pause.UP_TO_DATE:
                state = chunk.state
                if frames := [frame for frame in chunk.frames if frame.seq is not None and frame.seq > after]:
                    yield frames
            elif state in TERMINAL:
                yield [Frame(None, "end", {"run_id": run_id, "state": state})]
                return
    finally:
        hub.part(channel, _KIND)
