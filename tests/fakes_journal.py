"""The journal in memory: the twin of `actors/journal.py`, step for step.

It passes the same conformance suite, so what a test shows with it holds for the real one. `failing` makes
the next steps raise JournalUnavailable, before or after they took effect (an answer that got lost).
Waiting in `tail` is real asyncio waiting; nothing else takes time.
"""

from __future__ import annotations

import asyncio
import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from orchestrator import codec, streams
from orchestrator import ports as p
from orchestrator.errors import Broken, Fenced, JournalUnavailable
from orchestrator.events import SCHEMA
from orchestrator.ids import place
from orchestrator.planes import Lease
from orchestrator.rows import (
    SLAS_SHOWN,
    TERMINAL,
    Beat,
    ChildRow,
    DagRow,
    DueCron,
    EventBatch,
    History,
    OwnerRow,
    RunFilter,
    RunPage,
    RunRow,
)
from orchestrator.steps import (
    Append,
    BackfillResult,
    Commit,
    CommitResult,
    CreatedRun,
    Creation,
    CreationResult,
    DagWritten,
    Fire,
    FireResult,
    Gather,
    GatherResult,
    NewBackfill,
    NewRun,
    NewWindow,
    PutDag,
    StoredReply,
)
from tests.fakes_rates import SlidingWindows

T = TypeVar("T")


@dataclass
class _Run:
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
class _Dag:
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
class _Owner:
    epoch: int = 0
    turn: int = 0
    cursor: str = "0-0"
    #: of the lease when the epoch was taken
    term: int = 0
    reply: list[CommitResult] = field(default_factory=list)


