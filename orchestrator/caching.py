"""Results of tasks that are used again: when two tasks are the same, and for how long a result holds.

    key = SHA-256 over  cache_key, else the DAG · type and entrypoint · cache_version · the params as they are known
                        before a worker has the task · what its dependencies returned · with cache_window: the window,
                        the partition and the index of an instance

Params are those of `binding.py`, templates filled in. Which params of the run a Python function takes only the worker
knows, so all of them count. A large value counts by the artifact that it is in: it is the same where its task was
cached as well, and otherwise another one for each run. A key holds no value, so it tells no secret; the result is kept
as it is in the event of the run that computed it.

Two designs were open for where to look. (1) The worker looks, once it has the task: it knows exactly what the code is
called with, but a slot, a permit and a hop are spent on what is known. (2) The owner of the run looks, between "may
start" and "wants a slot": a hit costs no worker, and is decided and committed like everything else of the run. This
is (2); its price is that run params count that the function does not take.

A result is written after it was accepted, by the owner of its run, and a crash in between forgets it: it is computed
again, never lost, since it is in its run. An *uncache* is an instant: attempts that began before it count no more, also
those that run at that moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator import mapped
from orchestrator.binding import bind, facts, rendered
from orchestrator.errors import PermanentFailure
from orchestrator.messages import Value

if TYPE_CHECKING:
    from orchestrator.run_state import Run

#: kind of the records that say which kinds of results there are: key = what follows `RESULTS` in those
CACHES = "caches"
#: kind of the records of instants: `uncached_key` -> from when on attempts count
UNCACHED = "uncached"
#: what the kind of results begins with
RESULTS = "cache/"
#: results that a sweep leaves under one kind, and their size together
ENTRIES_MAX = 10_000
BYTES_MAX = 16 * 2**20

_encode = msgspec.json.Encoder(order="deterministic").encode


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A result, as its record has it."""

    value: Value
    #: which attempt returned it
    run_id: str
    task: str
    attempt: int
    #: when that began, and was accepted
    started_at: datetime
    at: datetime
    expires_at: datetime
    length: int | None = None


def kind_of(tenant: str, dag_id: str, cache_key: str | None) -> str:
    """Kind of the records of results: one for each DAG, and one for all keys that DAGs of a tenant share."""
    return f"{RESULTS}{tenant}/{dag_id if cache_key is None else '='}"


def uncached_key(tenant: str, dag_id: str, task: str = "") -> str:
    """Key of the instant of a DAG, or of one of its tasks; an instance of a mapped task has that of its task."""
    return f"{tenant}/{dag_id}/{mapped.map_of(task)}"


def mark_of(task: str) -> str:
    """Under what a row tells the run whose result the task has; "" = its own. No backfill counts it, as no instance."""
    return f"{task}[cached]"


def key_of(run: Run, position: int) -> str | None:
    """The content key of a task that may start, hex; None = its params cannot be told, so that it fails by itself."""
    compiled = run.compiled
    spec, index = compiled.specs[position], compiled.graph.index
    inputs = {path: run.values.get(index[producer], Value()) for path, producer in spec.inputs.items()}
    part = mapped.part_of(run, position, inputs) if compiled.maps else None
    number = part.index if part is not None else None
    window = (run.window.start, run.window.end) if run.window is not None and run.window.start else None
    partition = run.window.partition if run.window is not None else ""
    told = facts(run.run_id, run.dag_id, window, partition, number)
    given: dict[str, Any] = {path: _content(value) for path, value in inputs.items()}
    if part is not None:
        given |= {path: [_content(value) for value in values] for path, values in part.lists.items()}
        if part.picks is not None:
            given[part.picks] = [given[part.picks], number]
    own: dict[str, Any] = msgspec.json.decode(compiled.params[position])
    try:
        params = bind(spec.type, own, dict.fromkeys(given), run.params, told)
        shared = spec.cache_key is not None
        space = [shared, rendered(spec.cache_key, told) if shared else run.dag_id]
    except PermanentFailure:
        return None
    seen = [window, partition, number] if spec.cache_window else None
    parts = [space, spec.type, spec.entrypoint, spec.cache_version, params, given, seen]
    return hashlib.sha256(_encode(parts)).hexdigest()


def _content(value: Value) -> list[Any]:
    if value.artifact is not None:
        return ["artifact", value.artifact]
    return ["value", msgspec.json.decode(value.inline)]


def holds(kept: Kept, ttl_s: float, uncached: Iterable[datetime], now: datetime) -> bool:
    """May the result be used now, by a task whose results hold for `ttl_s`?"""
    fresh = now < min(kept.expires_at, kept.at + timedelta(seconds=ttl_s))
    return fresh and all(kept.started_at > instant for instant in uncached)


def overdue(records: Mapping[str, tuple[Kept, int]], now: datetime) -> list[str]:
    """Keys of one kind to be forgotten: what has expired, and the oldest of too many. Records come with their size."""
    out = [key for key, (kept, _) in records.items() if kept.expires_at <= now]
    live = sorted(records.keys() - set(out), key=lambda key: (records[key][0].at, key), reverse=True)
    size = 0
    for number, key in enumerate(live):
        size += records[key][1]
        if number >= ENTRIES_MAX or size > BYTES_MAX:
            return out + live[number:]
    return out
