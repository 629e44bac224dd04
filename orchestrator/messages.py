"""What RunActors and WorkerActors say to each other.

One `Exchange` carries a batch of assignments to a worker; its `Settled` answer carries what came of
them. Both travel as JSON bytes in one argument of one Ray call (a batch per hop, never a call per
task). A worker keeps what it answered until a later exchange acknowledges the batch, so that a
RunActor that died in between can ask again and apply each report once.

    RunActor ── Exchange(batch 7, tasks) ──▶ worker: runs them one after another
             ◀─ Settled(batch 7, reports, untouched) ──
             ── Exchange(batch 8, acks=[7], …) ──▶

`give_back` (another concurrency group of the worker, so it answers while user code runs) hands the
tasks that have not started yet back to the caller; the pending exchange then reports only the rest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

#: JSON that was not given, unlike a null that was; a field with this very default is left out when it has it
NO_JSON = msgspec.Raw(b"")


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing because of which a run started by itself."""

    #: dag (a run of it succeeded) | asset (a task updated it) | event (somebody told it)
    kind: str
    #: of the DAG, asset or event
    name: str
    #: of the run that succeeded, or whose task updated the asset; of an event "", as what follows
    run_id: str = ""
    task: str = ""
    #: of the run, or of the task
    attempt: int = 0
    event_id: str = ""


class RunContext(msgspec.Struct, frozen=True, array_like=True):
    """What every assignment of one run has in common."""

    run_id: str
    tenant: str
    dag_id: str
    dag_version: int
    #: window as two texts, or None
    window: tuple[str, str] | None
    #: name of the actor that owns the run: where checkpoints and progress go
    owner: str
    #: params given when the run was triggered; merged over each task's own
    params: dict[str, Any]
    #: as `Window.partition`
    partition: str = ""
    #: empty = a person, a schedule or a backfill
    triggered_by: tuple[Cause, ...] = ()
    #: of the request that made it; "" = it came with none
    traceparent: str = ""
    #: spans of its attempts go to a collector
    traced: bool = False
    #: id of the bundle that its version pins; "" = its code is on the workers' import path
    bundle: str = ""


class MapPart(msgspec.Struct, frozen=True, array_like=True):
    """What an assignment has to do with mapped tasks: it is an instance of one, or takes lists that some returned."""

    #: of an instance: the mapped task, and which element it is for
    map: str = ""
    index: int | None = None
    #: of an instance: path of the input that is the whole list; None = it is the element
    picks: str | None = None
    #: parameter name -> a list, value by value
    lists: dict[str, tuple[Value, ...]] = {}


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of one task."""

    run_id: str
    task: str
    attempt: int
    type: str
    entrypoint: str | None
    #: the task's own params, as JSON text (decoded only by a worker that needs them)
    params: msgspec.Raw
    #: parameter name -> value of a dependency (see `Value`)
    inputs: dict[str, Value]
    timeout_s: float
    #: last checkpoint of an earlier attempt, None = none; given as Raw JSON, read as its value, because
    #: msgspec refuses to read `Raw | None`
    last_checkpoint: Any = None
    mapped: MapPart | None = None
    #: sleeps since that checkpoint: their number -> when they end
    sleeps: dict[int, datetime] = {}
    #: longest silence of the attempt; None = it need not say anything
    heartbeat_timeout_s: float | None = None
    #: what it returns is kept in memory, should it be large
    in_memory: bool = False


class Value(msgspec.Struct, frozen=True, array_like=True):
    """A task's return value: JSON inline up to 64 KiB, otherwise an artifact (`actors/artifacts.py`)."""

    #: JSON; meaningful when `artifact` is None
    inline: msgspec.Raw = msgspec.Raw(b"null")
    #: name of the artifact, relative to the artifact root
    artifact: str | None = None
    size_bytes: int = 0
    #: Ray's id of the node on which the artifact was written; "" = inline, or written before this was told
    node: str = ""


class Exchange(msgspec.Struct, frozen=True, array_like=True):
    """A batch for a worker. `batch` grows per caller; an empty one only collects."""

    owner: str
    #: incarnation of the caller; a worker drops what a former one still sends
    epoch: int
    batch: int
    runs: tuple[RunContext, ...]
    tasks: tuple[Assignment, ...]
    #: batches whose reports are durable: the worker may forget them
    acks: tuple[int, ...] = ()


