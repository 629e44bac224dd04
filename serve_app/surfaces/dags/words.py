"""Views and events in this surface's words: runs end in `success`, tasks in `done`.

core run    queued  running paused waiting  succeeded  failed timed_out quarantined  cancelling cancelled
here        queued  running                 success    failed                        cancelled

core task   pending running suspended waiting retrying succeeded  failed timed_out  skipped upstream_failed cancelled
here        pending running                   retrying done       failed            skipped upstream_failed cancelled

Tasks that wait without a worker are `running`; what they wait for is in `waiting_for`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec
import orjson

from orchestrator import partitions, spec
from orchestrator.archive import Sweep
from orchestrator.cluster_views import LimitView, RunWaiting, TenantShare, WaitingView, WorkerView
from orchestrator.definition import Window
from orchestrator.events import Counts
from orchestrator.fires import Tick, Timetable
from orchestrator.messages import Cause
from orchestrator.planes import PlaneView
from orchestrator.reclaim import ArtifactSweep
from orchestrator.standing import vote_json, wait_json
from orchestrator.starts import Plan, Triggered, Wider
from orchestrator.views import (
    ApprovalView,
    AwaitedView,
    DagDefined,
    DagView,
    Frame,
    LastDropped,
    LogChunk,
    MapInstance,
    MapView,
    PublishedView,
    RunChanged,
    RunView,
    SignalSent,
    Uncached,
)
from serve_app.problems import STATUS, Kind

Json = dict[str, Any]

RUN_WORDS = MappingProxyType(
    {
        "queued": "queued",
        "running": "running",
        "waiting": "running",
        "paused": "running",
        "cancelling": "cancelled",
        "succeeded": "success",
        "failed": "failed",
        "timed_out": "failed",
        "quarantined": "failed",
        "cancelled": "cancelled",
        # of a window only: its run was kept as it was
        "skipped": "skipped",
    }
)

TASK_WORDS = MappingProxyType(
    {
        "pending": "pending",
        "running": "running",
        "retrying": "retrying",
        "suspended": "running",
        "waiting": "running",
        "succeeded": "done",
        "failed": "failed",
        "timed_out": "failed",
        "cancelled": "cancelled",
        "skipped": "skipped",
        "upstream_failed": "upstream_failed",
    }
)

ERROR_CODES = MappingProxyType(
    {
        Kind.INVALID: "invalid_request",
        Kind.TOO_LARGE: "invalid_request",
        Kind.WRONG_METHOD: "invalid_request",
        Kind.UNAUTHENTICATED: "unauthorized",
        Kind.FORBIDDEN: "forbidden",
        Kind.NOT_FOUND: "not_found",
        Kind.CONFLICT: "version_conflict",
        Kind.GONE: "gone",
        Kind.RATE_LIMITED: "rate_limited",
        Kind.BROKEN: "internal_error",
        Kind.UNAVAILABLE: "dependency_down",
    }
)

#: events whose `from` and `to` are states, and in whose words
_EVENT_WORDS = MappingProxyType({"run_state": RUN_WORDS, "window_state": RUN_WORDS, "task_state": TASK_WORDS})


def http_status(kind: Kind) -> int:
    """This surface answers 400 to a body that is too large."""
    return 400 if kind is Kind.TOO_LARGE else STATUS[kind]


def status(paused: bool) -> str:
    """The status of a DAG."""
    return "paused" if paused else "active"


def dag(view: DagView) -> Json:
    """A Dag as it was submitted, and what the server knows about it."""
    counts: dict[str, int] = {}
    for state, number in view.run_counts.items():
        counts[RUN_WORDS[state]] = counts.get(RUN_WORDS[state], 0) + number
    return {
        **spec.to_json(view.definition),
        **({"bundle": view.definition.bundle} if view.definition.bundle else {}),
        "status": status(view.paused),
        "version": view.version,
        "created_at": instant(view.created_at),
        "updated_at": instant(view.updated_at),
        "next_run_at": _instant_or_none(view.next_run_at),
        "run_counts": counts,
        "dropped_fires": view.dropped_fires,
        "last_dropped": _last_dropped(view.last_dropped),
        **({"awaits": [_awaited(each) for each in view.awaits]} if view.awaits else {}),
    }


def ticks(timetable: Timetable | None, found: Iterable[Tick], paused: bool) -> Json:
    """When a schedule fires next."""
    zone = None if timetable is None else timetable.schedule.zone.key
    return {"timezone": zone, "paused": paused, "items": [_tick(each) for each in found]}


def dag_defined(answer: DagDefined) -> Json:
    """Answer to a definition, a pause or a resume."""
    return {"dag_id": answer.dag_id, "status": status(answer.paused), "version": answer.version}


def triggered(answer: Triggered) -> Json:
    """Answer to one trigger."""
    body = {
        "run_id": answer.run_id,
        "state": RUN_WORDS[answer.state],
        "dag_id": answer.dag_id,
        "run_type": answer.run_type,
    }
    return body if answer.counts is None else {**body, "counts": counts(answer.counts)}


def wider(answer: Wider) -> Json:
    """Answer to a widening."""
    return {
        "run_id": answer.run_id,
        "state": RUN_WORDS[answer.state],
        "dag_id": answer.dag_id,
        "run_type": "backfill",
        "added": answer.added,
        "counts": counts(answer.counts),
    }


def plan(view: Plan) -> Json:
    """A dry run."""
    return {
        "dag_id": view.dag_id,
        "run_type": view.run_type,
        "dry_run": True,
        "plan_hash": view.plan_hash,
        "counts": view.counts,
        "windows": [
            {"window": window(each.window), "action": each.action, **({"run_id": each.run_id} if each.run_id else {})}
            for each in view.windows
        ],
        "task_groups": view.task_groups,
    }


def run(view: RunView) -> Json:
    """A Run with everything it has."""
    body = run_in_list(view)
    if view.windows is not None:
        body["windows"] = [
            {"window": window(each.window), "run_id": each.run_id, "state": RUN_WORDS[each.state]}
            for each in view.windows
        ]
    if view.progress is not None:
        body |= {"progress": view.progress, "eta": _instant_or_none(view.eta), "windows_per_s": view.windows_per_s}
    if view.windows_truncated:
        body["windows_truncated"] = True
    return body


def run_in_list(view: RunView) -> Json:
    """A Run without its windows."""
    body: Json = {
        "run_id": view.run_id,
        "dag_id": view.dag_id,
        "dag_version": view.dag_version,
        "run_type": view.run_type,
        "state": RUN_WORDS[view.state],
        "window": None if view.window is None else window(view.window),
        "attempts": view.attempts,
        "sla_deadline": _instant_or_none(view.sla_deadline),
        "tasks": {task: TASK_WORDS[state] for task, state in view.tasks.items()},
        "created_at": instant(view.created_at),
        "started_at": _instant_or_none(view.started_at),
        "finished_at": _instant_or_none(view.finished_at),
        "parent_run_id": view.parent_run_id,
        "error": view.error,
    }
    if view.triggered_by:
        body["triggered_by"] = [cause(each) for each in view.triggered_by]
    if view.actor:
        body["actor"] = view.actor
    if view.archived:
        body["archived"] = True
    if view.sla_missed:
        body["sla_missed"] = True
    if view.tasks_sla_missed:
        body["tasks_sla_missed"] = list(view.tasks_sla_missed)
    if view.timed_out is not None:
        body["timed_out"] = view.timed_out
    if view.state == "paused":
        body["paused"] = True
    if view.run_type == "backfill":
        body["max_active_runs"] = view.max_active_runs
    if view.counts is not None:
        body["counts"] = counts(view.counts)
    if view.parent_task is not None:
        body["parent_task"] = view.parent_task
    if view.children:
        body["children"] = {
            task: {"run_id": each.run_id, "dag_id": each.dag_id, "state": RUN_WORDS[each.state]}
            for task, each in view.children.items()
        }
    if view.waiting_for:
        body["waiting_for"] = {task: wait_json(wait, instant) for task, wait in view.waiting_for.items()}
    if view.cached:
        body["cached"] = {task: {"run_id": run_id} for task, run_id in view.cached.items()}
    return body


def uncached(answer: Uncached) -> Json:
    """Answer to an uncache."""
    return {"dag_id": answer.dag_id, "task": answer.task, "uncached_at": instant(answer.at)}


def run_changed(answer: RunChanged) -> Json:
    """Answer to a command on a run."""
    body: Json = {"run_id": answer.run_id, "state": RUN_WORDS[answer.state], "attempts": answer.attempts}
    return {**body, "paused": True} if answer.state == "paused" else body


def task_changed(answer: RunChanged, task: str) -> Json:
    """Answer to a command on a task; `attempts` are the run's."""
    state = TASK_WORDS[answer.task_state or "pending"]
    return {"run_id": answer.run_id, "task": task, "state": state, "attempts": answer.attempts}


