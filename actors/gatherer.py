"""Starts runs because of what others did: DAGs that succeeded, assets that were updated. In the scheduler's process.

    commit of a RunActor ─▶ inbox of TRIGGERS ─▶ who follows? ─▶ `awaited.take` ─▶ one journal step for each DAG ─▶ trim
                                                     ▲
    a DAG resumes, or a run of it ends (`heard`) ────┘  for DAGs for which something waits

What happened is in the commit that made it happen, so none is lost. What a DAG has gathered is one record, with the
place in the stream up to which it was told; the journal writes it in the very step that creates the runs, provided it
is still as it was read. So whatever dies in between, and however often an entry is read, each fact is consumed once;
entries are forgotten when everybody concerned has been told. A former scheduler is refused by its epoch.

A window whose run left for the archive gets that run back first, as from every other creator, and then it starts again
like one that never left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from actors.clock import Clock
from actors.hosted import milliseconds
from orchestrator import awaited, codec, errors
from orchestrator import events as e
from orchestrator.awaited import AssetLog, Fact, Gathered, Start, Update
from orchestrator.deadlines import wake_ms
from orchestrator.definition import Definition, Window
from orchestrator.messages import Cause
from orchestrator.partitions import SET
from orchestrator.ports import Journal
from orchestrator.records import GATHERED, assets_of, gathered_key
from orchestrator.rows import EVENT, TERMINAL, DagRow
from orchestrator.steps import Gather, NewRun
from orchestrator.streams import TRIGGERS, DagChanged, Entry, Produced, RunMoved, SchedItem, Succeeded, inbox, place

_log = logging.getLogger(__name__)

#: milliseconds that the journal is asked to wait for a fact
BLOCK_MS = 10_000
#: seconds until the journal is asked again after it did not answer
AGAIN_S = 0.5
#: seconds between looks at DAGs for which something waits, should nobody tell that they can go on
LOOK_S = 30.0
#: windows whose runs start in one step: a bound on how long the journal is held
RUNS_MAX = 2000

#: tenant and DAG
Key = tuple[str, str]


class Gatherer:
    """Reads facts and starts runs. `run` and `review` never return; both raise Fenced when a newer scheduler exists."""

    def __init__(self, journal: Journal, clock: Clock, scheduler_epoch: int, home: str) -> None:
        self._journal = journal
        #: of the archive
        self._home = home
        self._clock = clock
        self._epoch = scheduler_epoch
        #: DAGs for which something waits, or may in a moment
        self._waiting: set[Key] = set()
        #: those of them to be looked at now
        self._due: set[Key] = set()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    def heard(self, item: SchedItem) -> None:
        """A DAG may have been resumed, or a run of it ended: what waits for it may go on."""
        if isinstance(item, DagChanged) or (isinstance(item, RunMoved) and item.after in TERMINAL):
            key = (item.tenant, item.dag_id)
            if key in self._waiting:
                self._due.add(key)
                self._news.set()

    async def run(self) -> None:
        """Take facts as they come."""
        while True:
            try:
                if entries := await self._journal.tail(inbox(TRIGGERS), "0-0", BLOCK_MS):
                    async with self._turn:
                        await self._take(entries)
                    await self._journal.trim(inbox(TRIGGERS), entries[-1].cursor)
            except errors.Unavailable as unavailable:
                _log.warning("triggers: %s", unavailable)
                await asyncio.sleep(AGAIN_S)

    async def review(self) -> None:
        """Look at DAGs for which something waits; first at all for which something did when the last scheduler died."""
        fresh = True
        while True:
            try:
                if fresh:
                    await self._find_waiting()
                    fresh = False
                while self._due:
                    async with self._turn:
                        await self._look(min(self._due))
            except errors.Unavailable as unavailable:
                _log.warning("triggers: %s", unavailable)
                await asyncio.sleep(AGAIN_S)
                continue
            await self._wait()

    async def _look(self, key: Key) -> None:
        self._due.discard(key)  # before it is read: what is heard meanwhile makes it due again
        try:
            await self._gather(*key, (), "")
        except errors.Unavailable:
            self._due.add(key)
            raise

    async def _wait(self) -> None:
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), LOOK_S)
        except TimeoutError:
            self._due |= self._waiting

    async def _find_waiting(self) -> None:
        for key, record in (await self._journal.records(GATHERED)).items():
            if codec.decode_document(record, Gathered).pending:
                tenant, _, dag_id = key.rpartition("|")
                self._waiting.add((tenant, dag_id))
        self._due |= self._waiting

    # ── facts ─────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Everybody concerned is told of them, durably."""
        facts: dict[tuple[str, str], list[tuple[str, Fact]]] = defaultdict(list)
        updates: dict[tuple[str, str], list[tuple[str, Update]]] = defaultdict(list)
        for entry in entries:
            for item in codec.decode_inbox(entry.item):
                if isinstance(item, Succeeded):
                    fact = _success(item)
                    facts[item.tenant, fact.source].append((entry.cursor, fact))
                elif isinstance(item, Produced):
                    for name in item.assets:
                        cause = Cause("asset", name, item.run_id, item.task, item.attempt)
                        source = awaited.asset(name)
                        facts[item.tenant, source].append((entry.cursor, Fact(source, cause)))
                        updates[item.tenant, name].append((entry.cursor, Update(cause, item.dag_id, item.at_ms)))
        seen = entries[-1].cursor
        for (tenant, name), told in updates.items():
            await self._note_updates(tenant, name, told, seen)
        for key, told_to in (await self._concerned(facts)).items():
            await self._gather(*key, told_to, seen)

    async def _concerned(
        self, facts: dict[tuple[str, str], list[tuple[str, Fact]]]
    ) -> dict[Key, list[tuple[str, Fact]]]:
        """DAGs that follow, and what each is told, in the order of the stream."""
        told: dict[Key, list[tuple[str, Fact]]] = defaultdict(list)
        for (tenant, source), found in facts.items():
            for dag_id in await self._journal.followers(tenant, source):
                told[tenant, dag_id] += found
        return {key: sorted(told[key], key=lambda each: place(each[0])) for key in sorted(told)}

    async def _note_updates(self, tenant: str, name: str, told: Iterable[tuple[str, Update]], seen: str) -> None:
        """The asset's log has them."""
        while True:
            record = await self._journal.record(assets_of(tenant), name) or b""
            log = codec.decode_document(record, AssetLog) if record else AssetLog()
            new = [update for cursor, update in told if place(cursor) > place(log.seen)]
            if not new:
                return
            document = codec.encode_document(awaited.updated(log, new, seen))
            step = Gather(
                scheduler_epoch=self._epoch, kind=assets_of(tenant), key=name, expected=record, record=document
            )
            if await self._write(step) == "ok":
                return

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    async def _gather(self, tenant: str, dag_id: str, told: Sequence[tuple[str, Fact]], seen: str) -> None:
        """The DAG is told, and what starts because of that, and of what waited, exists; `seen` "" = nothing new."""
        busy: set[str] = set()
        later: set[str] = set()
        self._waiting.add((tenant, dag_id))  # what is heard from now on may be about what is read next
        while True:
            row = await self._journal.dag(tenant, dag_id)
            record = await self._journal.record(GATHERED, gathered_key(tenant, dag_id)) or b""
            before = codec.decode_document(record, Gathered) if record else Gathered()
            if row is None:
                return
            definition = codec.decode_definition(row.definition)
            facts = [fact for cursor, fact in told if place(cursor) > place(before.seen)]
            told_to = max(before.seen, seen or before.seen, key=place)
            after, starts = awaited.take(before, definition, facts, told_to, paused=row.paused, busy=busy | later)
            if over := {start.window_key for start in starts[RUNS_MAX:] if start.window_key} - later:
                later |= over
                continue
            if after.pending == before.pending and not facts and not starts:
                break
            await self._bring_back(row, starts)
            step = self._step(row, definition, record, after, starts)
            result = await self._journal.gather(step)
            busy |= set(result.busy)
            if self._is_done(result.status):
                started = " ".join(run.run_id for run in result.runs[:3])
                _log.info("%s was told %d facts: %d runs %s", dag_id, len(facts), len(result.runs), started)
                if not later:
                    break
                later.clear()
        if not after.pending:
            self._waiting.discard((tenant, dag_id))

    async def _bring_back(self, row: DagRow, starts: Sequence[Start]) -> None:
        """The runs of their windows are in the journal. What leaves after `row` was read refuses the step."""
        keys = [start.window_key for start in starts if start.window_key]
        if row.archived and keys:
            from actors import archive_store, archived_windows  # SQLite is not needed before something leaves

            store = archive_store.ArchiveStore(self._home)
            await archived_windows.ArchivedWindows(self._journal, store).bring_back(row.tenant, row.dag_id, keys)

    async def _write(self, step: Gather) -> str:
        result = await self._journal.gather(step)
        self._is_done(result.status)
        return result.status

    def _is_done(self, status: str) -> bool:
        """Raises Fenced."""
        if status == "fenced":
            raise errors.Fenced("scheduler", self._epoch, self._epoch + 1)
        return status == "ok"

    def _step(
        self, row: DagRow, definition: Definition, record: bytes, after: Gathered, starts: Sequence[Start]
    ) -> Gather:
        now = self._clock.now()
        return Gather(
            scheduler_epoch=self._epoch,
            kind=GATHERED,
            key=gathered_key(row.tenant, row.dag_id),
            expected=record,
            record=codec.encode_document(after),
            tenant=row.tenant,
            dag_id=row.dag_id,
            dag_version=row.version,
            paused=row.paused,
            archived=row.archived,
            runs=tuple(self._new_run(row, definition, start, now) for start in starts),
        )

    def _new_run(self, row: DagRow, definition: Definition, start: Start, now: datetime) -> NewRun:
        """A run, or the next life of the one that stands for the window."""
        run_id, now_ms = self._clock.new_run_id(), milliseconds(now)
        created = e.RunCreated(
            at=now,
            run_id=run_id,
            tenant=row.tenant,
            dag_id=row.dag_id,
            dag_version=row.version,
            run_type="manual",
            window=Window.of_key(start.window_key) if start.window_key else None,
            triggered_by=start.causes,
        )
        return NewRun(
            run_id=run_id,
            tenant=row.tenant,
            dag_id=row.dag_id,
            dag_version=row.version,
            run_type="manual",
            created_ms=now_ms,
            event=codec.encode_events([created]),
            window_key=start.window_key,
            sla_ms=now_ms + definition.sla_s * 1000 if definition.sla_s else None,
            wake_ms=wake_ms(definition, now_ms),
            reprocess="completed",
            restart_event=codec.encode_events([e.RunRestarted(now, row.version, start.causes)]),
            restart_version=row.version,
            because=codec.encode_causes(start.causes),
        )


def _success(item: Succeeded) -> Fact:
    """Runs of events and over sets of partitions have a key, and no window."""
    window = "" if item.window_key.startswith((EVENT, SET)) else item.window_key
    return Fact(awaited.after(item.dag_id), Cause("dag", item.dag_id, item.run_id, attempt=item.attempt), window)
