"""Event streams that resume by themselves.

    open after the last id ─▶ frames, each new one taken once ─▶ over          (the surface says when)
            ▲                        │ cut, drained, silent
            └──── wait, longer each ─┘──▶ ServerUnreachable, when nothing new came for half a minute of waiting

Servers end streams now and then on purpose (a bounded life, a restart, a slow reader), so coming back is the rule
and losing something is not: the server replays what is after the id we name. What a surface does differently
(its ids, its end) is in a `Followed`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from orchestrator.client.errors import ServerBroken
from orchestrator.client.script import (
    Answer,
    Effect,
    Emit,
    Lost,
    Open,
    Patience,
    Read,
    Reply,
    Request,
    Script,
    Stream,
    later,
)
from orchestrator.client.sse import KEEP_ALIVE, Decoder, Frame

#: streams send something at least every 15 s; what is silent for so long is dead
SILENCE_S = 45.0
_QUIET_S = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    #: to resume after it; None for an event that is not replayed
    id: str | None
    #: the surface's word, for instance `task_state`, `checkpoint` or `task_changed`
    kind: str
    data: Mapping[str, Any]


T = TypeVar("T")
Events: TypeAlias = Stream[Event]
#: emits events and has a result
Following: TypeAlias = Generator[Effect | Emit[Event], Reply, T]


class Followed(Protocol):
    """One stream of one surface."""

    def request(self) -> Request:
        """Asks for what is after the last id taken."""

    def take(self, event: Event) -> Following[bool]:
        """Emits `event` unless it was taken before; True when nothing will follow."""

    def ended(self) -> bool:
        """Was it the end when the server closed the stream in good order?"""


def follow(followed: Followed) -> Events:
    """Every event of the stream once, over cut connections and restarts, until it is over.

    Raises what a request raises, and ServerUnreachable when there was no progress for too long.
    """
    patience = Patience()
    while True:
        opened = yield from _opened(followed.request(), patience)
        if opened.status == 204:
            return
        over, why = yield from _read(followed, opened, patience)
        if over:
            return
        yield from patience.pause(None, why)


def so_far(followed: Followed) -> Events:
    """The events that there are: the stream, until nothing comes for a second."""
    opened = yield from _opened(replace(followed.request(), timeout_s=_QUIET_S), Patience())
    if opened.status != 204:
        yield from _read(followed, opened, Patience())


def _opened(request: Request, patience: Patience) -> Script[Answer]:
    """The stream, or 204 when nothing will come."""
    while True:
        reply = yield Open(request)
        match reply:
            case Answer(status=200 | 204):
                return reply
            case Answer():
                asked_s, why = later(request, reply)
            case Lost():
                asked_s, why = None, reply
            case _:
                raise AssertionError(reply)
        yield from patience.pause(asked_s, why)


def _read(followed: Followed, opened: Answer, patience: Patience) -> Following[tuple[bool, Lost]]:
    """Whether the stream is over; if not, why it broke off."""
    if not opened.headers.get("content-type", "").startswith("text/event-stream"):
        raise ServerBroken(opened.status, f"{followed.request().asked}: no event stream")
    decoder = Decoder()
    while True:
        chunk = yield Read()
        match chunk:
            case bytes():
                for frame in decoder.feed(chunk):
                    if frame is KEEP_ALIVE or frame.id is not None:
                        patience.renew()
                    if frame is not KEEP_ALIVE and (yield from followed.take(_event(frame))):
                        return True, Lost(opened.url, "over")
            case None:
                return followed.ended(), Lost(opened.url, "the stream was cut")
            case Lost():
                return False, chunk
            case _:
                raise AssertionError(chunk)


def _event(frame: Frame) -> Event:
    try:
        data = json.loads(frame.data)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ServerBroken(200, f"event {frame.kind}: no JSON object")
    return Event(frame.id, frame.kind, data)