class Need(msgspec.Struct, frozen=True, array_like=True):
    """A slot of the pool, and a permit, or several, of each key, all at once. Keys are in order, each once."""

    pool: str
    keys: tuple[tuple[str, int], ...] = ()


class BoundExchange(Exchange, frozen=True, array_like=True):
    """A batch of tasks with one need: they run one after another on the permits of one lease."""

    need: Need | None = None


def bound_exchange(exchange: Exchange, need: Need) -> BoundExchange:
    """The same batch, of tasks with that need."""
    return BoundExchange(
        exchange.owner, exchange.epoch, exchange.batch, exchange.runs, exchange.tasks, exchange.acks, need
    )


class Fenced(msgspec.Struct, frozen=True, array_like=True):
    """Answer of a worker to `fence`: the batch that it is at."""

    incarnation: str
    #: owner, epoch and number of the batch; None = nothing runs
    batch: tuple[str, int, int] | None = None
    need: Need | None = None


class Report(msgspec.Struct, frozen=True, array_like=True):
    """How one attempt ended."""

    run_id: str
    task: str
    attempt: int
    #: ok | error | cancelled | timed_out | stalled (it was silent too long) | skipped, suspended (by its own code) |
    #: missing (what dependencies returned is not there: its code has not begun)
    outcome: str
    #: of one that suspended itself: [number of the sleep, instant at which it goes on]
    value: Value = Value()
    #: one line: exception class and message; of a skip the reason
    error: str | None = None
    #: True when the code raised PermanentFailure (or the type says so)
    permanent: bool = False
    #: run time of the user code, seconds
    took_s: float = 0.0
    #: elements of a list whose value is not inline
    length: int | None = None
    #: what was raised: its classes and marks (`failures.py`), most specific first
    raised: tuple[str, ...] = ()
    #: artifacts that are not there
    missing: tuple[str, ...] = ()
    #: bytes of artifacts that it was given, and of those that had to come from another node or a store
    read_bytes: int = 0
    fetched_bytes: int = 0


class JobOrder(msgspec.Struct, frozen=True, array_like=True):
    """One attempt for the Kubernetes actor, which answers with a Settled once its Job has ended."""

    owner: str
    #: incarnation of the caller; what a former one still orders is not begun
    epoch: int
    run: RunContext
    task: Assignment
    #: None = the server's default image
    image: str | None = None
    #: empty = the image's own
    command: tuple[str, ...] = ()


class Settled(msgspec.Struct, frozen=True, array_like=True):
    """Answer to an Exchange: reports of this and of earlier, unacknowledged batches of the same owner."""

    worker: str
    #: changes when the worker process is replaced
    incarnation: str
    batch: int
    reports: tuple[Report, ...]
    #: (run_id, task, attempt) never started here: given back, or sent by a former incarnation of the owner
    untouched: tuple[tuple[str, str, int], ...] = ()
    #: Ray's id of the node that the worker is on; "" = it does not know
    node: str = ""


class Holding(msgspec.Struct, frozen=True, array_like=True):
    """Answer of a worker to `holding(owner)`: what it has of an owner that lost its memory."""

    worker: str
    incarnation: str
    #: running or waiting here, as (run_id, task, attempt)
    live: tuple[tuple[str, str, int], ...]
    reports: tuple[Report, ...]


class Note(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint or a progress mark of a running attempt, sent by the worker to the run's owner."""

    run_id: str
    task: str
    attempt: int
    #: checkpoint | progress | publish (`data` is a Published) | tool_started (a ToolCall) | tool_completed (its answer,
    #: a ToolAnswer)
    kind: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class Published(msgspec.Struct, frozen=True):
    """Data of a Note: a value for who asks about the run."""

    name: str
    value: msgspec.Raw


class ToolCall(msgspec.Struct, frozen=True):
    """Data of a Note: a task calls a tool. `call` counts its calls, from 1."""

    call: int
    name: str
    #: JSON object
    input: msgspec.Raw = NO_JSON


class ToolAnswer(msgspec.Struct, frozen=True):
    """Data of a Note: the tool answered."""

    call: int
    name: str
    took_ms: int
    success: bool
