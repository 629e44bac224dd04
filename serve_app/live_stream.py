"""A run's stream as the runs surface has it: checkpoints, and changes of status while they happen.

    the last `replay` checkpoints, or all that are later than `after`  ──▶  live, for ever

A cursor is the instant of a checkpoint. Live is what is committed after the stream was asked for (at `version`). A
status is told only live: what happened before, a reader learns from the checkpoints. The stream does not end with the
run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime

from orchestrator import events as e
from orchestrator.checkpoints import About, Checkpoints, Status
from orchestrator.live_run_views import CheckpointView
from orchestrator.narration import instant_text
from orchestrator.views import Frame
from serve_app.channel import Channel, Pause
from serve_app.hub import Hub
from serve_app.run_stream import KEEP_ALIVE

_KIND = "checkpoints"


class CheckpointVoice:
    """`channel.Voice` of the runs surface."""

    def __init__(self, run_id: str, about: About) -> None:
        self._fold = Checkpoints(run_id, about)

    @property
    def state(self) -> str | None:
        """Core state after the last event."""
        return self._fold.state

    def frames(self, commit: Sequence[e.Event]) -> list[Frame]:
        """Of each event a status, a checkpoint, both or neither."""
        return [_frame(told) for event in commit for told in self._fold.tell(event)]


async def live_frames(
    hub: Hub, run_id: str, about: About, version: int, after: datetime | None, replay: int
) -> AsyncIterator[Sequence[Frame]]:
    """Chunks of frames, none empty. Raises JournalUnavailable: a reader comes back with its last id."""
    channel = await hub.channel(run_id, _KIND, lambda: CheckpointVoice(run_id, about))
    since = None if after is None else instant_text(after)
    latest: deque[Frame] = deque(maxlen=replay)
    try:
        async for chunk in channel.follow(channel.base if _covers(channel, version, since, replay) else 0):
            if chunk is Pause.SILENCE:
                yield KEEP_ALIVE
            elif chunk is Pause.UP_TO_DATE or chunk.version > version:
                if latest:
                    yield tuple(latest)
                    latest.clear()
                if chunk is not Pause.UP_TO_DATE and chunk.frames:
                    yield chunk.frames
            elif since is None:
                latest.extend(_checkpoints(chunk.frames))
            elif later := [frame for frame in _checkpoints(chunk.frames) if _at(frame) > since]:
                yield later
    finally:
        hub.part(channel, _KIND)


def _covers(channel: Channel, version: int, since: str | None, replay: int) -> bool:
    """The chunks that the channel has kept are all that the reader asks for."""
    if channel.base > version:
        return False
    past = [chunk for chunk in channel.kept() if chunk.version <= version]
    kept = [frame for chunk in past for frame in _checkpoints(chunk.frames)]
    if since is None:
        return len(kept) >= replay
    return bool(kept) and _at(kept[0]) <= since


def _checkpoints(frames: Iterable[Frame]) -> Iterable[Frame]:
    return (frame for frame in frames if frame.kind == "checkpoint")


def _at(frame: Frame) -> str:
    assert frame.data is not None
    at: str = frame.data["ts"]
    return at


def _frame(told: Status | CheckpointView) -> Frame:
    if isinstance(told, Status):
        return Frame(None, "status", {"runId": told.run_id, "status": told.state})
    body = {"id": told.id, "runId": told.run_id, "ts": instant_text(told.at), "type": told.kind}
    return Frame(None, "checkpoint", body | ({"data": told.data} if told.data else {}))
