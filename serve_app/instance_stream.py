"""An instance's stream: the events of `orchestrator/instance_events.py`, each a frame with its `seq`.

A stream ends once the instance has stopped and everything up to now was told. What people do to the tasks of an
instance that has ended is numbered on; who opens a stream then gets that too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from orchestrator import events as e
from orchestrator.instance_events import InstanceFold
from orchestrator.rows import TERMINAL
from orchestrator.views import Frame
from serve_app.channel import Channel, Pause
from serve_app.hub import Hub
from serve_app.run_stream import KEEP_ALIVE

_KIND = "instance"


class InstanceVoice:
    """`channel.Voice` of the instances surface."""

    def __init__(self, run_id: str) -> None:
        self._fold = InstanceFold(run_id)

    @property
    def state(self) -> str | None:
        """Core state after the last event."""
        return self._fold.state

    def frames(self, commit: Sequence[e.Event]) -> list[Frame]:
        """What the commit means."""
        return [
            Frame(
                told.seq,
                told.kind,
                {"timestamp": told.at, "data": self._fold.document().raw if told.data is None else told.data},
            )
            for told in self._fold.tell(commit)
        ]


async def instance_frames(hub: Hub, run_id: str, after: int) -> AsyncIterator[Sequence[Frame]]:
    """Frames after the seq `after`, then live, until the instance has stopped. Raises JournalUnavailable."""
    channel = await hub.channel(run_id, _KIND, lambda: InstanceVoice(run_id))
    state: str | None = None
    try:
        async for chunk in channel.follow(channel.base if _covers(channel, after) else 0):
            if chunk is Pause.SILENCE:
                yield KEEP_ALIVE
            elif chunk is not Pause.UP_TO_DATE:
                state = chunk.state
                if frames := [frame for frame in chunk.frames if frame.seq is not None and frame.seq > after]:
                    yield frames
            elif state in TERMINAL:
                return
    finally:
        hub.part(channel, _KIND)


def _covers(channel: Channel, after: int) -> bool:
    """The chunks that the channel has kept are all that the reader asks for."""
    first = next((frame.seq for chunk in channel.kept() for frame in chunk.frames), None)
    return first is not None and first <= after + 1
