"""The journal over the Redis protocol: Valkey or Redis >= 7, one server, not a cluster.

Every step is one script with one MessagePack argument (`scripts/`), so it is atomic and costs one round
trip; the server wraps what a script wrote in MULTI/EXEC in its append-only file, so a crash keeps all of
it or nothing. What `Journal` answers has been fsynced when the server runs `appendfsync always`.

    run:<id>     hash: v(ersion) own(er) st(ate) t(enant) d(ag) dv(ersion) rt (run type) wk (window key) par(ent)
                 at(tempts)  cr sa fi sla (epoch ms)  err  wb (backfills that watch it; when absent, par)
                 hd (who holds it from the start; it is in neither `queued` nor `active`)
                 hr (version of its HistoryRemoved) sm (missed SLAs: "" or a task, each followed by |)
                 by (causes of one that started by itself, as JSON)
                 of backfills: mar (cap) bw (backwards) ph (plan hash) was (keys before it became wider, a line each)
    ev:<id>      stream of event batches; entry id = <version of its last event>-0; s(chema), e(vents)
    tk:<id>      hash task -> letter; a task that is not there is pending
    calls:<id>   hash task -> run that it calls, or called last
    dag:<t>:<d>  hash   dagv:<t>:<d>  hash version -> JSON   dags:<t>  zset   rc:<t>:<d>  hash run state -> runs
                 (next_fire: where its schedule stands; due: when that fire happens; fired; dropped|<reason>,
                 dropped_at, dropped_why: fires that started nothing; archived: windows that left for an archive)
                 (follows, makes: what starts runs of it, and the assets that its tasks update, apart by spaces)
    fol:<t>:<s>  set of DAGs that a source (after/<d>, asset/<asset>, event/<name>) starts
    mk:<t>:<asset>  set of DAGs that update it   assets:<t> set of assets that DAGs name
    once:<t>     hash event that was told -> its runs
    live:<t>:<d> set of runs that fires made and that have not ended   replaced  set of those a later fire replaced
    alone:<t>    hash definition -> the run of it that was created last with `alone`
    beats        set of instances   beat:<id>  hash: pid at (epoch ms) kept (version that the plan's files tell)
    win:<t>:<d>  hash window -> run      bfw:<t>:<d>  hash window -> backfill
    bf:<id>      list of a backfill's runs by date   bfk:<id> set of kept ones   bfc:<id> hash state -> windows
    bft:<id>     hash "task|letter" -> windows
    i:<t>  i:<t>:s:<st>  i:<t>:d:<d>  i:<t>:d:<d>:s:<st>  i:p:<backfill>
                 zsets of places (a run's id, with `run_` before it), score 0: order of creation. Runs of definitions
                 that are nobody's DAG (`@kind/…`) are in lists of their own, where <t> is `@kind:tenant`. The place
                 of a held run is `run_<cr>|<id>`, for its id may not ascend
    own:<actor>  set of runs   owner:<actor>  hash epoch, turn, reply, cursor   in:<actor>  stream
    sched, feed  streams       timers, cron   zsets by epoch ms   queued, active  sets   metrics  hash
    quota:<key>  creations counted
    ended        zset by epoch ms, of runs with all their history; neither backfills nor held runs
    ended|backfill  the same of backfills   released  set of backfills that are archived, which windows still name
    idem:<key>   fingerprint, newline, reply; for 24 h          log:<run>:<task>:<attempt>  list, written by workers
    rec:<kind>   hash key -> record      ln:<run>  list of lines
    rate:<key>   list of the instants (epoch ms, of the server) of its last requests; for one window

Reads and creations are tried again on a lost connection until their deadline; a commit is tried once.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Any, TypeVar

import hiredis

from actors.link import Link
from actors.stored_rows import (
    in_pairs,
    read_batch,
    read_dag,
    read_due,
    read_history,
    read_row,
    read_written,
    text_of,
    texts_of,
)
from orchestrator import codec, step_codec
from orchestrator.errors import Broken, Fenced, JournalUnavailable
from orchestrator.events import SCHEMA
from orchestrator.rows import (
    STATES,
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
    BackfillResult,
    Commit,
    CommitResult,
    Creation,
    CreationResult,
    DagWritten,
    Fire,
    FireResult,
    Gather,
    GatherResult,
    NewBackfill,
    PutDag,
    StoredReply,
)
from orchestrator.streams import FEED, PARTING, SCHED, Entry

T = TypeVar("T")

_DEADLINE_S = 5.0
_PING_S = 1.0
_LEAVE_S = 1.0
_BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.5)
#: index entries one page may look at
_SCAN_LIMIT = 20_000
#: runs read by one script: a bound on how long the server is held
_LOAD_CHUNK = 250
_ROWS_CHUNK = 2_000
#: more patience for each window of a backfill
_WINDOW_S = 0.0003
#: as in ledger.lua
_REPLY_TTL_MS = 86_400_000
_SCHEMA = str(SCHEMA).encode()


class Script:
    """One script with its preludes; sent by digest, in full when the server does not know it."""

    def __init__(self, *names: str) -> None:
        folder = resources.files(__package__) / "scripts"
        self.source = "\n".join((folder / f"{name}.lua").read_text() for name in ("ledger", *names))
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Journal:
    """`ports.Journal` over one server."""

    def __init__(self, url: str, deadline_s: float = _DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._url = url
        self._link = Link(url, deadline_s)
        #: a blocking read holds its connection, so each tailed stream has one of its own
        self._tails: dict[str, Link] = {}
        self._take_epoch = Script("take_epoch")
        self._commit = Script("commit")
        self._create_runs = Script("creation", "create_runs")
        self._create_backfill = Script("creation", "create_backfill")
        self._fire = Script("creation", "fire")
        self._live_fires = Script("live_fires")
        self._gather = Script("creation", "gather")
        self._put_dag = Script("put_dag")
        self._set_paused = Script("set_paused")
        self._dags = Script("dags")
        self._rows = Script("rows")
        self._windows = Script("windows")
        self._page = Script("page")
        self._children = Script("children")
        self._counts = Script("counts")
        self._look = Script("look")
        self._load = Script("load")
        self._count = Script("count")
        self._pop_timers = Script("pop_timers")
        self._beat = Script("beat")
        self._beats = Script("beats")
        self._keep = Script("keep")
        self._erase = Script("erasing", "erase")
        self._release = Script("erasing", "release")
        self._disband = Script("disband")
        self._restore = Script("restore")
        self._ended_before = Script("ended_before")
        self._remove_history = Script("remove_history")
        self._put_records = Script("put_records")
        self._add_lines = Script("add_lines")
        self._ask_leave = Script("ask_leave")

    async def take_epoch(self, owner: str) -> int:
        return int(await self._run(self._take_epoch, step_codec.pack(owner)))

    async def owner(self, owner: str) -> OwnerRow:
        epoch, turn, cursor = await self._ask("HMGET", f"owner:{owner}", "epoch", "turn", "cursor")
        return OwnerRow(int(epoch or 0), int(turn or 0), text_of(cursor) or "0-0")

    async def commit(self, commit: Commit) -> list[CommitResult]:
        word, rest = await self._once(self._script(self._commit, step_codec.pack_commit(commit)))
        if word == b"ok":
            return step_codec.unpack_commit_results(rest)
        if word == b"fenced":
            raise Fenced(commit.owner, commit.epoch, int(rest))
        raise Broken(f"{commit.owner}: turn {commit.turn} of epoch {commit.epoch} came after turn {int(rest)}")

    async def owned(self, owner: str) -> list[str]:
        return sorted(text_of(i) for i in await self._ask("SMEMBERS", f"own:{owner}"))

    async def create_runs(self, creations: Sequence[Creation]) -> list[CreationResult]:
        return step_codec.unpack_creation_results(
            await self._run(self._create_runs, step_codec.pack_creations(creations))
        )

    async def create_backfill(self, backfill: NewBackfill) -> BackfillResult:
        patience_s = self._deadline_s + len(backfill.windows) * _WINDOW_S
        found = await self._run(self._create_backfill, step_codec.pack_backfill(backfill), patience_s)
        return step_codec.unpack_backfill_result(found)

    async def fire(self, fire: Fire) -> FireResult:
        return step_codec.unpack_fire_result(await self._run(self._fire, step_codec.pack_fire(fire)))

    async def live_fires(self, tenant: str, dag_id: str) -> dict[str, str]:
        found = await self._run(self._live_fires, step_codec.pack([tenant, dag_id]))
        return {text_of(run_id): text_of(state) for run_id, state in in_pairs(found)}

    async def replaced(self) -> list[str]:
        return sorted(text_of(i) for i in await self._ask("SMEMBERS", "replaced"))

    async def gather(self, gather: Gather) -> GatherResult:
        return step_codec.unpack_gather_result(await self._run(self._gather, step_codec.pack_gather(gather)))

    async def followers(self, tenant: str, source: str) -> list[str]:
        return await self._members(f"fol:{tenant}:{source}")

    async def makers(self, tenant: str, asset: str) -> list[str]:
        return await self._members(f"mk:{tenant}:{asset}")

    async def assets(self, tenant: str) -> list[str]:
        return await self._members(f"assets:{tenant}")

    async def put_dag(self, dag: PutDag) -> DagWritten:
        return read_written(await self._run(self._put_dag, step_codec.pack_dag(dag)))

    async def set_paused(
        self, tenant: str, dag_id: str, paused: bool, now_ms: int, idem: StoredReply | None = None
    ) -> DagWritten:
        return read_written(
            await self._run(self._set_paused, step_codec.pack_paused(tenant, dag_id, paused, now_ms, idem))
        )

    async def dag(self, tenant: str, dag_id: str) -> DagRow | None:
        found = await self._run(self._dags, step_codec.pack([tenant, [dag_id]]))
        return read_dag(tenant, found[0]) if found else None

    async def dags(self, tenant: str, after: str, limit: int) -> list[DagRow]:
        return [
            read_dag(tenant, d) for d in await self._run(self._dags, step_codec.pack([tenant, False, after, limit]))
        ]

    async def definition(self, tenant: str, dag_id: str, version: int) -> bytes | None:
        found: bytes | None = await self._ask("HGET", f"dagv:{tenant}:{dag_id}", str(version))
        return found

    async def summary(self, run_id: str) -> RunRow | None:
        rows = await self._run(self._rows, step_codec.pack([run_id]))
        return read_row(rows[0]) if rows[0] else None

    async def summaries(self, wanted: RunFilter, cursor: str | None, limit: int) -> RunPage:
        step = [
            wanted.tenant,
            wanted.dag_id or "",
            wanted.state or "",
            wanted.run_type or "",
            wanted.parent or "",
            cursor or "",
            limit,
            _SCAN_LIMIT,
            wanted.kind,
        ]
        following, rows = await self._run(self._page, step_codec.pack(step))
        return RunPage(tuple(read_row(r) for r in rows), text_of(following) or None)

    async def state_counts(self, tenant: str, kind: str) -> dict[str, int]:
        lists = f"i:{kind}:{tenant}" if kind else f"i:{tenant}"
        asked = (self._ask("ZCARD", f"{lists}:s:{state}") for state in STATES)
        counts = await asyncio.gather(*asked)
        return {state: count for state, count in zip(STATES, counts, strict=True) if count}

    async def tasks(self, run_id: str) -> dict[str, str]:
        return texts_of(await self._ask("HGETALL", f"tk:{run_id}"))

    async def look(self, run_id: str) -> tuple[RunRow, dict[str, str]] | None:
        found = await self._run(self._look, step_codec.pack(run_id))
        return (read_row(found[0]), texts_of(found[1])) if found else None

    async def events(self, run_id: str, after: int, limit: int) -> list[EventBatch]:
        found = await self._ask("XRANGE", f"ev:{run_id}", f"{after + 1}-0", "+", "COUNT", str(limit))
        return [read_batch(entry) for entry in found]

    async def load(self, run_ids: Sequence[str]) -> list[History]:
        return [
            read_history(h)
            for chunk in _chunks(run_ids, _LOAD_CHUNK)
            for h in await self._run(self._load, step_codec.pack(chunk))
        ]

    async def by_window(self, tenant: str, dag_id: str, window_keys: Sequence[str]) -> dict[str, RunRow]:
        found = {}
        for chunk in _chunks(window_keys, _ROWS_CHUNK):
            rows = await self._run(self._windows, step_codec.pack([tenant, dag_id, chunk, False]))
            found.update({key: read_row(row) for key, row in zip(chunk, rows, strict=True) if row})
        return found

    async def backfill_by_window(self, tenant: str, dag_id: str, window_key: str) -> RunRow | None:
        rows = await self._run(self._windows, step_codec.pack([tenant, dag_id, [window_key], True]))
        return read_row(rows[0]) if rows[0] else None

    async def children(self, backfill: str, limit: int | None = None) -> list[ChildRow]:
        found: list[ChildRow] = []
        wanted = limit if limit is not None else await self._ask("LLEN", f"bf:{backfill}")
        for first in range(0, wanted, _ROWS_CHUNK):
            last = min(first + _ROWS_CHUNK, wanted) - 1
            rows = await self._run(self._children, step_codec.pack([backfill, first, last]))
            found += [ChildRow(text_of(i), text_of(w), text_of(s), v, kept == 1, dv) for i, w, s, v, kept, dv in rows]
            if len(rows) <= last - first:
                break
        return found

    async def called(self, run_id: str) -> dict[str, RunRow]:
        calls = texts_of(await self._ask("HGETALL", f"calls:{run_id}"))
        rows = await self._run(self._rows, step_codec.pack(list(calls.values()))) if calls else []
        return {task: read_row(row) for task, row in zip(calls, rows, strict=True) if row}

    async def child_counts(self, backfill: str) -> dict[str, int]:
        counts, kept = await self._run(self._counts, step_codec.pack(backfill))
        found = {state: int(n) for state, n in texts_of(counts).items()}
        return found | {"skipped": kept} if kept else found

    async def child_tasks(self, backfill: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for field, n in texts_of(await self._ask("HGETALL", f"bft:{backfill}")).items():
            task, _, letter = field.rpartition("|")
            found.setdefault(task, {})[letter] = int(n)
        return found

    async def queued_and_active(self) -> list[RunRow]:
        ids = await self._ask("SUNION", "queued", "active")
        rows: list[RunRow] = []
        for chunk in _chunks(sorted(text_of(i) for i in ids), _ROWS_CHUNK):
            rows += [read_row(r) for r in await self._run(self._rows, step_codec.pack(chunk)) if r]
        return [row for row in rows if row.state not in TERMINAL]

    async def erase(self, run_ids: Sequence[str]) -> int:
        return sum(
            [int(await self._run(self._erase, step_codec.pack(chunk))) for chunk in _chunks(run_ids, _LOAD_CHUNK)]
        )

    async def ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[RunRow]:
        return await self._ended("ended", instant_ms, limit, skip)

    async def backfills_ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[RunRow]:
        return await self._ended("ended|backfill", instant_ms, limit, skip)

    async def _ended(self, index: str, instant_ms: int, limit: int, skip: int) -> list[RunRow]:
        return [
            read_row(row)
            for row in await self._run(self._ended_before, step_codec.pack([instant_ms, limit, skip, index]))
        ]

    async def release(self, versions: Mapping[str, int]) -> set[str]:
        gone: set[str] = set()
        for chunk in _chunks(list(versions.items()), _LOAD_CHUNK):
            gone.update(text_of(run_id) for run_id in await self._run(self._release, step_codec.pack(chunk)))
        return gone

    async def disband(self, limit: int) -> int:
        return int(await self._run(self._disband, step_codec.pack(limit)))

    async def restore(self, shelved: Sequence[tuple[History, Mapping[str, str]]]) -> int:
        chunks = _chunks(shelved, _LOAD_CHUNK)
        return sum([int(await self._run(self._restore, step_codec.pack_shelved(chunk))) for chunk in chunks])

    async def remove_history(self, run_id: str, version: int, event: bytes) -> bool:
        return bool(await self._run(self._remove_history, step_codec.pack([run_id, version, event.decode()])))

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        await self._run(self._put_records, step_codec.pack_records(kind, records))

    async def record(self, kind: str, key: str) -> bytes | None:
        found: bytes | None = await self._ask("HGET", f"rec:{kind}", key)
        return found

    async def records(self, kind: str) -> dict[str, bytes]:
        return {text_of(key): record for key, record in in_pairs(await self._ask("HGETALL", f"rec:{kind}"))}

    async def add_lines(self, run_id: str, lines: Sequence[bytes]) -> int:
        return int(await self._once(self._script(self._add_lines, step_codec.pack_lines(run_id, lines))))

    async def lines(self, run_id: str, after: int, limit: int) -> list[bytes]:
        if limit <= 0:
            return []
        found: list[bytes] = await self._ask("LRANGE", f"ln:{run_id}", str(after), str(after + limit - 1))
        return found

    async def beat(self, run_id: str, pid: int, at_ms: int) -> None:
        await self._run(self._beat, step_codec.pack([run_id, pid, at_ms]))

    async def beats(self) -> list[Beat]:
        found = await self._run(self._beats, step_codec.pack(None))
        return [Beat(text_of(run_id), pid, at_ms, kept) for run_id, pid, at_ms, kept in found]

    async def keep(self, run_id: str, version: int) -> None:
        await self._run(self._keep, step_codec.pack([run_id, version]))

    async def forget(self, run_id: str) -> None:
        await self._run(self._keep, step_codec.pack([run_id, False]))

    async def position(self, stream: str) -> str:
        newest = await self._ask("XREVRANGE", stream, "+", "-", "COUNT", "1")
        return text_of(newest[0][0]) if newest else "0-0"

    async def tail(self, stream: str, cursor: str, block_ms: int, limit: int = 1000) -> list[Entry]:
        link = self._tails.setdefault(stream, Link(self._url, self._deadline_s))
        block = ("BLOCK", str(block_ms)) if block_ms > 0 else ()
        patience_s = self._deadline_s + block_ms / 1000
        asked = link.ask("XREAD", "COUNT", str(limit), *block, "STREAMS", stream, cursor, patience_s=patience_s)
        try:
            found = await self._once(asked)
        except asyncio.CancelledError:
            link.drop()
            raise
        return [Entry(text_of(i), fields[1]) for _, entries in found or () for i, fields in entries]

    async def trim(self, stream: str, cursor: str) -> None:
        milliseconds, _, sequence = cursor.partition("-")
        await self._ask("XTRIM", stream, "MINID", f"{milliseconds}-{int(sequence) + 1}")

    async def trim_news(self, age_ms: int) -> None:
        seconds, microseconds = await self._ask("TIME")
        oldest_ms = int(seconds) * 1000 + int(microseconds) // 1000 - age_ms
        for stream in (SCHED, FEED):
            await self._ask("XTRIM", stream, "MINID", str(oldest_ms))

    async def part(self) -> None:
        await self._ask("XADD", FEED, "*", "e", codec.encode_items([PARTING]))

    async def pop_timers(self, scheduler_epoch: int, now_ms: int, limit: int = 1000) -> int:
        popped = int(await self._run(self._pop_timers, step_codec.pack([scheduler_epoch, now_ms, limit])))
        if popped < 0:
            raise Fenced("scheduler", scheduler_epoch, -1 - popped)
        return popped

    async def due_crons(self, now_ms: int, limit: int = 1000) -> list[DueCron]:
        due = await self._ask("ZRANGEBYSCORE", "cron", "-inf", str(now_ms), "WITHSCORES", "LIMIT", "0", str(limit))
        return [read_due(text_of(member), score) for member, score in in_pairs(due)]

    async def next_due(self) -> int | None:
        first = [await self._ask("ZRANGE", key, "0", "0", "WITHSCORES") for key in ("timers", "cron")]
        return min((int(found[1]) for found in first if found), default=None)

    async def ask_leave(self, key: str, most: int, window_ms: int) -> int:
        asked = self._script(self._ask_leave, step_codec.pack([key, most, window_ms]))
        try:
            async with asyncio.timeout(_LEAVE_S):
                return int(await self._once(asked))
        except TimeoutError:
            raise JournalUnavailable(f"no answer within {_LEAVE_S:g} s") from None

    async def stored_reply(self, key: str) -> StoredReply | None:
        record = await self._ask("GET", f"idem:{key}")
        if record is None:
            return None
        fingerprint, _, reply = record.partition(b"\n")
        return StoredReply(key, fingerprint.decode(), reply)

    async def store_reply(self, reply: StoredReply) -> None:
        record = reply.fingerprint.encode() + b"\n" + reply.reply
        await self._ask("SET", f"idem:{reply.key}", record, "NX", "PX", str(_REPLY_TTL_MS))

    async def metrics(self) -> dict[str, int]:
        found = texts_of(await self._ask("HGETALL", "metrics"))
        return {field: int(n) for field, n in found.items()}

    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        await self._once(self._script(self._count, step_codec.pack(counts)))

    async def log(self, run_id: str, task: str, attempt: int) -> list[bytes] | None:
        chunks: list[bytes] = await self._ask("LRANGE", f"log:{run_id}:{task}:{attempt}", "0", "-1")
        return chunks or None

    async def ping(self) -> bool:
        try:
            async with asyncio.timeout(_PING_S):
                return bool(await self._once(self._link.ask("PING")))
        except (JournalUnavailable, TimeoutError):
            return False

    async def close(self) -> None:
        for link in (self._link, *self._tails.values()):
            link.close()

    async def _run(self, script: Script, blob: bytes, patience_s: float | None = None) -> Any:
        return await self._again(lambda: self._script(script, blob, patience_s), patience_s)

    async def _members(self, key: str) -> list[str]:
        return sorted(text_of(member) for member in await self._ask("SMEMBERS", key))

    async def _ask(self, *args: Any) -> Any:
        return await self._again(lambda: self._link.ask(*args))

    async def _script(self, script: Script, blob: bytes, patience_s: float | None = None) -> Any:
        step = (b"0", blob, _SCHEMA)
        try:
            return await self._link.ask(b"EVALSHA", script.digest, *step, patience_s=patience_s)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await self._link.ask(b"EVAL", script.source, *step, patience_s=patience_s)

    async def _once(self, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except hiredis.ReplyError as error:
            raise _refusal(error) from error
        except OSError as error:
            raise JournalUnavailable(str(error) or type(error).__name__) from error

    async def _again(self, ask: Callable[[], Awaitable[T]], patience_s: float | None = None) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (patience_s or self._deadline_s)
        for pause_s in itertools.chain(_BACKOFF_S, itertools.repeat(_BACKOFF_S[-1])):
            try:
                return await self._once(ask())
            except JournalUnavailable:
                if loop.time() + pause_s >= deadline:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("pauses never end")


def _refusal(error: hiredis.ReplyError) -> Exception:
    """A server that loads, is full, or is held by another script may answer later; anything else is our bug."""
    word = str(error).split(" ", 1)[0]
    if word in ("LOADING", "BUSY", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "NOAUTH", "WRONGPASS"):
        return JournalUnavailable(str(error))
    return Broken(f"the journal refused a step: {error}")


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
