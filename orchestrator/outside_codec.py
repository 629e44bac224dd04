"""Work outside the cluster, as JSON: what is said and kept about jobs, CI jobs, blueprints and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orchestrator import pipeline_messages as pm
from orchestrator import remote as r
from orchestrator import webhook as w
from orchestrator import webhook_messages as wm
from orchestrator.blueprint import Blueprint, Outcome, Published, Visit
from orchestrator.codec import JSON, read
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError
from orchestrator.pipeline_views import LogEntry

_pipeline_request = msgspec.json.Decoder(pm.Request)
_pipeline_answer = msgspec.json.Decoder(pm.Answer)
_log_entry = msgspec.json.Decoder(LogEntry)


def encode_pipeline_request(request: pm.Request) -> bytes:
    return JSON.encode(request)


def decode_pipeline_request(data: bytes) -> pm.Request:
    request: pm.Request = read(_pipeline_request, data)
    return request


def encode_pipeline_answer(answer: pm.Answer) -> bytes:
    return JSON.encode(answer)


def decode_pipeline_answer(data: bytes) -> pm.Answer:
    return read(_pipeline_answer, data)


def encode_log_entry(entry: LogEntry) -> bytes:
    """One line of a CI job's log."""
    return JSON.encode(entry)


def decode_log_entry(line: bytes) -> LogEntry:
    return read(_log_entry, line)


# API replica <-> gateway, about jobs and remote workers

_request: msgspec.json.Decoder[r.Request] = msgspec.json.Decoder(r.Request)
_answer = msgspec.json.Decoder(r.Answer)


def encode_request(request: r.Request) -> bytes:
    return JSON.encode(request)


def decode_request(data: bytes) -> r.Request:
    return read(_request, data)


def encode_answer(answer: r.Answer) -> bytes:
    return JSON.encode(answer)


def decode_answer(data: bytes) -> r.Answer:
    return read(_answer, data)


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


# blueprints: versions of them, and visits of their states

_blueprint = msgspec.json.Decoder(Blueprint)
_published = msgspec.json.Decoder(Published)
_visits = msgspec.json.Decoder(list[Visit])
_outcomes = msgspec.json.Decoder(list[Outcome])


def encode_blueprint(blueprint: Blueprint) -> bytes:
    return JSON.encode(blueprint)


def decode_blueprint(data: bytes) -> Blueprint:
    return read(_blueprint, data)


def encode_published(published: Published) -> bytes:
    return JSON.encode(published)


def decode_published(data: bytes) -> Published:
    return read(_published, data)


def encode_visits(visits: Sequence[Visit]) -> bytes:
    """Visits that the handlers' actor is to make."""
    return JSON.encode(visits)


def decode_visits(data: bytes) -> list[Visit]:
    return read(_visits, data)


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """What came of them, in the same order."""
    return JSON.encode(outcomes)


def decode_outcomes(data: bytes) -> list[Outcome]:
    return read(_outcomes, data)


# webhooks: mail for their outbox, and its records

_notice = msgspec.json.Decoder(w.Notice)
_delivery = msgspec.json.Decoder(w.Delivery)


def encode_notice(notice: w.Notice) -> bytes:
    return JSON.encode(notice)


def decode_notice(data: bytes) -> w.Notice:
    return read(_notice, data)


def encode_delivery(delivery: w.Delivery) -> bytes:
    return JSON.encode(delivery)


def decode_delivery(data: bytes) -> w.Delivery:
    return read(_delivery, data)


_webhook_request: msgspec.json.Decoder[wm.Request] = msgspec.json.Decoder(wm.Request)
_webhook_answer = msgspec.json.Decoder(wm.Answer)


def encode_webhook_request(request: wm.Request) -> bytes:
    return JSON.encode(request)


def decode_webhook_request(data: bytes) -> wm.Request:
    return read(_webhook_request, data)


def encode_webhook_answer(answer: wm.Answer) -> bytes:
    return JSON.encode(answer)


def decode_webhook_answer(data: bytes) -> wm.Answer:
    return read(_webhook_answer, data)
