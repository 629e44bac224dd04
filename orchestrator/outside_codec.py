"""Work outside the cluster, as JSON: what is said and kept about jobs, CI jobs, blueprints and webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from orchestrator import pipeline_messages as pm
from orchestrator import remote as r
from orchestrator import webhook as w
from orchestrator import webhook_messages as wm
from orchestrator.blueprint import Blueprint, Outcome, Published, Visit
from orchestrator.codec import JSON, both_ways, both_ways_in_lists, read, reader
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError
from orchestrator.pipeline_views import LogEntry

# pipelines; an entry is one line of a CI job's log

encode_pipeline_request: Callable[[pm.Request], bytes] = JSON.encode
decode_pipeline_request: Callable[[bytes], pm.Request] = reader(msgspec.json.Decoder(pm.Request))
encode_pipeline_answer, decode_pipeline_answer = both_ways(pm.Answer)
encode_log_entry, decode_log_entry = both_ways(LogEntry)

# API replica <-> gateway, about jobs and remote workers

encode_request: Callable[[r.Request], bytes] = JSON.encode
decode_request: Callable[[bytes], r.Request] = reader(msgspec.json.Decoder(r.Request))
encode_answer, decode_answer = both_ways(r.Answer)


def pushes_of(answer: r.Answer) -> r.Pushes:
    """What the answer of a Listen brings."""
    return msgspec.convert(answer.body, r.Pushes)


# refusals: what some requests of a batch were answered, kept for its repetition

_REFUSALS: Mapping[str, type[OrchestratorError]] = {kind.__name__: kind for kind in (Invalid, NotFound, Conflict)}
_refusals = msgspec.json.Decoder(list[tuple[int, str, list[Any]]])


def encode_refusals(errors: Mapping[int, OrchestratorError]) -> bytes:
    """Position in the batch -> why that request was refused (Invalid, NotFound or Conflict)."""
    return JSON.encode([(n, type(error).__name__, error.args) for n, error in errors.items()])


def decode_refusals(data: bytes) -> dict[int, OrchestratorError]:
    return {n: _refusal(kind, args) for n, kind, args in read(_refusals, data)}


def _refusal(kind: str, args: list[Any]) -> OrchestratorError:
    if kind == "Invalid":
        message, details = args
        return Invalid(message, tuple((field, what) for field, what in details))
    return _REFUSALS[kind](*args)


# blueprints: versions of them, and visits that the handlers' actor is to make; outcomes are in the order of the visits

encode_blueprint, decode_blueprint = both_ways(Blueprint)
encode_published, decode_published = both_ways(Published)
encode_visits, decode_visits = both_ways_in_lists(Visit)
encode_outcomes, decode_outcomes = both_ways_in_lists(Outcome)

# webhooks: mail for their outbox, and its records

encode_notice, decode_notice = both_ways(w.Notice)
encode_delivery, decode_delivery = both_ways(w.Delivery)
encode_webhook_request: Callable[[wm.Request], bytes] = JSON.encode
decode_webhook_request: Callable[[bytes], wm.Request] = reader(msgspec.json.Decoder(wm.Request))
encode_webhook_answer, decode_webhook_answer = both_ways(wm.Answer)
