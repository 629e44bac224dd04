"""What stands in the journal as JSON: events, definitions, items of streams, small documents.

Nothing becomes bytes, or comes from them, but here and in the modules beside it:

    codec          JSON that people may want to read in the journal; events are upcast when an older SCHEMA is read
    actor_codec    JSON, one `bytes` argument of one Ray call between the actors of runs and whoever asks them
    outside_codec  JSON about work outside the cluster: jobs, CI jobs, blueprints, webhooks
    step_codec     MessagePack, one argument of one journal script, and its answer: only a script reads it

A reader raises Broken when the bytes are not what this product writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from orchestrator import job_events as j
from orchestrator import messages as m
from orchestrator import streams
from orchestrator.definition import Definition
from orchestrator.errors import Broken
from orchestrator.events import SCHEMA, AnyEvent, Event
from orchestrator.limits import Limit
from orchestrator.pipeline_events import SCHEMA as PIPELINE_SCHEMA
from orchestrator.pipeline_events import AnyPipelineEvent, PipelineEvent
from orchestrator.pools import PoolSpec

T = TypeVar("T")
#: an event as JSON made it, before it has a class
RawEvent = dict[str, Any]

#: schema -> what turns an event of that schema into one of the next
UPCASTERS: Mapping[int, Callable[[RawEvent], RawEvent]] = {}
#: the same for jobs
JOB_UPCASTERS: Mapping[int, Callable[[RawEvent], RawEvent]] = {}

JSON = msgspec.json.Encoder()
MSGPACK = msgspec.msgpack.Encoder()
_events = msgspec.json.Decoder(list[AnyEvent])
_job_events = msgspec.json.Decoder(list[j.AnyJobEvent])


def read(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """What `decoder` makes of `data`. Raises Broken."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Broken(f"unreadable bytes: {error}") from error


def reader(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]) -> Callable[[bytes], T]:
    """`read` with that decoder."""
    return partial(read, decoder)


def both_ways(kind: type[T]) -> tuple[Callable[[T], bytes], Callable[[bytes], T]]:
    """What makes JSON of that kind of thing, and its inverse; the latter raises Broken."""
    return JSON.encode, reader(msgspec.json.Decoder(kind))


def both_ways_in_lists(kind: type[T]) -> tuple[Callable[[Sequence[T]], bytes], Callable[[bytes], list[T]]]:
    """The same for any number of them."""
    return JSON.encode, reader(msgspec.json.Decoder(list[kind]))  # type: ignore[valid-type]  # known when it is called


def encode_events(events: Sequence[Event]) -> bytes:
    """A batch, as it stands in the journal."""
    return JSON.encode(events)


def decode_events(data: bytes, schema: int = SCHEMA) -> list[AnyEvent]:
    """A batch that was written under `schema`."""
    if schema == SCHEMA:
        return read(_events, data)
    return msgspec.convert(_upcast(data, schema, UPCASTERS, SCHEMA), list[AnyEvent])


def encode_job_events(events: Sequence[j.JobEvent]) -> bytes:
    """The same for a batch of a job's events."""
    return JSON.encode(events)


def decode_job_events(data: bytes, schema: int = j.SCHEMA) -> list[j.AnyJobEvent]:
    """A batch of a job that was written under `schema` of `job_events.py`."""
    if schema == j.SCHEMA:
        return read(_job_events, data)
    return msgspec.convert(_upcast(data, schema, JOB_UPCASTERS, j.SCHEMA), list[j.AnyJobEvent])


def _upcast(
    data: bytes, schema: int, upcasters: Mapping[int, Callable[[RawEvent], RawEvent]], to: int
) -> list[RawEvent]:
    if schema > to:
        raise Broken(f"events of schema {schema} were written by a newer version; this one knows {to}")
    events: list[RawEvent] = read(msgspec.json.Decoder(list[dict[str, Any]]), data)
    for step in range(schema, to):
        if step not in upcasters:
            raise Broken(f"events of schema {schema} cannot be read: no upcaster from {step}")
        events = [upcasters[step](event) for event in events]
    return events


_pipeline_events = msgspec.json.Decoder(list[AnyPipelineEvent])


def encode_pipeline_events(events: Sequence[PipelineEvent]) -> bytes:
    """A batch of a CI job, as it stands in the journal."""
    return JSON.encode(events)


def decode_pipeline_events(data: bytes, schema: int = PIPELINE_SCHEMA) -> list[AnyPipelineEvent]:
    """A batch of a CI job that was written under `schema`."""
    if schema != PIPELINE_SCHEMA:
        raise Broken(f"events of a CI job of schema {schema}; this version knows {PIPELINE_SCHEMA}")
    return read(_pipeline_events, data)


# documents: of any kind, and what rows and records have of some

_causes = msgspec.json.Decoder(tuple[m.Cause, ...])
_share = msgspec.json.Decoder(dict[str, float])

#: as their records hold them
encode_limit, decode_limit = both_ways(Limit)
encode_pool, decode_pool = both_ways(PoolSpec)


def encode_document(document: msgspec.Struct) -> bytes:
    """A record of any kind."""
    return JSON.encode(document)


def decode_document(data: bytes, kind: type[T]) -> T:
    """Inverse of it."""
    return read(msgspec.json.Decoder(kind), data)


def encode_causes(causes: Sequence[m.Cause]) -> bytes:
    """As a run's row has them."""
    return JSON.encode(causes)


def decode_causes(text: str) -> tuple[m.Cause, ...]:
    return read(_causes, text.encode()) if text else ()


def encode_share(weight: float) -> bytes:
    """A tenant's weight, as its record holds it."""
    return JSON.encode({"weight": weight})


def decode_share(data: bytes) -> float:
    return read(_share, data)["weight"]


# definitions

_canonical = msgspec.json.Encoder(order="deterministic")


def encode_definition(definition: Definition) -> bytes:
    """Canonical: equal definitions give equal bytes."""
    return _canonical.encode(definition)


decode_definition = reader(msgspec.json.Decoder(Definition))


# stream items

#: what one entry of `sched` tells the scheduler
decode_sched: Callable[[bytes], list[streams.SchedItem]] = reader(msgspec.json.Decoder(list[streams.SchedItem]))
#: what one entry of an inbox tells its actor
decode_inbox: Callable[[bytes], list[streams.InboxItem]] = reader(msgspec.json.Decoder(list[streams.InboxItem]))
#: what one commit changed: (entity id, last version, state)
decode_feed: Callable[[bytes], list[streams.FeedItem]] = reader(msgspec.json.Decoder(list[streams.FeedItem]))


def encode_items(items: Sequence[streams.SchedItem | streams.InboxItem | streams.FeedItem]) -> bytes:
    """One entry of `sched`, `feed` or an inbox, as the journal writes it."""
    return JSON.encode(items)


def encode_mail(sender: str, data: bytes) -> bytes:
    """`Mail.item`: `data` is JSON."""
    return JSON.encode([streams.Letter(sender, msgspec.Raw(data))])
