"""Events and batches as bytes, over versions of their meaning."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from orchestrator import codec, outside_codec
from orchestrator import events as e
from orchestrator.errors import Broken, Conflict, Invalid, NotFound
from orchestrator.limits import Limit

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def test_a_batch_comes_back_as_it_went() -> None:
    events = [
        e.TaskStarted(AT, "a", 1, "w"),
        e.TaskFailed(AT, "é\n", 1, "x"),
        e.TaskCheckpointed(AT, "a", 1, msgspec.Raw(b'{"n":1}')),
    ]
    assert codec.decode_events(codec.encode_events(events)) == events


def test_what_nobody_of_us_wrote_is_broken() -> None:
    for data in (b"", b"{}", b'[{"t":"unheard_of","at":"2026-01-02T03:04:05Z"}]', b"[\xff]"):
        with pytest.raises(Broken):
            codec.decode_events(data)


def test_older_events_are_read_through_every_upcaster_in_turn() -> None:
    def first(event: codec.RawEvent) -> codec.RawEvent:
        return {**event, "worker": "unknown"}

    def second(event: codec.RawEvent) -> codec.RawEvent:
        return {**event, "task": event.pop("node")}

    old = b'[{"t":"task_started","at":"2026-01-02T03:04:05Z","node":"a","attempt":1}]'
    [event] = msgspec.convert(codec._upcast(old, 1, {1: first, 2: second}, 3), list[e.AnyEvent])
    assert event == e.TaskStarted(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "a", 1, "unknown")


def test_events_of_a_newer_version_or_a_missing_step_are_refused() -> None:
    with pytest.raises(Broken, match="newer"):
        codec.decode_events(b"[]", e.SCHEMA + 1)
    with pytest.raises(Broken, match="upcaster"):
        codec._upcast(b"[]", 1, {}, 2)


def test_refusals_of_a_batch_come_back_with_their_facts() -> None:
    errors = {0: NotFound("DAG", "x"), 3: Invalid("bad", (("from", "not a date"),)), 5: Conflict("no")}
    found = outside_codec.decode_refusals(outside_codec.encode_refusals(errors))
    assert {n: (type(x), x.args) for n, x in found.items()} == {n: (type(x), x.args) for n, x in errors.items()}


def test_one_of_a_kind_and_many_of_them_come_back_as_they_went_and_no_other_kind_does() -> None:
    one, many = Limit(max_running=1), [Limit(max_running=2), Limit()]
    encode, decode = codec.both_ways(Limit)
    encode_all, decode_all = codec.both_ways_in_lists(Limit)
    assert decode(encode(one)) == one
    assert decode_all(encode_all(tuple(many))) == many
    with pytest.raises(Broken):
        decode(encode_all(many))
    with pytest.raises(Broken):
        decode_all(encode(one))
