"""The journal in memory: the twin of `actors/journal.py`, step for step.

Its steps are in `memory_ledger.py`, `memory_creations.py` and `memory_steps.py`; here is what readers and shells ask.
It passes the same conformance suite, so what a test shows with it holds for the real one. `failing` makes
the next steps raise JournalUnavailable, before or after they took effect (an answer that got lost).
Waiting in `tail` is real asyncio waiting; nothing else takes time.
"""

from __future__ import annotations

import asyncio
import bisect
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from orchestrator import codec, rows, steps, streams
from tests.memory_ledger import KeptDag, KeptOwner, KeptRun, kind_of
from tests.memory_steps import Steps


class MemoryJournal(Steps):
    """`ports.Journal` without a server."""

    async def take_epoch(self, owner: str) -> int:
        def step() -> int:
            row = self.owners[owner]
            row.epoch, row.turn, row.reply, row.term = row.epoch + 1, 0, [], self.lease.term
            return row.epoch

        return self._step(step)

    async def owner(self, owner: str) -> rows.OwnerRow:
        row = self.owners.get(owner, KeptOwner())
        return self._step(lambda: rows.OwnerRow(row.epoch, row.turn, row.cursor))

    async def commit(self, commit: steps.Commit) -> list[steps.CommitResult]:
        return self._step(lambda: self._commit(commit))

    async def owned(self, owner: str) -> list[str]:
        return self._step(lambda: sorted(r.run_id for r in self.runs.values() if r.owner == owner))

    async def create_runs(self, creations: Sequence[steps.Creation]) -> list[steps.CreationResult]:
        return self._step(lambda: self._create_runs(creations))

    async def create_backfill(self, backfill: steps.NewBackfill) -> steps.BackfillResult:
        return self._step(lambda: self._create_backfill(backfill))

    async def fire(self, fire: steps.Fire) -> steps.FireResult:
        return self._step(lambda: self._fire(fire))

    async def live_fires(self, tenant: str, dag_id: str) -> dict[str, str]:
        live = [self.runs[run_id] for run_id in sorted(self.live) if run_id in self.runs]
        return self._step(lambda: {r.run_id: r.state for r in live if (r.tenant, r.dag_id) == (tenant, dag_id)})

    async def replaced(self) -> list[str]:
        return self._step(lambda: sorted(self.replaced_runs))

    async def gather(self, gather: steps.Gather) -> steps.GatherResult:
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

    async def put_dag(self, dag: steps.PutDag) -> steps.DagWritten:
        return self._step(lambda: self._put_dag(dag))

    async def set_paused(
        self, tenant: str, dag_id: str, paused: bool, now_ms: int, idem: steps.StoredReply | None = None
    ) -> steps.DagWritten:
        return self._step(lambda: self._set_paused(tenant, dag_id, paused, now_ms, idem))

    async def dag(self, tenant: str, dag_id: str) -> rows.DagRow | None:
        return self._step(lambda: self._dag_row(tenant, dag_id) if (tenant, dag_id) in self.dag_rows else None)

    async def dags(self, tenant: str, after: str, limit: int) -> list[rows.DagRow]:
        names = sorted(d for t, d in self.dag_rows if t == tenant and d > after and not kind_of(d))
        return self._step(lambda: [self._dag_row(tenant, d) for d in names[:limit]])

    async def definition(self, tenant: str, dag_id: str, version: int) -> bytes | None:
        dag = self.dag_rows.get((tenant, dag_id), KeptDag())
        return self._step(lambda: dag.definitions.get(version))

    async def summary(self, run_id: str) -> rows.RunRow | None:
        return self._step(lambda: self.runs[run_id].row() if run_id in self.runs else None)

    async def summaries(self, wanted: rows.RunFilter, cursor: str | None, limit: int) -> rows.RunPage:
        def fits(run: KeptRun) -> bool:
            listed = wanted.parent is None or run.run_id in self.runs[wanted.parent].children
            return (
                run.tenant == wanted.tenant
                and kind_of(run.dag_id) == wanted.kind
                and listed
                and wanted.dag_id in (None, run.dag_id)
                and wanted.state in (None, run.state)
                and wanted.run_type in (None, run.run_type)
            )

        if wanted.parent is not None and wanted.parent not in self.runs:
            return rows.RunPage((), None)
        before = [run for run in self.runs.values() if (cursor is None or run.place < cursor) and fits(run)]
        found = sorted(before, key=lambda run: run.place, reverse=True)
        more = found[limit - 1].place if len(found) > limit else None
        return self._step(lambda: rows.RunPage(tuple(run.row() for run in found[:limit]), more))

    async def state_counts(self, tenant: str, kind: str) -> dict[str, int]:
        return self._step(
            lambda: dict(
                Counter(r.state for r in self.runs.values() if (r.tenant, kind_of(r.dag_id)) == (tenant, kind))
            )
        )

    async def tasks(self, run_id: str) -> dict[str, str]:
        return self._step(lambda: dict(self.runs[run_id].tasks) if run_id in self.runs else {})

    async def look(self, run_id: str) -> tuple[rows.RunRow, dict[str, str]] | None:
        def step() -> tuple[rows.RunRow, dict[str, str]] | None:
            run = self.runs.get(run_id)
            return None if run is None else (run.row(), dict(run.tasks))

        return self._step(step)

    async def events(self, run_id: str, after: int, limit: int) -> list[rows.EventBatch]:
        def step() -> list[rows.EventBatch]:
            batches = self.runs[run_id].events if run_id in self.runs else []
            first = bisect.bisect_right([b.last_version for b in batches], after)
            return batches[first : first + limit]

        return self._step(step)

    async def load(self, run_ids: Sequence[str]) -> list[rows.History]:
        return self._step(
            lambda: [rows.History(self.runs[i].row(), tuple(self.runs[i].events)) for i in run_ids if i in self.runs]
        )

    async def by_window(self, tenant: str, dag_id: str, window_keys: Sequence[str]) -> dict[str, rows.RunRow]:
        ids = {key: self.by_window_key.get((tenant, dag_id, key)) for key in window_keys}
        return self._step(lambda: {key: self.runs[i].row() for key, i in ids.items() if i})

    async def backfill_by_window(self, tenant: str, dag_id: str, window_key: str) -> rows.RunRow | None:
        found = self.backfills_by_key.get((tenant, dag_id, window_key))
        return self._step(lambda: self.runs[found].row() if found else None)

    async def children(self, backfill: str, limit: int | None = None) -> list[rows.ChildRow]:
        if backfill not in self.runs:
            return []
        parent = self.runs[backfill]
        runs = [self.runs[i] for i in parent.children[:limit]]
        return self._step(
            lambda: [
                rows.ChildRow(r.run_id, r.window_key, r.state, r.version, r.run_id in parent.kept, r.dag_version)
                for r in runs
            ]
        )

    async def called(self, run_id: str) -> dict[str, rows.RunRow]:
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

    async def queued_and_active(self) -> list[rows.RunRow]:
        return self._step(
            lambda: [
                run.row() for _, run in sorted(self.runs.items()) if not run.holder and run.state not in rows.TERMINAL
            ]
        )

    async def erase(self, run_ids: Sequence[str]) -> int:
        return self._step(lambda: sum(self._erase(run_id) for run_id in run_ids))

    async def ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[rows.RunRow]:
        return self._step(lambda: self._ended(instant_ms, backfills=False)[skip : skip + limit])

    async def backfills_ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[rows.RunRow]:
        return self._step(lambda: self._ended(instant_ms, backfills=True)[skip : skip + limit])

    def _ended(self, instant_ms: int, *, backfills: bool) -> list[rows.RunRow]:
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

    async def restore(self, shelved: Sequence[tuple[rows.History, Mapping[str, str]]]) -> int:
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
            known = self.signs.get(run_id, rows.Beat(run_id, 0, 0))
            self.signs[run_id] = rows.Beat(run_id, pid or known.pid, at_ms, known.kept)

        self._step(step)

    async def beats(self) -> list[rows.Beat]:
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
                return self._step(lambda found=found: found)  # type: ignore[misc]  # a default binds the loop's variable
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

    async def due_crons(self, now_ms: int, limit: int = 1000) -> list[rows.DueCron]:
        due = [rows.DueCron(t, d, at) for (t, d), at in self._cron().items() if at <= now_ms]
        return self._step(lambda: sorted(due, key=lambda c: (c.due_ms, c.tenant, c.dag_id))[:limit])

    async def next_due(self) -> int | None:
        return self._step(lambda: min([*self.timers.values(), *self._cron().values()], default=None))

    async def ask_leave(self, key: str, most: int, window_ms: int) -> int:
        now_s = asyncio.get_running_loop().time()
        return self._step(lambda: math.ceil(self.windows.ask_leave(key, most, window_ms / 1000, now_s) * 1000))

    async def stored_reply(self, key: str) -> steps.StoredReply | None:
        found = self.replies.get(key)
        return self._step(lambda: steps.StoredReply(key, found[0], found[2]) if found else None)

    async def store_reply(self, reply: steps.StoredReply) -> None:
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