class MemoryJournal:
    """`ports.Journal` without a server."""

    def __init__(self) -> None:
        self.runs: dict[str, _Run] = {}
        self.dag_rows: dict[tuple[str, str], _Dag] = {}
        self.run_counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        #: backfills that an archive has and that windows still name
        self.released: dict[str, _Run] = {}
        self.documents: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.owners: dict[str, _Owner] = defaultdict(_Owner)
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

    async def take_epoch(self, owner: str) -> int:
        def step() -> int:
            row = self.owners[owner]
            row.epoch, row.turn, row.reply, row.term = row.epoch + 1, 0, [], self.lease.term
            return row.epoch

        return self._step(step)

    async def owner(self, owner: str) -> OwnerRow:
        row = self.owners.get(owner, _Owner())
        return self._step(lambda: OwnerRow(row.epoch, row.turn, row.cursor))

    async def commit(self, commit: Commit) -> list[CommitResult]:
        return self._step(lambda: self._commit(commit))

    async def owned(self, owner: str) -> list[str]:
        return self._step(lambda: sorted(r.run_id for r in self.runs.values() if r.owner == owner))

    async def create_runs(self, creations: Sequence[Creation]) -> list[CreationResult]:
        return self._step(lambda: self._create_runs(creations))

    async def create_backfill(self, backfill: NewBackfill) -> BackfillResult:
        return self._step(lambda: self._create_backfill(backfill))

    async def fire(self, fire: Fire) -> FireResult:
        return self._step(lambda: self._fire(fire))

    async def live_fires(self, tenant: str, dag_id: str) -> dict[str, str]:
        live = [self.runs[run_id] for run_id in sorted(self.live) if run_id in self.runs]
        return self._step(lambda: {r.run_id: r.state for r in live if (r.tenant, r.dag_id) == (tenant, dag_id)})

    async def replaced(self) -> list[str]:
        return self._step(lambda: sorted(self.replaced_runs))

    async def gather(self, gather: Gather) -> GatherResult:
        return self._step(lambda: self._gather(gather))

    async def followers(self, tenant: str, source: str) -> list[str]:
        return self._step(lambda: self._followers(tenant, source))

    async def makers(self, tenant: str, asset: str) -> list[str]:
        return self._step(
            lambda: sorted(d for (t, d), dag in self.dag_rows.items() if t == tenant and asset in dag.makes)
        )

    async def assets(self, tenant: str) -> list[str]:
        def step() -> list[str]:
            dags = [dag for (t, _), dag in self.dag_rows.items() if t == tenant]
            followed = {s.removeprefix("asset/") for dag in dags for s in dag.follows if s.startswith("asset/")}
            return sorted(followed.union(*(dag.makes for dag in dags)))

        return self._step(step)

    async def put_dag(self, dag: PutDag) -> DagWritten:
        return self._step(lambda: self._put_dag(dag))

    async def set_paused(
        self, tenant: str, dag_id: str, paused: bool, now_ms: int, idem: StoredReply | None = None
    ) -> DagWritten:
        return self._step(lambda: self._set_paused(tenant, dag_id, paused, now_ms, idem))

    async def dag(self, tenant: str, dag_id: str) -> DagRow | None:
        return self._step(lambda: self._dag_row(tenant, dag_id) if (tenant, dag_id) in self.dag_rows else None)

    async def dags(self, tenant: str, after: str, limit: int) -> list[DagRow]:
        names = sorted(d for t, d in self.dag_rows if t == tenant and d > after and not _kind(d))
        return self._step(lambda: [self._dag_row(tenant, d) for d in names[:limit]])

    async def definition(self, tenant: str, dag_id: str, version: int) -> bytes | None:
        dag = self.dag_rows.get((tenant, dag_id), _Dag())
        return self._step(lambda: dag.definitions.get(version))

    async def summary(self, run_id: str) -> RunRow | None:
        return self._step(lambda: self.runs[run_id].row() if run_id in self.runs else None)

    async def summaries(self, wanted: RunFilter, cursor: str | None, limit: int) -> RunPage:
        def fits(run: _Run) -> bool:
            listed = wanted.parent is None or run.run_id in self.runs[wanted.parent].children
            return (
                run.tenant == wanted.tenant
                and _kind(run.dag_id) == wanted.kind
                and listed
                and wanted.dag_id in (None, run.dag_id)
                and wanted.state in (None, run.state)
                and wanted.run_type in (None, run.run_type)
            )

        if wanted.parent is not None and wanted.parent not in self.runs:
            return RunPage((), None)
        before = [run for run in self.runs.values() if (cursor is None or run.place < cursor) and fits(run)]
        found = sorted(before, key=lambda run: run.place, reverse=True)
        more = found[limit - 1].place if len(found) > limit else None
        return self._step(lambda: RunPage(tuple(run.row() for run in found[:limit]), more))

    async def state_counts(self, tenant: str, kind: str) -> dict[str, int]:
        return self._step(
            lambda: dict(Counter(r.state for r in self.runs.values() if (r.tenant, _kind(r.dag_id)) == (tenant, kind)))
        )

    async def tasks(self, run_id: str) -> dict[str, str]:
        return self._step(lambda: dict(self.runs[run_id].tasks) if run_id in self.runs else {})

    async def look(self, run_id: str) -> tuple[RunRow, dict[str, str]] | None:
        def step() -> tuple[RunRow, dict[str, str]] | None:
            run = self.runs.get(run_id)
            return None if run is None else (run.row(), dict(run.tasks))

        return self._step(step)

    async def events(self, run_id: str, after: int, limit: int) -> list[EventBatch]:
        def step() -> list[EventBatch]:
            batches = self.runs[run_id].events if run_id in self.runs else []
            first = bisect.bisect_right([b.last_version for b in batches], after)
            return batches[first : first + limit]

        return self._step(step)

    async def load(self, run_ids: Sequence[str]) -> list[History]:
        return self._step(
            lambda: [History(self.runs[i].row(), tuple(self.runs[i].events)) for i in run_ids if i in self.runs]
        )

    async def by_window(self, tenant: str, dag_id: str, window_keys: Sequence[str]) -> dict[str, RunRow]:
        ids = {key: self.by_window_key.get((tenant, dag_id, key)) for key in window_keys}
        return self._step(lambda: {key: self.runs[i].row() for key, i in ids.items() if i})

    async def backfill_by_window(self, tenant: str, dag_id: str, window_key: str) -> RunRow | None:
        found = self.backfills_by_key.get((tenant, dag_id, window_key))
        return self._step(lambda: self.runs[found].row() if found else None)

    async def children(self, backfill: str, limit: int | None = None) -> list[ChildRow]:
        if backfill not in self.runs:
            return []
        parent = self.runs[backfill]
        runs = [self.runs[i] for i in parent.children[:limit]]
        return self._step(
            lambda: [
                ChildRow(r.run_id, r.window_key, r.state, r.version, r.run_id in parent.kept, r.dag_version)
                for r in runs
            ]
        )

    async def called(self, run_id: str) -> dict[str, RunRow]:
        calls = self.runs[run_id].calls if run_id in self.runs else {}
        return self._step(lambda: {task: self.runs[i].row() for task, i in calls.items() if i in self.runs})

    async def child_counts(self, backfill: str) -> dict[str, int]:
        return self._step(lambda: self._counts(self.runs[backfill]) if backfill in self.runs else {})

    async def child_tasks(self, backfill: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        counts = self.runs[backfill].task_counts if backfill in self.runs else {}
        for (task, letter), n in counts.items():
            if n:
                found.setdefault(task, {})[letter] = n
        return self._step(lambda: found)

    async def queued_and_active(self) -> list[RunRow]:
        return self._step(
            lambda: [run.row() for _, run in sorted(self.runs.items()) if not run.holder and run.state not in TERMINAL]
        )

    async def erase(self, run_ids: Sequence[str]) -> int:
        return self._step(lambda: sum(self._erase(run_id) for run_id in run_ids))

    async def ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[RunRow]:
        return self._step(lambda: self._ended(instant_ms, backfills=False)[skip : skip + limit])

    async def backfills_ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[RunRow]:
        return self._step(lambda: self._ended(instant_ms, backfills=True)[skip : skip + limit])

    def _ended(self, instant_ms: int, *, backfills: bool) -> list[RunRow]:
        ended = [
            (run.ended_ms, run_id)
            for run_id, run in self.runs.items()
            if run.ended_ms is not None and (run.run_type == "backfill") == backfills
        ]
        return [self.runs[run_id].row() for at_ms, run_id in sorted(ended) if at_ms < instant_ms]

    async def release(self, versions: Mapping[str, int]) -> set[str]:
        return self._step(lambda: {run_id for run_id, version in versions.items() if self._release(run_id, version)})

    async def disband(self, limit: int) -> int:
        return self._step(lambda: self._disband(limit))

    async def restore(self, shelved: Sequence[tuple[History, Mapping[str, str]]]) -> int:
        return self._step(lambda: sum(self._restore(history, tasks) for history, tasks in shelved))

    async def remove_history(self, run_id: str, version: int, event: bytes) -> bool:
        return self._step(lambda: self._remove_history(run_id, version, event))

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        def step() -> None:
            for key, record in records.items():
                self.documents[kind].pop(key, None)
                if record is not None:
                    self.documents[kind][key] = record

        self._step(step)

    async def record(self, kind: str, key: str) -> bytes | None:
        return self._step(lambda: self.documents[kind].get(key))

    async def records(self, kind: str) -> dict[str, bytes]:
        return self._step(lambda: dict(self.documents[kind]))

    async def add_lines(self, run_id: str, lines: Sequence[bytes]) -> int:
        def step() -> int:
            run = self.runs.get(run_id)
            if run is None:
                return 0
            run.lines += lines
            self._feed.append((run_id, run.version, run.state))
            return len(run.lines)

        return self._step(step)

    async def lines(self, run_id: str, after: int, limit: int) -> list[bytes]:
        run = self.runs.get(run_id)
        return self._step(lambda: run.lines[after : after + limit] if run else [])

    async def beat(self, run_id: str, pid: int, at_ms: int) -> None:
        def step() -> None:
            known = self.signs.get(run_id, Beat(run_id, 0, 0))
            self.signs[run_id] = Beat(run_id, pid or known.pid, at_ms, known.kept)

        self._step(step)

    async def beats(self) -> list[Beat]:
        return self._step(lambda: [self.signs[run_id] for run_id in sorted(self.signs)])

    async def keep(self, run_id: str, version: int) -> None:
        def step() -> None:
            if run_id in self.signs:
                self.signs[run_id] = msgspec.structs.replace(self.signs[run_id], kept=version)

        self._step(step)

    async def forget(self, run_id: str) -> None:
        self._step(lambda: self.signs.pop(run_id, None))

    async def position(self, stream: str) -> str:
        entries = self.streams[stream]
        return self._step(lambda: f"{entries[-1][0]}-0" if entries else "0-0")

    async def tail(self, stream: str, cursor: str, block_ms: int, limit: int = 1000) -> list[streams.Entry]:
        after = int(cursor.partition("-")[0])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + block_ms / 1000
        while True:
            found = [streams.Entry(f"{n}-0", item) for n, item in self.streams[stream] if n > after][:limit]
            left_s = deadline - loop.time()
            if found or left_s <= 0:
                return self._step(lambda found=found: found)  # type: ignore[misc]
            self._news.clear()
            try:
                async with asyncio.timeout(left_s):  # `wait_for` can lose a cancellation that comes with the news
                    await self._news.wait()
            except TimeoutError:
                continue

    async def trim(self, stream: str, cursor: str) -> None:
        last = int(cursor.partition("-")[0])
        self.streams[stream] = [entry for entry in self.streams[stream] if entry[0] > last]

    async def trim_news(self, age_ms: int) -> None:
        if age_ms <= 0:  # how old an entry is nobody knows here
            self._step(lambda: self.streams.update({streams.SCHED: [], streams.FEED: []}))

    async def part(self) -> None:
        self._step(lambda: self._write(streams.FEED, codec.encode_items([streams.PARTING])))

    async def pop_timers(self, scheduler_epoch: int, now_ms: int, limit: int = 1000) -> int:
        return self._step(lambda: self._pop_timers(scheduler_epoch, now_ms, limit))

    async def due_crons(self, now_ms: int, limit: int = 1000) -> list[DueCron]:
        due = [DueCron(t, d, at) for (t, d), at in self._cron().items() if at <= now_ms]
        return self._step(lambda: sorted(due, key=lambda c: (c.due_ms, c.tenant, c.dag_id))[:limit])

    async def next_due(self) -> int | None:
        return self._step(lambda: min([*self.timers.values(), *self._cron().values()], default=None))

    async def ask_leave(self, key: str, most: int, window_ms: int) -> int:
        now_s = asyncio.get_running_loop().time()
        return self._step(lambda: math.ceil(self.windows.ask_leave(key, most, window_ms / 1000, now_s) * 1000))

    async def stored_reply(self, key: str) -> StoredReply | None:
        found = self.replies.get(key)
        return self._step(lambda: StoredReply(key, found[0], found[2]) if found else None)

    async def store_reply(self, reply: StoredReply) -> None:
        self._step(lambda: self.replies.setdefault(reply.key, (reply.fingerprint, None, reply.reply)))

    async def metrics(self) -> dict[str, int]:
        return self._step(lambda: dict(self.counters))

    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        def step() -> None:
            for name, n in counts:
                self.counters[name] += n

        self._step(step)

    async def log(self, run_id: str, task: str, attempt: int) -> list[bytes] | None:
        return self._step(lambda: self.logs.get((run_id, task, attempt)))

    async def ping(self) -> bool:
        return not self.failing

    async def close(self) -> None:
        return None

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

    # commits

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

    def _admitted(self, run: _Run, epoch: int, lane: str) -> bool:
        dag = self.dag_rows.get((run.tenant, run.dag_id))
        held = (dag and dag.paused) or (lane and self.runs[lane].state == "paused")
        return self._schedules(epoch) and not held

    def _schedules(self, epoch: int) -> bool:
        scheduler = self.owners["scheduler"]
        return (scheduler.epoch, scheduler.term) == (epoch, self.lease.term)

    def _apply(self, owner: str, run: _Run, a: Append) -> None:
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

    def _set_call(self, run: _Run, task: str, child: str) -> None:
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

    def _tell_followers(self, run: _Run) -> None:
        if run.run_type != "backfill" and not run.holder and self._followers(run.tenant, f"after/{run.dag_id}"):
            at_ms = run.finished_ms or run.created_ms
            where = (run.tenant, run.dag_id, run.run_id, run.window_key)
            self._heard.append(streams.Succeeded(*where, run.attempts, at_ms))

    def _tell_shape(self, run: _Run, before: str, capped: bool) -> None:
        turned = before != run.state and "paused" in (before, run.state)
        if run.state not in TERMINAL and (turned or capped):
            where = (run.run_id, run.tenant, run.dag_id)
            self._sched.append(streams.BackfillShaped(*where, run.state == "paused", run.max_active_runs))

    def _change_state(self, run: _Run, after: str, finished_ms: int | None) -> bool:
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

    def _measure(self, run: _Run, state: str, finished_ms: int) -> None:
        name = _kind(run.dag_id) or run.dag_id
        self.counters[f"runs_total|{name}|{state}"] += 1
        took_ms = max(0, finished_ms - run.created_ms)
        base = f"run_latency_seconds|{name}|"
        fitting = [bound for bound in p.LATENCY_BOUNDS if took_ms <= bound * 1000]
        if fitting:
            self.counters[f"{base}le|{fitting[0]}"] += 1
        self.counters[f"{base}sum_ms"] += took_ms
        self.counters[f"{base}count"] += 1

    def _move(self, run: _Run, after: str, quiet: str = "") -> None:
        before, run.state = run.state, after
        if run.run_type == "scheduled":
            if after in TERMINAL:
                self.live.discard(run.run_id)
                self.replaced_runs.discard(run.run_id)
            elif before in TERMINAL and not quiet and not run.watchers:
                self.live.add(run.run_id)
        if run.run_type != "backfill":
            counts = self.run_counts[run.tenant, run.dag_id]
            _add(counts, before, -1)
            _add(counts, after, 1)
        if run.caller and after in TERMINAL:
            self.replaced_runs.discard(run.run_id)
            caller = self.runs.get(run.caller[0])
            if caller and caller.state not in TERMINAL:
                self._told.append(
                    streams.WindowNews(caller.run_id, run.run_id, run.window_key, before, after, run.version)
                )
        for watcher in run.watchers:
            counts = (self.runs.get(watcher) or self.released[watcher]).counts
            _add(counts, before, -1)
            _add(counts, after, 1)
            if watcher != quiet:
                self._told.append(streams.WindowNews(watcher, run.run_id, run.window_key, before, after, run.version))

    def _set_tasks(self, run: _Run, letters: dict[str, str]) -> None:
        for task, letter in letters.items():
            for watcher in run.watchers if not task.endswith("]") else ():  # nobody asks for instances of all windows
                counts = (self.runs.get(watcher) or self.released[watcher]).task_counts
                _add(counts, (task, run.tasks.get(task, "p")), -1)
                _add(counts, (task, letter), 1)
                counts.pop((task, "p"), None)
            run.tasks[task] = letter

    # creations

    def _create(self, run: _Run, wake_ms: int | None) -> None:
        self.runs[run.run_id] = run
        if wake_ms is not None:
            self.timers["wake", run.run_id] = wake_ms
        if run.run_type == "scheduled":
            self.live.add(run.run_id)
        if run.sla_ms is not None:
            self.timers["sla", run.run_id] = run.sla_ms
        if run.run_type != "backfill":
            _add(self.run_counts[run.tenant, run.dag_id], "queued", 1)

    def _restart(
        self, run: _Run, events: bytes, count: int, dag_version: int, quiet: str = "", wake_ms: int | None = None
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

    def _queue(self, run: _Run, parent: str, max_active_runs: int | None, created_ms: int, again: bool) -> None:
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

    def _remove_history(self, run_id: str, version: int, event: bytes) -> bool:
        run = self.runs.get(run_id)
        if run is None or run.version != version or run.state not in TERMINAL or not run.passes:
            return False
        run.version = run.removed = version + 1
        run.events[1:] = [EventBatch(run.version, SCHEMA, event)]
        run.ended_ms = None
        self._feed.append((run_id, run.version, run.state))
        return True

    def _release(self, run_id: str, version: int) -> bool:
        run = self.runs.get(run_id)
        if run is None or run.version != version or run.state not in TERMINAL or run.holder or _kind(run.dag_id):
            return False
        if run.run_type == "backfill":
            self.released[run_id] = run
        elif run.watchers or self._awaited(run) or self._keeps(run):
            return False
        else:
            _add(self.run_counts[run.tenant, run.dag_id], run.state, -1)
        self.counters["archive_backfills" if run.run_type == "backfill" else "archive_runs"] += 1
        by_key = self.backfills_by_key if run.run_type == "backfill" else self.by_window_key
        if run.window_key and not run.caller:
            self.dag_rows[run.tenant, run.dag_id].archived += 1
            for key in [key for key, found in by_key.items() if found == run_id]:
                del by_key[key]
        self.logs = {key: chunks for key, chunks in self.logs.items() if key[0] != run_id}
        del self.runs[run_id]
        return True

    def _keeps(self, run: _Run) -> bool:
        return not run.caller and any(run.run_id in each.kept for each in self.runs.values())

    def _awaited(self, run: _Run) -> bool:
        caller = self.runs.get(run.caller[0]) if run.caller else None
        return caller is not None and caller.state not in TERMINAL and run.run_id in caller.calls.values()

    def _disband(self, limit: int) -> int:
        if not self.released:
            return 0
        backfill, run = next(iter(self.released.items()))
        for child in run.children[:limit]:
            if child in self.runs:
                self.runs[child].watchers = [each for each in self.runs[child].watchers if each != backfill]
        del run.children[:limit]
        if not run.children:
            del self.released[backfill]
        return len(self.released)

    def _restore(self, history: History, tasks: Mapping[str, str]) -> bool:
        row = history.row
        key = (row.tenant, row.dag_id, row.window_key)
        windowed = bool(row.window_key) and row.caller is None
        if row.run_id in self.runs or (windowed and key in self.by_window_key):
            return False
        names = _Run.__dataclass_fields__
        known = {name: getattr(row, name) for name in row.__struct_fields__ if name in names}
        ended_ms = None if row.removed else row.finished_ms or row.created_ms
        changes = {"watchers": [], "events": list(history.batches), "tasks": dict(tasks), "ended_ms": ended_ms}
        self.runs[row.run_id] = _Run(**(known | changes))
        _add(self.run_counts[row.tenant, row.dag_id], row.state, 1)
        if windowed:
            self.by_window_key[key] = row.run_id
        return True

    def _erase(self, run_id: str) -> bool:
        run = self.runs.get(run_id)
        if run is None or not (run.holder or (run.state in TERMINAL and not run.window_key)):
            return False
        del self.runs[run_id]
        _add(self.run_counts[run.tenant, run.dag_id], run.state, -1)
        for kind in ("wake", "sla"):
            self.timers.pop((kind, run_id), None)
        self.logs = {key: chunks for key, chunks in self.logs.items() if key[0] != run_id}
        key = (run.tenant, run.dag_id)
        if _kind(run.dag_id) == "@flow" and not any(self.run_counts[key].values()):
            self.dag_rows.pop(key, None)
        return True

    def _holds(self, n: NewRun) -> bool:
        if n.owner:
            return True
        existing = self.by_window_key.get((n.tenant, n.dag_id, n.window_key)) if n.window_key else None
        if n.pinned_version and existing:
            return self.runs[existing].dag_version == n.pinned_version
        return self._version(n.tenant, n.dag_id) == n.dag_version

    def _archived(self, tenant: str, dag_id: str) -> int:
        return self.dag_rows.get((tenant, dag_id), _Dag()).archived

    def _version(self, tenant: str, dag_id: str) -> int:
        return self.dag_rows.get((tenant, dag_id), _Dag()).version

    def _stand(self, n: NewRun) -> CreatedRun:
        key = (n.tenant, n.dag_id, n.window_key)
        merged = bool(n.window_key) and n.caller is None
        run = self.runs.get(self.by_window_key.get(key, "") if merged else n.run_id)
        if run and merged and _restarts(n.reprocess, run.state):
            self._restart(run, n.restart_event, 1, n.restart_version, wake_ms=n.wake_ms)
            run.because = n.because.decode() or run.because
            self._queue(run, run.parent, None, run.created_ms, True)
            return CreatedRun(run.run_id, "queued", "restarted")
        if run:
            return CreatedRun(run.run_id, run.state, "created" if run.run_id == n.run_id else "existing")
        batch = [EventBatch(1, n.schema, n.event)]
        head = (n.run_id, n.tenant, n.dag_id, n.dag_version, n.run_type, n.created_ms, batch)
        because = n.because.decode()
        run = _Run(*head, window_key=n.window_key, sla_ms=n.sla_ms, caller=n.caller, because=because)
        if n.owner:
            run.holder, run.owner, run.parent = n.owner, n.owner, n.parent
            self._born.setdefault(n.owner, []).append(streams.Born(n.run_id, n.schema, n.event.decode()))
        self._create(run, n.wake_ms)
        if n.alone:
            self.alone[n.tenant, n.dag_id] = n.run_id
        if merged:
            self.by_window_key[key] = n.run_id
        self._feed.append((n.run_id, 1, "queued"))
        if not run.holder:
            self._queue(run, "", None, n.created_ms, False)
        return CreatedRun(n.run_id, "queued", "created")

    def _create_runs(self, creations: Sequence[Creation]) -> list[CreationResult]:
        return [self._creation(creation) for creation in creations]

    def _creation(self, creation: Creation) -> CreationResult:
        status, kept, reply = self._stored(creation.idem)
        if status:
            return CreationResult(status, kept if isinstance(kept, tuple) else (), reply)
        if creation.once in self.told:
            return CreationResult("told", self.told[creation.once])
        if not all(self._holds(n) for n in creation.runs):
            return CreationResult("changed")
        if any(self._archived(tenant, dag_id) != seen for tenant, dag_id, seen in creation.archived):
            return CreationResult("changed")
        if any(self._unwanted(n) for n in creation.runs):
            return CreationResult("unwanted")
        for n in creation.runs:
            rival = self.runs.get(self.alone.get((n.tenant, n.dag_id), "")) if n.alone else None
            if rival and rival.run_id != n.run_id and rival.state not in TERMINAL:
                return CreationResult("busy", (CreatedRun(rival.run_id, rival.state, "existing"),))
        quota = creation.quota
        if quota is not None and creation.runs[0].run_id in self.runs:
            quota = None
        if quota is not None and self.quotas[quota.key] >= quota.most:
            return CreationResult("exhausted")
        runs = tuple(self._stand(n) for n in creation.runs)
        if quota is not None:
            self.quotas[quota.key] += 1
        if creation.once:
            self.told[creation.once] = runs
        self._store(creation.idem, runs)
        return CreationResult("ok", runs)

    def _unwanted(self, n: NewRun) -> bool:
        if n.caller is None or n.run_id in self.runs:
            return False
        caller = self.runs.get(n.caller[0])
        return caller is None or caller.calls.get(n.caller[1]) != n.run_id

    def _create_backfill(self, b: NewBackfill) -> BackfillResult:
        status, kept, reply = self._stored(b.idem)
        if status == "replayed":
            assert isinstance(kept, BackfillResult)
            return msgspec.structs.replace(kept, status="replayed", reply=reply)
        if status:
            return BackfillResult(status)
        key = (b.tenant, b.dag_id, b.window_key)
        run = self.runs.get(self.backfills_by_key.get(key, ""))
        if b.widens:
            return self._widen(b, run)
        if run and not (run.state in TERMINAL and b.reprocess != "none"):
            if b.require_hash and run.plan_hash != b.require_hash:
                return BackfillResult("hash")
            found = BackfillResult("existing", run.run_id, run.state, self._counts(run))
            self._store(b.idem, found)
            return found
        if (run and (run.run_id != b.restarts or run.version != b.restarts_version)) or (not run and b.restarts):
            return BackfillResult("changed")
        if not self._plan_holds(b, run):
            return BackfillResult("changed")
        made = self._write_backfill(b, run)
        self._write_windows(b, made, again=run is not None)
        if b.backwards:
            self._sched = [_backwards(item) for item in self._sched]
        answer = BackfillResult("restarted" if run else "created", made.run_id, "queued", self._counts(made))
        self._store(b.idem, answer)
        return answer

    def _widen(self, b: NewBackfill, taken: _Run | None) -> BackfillResult:
        run = self.runs[b.widens]
        if taken and taken is not run:
            return BackfillResult("taken", taken.run_id)
        if run.state in TERMINAL or run.state == "cancelling":
            return BackfillResult("over", run.run_id, run.state)
        if run.window_key != b.widens_key or not self._plan_holds(b, None):
            return BackfillResult("changed")
        if b.windows:
            run.version += 1
            run.events.append(EventBatch(run.version, SCHEMA, b.event))
            run.window_key = b.window_key
            self.backfills_by_key[b.tenant, b.dag_id, b.window_key] = run.run_id
            self._feed.append((run.run_id, run.version, run.state))
            if run.owner:
                self._write(streams.inbox(run.owner), codec.encode_items([streams.Widened(run.run_id, run.version)]))
            else:
                self._sched.append(streams.Wake(run.run_id, "window"))
        had, run.children = run.children, []
        b = msgspec.structs.replace(b, max_active_runs=run.max_active_runs, backwards=run.backwards)
        self._write_windows(b, run, again=False)
        run.children = [*run.children[: b.in_front], *had, *run.children[b.in_front :]]
        if b.backwards:
            self._sched = [_backwards(item) for item in self._sched]
        answer = BackfillResult("widened", run.run_id, run.state, self._counts(run))
        self._store(b.idem, answer)
        return answer

    def _plan_holds(self, b: NewBackfill, run: _Run | None) -> bool:
        if self._version(b.tenant, b.dag_id) != b.dag_version or self._archived(b.tenant, b.dag_id) != b.archived:
            return False
        if run and run.children != [w.run_id for w in b.windows]:
            return False
        return all(self._window_holds(b, w) for w in b.windows)

    def _window_holds(self, b: NewBackfill, w: NewWindow) -> bool:
        existing = self.by_window_key.get((b.tenant, b.dag_id, w.window_key))
        if existing is None:
            return w.action == "create"
        state = self.runs[existing].state
        if state not in TERMINAL:
            action = "adopt"
        else:
            action = "restart" if _restarts(b.reprocess, state) else "skip"
        return w.action == action and w.run_id == existing and (action != "restart" or state == w.before)

    def _write_backfill(self, b: NewBackfill, run: _Run | None) -> _Run:
        if run:
            self._restart(run, b.restart_events, b.restart_count, b.dag_version)
        else:
            batch = [EventBatch(1, SCHEMA, b.event)]
            run = _Run(b.run_id, b.tenant, b.dag_id, b.dag_version, "backfill", b.created_ms, batch, b.window_key)
            self._create(run, None)
            self.backfills_by_key[b.tenant, b.dag_id, b.window_key] = b.run_id
            self._feed.append((b.run_id, 1, "queued"))
        run.plan_hash, run.backwards, run.max_active_runs = b.plan_hash, b.backwards, b.max_active_runs
        self._queue(run, "", b.max_active_runs, b.created_ms, bool(b.restarts))
        return run

    def _write_windows(self, b: NewBackfill, made: _Run, again: bool) -> None:
        for w in b.windows:
            if w.action == "create":
                self._create_child(b, w, made)
            elif w.action == "restart":
                self._restart_child(b, w, made, again)
            elif not again and w.action == "skip":
                made.kept.add(w.run_id)
            elif not again:
                self._watch(made, self.runs[w.run_id])
            if not again:
                made.children.append(w.run_id)

    def _create_child(self, b: NewBackfill, w: NewWindow, made: _Run) -> None:
        batch = [EventBatch(1, SCHEMA, w.event)]
        head = (w.run_id, b.tenant, b.dag_id, b.dag_version, "manual", b.created_ms, batch, w.window_key)
        child = _Run(*head, parent=made.run_id, sla_ms=w.sla_ms, watchers=[made.run_id])
        self._create(child, w.wake_ms)
        self.by_window_key[b.tenant, b.dag_id, w.window_key] = w.run_id
        _add(made.counts, "queued", 1)
        self._queue(child, made.run_id, b.max_active_runs, b.created_ms, False)

    def _restart_child(self, b: NewBackfill, w: NewWindow, made: _Run, again: bool) -> None:
        child = self.runs[w.run_id]
        known = again and w.run_id not in made.kept
        self._restart(child, w.event, 1, w.dag_version, quiet=made.run_id, wake_ms=w.wake_ms)
        if not known:
            made.kept.discard(w.run_id)
            self._watch(made, child)
        self._queue(child, made.run_id, b.max_active_runs, b.created_ms, True)

    def _watch(self, made: _Run, child: _Run) -> None:
        if made.run_id not in child.watchers:
            child.watchers.append(made.run_id)
        _add(made.counts, child.state, 1)
        for task, letter in child.tasks.items():
            if letter != "p":
                _add(made.task_counts, (task, letter), 1)

    def _counts(self, run: _Run) -> dict[str, int]:
        found = {state: n for state, n in run.counts.items() if n}
        return found | {"skipped": len(run.kept)} if run.kept else found

    def _fire(self, f: Fire) -> FireResult:
        if not self._schedules(f.scheduler_epoch):
            return FireResult("fenced")
        dag = self.dag_rows.get((f.tenant, f.dag_id), _Dag())
        if dag.next_fire_ms != f.expected_ms:
            return FireResult("stale")
        if dag.paused:
            return FireResult("paused")
        if not all(self._holds(run) for run in f.runs):
            return FireResult("changed")
        self.replaced_runs |= self.live & set(f.replaces)
        stands = tuple(self._stand(run) for run in f.runs)
        dag.next_fire_ms, dag.next_due_ms = f.next_ms, f.next_due_ms or f.next_ms
        dag.fired_ms = f.last_ms or f.expected_ms
        for drop in f.dropped:
            dag.dropped[drop.reason] = dag.dropped.get(drop.reason, 0) + drop.count
            dag.dropped_ms, dag.dropped_why = drop.last_ms, drop.reason
        for name, n in f.counts:
            self.counters[name] += n
        return FireResult("ok", stands)

    # DAGs

    def _put_dag(self, d: PutDag) -> DagWritten:
        status, kept, reply = self._stored(d.idem)
        if status:
            return _replayed(status, kept, reply)
        dag = self.dag_rows.get((d.tenant, d.dag_id), _Dag())
        if dag.version != d.base_version:
            return DagWritten("changed", dag.version, dag.paused)
        listed = sum(t == d.tenant and not _kind(name) for t, name in self.dag_rows)
        if dag.version == 0 and not _kind(d.dag_id) and listed >= d.max_dags:
            return DagWritten("full")
        if dag.content_hash != d.content_hash:
            if way := self._circle(d):
                return DagWritten("circle", dag.version, dag.paused, " ".join(way).encode())
            dag.follows, dag.makes = d.follows, d.makes
            self.dag_rows[d.tenant, d.dag_id] = dag
            dag.version += 1
            dag.content_hash, dag.updated_ms = d.content_hash, d.now_ms
            dag.created_ms = dag.created_ms or d.now_ms
            dag.definitions[dag.version] = d.definition
            if d.next_fire_ms is not None:
                dag.next_fire_ms, dag.next_due_ms = d.next_fire_ms, d.next_due_ms or d.next_fire_ms
            self._sched.append(streams.DagChanged(d.tenant, d.dag_id, dag.version, dag.paused))
        self._store(d.idem, (dag.version, dag.paused))
        return DagWritten("ok", dag.version, dag.paused)

    def _circle(self, d: PutDag) -> list[str]:
        """The way on which the DAG would start itself."""
        ways = [[d.dag_id]]
        known = {d.dag_id}
        for way in ways:
            made = d.makes if way[-1] == d.dag_id else self.dag_rows[d.tenant, way[-1]].makes
            for source in (f"after/{way[-1]}", *(f"asset/{asset}" for asset in made)):
                if source in d.follows:
                    return [*way, d.dag_id]
                for follower in set(self._followers(d.tenant, source)) - known:
                    known.add(follower)
                    ways.append([*way, follower])
        return []

    def _gather(self, g: Gather) -> GatherResult:
        if not self._schedules(g.scheduler_epoch):
            return GatherResult("fenced")
        if self.documents[g.kind].get(g.key, b"") != g.expected:
            return GatherResult("stale")
        if g.dag_id:
            dag = self.dag_rows.get((g.tenant, g.dag_id), _Dag())
            if dag.version != g.dag_version or dag.paused != g.paused:
                return GatherResult("changed")
            if dag.archived != g.archived and any(n.window_key for n in g.runs):
                return GatherResult("changed")
        standing = {n.window_key: self.by_window_key.get((g.tenant, g.dag_id, n.window_key)) for n in g.runs}
        going = {key for key, i in standing.items() if i and self.runs[i].state not in {*TERMINAL, "queued"}}
        if going:
            return GatherResult("busy", busy=tuple(n.window_key for n in g.runs if n.window_key in going))
        runs = tuple(self._stand(n) for n in g.runs)
        if runs:
            self.counters[f"triggered_runs_total|{g.dag_id}"] += len(runs)
        self.documents[g.kind][g.key] = g.record
        return GatherResult("ok", runs)

    def _set_paused(self, tenant: str, dag_id: str, paused: bool, now_ms: int, idem: StoredReply | None) -> DagWritten:
        status, kept, reply = self._stored(idem)
        if status:
            return _replayed(status, kept, reply)
        dag = self.dag_rows.get((tenant, dag_id))
        if dag is None:
            return DagWritten("missing")
        if dag.paused != paused:
            dag.paused, dag.updated_ms = paused, now_ms
            self._sched.append(streams.DagChanged(tenant, dag_id, dag.version, paused))
        self._store(idem, (dag.version, paused))
        return DagWritten("ok", dag.version, paused)

    def _dag_row(self, tenant: str, dag_id: str) -> DagRow:
        dag = self.dag_rows[tenant, dag_id]
        return DagRow(
            tenant=tenant,
            dag_id=dag_id,
            version=dag.version,
            paused=dag.paused,
            content_hash=dag.content_hash,
            created_ms=dag.created_ms,
            updated_ms=dag.updated_ms,
            next_fire_ms=dag.next_fire_ms or None,
            next_due_ms=dag.next_due_ms or None,
            fired_ms=dag.fired_ms,
            definition=dag.definitions[dag.version],
            run_counts={state: n for state, n in self.run_counts[tenant, dag_id].items() if n},
            dropped=dict(dag.dropped),
            dropped_ms=dag.dropped_ms,
            dropped_why=dag.dropped_why,
            archived=dag.archived,
        )

    # time and replies

    def _cron(self) -> dict[tuple[str, str], int]:
        return {key: dag.next_due_ms for key, dag in self.dag_rows.items() if dag.next_fire_ms and not dag.paused}

    def _pop_timers(self, epoch: int, now_ms: int, limit: int) -> int:
        if not self._schedules(epoch):
            raise Fenced("scheduler", epoch, self.owners["scheduler"].epoch)
        due = sorted((at, kind, run_id) for (kind, run_id), at in self.timers.items() if at <= now_ms)[:limit]
        inboxes: dict[str, list[streams.InboxItem]] = {}
        for at, kind, run_id in due:
            del self.timers[kind, run_id]
            run = self.runs.get(run_id)
            if run is None or run.state in TERMINAL:
                continue
            if run.owner:
                inboxes.setdefault(run.owner, []).append(streams.TimerFired(run_id, kind, at))
            else:
                self._sched.append(streams.Wake(run_id, kind))
        for owner, items in inboxes.items():
            self._write(streams.inbox(owner), codec.encode_items(items))
        return len(due)

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


def _add(counts: dict[T, int], key: T, n: int) -> None:
    counts[key] = counts.get(key, 0) + n


def _restarts(policy: str, state: str) -> bool:
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
        if field in self or len(self) < p.METRICS_MAX or of_nobody:
            super().__setitem__(field, n)
            return
        field = f"{metric}|{p.METRICS_OTHER}{more}{last}"
        super().__setitem__(field, self.get(field, 0) + n)


def _kind(dag_id: str) -> str:
    """Of a definition that is nobody's DAG; "" for a DAG."""
    return dag_id.partition("/")[0] if dag_id.startswith("@") else ""


def _replayed(status: str, kept: object, reply: bytes) -> DagWritten:
    if isinstance(kept, tuple):
        return DagWritten(status, kept[0], kept[1], reply)
    return DagWritten(status)


def _backwards(item: streams.SchedItem) -> streams.SchedItem:
    if isinstance(item, streams.RunsCreated):
        return msgspec.structs.replace(item, run_ids=item.run_ids[::-1], versions=item.versions[::-1])
    return item
