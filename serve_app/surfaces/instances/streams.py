"""Events of an instance on their way out, as texts of a WebSocket or as bytes of server-sent events.

    initial_status   every event after it, or after the one that the client saw last   … ping every 30 s …

A stream ends when its source does: after the instance's last `orchestrator_state`. What the port says in
silence is dropped here; the signs of life are this surface's own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from orchestrator.instance_views import InstanceStatus
from orchestrator.views import Frame
from serve_app import sse
from serve_app.heartbeat import Beat, with_beats
from serve_app.ports import Clock, Instances
from serve_app.surfaces.instances import words

_KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Opened:
    """What the port gave for one stream."""

    instance_id: str
    snapshot: InstanceStatus
    #: seq of the snapshot
    latest: int
    chunks: AsyncIterator[Sequence[Frame]]
    #: the client goes on after an event that it has seen
    resumed: bool


async def open_stream(instances: Instances, tenant: str, instance_id: str, since: int | None) -> Opened:
    """A stream after the event `since`, or from now on. Raises NotFound."""
    snapshot, latest, chunks = await instances.open_events(tenant, instance_id, since)
    resumed = since is not None and since <= latest
    return Opened(instance_id, snapshot, latest, chunks, resumed)


async def event_texts(opened: Opened, clock: Clock) -> AsyncIterator[str]:
    """Frames of WS …/events."""
    yield _text(words.initial_status(opened.snapshot, opened.instance_id, clock.now()))
    async with aclosing(with_beats(_events(opened.chunks))) as items:
        async for each in items:
            if isinstance(each, Frame):
                yield _text(words.event(each, opened.instance_id))
            elif each is Beat.PING:
                yield _text(words.ping(clock.now()))


async def activity_texts(opened: Opened, clock: Clock) -> AsyncIterator[str]:
    """Frames of WS …/activity."""
    yield _text(words.connected(opened.instance_id, clock.now()))
    async with aclosing(with_beats(_events(opened.chunks))) as items:
        async for each in items:
            if isinstance(each, Frame):
                if (told := words.activity(each, opened.instance_id)) is not None:
                    yield _text(told)
            elif each is Beat.PING:
                yield _text(words.ping(clock.now()))


async def event_bytes(opened: Opened, clock: Clock) -> AsyncIterator[bytes]:
    """Frames of …/events-sse. After a resume the snapshot has no id: it must not move the client's cursor."""
    first = words.initial_status(opened.snapshot, opened.instance_id, clock.now())
    yield sse.frame(None if opened.resumed else opened.latest, "initial_status", first)
    async with aclosing(with_beats(_events(opened.chunks))) as items:
        async for each in items:
            if isinstance(each, Frame):
                yield sse.frame(each.seq, each.kind, words.event(each, opened.instance_id))
            else:
                yield sse.frame(None, "ping", words.ping(clock.now())) if each is Beat.PING else _KEEP_ALIVE


async def _events(chunks: AsyncIterator[Sequence[Frame]]) -> AsyncGenerator[Frame, None]:
    """One by one, without what the port says in silence."""
    try:
        async for frames in chunks:
            for each in frames:
                if each.seq is not None:
                    yield each
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


def _text(body: words.Json) -> str:
    return orjson.dumps(body).decode()