def map_instances(view: MapView) -> Json:
    """A mapped task with a page of its instances."""
    tally: dict[str, int] = {}
    for state, number in view.counts.items():
        tally[TASK_WORDS[state]] = tally.get(TASK_WORDS[state], 0) + number
    return {
        "run_id": view.run_id,
        "task": view.task,
        "state": TASK_WORDS[view.state],
        "total": view.total,
        "counts": tally,
        "items": [_instance(each) for each in view.items],
    }


def _instance(each: MapInstance) -> Json:
    body: Json = {"map_index": each.index, "task": each.task, "state": TASK_WORDS[each.state]}
    return {**body, "cached": {"run_id": each.cached_from}} if each.cached_from else body


def signal_sent(answer: SignalSent) -> Json:
    """Answer to a signal."""
    state = RUN_WORDS[answer.state]
    return {"run_id": answer.run_id, "name": answer.name, "signal_id": answer.signal_id, "state": state}


def approval(view: ApprovalView) -> Json:
    """An open approval."""
    return {
        "run_id": view.run_id,
        "dag_id": view.dag_id,
        "task": view.task,
        "attempt": view.attempt,
        "prompt": view.prompt,
        "choices": list(view.choices),
        "roles": list(view.roles),
        "quorum": view.quorum,
        "asked_at": instant(view.asked_at),
        "expires_at": instant(view.expires_at),
        "votes": [vote_json(vote, instant) for vote in view.votes],
    }


