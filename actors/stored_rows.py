"""What the journal's server answers, read as rows: hashes, streams and lists of bytes become what `rows.py` says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.rows import DagRow, DueCron, EventBatch, History, RunRow
from orchestrator.steps import DagWritten


def text_of(value: bytes | None) -> str:
    return value.decode() if value else ""


def in_pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def texts_of(flat: Sequence[bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in in_pairs(flat)}


def number_of(value: bytes | None) -> int | None:
    return int(value) if value else None


def read_row(values: Sequence[bytes | None]) -> RunRow:
    """A row as `read_row` in ledger.lua returns it."""
    v, own, st, t, d, dv, rt, wk, par, at, cr, sa, fi, sla, err, mar, bw, ph, wb, hd, hr, sm, cl, by, run_id = values
    return RunRow(
        run_id=text_of(run_id),
        version=int(v or 0),
        owner=text_of(own),
        state=text_of(st),
        tenant=text_of(t),
        dag_id=text_of(d),
        dag_version=int(dv or 0),
        run_type=text_of(rt),
        window_key=text_of(wk),
        parent=text_of(par),
        attempts=int(at or 0),
        created_ms=int(cr or 0),
        started_ms=number_of(sa),
        finished_ms=number_of(fi),
        sla_ms=number_of(sla),
        error=text_of(err),
        max_active_runs=number_of(mar),
        backwards=bw == b"1",
        plan_hash=text_of(ph),
        watchers=tuple(text_of(par if wb is None else wb).split()),
        holder=text_of(hd),
        removed=int(hr or 0),
        sla_missed=tuple(text_of(sm).split("|")[:-1]),
        caller=_caller(text_of(cl)),
        because=text_of(by),
    )


def _caller(told: str) -> tuple[str, str] | None:
    run_id, _, task = told.partition(" ")
    return (run_id, task) if told else None


def read_history(found: Sequence[Any]) -> History:
    row, entries = found
    return History(read_row(row), tuple(read_batch(entry) for entry in entries))


def read_batch(entry: Sequence[Any]) -> EventBatch:
    version, fields = entry
    return EventBatch(int(version.partition(b"-")[0]), int(fields[1]), fields[3])


def read_dag(tenant: str, found: Sequence[Any]) -> DagRow:
    dag_id, pairs, definition, counts = found
    dag = dict(in_pairs(pairs))
    return DagRow(
        tenant=tenant,
        dag_id=text_of(dag_id),
        version=int(dag[b"version"]),
        paused=dag[b"paused"] == b"1",
        content_hash=text_of(dag[b"hash"]),
        created_ms=int(dag[b"created"]),
        updated_ms=int(dag[b"updated"]),
        next_fire_ms=number_of(dag.get(b"next_fire")) or None,
        next_due_ms=number_of(dag.get(b"due") or dag.get(b"next_fire")) or None,
        fired_ms=number_of(dag.get(b"fired")),
        definition=definition,
        run_counts={text_of(state): int(n) for state, n in in_pairs(counts)},
        dropped={text_of(k[len(b"dropped|") :]): int(n) for k, n in dag.items() if k.startswith(b"dropped|")},
        dropped_ms=number_of(dag.get(b"dropped_at")),
        dropped_why=text_of(dag.get(b"dropped_why")),
        archived=int(dag.get(b"archived", 0)),
    )


def read_due(member: str, due: bytes) -> DueCron:
    tenant, _, dag_id = member.rpartition("|")
    return DueCron(tenant, dag_id, int(due))


def read_written(found: Sequence[Any]) -> DagWritten:
    status, version, paused, reply = found
    return DagWritten(text_of(status), int(version), paused == b"1", reply)
