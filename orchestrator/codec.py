"""The only place where anything becomes bytes, or comes from them.

    events            JSON arrays, written to the journal beside SCHEMA, upcast when an older SCHEMA is read
    messages, control JSON, one `bytes` argument of one Ray call
    stream items      JSON arrays, written by the journal's scripts
    steps             MessagePack, one argument of one journal script; their answers likewise

JSON for what people may want to read in the journal, MessagePack for what only a script reads. A reader
raises Broken when the bytes are not what this product writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from orchestrator import control as c
from orchestrator import job_events as j
from orchestrator import messages as m
from orchestrator import pipeline_messages as pm
from orchestrator import remote as r
from orchestrator import streams
from orchestrator import views as v
from orchestrator import webhook as w
from orchestrator import webhook_messages as wm
from orchestrator.blueprint import Blueprint, Outcome, Published, Visit
from orchestrator.command import Command, CommandReply
from orchestrator.definition import Definition
from orchestrator.errors import Broken, Conflict, Invalid, NotFound, OrchestratorError
from orchestrator.events import SCHEMA, AnyEvent, Event
from orchestrator.limits import Limit
from orchestrator.pipeline_events import SCHEMA as PIPELINE_SCHEMA
from orchestrator.pipeline_events import AnyPipelineEvent, PipelineEvent
from orchestrator.pipeline_views import LogEntry
from orchestrator.pools import PoolSpec
from orchestrator.rows import History, RunRow
from orchestrator.steps import (
    Append,
    BackfillResult,
    Commit,
    CommitResult,
    CreatedRun,
    Creation,
    CreationResult,
    Fire,
    FireResult,
    Gather,
    GatherResult,
    NewBackfill,
    NewRun,
    PutDag,
    Quota,
    StoredReply,
)
from orchestrator.views import WorkerView

T = TypeVar("T")
#: an event as JSON made it, before it has a class
RawEvent = dict[str, Any]

#: schema -> what turns an event of that schema into one of the next
UPCASTERS: Mapping[int, Callable[[RawEvent], RawEvent]] = {}
#: the same for jobs
JOB_UPCASTERS: Mapping[int, Callable[[RawEvent], RawEvent]] = {}

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_events = msgspec.json.Decoder(list[AnyEvent])
_job_events = msgspec.json.Decoder(list[j.AnyJobEvent])


def encode_events(events: Sequence[Event]) -> bytes:
    """A batch, as it stands in the journal."""
    return _json.encode(events)


def decode_events(data: bytes, schema: int = SCHEMA) -> list[AnyEvent]:
    """A batch that was written under `schema`."""
    if schema == SCHEMA:
        return _read(_events, data)
    return msgspec.convert(_upcast(data, schema, UPCASTERS, SCHEMA), list[AnyEvent])


def encode_job_events(events: Sequence[j.JobEvent]) -> bytes:
    """The same for a batch of a job's events."""
    return _json.encode(events)


def decode_job_events(data: bytes, schema: int = j.SCHEMA) -> list[j.AnyJobEvent]:
    """A batch of a job that was written under `schema` of `job_events.py`."""
    if schema == j.SCHEMA:
        return _read(_job_events, data)
    return msgspec.convert(_upcast(data, schema, JOB_UPCASTERS, j.SCHEMA), list[j.AnyJobEvent])


def _upcast(
    data: bytes, schema: int, upcasters: Mapping[int, Callable[[RawEvent], RawEvent]], to: int
) -> list[RawEvent]:
    if schema > to:
        raise Broken(f"events of schema {schema} were written by a newer version; this one knows {to}")
    events: list[RawEvent] = _read(msgspec.json.Decoder(list[dict[str, Any]]), data)
    for step in range(schema, to):
        if step not in upcasters:
            raise Broken(f"events of schema {schema} cannot be read: no upcaster from {step}")
        events = [upcasters[step](event) for event in events]
    return events


