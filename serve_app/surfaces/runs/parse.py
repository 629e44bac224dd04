"""Bodies, headers and queries of this surface, read into what the ports take. All raise Invalid, or BodyTooLarge.

Bodies are read as JSON whatever their Content-Type, by msgspec: unlike orjson it keeps integers beyond 64 bits.
What a caller wants kept (`metadata`, `data`) is cut out of the body as text and only loses its white space, so
that every number comes back as it was written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request

from orchestrator import spec_form
from orchestrator.errors import Invalid, NotFound
from orchestrator.faults import Fault, json_fault, refusal
from orchestrator.idempotency import Idempotency
from serve_app.problems import BodyTooLarge
from serve_app.requests import DEEPEST, too_deep, whole_number
from serve_app.surfaces.runs import words

MODES = ("plan", "redis", "k8s")
RUN_ID = r"[0-9A-Za-z]{10,32}"
DAG_ID = spec_form.DAG_ID.removeprefix("^").removesuffix("$")

METADATA_BYTES_MAX = 64 * 1024
DATA_BYTES_MAX = 256 * 1024
TYPE_CHARACTERS_MAX = 200
OWNER_CHARACTERS_MAX = 200
KEY_CHARACTERS_MAX = 255
CHECKPOINTS_MAX = 10_000
REPLAY_DEFAULT, REPLAY_MAX = 10, 100

_RUN_ID = re.compile(RUN_ID, re.ASCII)
_DAG_ID = re.compile(DAG_ID, re.ASCII)
_LEADING_INTEGER = re.compile(r"\s*([+-]?)0*([0-9]+)", re.ASCII)
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_DEFINITIONS = ("dag_id", "plan", "flow")
_canonical = msgspec.json.Encoder(order="sorted").encode


class _Kept(msgspec.Struct):
    """The parts of a body that are kept as text."""

    metadata: msgspec.Raw = words.ABSENT
    data: msgspec.Raw = words.ABSENT


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A body of POST /runs. At most one of `dag_id` and `graph` is there."""

    #: the whole body
    body: Mapping[str, Any]
    metadata: msgspec.Raw
    dag_id: str | None = None
    #: where the body has its inline graph (`plan` or `flow/graph`), and what stands there
    graph: tuple[str, object] | None = None


def known_form(run_id: str) -> str:
    """`run_id` itself. Raises NotFound when no run can have such an id."""
    if not _RUN_ID.fullmatch(run_id):
        raise NotFound("run", repr(run_id[:100]))
    return run_id


# -- POST /runs


def mode(given: str | None, default: str) -> str:
    """One of MODES."""
    if given is None:
        return default
    if given not in MODES:
        raise Invalid(words.INVALID_MODE)
    return given


def owner(header: str | None, query: str | None) -> str | None:
    """Who asks, as the caller says; the header wins, and what is blank is not given."""
    faults: list[Fault] = []
    for name, text in (("x-actor-id", header), ("owner", query)):
        if text is not None and len(text) > OWNER_CHARACTERS_MAX:
            faults.append((name, f"must NOT have more than {OWNER_CHARACTERS_MAX} characters"))
        elif fault := json_fault(text):
            faults.append((name, fault[1]))
    if faults:
        raise refusal(faults)
    return next((text.strip() for text in (header, query) if text is not None and text.strip()), None)


def run_request(text: bytes) -> RunRequest:
    """The body of POST /runs; what stands in a plan is not looked at yet."""
    body = _object(text or b"{}")
    faults: list[Fault] = []
    metadata = body.get("metadata")
    if not isinstance(metadata, dict | None):
        faults.append(("metadata", "must be object"))
    if sum(name in body for name in _DEFINITIONS) > 1:
        faults.append(("", "dag_id, plan and flow are exclusive"))
    if not isinstance(dag_id := body.get("dag_id", ""), str):
        faults.append(("dag_id", "must be string"))
    graph = _graph(body, faults)
    if faults:
        raise refusal(faults)
    if "dag_id" in body and not _DAG_ID.fullmatch(dag_id):
        raise NotFound("dag", repr(dag_id[:100]))
    kept = words.ABSENT if metadata is None else _compact(_kept(text).metadata, METADATA_BYTES_MAX)
    return RunRequest(body, kept, dag_id or None, graph)


