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

_limit = msgspec.json.Decoder(Limit)
_causes = msgspec.json.Decoder(tuple[m.Cause, ...])
_share = msgspec.json.Decoder(dict[str, float])
_pool = msgspec.json.Decoder(PoolSpec)


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


def encode_limit(limit: Limit) -> bytes:
    """As its record holds it."""
    return JSON.encode(limit)


def decode_limit(data: bytes) -> Limit:
    return read(_limit, data)


def encode_pool(spec: PoolSpec) -> bytes:
    """As its record holds it."""
    return JSON.encode(spec)


def decode_pool(data: bytes) -> PoolSpec:
    return read(_pool, data)


def encode_share(weight: float) -> bytes:
    """A tenant's weight, as its record holds it."""
    return JSON.encode({"weight": weight})


def decode_share(data: bytes) -> float:
    return read(_share, data)["weight"]


# definitions

_definition = msgspec.json.Decoder(Definition)
_canonical = msgspec.json.Encoder(order="deterministic")


def encode_definition(definition: Definition) -> bytes:
    """Canonical: equal definitions give equal bytes."""
    return _canonical.encode(definition)


def decode_definition(data: bytes) -> Definition:
    return read(_definition, data)


# stream items

_sched = msgspec.json.Decoder(list[streams.SchedItem])
_inbox = msgspec.json.Decoder(list[streams.InboxItem])
_feed = msgspec.json.Decoder(list[streams.FeedItem])


def decode_sched(item: bytes) -> list[streams.SchedItem]:
    """What one entry of `sched` tells the scheduler."""
    return read(_sched, item)


def decode_inbox(item: bytes) -> list[streams.InboxItem]:
    """What one entry of an inbox tells its actor."""
    return read(_inbox, item)


def decode_feed(item: bytes) -> list[streams.FeedItem]:
    """What one commit changed: (entity id, last version, state)."""
    return read(_feed, item)


def encode_items(items: Sequence[streams.SchedItem | streams.InboxItem | streams.FeedItem]) -> bytes:
    """One entry of `sched`, `feed` or an inbox, as the journal writes it."""
    return JSON.encode(items)


def encode_mail(sender: str, data: bytes) -> bytes:
    """`Mail.item`: `data` is JSON."""
    return JSON.encode([streams.Letter(sender, msgspec.Raw(data))])