def published(view: PublishedView, run_id: str) -> Json:
    """What a run answers to a query."""
    return {
        "run_id": run_id,
        "name": view.name,
        "value": orjson.loads(bytes(view.value)),
        "task": view.task,
        "attempt": view.attempt,
        "at": _instant_or_none(view.at),
    }


def log(chunk: LogChunk) -> Json:
    """Output of one attempt."""
    return {"task": chunk.task, "attempt": chunk.attempt, "text": chunk.text, "truncated": chunk.truncated}


def share(view: TenantShare) -> Json:
    """A tenant's weight."""
    return {"tenant": view.tenant, "weight": int(view.weight)}


def run_waiting(view: RunWaiting) -> Json:
    """What a run waits for."""
    return {
        "items": [waiting(each) for each in view.tasks],
        "run_id": view.run_id,
        "waiting_for": view.waiting_for,
        "run_class": view.run_class,
        "ahead": view.ahead,
        "active_runs": view.active_runs,
        "max_active_runs": view.max_active_runs,
        "paused": view.paused,
        "share": view.share,
    }


def worker(view: WorkerView) -> Json:
    """One worker slot."""
    return {
        "worker_id": view.worker_id,
        "pool": view.pool,
        "state": view.state,
        "node": view.node,
        "node_id": view.node_id,
        "pid": view.pid,
    }


def limit(view: LimitView) -> Json:
    """A limit, and what is so now."""
    return {
        "name": view.name,
        "kind": view.kind,
        "defined": view.defined,
        "max_running": view.max_running,
        "rate": {"count": view.rate.count, "per_s": view.rate.per_s} if view.rate is not None else None,
        "running": view.running,
        "waiting": view.waiting,
    }