def idempotency(request: Request, tenant: str, wanted: RunRequest) -> Idempotency | None:
    """The caller's key, with a fingerprint of method, query and body; None when there is none."""
    key = request.headers.get("idempotency-key", "").strip()
    if not key:
        return None
    if len(key) > KEY_CHARACTERS_MAX:
        raise refusal([("Idempotency-Key", f"must NOT have more than {KEY_CHARACTERS_MAX} characters")])
    asked = [request.method, sorted(request.query_params.multi_items()), wanted.body]
    return Idempotency(f"{tenant}:POST:/runs:{key}", hashlib.sha256(_canonical(asked)).hexdigest())


def _graph(body: Mapping[str, Any], faults: list[Fault]) -> tuple[str, object] | None:
    if "plan" in body:
        return "plan", body["plan"]
    if "flow" not in body:
        return None
    flow = body["flow"]
    if not isinstance(flow, dict):
        faults.append(("flow", "must be object"))
        return None
    for name in ("kind", "graph"):
        if name not in flow:
            faults.append(("flow", f"must have required property '{name}'"))
    if flow.get("kind", "Flow") != "Flow":
        faults.append(("flow/kind", "must be equal to 'Flow'"))
    return "flow/graph", flow.get("graph")


# -- checkpoints and events


def checkpoint(text: bytes) -> tuple[str, msgspec.Raw]:
    """Type and data (empty = none given) in the body of POST /runs/{runId}/checkpoints."""
    body = _json(text)
    given = body.get("type") if isinstance(body, dict) else None
    kind = given.strip() if isinstance(given, str) else ""
    if not kind:
        raise Invalid(words.INVALID_CHECKPOINT_TYPE)
    if len(kind) > TYPE_CHARACTERS_MAX:
        raise refusal([("type", f"must NOT have more than {TYPE_CHARACTERS_MAX} characters")])
    data = _kept(text).data
    return kind, data if data == words.ABSENT else _compact(data, DATA_BYTES_MAX)


def checkpoints_query(query: Mapping[str, str]) -> tuple[datetime | None, int | None]:
    """`after` and `limit` of GET /runs/{runId}/checkpoints."""
    limit = whole_number("limit", query.get("limit"), 1, CHECKPOINTS_MAX)
    given = query.get("after")
    after = None if given is None else instant(given)
    if given is not None and after is None:
        raise refusal([("after", "must be an RFC 3339 instant")])
    return after, limit


def replay(text: str | None) -> int:
    """As JavaScript's parseInt reads it: the leading integer, else the default; clamped."""
    found = _LEADING_INTEGER.match(text or "")
    if found is None:
        return REPLAY_DEFAULT
    sign, digits = found.groups()
    if sign == "-":
        return 0
    # a number of thousands of digits is not worth reading, nor does Python
    return REPLAY_MAX if len(digits) > 3 else min(int(digits), REPLAY_MAX)


def resume_after(header: str | None, query: str | None) -> datetime | None:
    """What to go on after; the header wins, and what is no instant counts as absent."""
    return next((found for text in (header, query) if text is not None and (found := instant(text))), None)


def instant(text: str) -> datetime | None:
    """An RFC 3339 instant in UTC; None for anything else. Digits beyond microseconds make no difference."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# -- JSON


def _object(text: bytes) -> dict[str, Any]:
    body = _json(text)
    if not isinstance(body, dict):
        raise refusal([("", "must be object")])
    return body


def _json(text: bytes) -> object:
    try:
        body: object = msgspec.json.decode(text)
    except RecursionError:
        raise refusal([_TOO_DEEP]) from None
    except ValueError:  # msgspec's own errors, and UnicodeDecodeError
        raise Invalid(words.INVALID_JSON) from None
    if too_deep(text, body):
        raise refusal([_TOO_DEEP])
    return body


_TOO_DEEP = ("", f"must NOT be nested deeper than {DEEPEST} levels")


def _kept(text: bytes) -> _Kept:
    return msgspec.json.decode(text, type=_Kept)


def _compact(kept: msgspec.Raw, most_bytes: int) -> msgspec.Raw:
    """The same JSON on one line, each number and string as it was written."""
    text = msgspec.json.format(bytes(kept), indent=-1)
    if len(text) > most_bytes:
        raise BodyTooLarge(most_bytes)
    return msgspec.Raw(text)
