"""The journal's steps as MessagePack: the one argument of one journal script (`actors/scripts`), and its answer.

The order of the fields is the script's; bytes go as text, since its reader (cmsgpack) knows no binary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.codec import MSGPACK, read
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

_commit_results = msgspec.msgpack.Decoder(list[tuple[str, str, int, str, str]])
_creation_results = msgspec.msgpack.Decoder(list[tuple[str, list[CreatedRun], str]])
_backfill_result = msgspec.msgpack.Decoder(tuple[str, str, str, dict[str, int], str])


def pack(step: Any) -> bytes:
    """The one argument of a journal script. Its reader (cmsgpack) knows text but not binary, so bytes go as text."""
    return MSGPACK.encode(step)


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


def pack_records(kind: str, records: Mapping[str, bytes | None], plane: str = "") -> bytes:
    kept = [part for key, record in records.items() if record is not None for part in (key, record.decode())]
    removed = [key for key, record in records.items() if record is None]
    return pack((kind, kept, removed, plane) if plane else (kind, kept, removed))


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
    return [CommitResult(i, s, v, o, r.encode()) for i, s, v, o, r in read(_commit_results, data)]


def unpack_creation_results(data: bytes) -> list[CreationResult]:
    return [CreationResult(s, tuple(runs), r.encode()) for s, runs, r in read(_creation_results, data)]


def unpack_backfill_result(data: bytes) -> BackfillResult:
    status, run_id, state, counts, reply = read(_backfill_result, data)
    return BackfillResult(status, run_id, state, {k: n for k, n in counts.items() if n}, reply.encode())