def sweep(view: Sweep) -> Json:
    """Runs on their way to the archive."""
    return {
        "sweep_id": view.id,
        "state": view.state,
        "before": _instant_of_ms(view.before_ms),
        "to": view.to,
        "runs": view.runs,
        "backfills": view.backfills,
        "size_bytes": view.size_bytes,
        "left": view.left,
        "error": view.error or None,
        "asked_at": _instant_of_ms(view.asked_ms),
        "updated_at": _instant_of_ms(view.updated_ms) if view.updated_ms else None,
    }


def artifact_sweep(view: ArtifactSweep) -> Json:
    """Artifacts on their way out."""
    known = view.state == "done"
    return {
        "sweep_id": view.id,
        "state": view.state,
        "before": _instant_of_ms(view.before_ms),
        "dry_run": view.dry_run,
        "runs": view.runs,
        "files": view.gone.files,
        "size_bytes": view.gone.size_bytes,
        "there_files": view.there.files if known else None,
        "there_bytes": view.there.size_bytes if known else None,
        "error": view.error or None,
        "asked_at": _instant_of_ms(view.asked_ms),
        "updated_at": _instant_of_ms(view.updated_ms) if view.updated_ms else None,
    }


def plane(view: PlaneView) -> Json:
    """A control plane, and who is in charge."""
    lease = view.lease
    return {
        "plane": view.plane,
        "in_charge": view.in_charge,
        "holder": lease.plane or (view.plane if view.in_charge else None),
        "holder_url": lease.url or None,
        "since": _instant_of_ms(lease.since_ms) if lease.since_ms else None,
        "term": lease.term,
        "wanted": lease.wanted or None,
        "lease_age_s": view.age_s,
    }


def waiting(view: WaitingView) -> Json:
    """A ready task, and what it waits for."""
    return {"task": view.task, "pool": view.pool, "reasons": list(view.reasons)}


def cause(view: Cause) -> Json:
    """Why a run started by itself; what does not belong to that kind of reason is left out."""
    told: Json = msgspec.to_builtins(view)
    return told


def _awaited(view: AwaitedView) -> Json:
    by = [cause(each) for each in view.pending]
    return {"kind": view.kind, "name": view.name, "known": view.known, "met": bool(by), "by": by}


def window(view: Window) -> Json:
    """What a run is about."""
    return partitions.shown(view)


def counts(view: Counts) -> Json:
    """The windows of a backfill by state."""
    return {
        "total": view.total,
        "queued": view.queued,
        "running": view.running,
        "success": view.succeeded,
        "failed": view.failed,
        "cancelled": view.cancelled,
        "skipped": view.skipped,
    }


def event(frame: Frame) -> Json:
    """The data of an event, with its states in our words."""
    data = dict(frame.data or {})
    if frame.kind == "window_state":
        # of the two runs in it the contract's `run_id` is the window's
        data["backfill_run_id"], data["run_id"] = data.get("run_id"), data.pop("child", None)
    if frame.kind == "end":
        return {**data, "state": RUN_WORDS[data["state"]]}
    if (words := _EVENT_WORDS.get(frame.kind)) is not None:
        data["from"], data["to"] = _in(words, data.get("from")), _in(words, data.get("to"))
    if isinstance(tally := data.get("counts"), Mapping):
        data["counts"] = {_COUNT_WORDS.get(name, name): number for name, number in tally.items()}
    return data


def instant(moment: datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _instant_of_ms(at_ms: int) -> str:
    return instant(datetime.fromtimestamp(at_ms / 1000, UTC))


def _tick(tick: Tick) -> Json:
    fires = tick.skipped is None
    return {
        "at": instant(tick.at),
        "local": tick.local.isoformat(timespec="seconds"),
        "runs_at": instant(tick.runs_at) if fires else None,
        "window": window(tick.window) if fires else None,
        "skipped": tick.skipped,
        "moved": tick.moved,
    }


def _last_dropped(view: LastDropped | None) -> Json | None:
    return None if view is None else {"at": instant(view.at), "reason": view.reason}


_COUNT_WORDS = {"succeeded": "success"}


def _in(words: Mapping[str, str], state: str | None) -> str | None:
    return None if state is None else words[state]


def _instant_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else instant(moment)