def _read(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Broken(f"unreadable bytes: {error}") from error


# CI jobs

_pipeline_events = msgspec.json.Decoder(list[AnyPipelineEvent])


def encode_pipeline_events(events: Sequence[PipelineEvent]) -> bytes:
    """A batch of a CI job, as it stands in the journal."""
    return _json.encode(events)


def decode_pipeline_events(data: bytes, schema: int = PIPELINE_SCHEMA) -> list[AnyPipelineEvent]:
    """A batch of a CI job that was written under `schema`."""
    if schema != PIPELINE_SCHEMA:
        raise Broken(f"events of a CI job of schema {schema}; this version knows {PIPELINE_SCHEMA}")
    return _read(_pipeline_events, data)


_pipeline_request = msgspec.json.Decoder(pm.Request)
_pipeline_answer = msgspec.json.Decoder(pm.Answer)
_log_entry = msgspec.json.Decoder(LogEntry)


def encode_pipeline_request(request: pm.Request) -> bytes:
    return _json.encode(request)


def decode_pipeline_request(data: bytes) -> pm.Request:
    request: pm.Request = _read(_pipeline_request, data)
    return request


def encode_pipeline_answer(answer: pm.Answer) -> bytes:
    return _json.encode(answer)


def decode_pipeline_answer(data: bytes) -> pm.Answer:
    return _read(_pipeline_answer, data)


def encode_log_entry(entry: LogEntry) -> bytes:
    """One line of a CI job's log."""
    return _json.encode(entry)


def decode_log_entry(line: bytes) -> LogEntry:
    return _read(_log_entry, line)


def encode_document(document: msgspec.Struct) -> bytes:
    """A record of any kind."""
    return _json.encode(document)


def decode_document(data: bytes, kind: type[T]) -> T:
    """Inverse of it."""
    return _read(msgspec.json.Decoder(kind), data)


# RunActor <-> worker

#: a plain one is the same without the last field
_exchange = msgspec.json.Decoder(m.BoundExchange)
_fenced = msgspec.json.Decoder(m.Fenced)
_job_order = msgspec.json.Decoder(m.JobOrder)
_settled = msgspec.json.Decoder(m.Settled)
_holding = msgspec.json.Decoder(m.Holding)
_note = msgspec.json.Decoder(m.Note)


def encode_fenced(fenced: m.Fenced) -> bytes:
    return _json.encode(fenced)


def decode_fenced(data: bytes) -> m.Fenced:
    return _read(_fenced, data)


def encode_exchange(exchange: m.Exchange) -> bytes:
    return _json.encode(exchange)


def decode_exchange(data: bytes) -> m.Exchange:
    return _read(_exchange, data)


def encode_job_order(order: m.JobOrder) -> bytes:
    return _json.encode(order)


def decode_job_order(data: bytes) -> m.JobOrder:
    return _read(_job_order, data)


def encode_settled(settled: m.Settled) -> bytes:
    return _json.encode(settled)


def decode_settled(data: bytes) -> m.Settled:
    return _read(_settled, data)


def encode_holding(holding: m.Holding) -> bytes:
    return _json.encode(holding)


def decode_holding(data: bytes) -> m.Holding:
    return _read(_holding, data)


def encode_note(note: m.Note) -> bytes:
    return _json.encode(note)


def decode_note(data: bytes) -> m.Note:
    return _read(_note, data)


# many requests in one call

_requests = msgspec.msgpack.Decoder(list[bytes])
_answers = msgspec.msgpack.Decoder(list[tuple[bytes, str, bool]])


def encode_requests(requests: Sequence[bytes]) -> bytes:
    return _msgpack.encode(requests)


def decode_requests(data: bytes) -> list[bytes]:
    return _read(_requests, data)


def encode_answers(answers: Sequence[tuple[bytes, str, bool]]) -> bytes:
    """Of each request its answer and "", or nothing, why, and whether that is a bug."""
    return _msgpack.encode(answers)


def decode_answers(data: bytes) -> list[tuple[bytes, str, bool]]:
    return _read(_answers, data)


# scheduler <-> run actors

_hosting = msgspec.json.Decoder(c.Hosting)
_standing = msgspec.json.Decoder(c.Standing)
_roster = msgspec.json.Decoder(c.Roster)
_claims = msgspec.json.Decoder(c.Claims)
_binding = msgspec.json.Decoder(c.Binding)
_epoch = msgspec.json.Decoder(int)
_usage = msgspec.json.Decoder(list[c.LimitUsage])
_limit = msgspec.json.Decoder(Limit)
_limit_change = msgspec.json.Decoder(tuple[str, Limit | None])


_causes = msgspec.json.Decoder(tuple[m.Cause, ...])


def encode_causes(causes: Sequence[m.Cause]) -> bytes:
    """As a run's row has them."""
    return _json.encode(causes)


def decode_causes(text: str) -> tuple[m.Cause, ...]:
    return _read(_causes, text.encode()) if text else ()


def encode_control(message: c.Hosting | c.Standing | c.Roster | c.Claims | c.Binding) -> bytes:
    return _json.encode(message)


def decode_hosting(data: bytes) -> c.Hosting:
    return _read(_hosting, data)


def decode_claims(data: bytes) -> c.Claims:
    return _read(_claims, data)


def decode_binding(data: bytes) -> c.Binding:
    return _read(_binding, data)


def encode_epoch(epoch: int) -> bytes:
    return _json.encode(epoch)


def decode_epoch(data: bytes) -> int:
    return _read(_epoch, data)


def encode_usage(usage: Sequence[c.LimitUsage]) -> bytes:
    return _json.encode(usage)


def decode_usage(data: bytes) -> list[c.LimitUsage]:
    return _read(_usage, data)


def encode_limit(limit: Limit) -> bytes:
    return _json.encode(limit)


def decode_limit(data: bytes) -> Limit:
    return _read(_limit, data)


def encode_limit_change(key: str, limit: Limit | None) -> bytes:
    """What the scheduler is asked to define; None = to forget."""
    return _json.encode((key, limit))


def decode_limit_change(data: bytes) -> tuple[str, Limit | None]:
    return _read(_limit_change, data)


def decode_standing(data: bytes) -> c.Standing:
    return _read(_standing, data)


def decode_roster(data: bytes) -> c.Roster:
    return _read(_roster, data)


_states = msgspec.json.Decoder(dict[str, str])
_waiting = msgspec.json.Decoder(v.RunWaiting)
_share = msgspec.json.Decoder(dict[str, float])
_load = msgspec.json.Decoder(dict[str, int])
_scale = msgspec.json.Decoder(tuple[str, int])


def encode_scale(pool: str, n: int) -> bytes:
    return _json.encode((pool, n))


def decode_scale(data: bytes) -> tuple[str, int]:
    return _read(_scale, data)


_pool = msgspec.json.Decoder(PoolSpec)
_pool_change = msgspec.json.Decoder(tuple[str, PoolSpec | None])
_pool_loads = msgspec.json.Decoder(list[c.PoolLoad])
_pool_views = msgspec.json.Decoder(list[v.PoolView])


def encode_pool(spec: PoolSpec) -> bytes:
    """As its record holds it."""
    return _json.encode(spec)


def decode_pool(data: bytes) -> PoolSpec:
    return _read(_pool, data)


def encode_pool_change(name: str, spec: PoolSpec | None) -> bytes:
    """What the supervisor is asked to define; None = to forget."""
    return _json.encode((name, spec))


def decode_pool_change(data: bytes) -> tuple[str, PoolSpec | None]:
    return _read(_pool_change, data)


def encode_pool_loads(loads: Sequence[c.PoolLoad]) -> bytes:
    return _json.encode(loads)


def decode_pool_loads(data: bytes) -> list[c.PoolLoad]:
    return _read(_pool_loads, data)


def encode_pool_views(views: Sequence[v.PoolView]) -> bytes:
    return _json.encode(views)


def decode_pool_views(data: bytes) -> list[v.PoolView]:
    return _read(_pool_views, data)


_supervision = msgspec.json.Decoder(tuple[int, str])


def encode_supervision(order: int, actor: str) -> bytes:
    """What a scheduler wants of the supervisor, about an actor (or ""); orders are numbered above its epoch << 32."""
    return _json.encode((order, actor))


def decode_supervision(data: bytes) -> tuple[int, str]:
    return _read(_supervision, data)


def encode_states(states: Mapping[str, str]) -> bytes:
    return _json.encode(states)


def encode_share(weight: float) -> bytes:
    """A tenant's weight, as its record holds it."""
    return _json.encode({"weight": weight})


def decode_share(data: bytes) -> float:
    return _read(_share, data)["weight"]


def encode_waiting(waiting: v.RunWaiting) -> bytes:
    return _json.encode(waiting)


def decode_waiting(data: bytes) -> v.RunWaiting:
    return _read(_waiting, data)


def encode_load(load: Mapping[str, int]) -> bytes:
    return _json.encode(load)


def decode_load(data: bytes) -> dict[str, int]:
    return _read(_load, data)


def decode_states(data: bytes) -> dict[str, str]:
    return _read(_states, data)


# gateway <-> control actors

_command = msgspec.json.Decoder(Command)
_command_reply = msgspec.json.Decoder(CommandReply)
_workers = msgspec.json.Decoder(list[WorkerView])


def encode_command(command: Command) -> bytes:
    return _json.encode(command)


def decode_command(data: bytes) -> Command:
    return _read(_command, data)


def encode_command_reply(reply: CommandReply) -> bytes:
    return _json.encode(reply)


def decode_command_reply(data: bytes) -> CommandReply:
    return _read(_command_reply, data)


def encode_workers(workers: Sequence[WorkerView]) -> bytes:
    return _json.encode(workers)


def decode_workers(data: bytes) -> list[WorkerView]:
    return _read(_workers, data)


# API replica <-> gateway, about jobs and remote workers

_request: msgspec.json.Decoder[r.Request] = msgspec.json.Decoder(r.Request)
_answer = msgspec.json.Decoder(r.Answer)


def encode_request(request: r.Request) -> bytes:
    return _json.encode(request)


def decode_request(data: bytes) -> r.Request:
    return _read(_request, data)


def encode_answer(answer: r.Answer) -> bytes:
    return _json.encode(answer)


def decode_answer(data: bytes) -> r.Answer:
    return _read(_answer, data)


def pushes_of(answer: r.Answer) -> r.Pushes:
    """What the answer of a Listen brings."""
    return msgspec.convert(answer.body, r.Pushes)


# definitions

_definition = msgspec.json.Decoder(Definition)
_canonical = msgspec.json.Encoder(order="deterministic")


def encode_definition(definition: Definition) -> bytes:
    """Canonical: equal definitions give equal bytes."""
    return _canonical.encode(definition)


def decode_definition(data: bytes) -> Definition:
    return _read(_definition, data)


# stream items

_sched = msgspec.json.Decoder(list[streams.SchedItem])
_inbox = msgspec.json.Decoder(list[streams.InboxItem])
_feed = msgspec.json.Decoder(list[streams.FeedItem])


def decode_sched(item: bytes) -> list[streams.SchedItem]:
    """What one entry of `sched` tells the scheduler."""
    return _read(_sched, item)


def decode_inbox(item: bytes) -> list[streams.InboxItem]:
    """What one entry of an inbox tells its actor."""
    return _read(_inbox, item)


def decode_feed(item: bytes) -> list[streams.FeedItem]:
    """What one commit changed: (entity id, last version, state)."""
    return _read(_feed, item)


def encode_items(items: Sequence[streams.SchedItem | streams.InboxItem | streams.FeedItem]) -> bytes:
    """One entry of `sched`, `feed` or an inbox, as the journal writes it."""
    return _json.encode(items)


def encode_mail(sender: str, data: bytes) -> bytes:
    """`Mail.item`: `data` is JSON."""
    return _json.encode([streams.Letter(sender, msgspec.Raw(data))])


# journal steps

_commit_results = msgspec.msgpack.Decoder(list[tuple[str, str, int, str, str]])
_creation_results = msgspec.msgpack.Decoder(list[tuple[str, list[CreatedRun], str]])
_backfill_result = msgspec.msgpack.Decoder(tuple[str, str, str, dict[str, int], str])


def pack(step: Any) -> bytes:
    """The one argument of a journal script. Its reader (cmsgpack) knows text but not binary, so bytes go as text."""
    return _msgpack.encode(step)


def pack_commit(commit: Commit) -> bytes:
    c = commit
    mail = [(letter.actor, letter.item.decode(), letter.about) for letter in c.mail]
    return pack((c.owner, c.epoch, c.turn, [_append(a) for a in c.appends], c.cursor, c.counts, mail))


def pack_creations(creations: Sequence[Creation]) -> bytes:
    return pack(
        [([_new_run(n) for n in c.runs], _stored(c.idem), _quota(c.quota), c.once, c.archived) for c in creations]
    )


def pack_backfill(backfill: NewBackfill) -> bytes:
    b = backfill
    windows = [
        (w.window_key, w.run_id, w.action, w.event.decode(), w.before, w.dag_version, w.sla_ms, w.wake_ms)
        for w in b.windows
    ]
    return pack(
        (
            b.run_id,
            b.tenant,
            b.dag_id,
            b.dag_version,
            b.window_key,
            b.created_ms,
            b.event.decode(),
            windows,
            b.reprocess,
            b.plan_hash,
            b.require_hash,
            b.max_active_runs,
            b.backwards,
            b.restarts,
            b.restarts_version,
            b.restart_events.decode(),
            b.restart_count,
            _stored(b.idem),
            b.widens,
            b.widens_key,
            b.in_front,
            b.archived,
        )
    )


def pack_fire(fire: Fire) -> bytes:
    f = fire
    runs, dropped = [_new_run(run) for run in f.runs], [msgspec.structs.astuple(each) for each in f.dropped]
    where = (f.tenant, f.dag_id, f.scheduler_epoch, f.expected_ms)
    return pack(
        (*where, f.next_ms, f.next_due_ms or f.next_ms, f.last_ms or f.expected_ms, runs, dropped, f.replaces, f.counts)
    )


def unpack_fire_result(found: Sequence[Any]) -> FireResult:
    status, runs = found
    return FireResult(
        status.decode(), tuple(CreatedRun(*each) for each in msgspec.msgpack.decode(runs)) if runs else ()
    )


def pack_gather(gather: Gather) -> bytes:
    g = gather
    record = (g.kind, g.key, g.expected.decode(), g.record.decode())
    runs = [_new_run(run) for run in g.runs]
    return pack((g.scheduler_epoch, *record, g.tenant, g.dag_id, g.dag_version, g.paused, runs, g.archived))


def unpack_gather_result(found: Sequence[Any]) -> GatherResult:
    status, rest = found[0].decode(), msgspec.msgpack.decode(found[1]) if found[1] else []
    if status == "busy":
        return GatherResult(status, busy=tuple(rest))
    return GatherResult(status, tuple(CreatedRun(*each) for each in rest))


def pack_dag(dag: PutDag) -> bytes:
    d = dag
    definition, idem = d.definition.decode(), _stored(d.idem)
    head = (d.tenant, d.dag_id, definition, d.content_hash, d.owner, d.now_ms)
    due = d.next_fire_ms if d.next_fire_ms is None else d.next_due_ms or d.next_fire_ms
    return pack((*head, d.base_version, d.next_fire_ms, d.max_dags, idem, due, d.follows, d.makes))


def pack_records(kind: str, records: Mapping[str, bytes | None]) -> bytes:
    kept = [part for key, record in records.items() if record is not None for part in (key, record.decode())]
    return pack((kind, kept, [key for key, record in records.items() if record is None]))


def pack_lines(run_id: str, lines: Sequence[bytes]) -> bytes:
    return pack((run_id, [line.decode() for line in lines]))


def pack_shelved(shelved: Sequence[tuple[History, Mapping[str, str]]]) -> bytes:
    """Runs as `restore.lua` reads them."""
    return pack(
        [
            (
                history.row.run_id,
                [part for pair in _row_fields(history.row).items() for part in pair],
                [(batch.last_version, str(batch.schema), batch.events.decode()) for batch in history.batches],
                [part for pair in tasks.items() for part in pair],
            )
            for history, tasks in shelved
        ]
    )


def _row_fields(row: RunRow) -> dict[str, str]:
    """The hash behind a row that has ended, as `ledger.lua` writes it."""
    given: dict[str, str | int | None] = {
        **{"v": row.version, "st": row.state, "t": row.tenant, "d": row.dag_id, "dv": row.dag_version},
        **{"rt": row.run_type, "wk": row.window_key, "par": row.parent, "at": row.attempts or None},
        **{"cr": row.created_ms, "sa": row.started_ms, "fi": row.finished_ms, "sla": row.sla_ms, "err": row.error},
        **{"hr": row.removed or None, "sm": "".join(f"{name}|" for name in row.sla_missed)},
        **{"cl": " ".join(row.caller or ()), "by": row.because},
    }
    return {name: str(value) for name, value in given.items() if value not in (None, "")} | {"wb": ""}


def pack_paused(tenant: str, dag_id: str, paused: bool, now_ms: int, idem: StoredReply | None) -> bytes:
    return pack((tenant, dag_id, paused, now_ms, _stored(idem)))


def _append(a: Append) -> tuple[Any, ...]:
    return (
        a.run_id,
        a.expected,
        a.count,
        a.events.decode(),
        a.state,
        a.attempts,
        a.started_ms,
        a.finished_ms,
        a.error,
        a.dag_version,
        a.tasks,
        a.tasks_reset,
        a.passive,
        a.wake_at_ms,
        a.scheduler_epoch,
        _stored(a.idem),
        a.schema,
        a.sla_missed,
        a.lane,
        a.max_active_runs,
        a.calls,
    )


def _quota(quota: Quota | None) -> tuple[str, int] | None:
    return None if quota is None else (quota.key, quota.most)


def _new_run(n: NewRun) -> tuple[Any, ...]:
    return (
        n.run_id,
        n.tenant,
        n.dag_id,
        n.dag_version,
        n.run_type,
        n.created_ms,
        n.event.decode(),
        n.window_key,
        n.sla_ms,
        n.reprocess,
        n.restart_event.decode(),
        n.restart_version,
        n.pinned_version,
        n.alone,
        n.owner,
        n.parent,
        n.schema,
        n.wake_ms,
        n.caller or (),
        n.because.decode(),
    )


def _stored(idem: StoredReply | None) -> tuple[str, str, str] | None:
    return None if idem is None else (idem.key, idem.fingerprint, idem.reply.decode())


def unpack_commit_results(data: bytes) -> list[CommitResult]:
    return [CommitResult(i, s, v, o, r.encode()) for i, s, v, o, r in _read(_commit_results, data)]


def unpack_creation_results(data: bytes) -> list[CreationResult]:
    return [CreationResult(s, tuple(runs), r.encode()) for s, runs, r in _read(_creation_results, data)]


def unpack_backfill_result(data: bytes) -> BackfillResult:
    status, run_id, state, counts, reply = _read(_backfill_result, data)
    return BackfillResult(status, run_id, state, {k: n for k, n in counts.items() if n}, reply.encode())


# refusals: what some requests of a batch were answered, kept for its repetition

_REFUSALS: Mapping[str, type[OrchestratorError]] = {kind.__name__: kind for kind in (Invalid, NotFound, Conflict)}
_refusals = msgspec.json.Decoder(list[tuple[int, str, list[Any]]])


def encode_refusals(errors: Mapping[int, OrchestratorError]) -> bytes:
    """Position in the batch -> why that request was refused (Invalid, NotFound or Conflict)."""
    return _json.encode([(n, type(error).__name__, error.args) for n, error in errors.items()])


def decode_refusals(data: bytes) -> dict[int, OrchestratorError]:
    return {n: _refusal(kind, args) for n, kind, args in _read(_refusals, data)}


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
    return _json.encode(blueprint)


def decode_blueprint(data: bytes) -> Blueprint:
    return _read(_blueprint, data)


def encode_published(published: Published) -> bytes:
    return _json.encode(published)


def decode_published(data: bytes) -> Published:
    return _read(_published, data)


def encode_visits(visits: Sequence[Visit]) -> bytes:
    """Visits that the handlers' actor is to make."""
    return _json.encode(visits)


def decode_visits(data: bytes) -> list[Visit]:
    return _read(_visits, data)


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """What came of them, in the same order."""
    return _json.encode(outcomes)


def decode_outcomes(data: bytes) -> list[Outcome]:
    return _read(_outcomes, data)


# webhooks: mail for their outbox, and its records

_notice = msgspec.json.Decoder(w.Notice)
_delivery = msgspec.json.Decoder(w.Delivery)


def encode_notice(notice: w.Notice) -> bytes:
    return _json.encode(notice)


def decode_notice(data: bytes) -> w.Notice:
    return _read(_notice, data)


def encode_delivery(delivery: w.Delivery) -> bytes:
    return _json.encode(delivery)


def decode_delivery(data: bytes) -> w.Delivery:
    return _read(_delivery, data)


_webhook_request: msgspec.json.Decoder[wm.Request] = msgspec.json.Decoder(wm.Request)
_webhook_answer = msgspec.json.Decoder(wm.Answer)


def encode_webhook_request(request: wm.Request) -> bytes:
    return _json.encode(request)


def decode_webhook_request(data: bytes) -> wm.Request:
    return _read(_webhook_request, data)


def encode_webhook_answer(answer: wm.Answer) -> bytes:
    return _json.encode(answer)


def decode_webhook_answer(data: bytes) -> wm.Answer:
    return _read(_webhook_answer, data)
