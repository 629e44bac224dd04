"""What a journal in memory keeps: runs, DAGs, owners, streams, counters; and what a commit does to it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from orchestrator import codec, streams
from orchestrator import ports as p
from orchestrator.errors import Broken, Fenced, JournalUnavailable
from orchestrator.events import SCHEMA
from orchestrator.ids import place
from orchestrator.planes import Lease
from orchestrator.rows import SLAS_SHOWN, TERMINAL, Beat, EventBatch, RunRow
from orchestrator.steps import Append, Commit, CommitResult, CreatedRun, DagWritten, StoredReply
from tests.fakes_rates import SlidingWindows

T = TypeVar("T")


@dataclass
class KeptRun:
    run_id: str
    tenant: str
    dag_id: str
    dag_version: int
    run_type: str
    created_ms: int
    events: list[EventBatch]
    window_key: str = ""
    parent: str = ""
    sla_ms: int | None = None
    version: int = 1
    owner: str = ""
    state: str = "queued"
    attempts: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    error: str = ""
    max_active_runs: int | None = None
    backwards: bool = False
    plan_hash: str = ""
    holder: str = ""
    removed: int = 0
    sla_missed: tuple[str, ...] = ()
    caller: tuple[str, str] | None = None
    calls: dict[str, str] = field(default_factory=dict)
    because: str = ""
    #: when it ended; None = it has not, or its history is removed, or stays
    ended_ms: int | None = None
    lines: list[bytes] = field(default_factory=list)
    watchers: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    #: of a backfill
    children: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    task_counts: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        return not self.holder and self.run_type != "backfill"

    @property
    def place(self) -> str:
        return f"run_{self.created_ms:013d}|{self.run_id}" if self.holder else place(self.run_id)

    def row(self) -> RunRow:
        return RunRow(
            **{name: getattr(self, name) for name in RunRow.__struct_fields__ if name != "watchers"},
            watchers=tuple(self.watchers),
        )


@dataclass
class KeptDag:
    version: int = 0
    paused: bool = False
    content_hash: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    next_fire_ms: int = 0
    next_due_ms: int = 0
    fired_ms: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_ms: int | None = None
    dropped_why: str = ""
    archived: int = 0
    definitions: dict[int, bytes] = field(default_factory=dict)
    follows: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


@dataclass
class KeptOwner:
    epoch: int = 0
    turn: int = 0
    cursor: str = "0-0"
    #: of the lease when the epoch was taken
    term: int = 0
    reply: list[CommitResult] = field(default_factory=list)


class Ledger:
    """What is kept, and what a commit does to it; each step is whole, and then told."""

    def __init__(self) -> None:
        self.runs: dict[str, KeptRun] = {}
        self.dag_rows: dict[tuple[str, str], KeptDag] = {}
        self.run_counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        #: backfills that an archive has and that windows still name
        self.released: dict[str, KeptRun] = {}
        self.documents: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.owners: dict[str, KeptOwner] = defaultdict(KeptOwner)
        #: which control plane is in charge; see `fakes_planes.py`
        self.lease = Lease()
        self.by_window_key: dict[tuple[str, str, str], str] = {}
        self.backfills_by_key: dict[tuple[str, str, str], str] = {}
        self.streams: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.timers: dict[tuple[str, str], int] = {}
        self.alone: dict[tuple[str, str], str] = {}
        #: runs of fires that have not ended, and those of them that a later fire replaced
        self.live: set[str] = set()
        self.replaced_runs: set[str] = set()
        self.signs: dict[str, Beat] = {}
        self.replies: dict[str, tuple[str, object, bytes]] = {}
        self.counters = _Counters()
        self.quotas: dict[str, int] = defaultdict(int)
        self.windows = SlidingWindows()
        self.told: dict[tuple[str, str], tuple[CreatedRun, ...]] = {}
        self.logs: dict[tuple[str, str, int], list[bytes]] = {}
        #: steps that fail next: True = as if the answer were lost, False = before anything happened
        self.failing: list[bool] = []
        self._next_entry = 1
        self._news = asyncio.Event()
        self._sched: list[streams.SchedItem] = []
        self._feed: list[streams.FeedItem] = []
        self._told: list[streams.WindowNews] = []
        self._born: dict[str, list[streams.InboxItem]] = {}
        self._heard: list[streams.InboxItem] = []

    def _step(self, step: Callable[[], T]) -> T:
        lost = self.failing.pop(0) if self.failing else None
        if lost is False:
            raise JournalUnavailable("connection refused")
        try:
            answer = step()
        finally:
            self._flush()
        if lost:
            raise JournalUnavailable("the answer got lost")
        return answer

    def _flush(self) -> None:
        inboxes, self._born = self._born, {}
        woken: list[streams.SchedItem] = []
        for news in self._told:
            if news.run_id in self.released:
                continue
            owner = self.runs[news.run_id].owner
            wake = streams.Wake(news.run_id, "window")
            if owner:
                inboxes.setdefault(owner, []).append(news)
            elif wake not in woken:
                woken.append(wake)
        for owner, items in inboxes.items():
            self._write(streams.inbox(owner), codec.encode_items(items))
        if self._heard:
            self._write(streams.inbox(streams.TRIGGERS), codec.encode_items(self._heard))
            self._heard = []
        if self._sched or woken:
            self._write(streams.SCHED, codec.encode_items([*self._sched, *woken]))
        if self._feed:
            self._write(streams.FEED, codec.encode_items(self._feed))
        self._sched, self._feed, self._told = [], [], []

    def _write(self, stream: str, item: bytes) -> None:
        self.streams[stream].append((self._next_entry, item))
        self._next_entry += 1
        self._news.set()

    def _commit(self, commit: Commit) -> list[CommitResult]:
        owner = self.owners[commit.owner]
        if owner.epoch != commit.epoch or owner.term != self.lease.term:
            raise Fenced(commit.owner, commit.epoch, owner.epoch)
        if commit.turn == owner.turn:
            return owner.reply
        if commit.turn < owner.turn:
            raise Broken(f"{commit.owner}: turn {commit.turn} came after turn {owner.turn}")
        owner.reply = [self._append(commit.owner, append) for append in commit.appends]
        owner.turn = commit.turn
        for name, n in commit.counts:
            self.counters[name] += n
        applied = {result.run_id for result in owner.reply if result.status == "ok"}
        for mail in commit.mail:
            if mail.about and mail.about not in applied:
                continue
            self._write(streams.inbox(mail.actor), mail.item)
        if commit.cursor is not None:
            owner.cursor = commit.cursor
            last = int(commit.cursor.partition("-")[0])
            inbox = streams.inbox(commit.owner)
            self.streams[inbox] = [entry for entry in self.streams[inbox] if entry[0] >= last]
        return owner.reply

    def _append(self, owner: str, a: Append) -> CommitResult:
        run = self.runs.get(a.run_id)
        if run is None:
            return CommitResult(a.run_id, "missing", 0, "")
        status, _, reply = self._stored(a.idem)
        if status:
            return CommitResult(a.run_id, status, run.version, run.owner, reply)
        if run.version != a.expected or run.owner not in ("", owner):
            return CommitResult(a.run_id, "stale", run.version, run.owner)
        if a.scheduler_epoch is not None and not self._admitted(run, a.scheduler_epoch, a.lane):
            return CommitResult(a.run_id, "refused", run.version, run.owner)
        self._apply(owner, run, a)
        self._store(a.idem, None)
        return CommitResult(a.run_id, "ok", run.version, run.owner)

    def _admitted(self, run: KeptRun, epoch: int, lane: str) -> bool:
        dag = self.dag_rows.get((run.tenant, run.dag_id))
        held = (dag and dag.paused) or (lane and self.runs[lane].state == "paused")
        return self._schedules(epoch) and not held

    def _schedules(self, epoch: int) -> bool:
        scheduler = self.owners["scheduler"]
        return (scheduler.epoch, scheduler.term) == (epoch, self.lease.term)

    def _apply(self, owner: str, run: KeptRun, a: Append) -> None:
        before, tell = run.state, a.passive
        if a.count:
            run.version += a.count
            run.events.append(EventBatch(run.version, a.schema, a.events))
        if a.state is not None and a.state != before:
            tell = self._change_state(run, a.state, a.finished_ms) or tell
        run.owner = "" if (a.passive and not run.holder) or run.state in TERMINAL else owner
        for name in ("attempts", "error", "dag_version"):
            if getattr(a, name) is not None:
                setattr(run, name, getattr(a, name))
        if a.started_ms is not None:
            run.started_ms = a.started_ms or None
        if a.finished_ms is not None:
            run.finished_ms = a.finished_ms or None
        if run.state == "succeeded" != before:
            self._tell_followers(run)
        run.sla_missed = (*run.sla_missed, *a.sla_missed)[:SLAS_SHOWN]
        if a.max_active_runs is not None:
            run.max_active_runs = a.max_active_runs or None
        if run.run_type == "backfill":
            self._tell_shape(run, before, a.max_active_runs is not None)
        if a.tasks_reset:
            self._set_tasks(run, {task: "p" for task in run.tasks})
            run.tasks, run.calls = {}, {}
        self._set_tasks(run, dict(a.tasks))
        for task, child in a.calls:
            self._set_call(run, task, child)
        if a.wake_at_ms == 0:
            self.timers.pop(("wake", run.run_id), None)
        elif a.wake_at_ms is not None:
            self.timers["wake", run.run_id] = a.wake_at_ms
        if tell and not run.holder:
            moved = (run.run_id, run.tenant, run.dag_id, run.run_type, run.parent, before, run.state, run.owner)
            self._sched.append(streams.RunMoved(*moved))
        if a.count:
            self._feed.append((run.run_id, run.version, run.state))

    def _set_call(self, run: KeptRun, task: str, child: str) -> None:
        old = run.calls.get(task, "") if not child else ""
        if child:
            run.calls[task] = child
        elif old and old not in self.runs:
            del run.calls[task]
        elif old and self.runs[old].state not in TERMINAL:
            self.replaced_runs.add(old)
            self._sched.append(streams.Wake(old, "orphan"))

    def _followers(self, tenant: str, source: str) -> list[str]:
        return sorted(d for (t, d), dag in self.dag_rows.items() if t == tenant and source in dag.follows)

    def _tell_followers(self, run: KeptRun) -> None:
        if run.run_type != "backfill" and not run.holder and self._followers(run.tenant, f"after/{run.dag_id}"):
            at_ms = run.finished_ms or run.created_ms
            where = (run.tenant, run.dag_id, run.run_id, run.window_key)
            self._heard.append(streams.Succeeded(*where, run.attempts, at_ms))

    def _tell_shape(self, run: KeptRun, before: str, capped: bool) -> None:
        turned = before != run.state and "paused" in (before, run.state)
        if run.state not in TERMINAL and (turned or capped):
            where = (run.run_id, run.tenant, run.dag_id)
            self._sched.append(streams.BackfillShaped(*where, run.state == "paused", run.max_active_runs))

    def _change_state(self, run: KeptRun, after: str, finished_ms: int | None) -> bool:
        before = run.state
        self._move(run, after)
        if after in TERMINAL:
            self.timers.pop(("wake", run.run_id), None)
            self.timers.pop(("sla", run.run_id), None)
            if run.run_type != "backfill":
                self._measure(run, after, finished_ms or run.created_ms)
            if not run.holder:
                run.ended_ms = finished_ms or run.created_ms
            return True
        run.ended_ms = None
        if before in TERMINAL and run.sla_ms and run.finished_ms and run.sla_ms > run.finished_ms:
            self.timers["sla", run.run_id] = run.sla_ms
        return before in TERMINAL or (before == "queued" and after != "running")

    def _measure(self, run: KeptRun, state: str, finished_ms: int) -> None:
        name = kind_of(run.dag_id) or run.dag_id
        self.counters[f"runs_total|{name}|{state}"] += 1
        took_ms = max(0, finished_ms - run.created_ms)
        base = f"run_latency_seconds|{name}|"
        fitting = [bound for bound in p.LATENCY_BOUNDS if took_ms <= bound * 1000]
        if fitting:
            self.counters[f"{base}le|{fitting[0]}"] += 1
        self.counters[f"{base}sum_ms"] += took_ms
        self.counters[f"{base}count"] += 1

    def _move(self, run: KeptRun, after: str, quiet: str = "") -> None:
        before, run.state = run.state, after
        if run.run_type == "scheduled":
            if after in TERMINAL:
                self.live.discard(run.run_id)
                self.replaced_runs.discard(run.run_id)
            elif before in TERMINAL and not quiet and not run.watchers:
                self.live.add(run.run_id)
        if run.run_type != "backfill":
            counts = self.run_counts[run.tenant, run.dag_id]
            add_to(counts, before, -1)
            add_to(counts, after, 1)
        if run.caller and after in TERMINAL:
            self.replaced_runs.discard(run.run_id)
            caller = self.runs.get(run.caller[0])
            if caller and caller.state not in TERMINAL:
                self._told.append(
                    streams.WindowNews(caller.run_id, run.run_id, run.window_key, before, after, run.version)
                )
        for watcher in run.watchers:
            counts = (self.runs.get(watcher) or self.released[watcher]).counts
            add_to(counts, before, -1)
            add_to(counts, after, 1)
            if watcher != quiet:
                self._told.append(streams.WindowNews(watcher, run.run_id, run.window_key, before, after, run.version))

    def _set_tasks(self, run: KeptRun, letters: dict[str, str]) -> None:
        for task, letter in letters.items():
            for watcher in run.watchers if not task.endswith("]") else ():  # nobody asks for instances of all windows
                counts = (self.runs.get(watcher) or self.released[watcher]).task_counts
                add_to(counts, (task, run.tasks.get(task, "p")), -1)
                add_to(counts, (task, letter), 1)
                counts.pop((task, "p"), None)
            run.tasks[task] = letter

    def _create(self, run: KeptRun, wake_ms: int | None) -> None:
        self.runs[run.run_id] = run
        if wake_ms is not None:
            self.timers["wake", run.run_id] = wake_ms
        if run.run_type == "scheduled":
            self.live.add(run.run_id)
        if run.sla_ms is not None:
            self.timers["sla", run.run_id] = run.sla_ms
        if run.run_type != "backfill":
            add_to(self.run_counts[run.tenant, run.dag_id], "queued", 1)

    def _restart(
        self, run: KeptRun, events: bytes, count: int, dag_version: int, quiet: str = "", wake_ms: int | None = None
    ) -> None:
        if wake_ms is not None:
            self.timers["wake", run.run_id] = wake_ms
        run.version += count
        run.events.append(EventBatch(run.version, SCHEMA, events))
        self._set_tasks(run, {task: "p" for task in run.tasks})
        run.tasks, run.calls, run.ended_ms, run.sla_missed = {}, {}, None, ()
        run.dag_version, run.started_ms, run.finished_ms, run.error = dag_version, None, None, ""
        self._move(run, "queued", quiet)
        self._feed.append((run.run_id, run.version, "queued"))

    def _queue(self, run: KeptRun, parent: str, max_active_runs: int | None, created_ms: int, again: bool) -> None:
        head = (run.tenant, run.dag_id, run.dag_version, run.run_type, parent)
        for n, item in enumerate(self._sched):
            if isinstance(item, streams.RunsCreated) and item.restarted == again:
                known = (item.tenant, item.dag_id, item.dag_version, item.run_type, item.parent)
                if known == head:
                    ids = (*item.run_ids, run.run_id)
                    versions = (*item.versions, run.version) if again else ()
                    self._sched[n] = msgspec.structs.replace(item, run_ids=ids, versions=versions)
                    return
        versions = (run.version,) if again else ()
        self._sched.append(streams.RunsCreated(*head, (run.run_id,), created_ms, max_active_runs, again, versions))

    def _keeps(self, run: KeptRun) -> bool:
        return not run.caller and any(run.run_id in each.kept for each in self.runs.values())

    def _awaited(self, run: KeptRun) -> bool:
        caller = self.runs.get(run.caller[0]) if run.caller else None
        return caller is not None and caller.state not in TERMINAL and run.run_id in caller.calls.values()

    def _archived(self, tenant: str, dag_id: str) -> int:
        return self.dag_rows.get((tenant, dag_id), KeptDag()).archived

    def _version(self, tenant: str, dag_id: str) -> int:
        return self.dag_rows.get((tenant, dag_id), KeptDag()).version

    def _stored(self, idem: StoredReply | None) -> tuple[str, object, bytes]:
        found = self.replies.get(idem.key) if idem else None
        if idem is None or found is None:
            return "", None, b""
        if found[0] != idem.fingerprint:
            return "conflict", None, b""
        return "replayed", found[1], found[2]

    def _store(self, idem: StoredReply | None, results: object) -> None:
        if idem is not None:
            self.replies[idem.key] = (idem.fingerprint, results, idem.reply)


def add_to(counts: dict[T, int], key: T, n: int) -> None:
    counts[key] = counts.get(key, 0) + n


def is_restarted(policy: str, state: str) -> bool:
    if policy == "completed":
        return state in TERMINAL
    return policy == "failed" and state in TERMINAL and state != "succeeded"


class _Counters(dict[str, int]):
    """Sums by field; once there are very many, those of further DAGs go under one name."""

    def __missing__(self, field: str) -> int:
        return 0

    def __setitem__(self, field: str, n: int) -> None:
        metric, _, rest = field.partition("|")
        first, more, last = rest.partition("|")
        of_nobody = metric == "http" or first in ("", "le", "sum_ms", "sum_us", "count")
        base, bucket, _ = field.rpartition("|le|")
        if field in self or len(self) < p.METRICS_MAX or of_nobody or (bucket and f"{base}|count" in self):
            super().__setitem__(field, n)
            return
        field = f"{metric}|{p.METRICS_OTHER}{more}{last}"
        super().__setitem__(field, self.get(field, 0) + n)


def kind_of(dag_id: str) -> str:
    """Of a definition that is nobody's DAG; "" for a DAG."""
    return dag_id.partition("/")[0] if dag_id.startswith("@") else ""


def replay_of(status: str, kept: object, reply: bytes) -> DagWritten:
    if isinstance(kept, tuple):
        return DagWritten(status, kept[0], kept[1], reply)
    return DagWritten(status)


def turned_round(item: streams.SchedItem) -> streams.SchedItem:
    if isinstance(item, streams.RunsCreated):
        return msgspec.structs.replace(item, run_ids=item.run_ids[::-1], versions=item.versions[::-1])
    return item
