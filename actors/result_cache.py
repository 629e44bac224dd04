"""Results that are used again, for the runs of one RunActor: looks them up, and keeps what was computed.

    ReadyRuns ── runs with tasks to look up ──▶ ask ──▶ journal ──▶ Recalled, in the mailbox
    a batch goes to a worker ──▶ begin: the key of each task, as it is then
    its result is accepted and durable ──▶ keep ──▶ journal, a moment later

Nothing waits for a record to be written. Whoever reads none, or dies before one is written, computes: so keys of
attempts are memory only, and what a former incarnation began is not kept. While the journal does not answer nothing is
found. Several equal tasks at a time each compute; what was accepted last is kept.

What is decided about keys and instants is in `orchestrator/caching.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from actors.clock import Clock
from actors.fetched_values import touched
from actors.hosted import Begun, HostedRun, instant
from actors.run_counts import label_of
from orchestrator import aside, caching, codec, run_commands
from orchestrator import events as e
from orchestrator.caching import CACHES, RESULTS, UNCACHED, Kept
from orchestrator.errors import Broken, JournalUnavailable
from orchestrator.messages import Value
from orchestrator.ports import Journal
from orchestrator.run_state import going, startable

_log = logging.getLogger(__name__)

#: records read at a time
AT_ONCE = 64
#: results that wait to be written; more are not kept
UNWRITTEN_MAX = 20_000
#: seconds before what did not get through is written again
AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task to be looked up."""

    position: int
    task: str
    #: None = it has none
    key: str | None
    #: of the records of results
    kind: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the journal has under its key, and since when attempts count."""

    wanted: Wanted
    kept: Kept | None = None
    uncached: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Recalled:
    """Tasks of one run were looked up."""

    run_id: str
    found: tuple[Found, ...]


class ResultCache:
    """`artifacts` is where large results are, unless a store has them (`in_store`).

    `spawn` starts a task of the actor, `post` fills its mailbox.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        artifacts: Path,
        in_store: bool,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        post: Callable[[Recalled], None],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._artifacts = artifacts
        self._in_store = in_store
        self._spawn = spawn
        self._post = post
        #: kind -> key -> record to be written
        self._unwritten: dict[str, dict[str, bytes | None]] = {}
        self._writing = False

    # ── before a task starts ──

    def ask(self, hosted: HostedRun) -> None:
        """Look up what the run wants to know."""
        run = hosted.run
        if run.lookups is None or not (positions := run.lookups.take(run)):
            return
        wanted = []
        for position in positions:
            spec = run.compiled.specs[position]
            kind = caching.kind_of(run.tenant, run.dag_id, spec.cache_key)
            wanted.append(Wanted(position, spec.id, caching.key_of(run, position), kind))
        self._spawn(self._look_up(run.run_id, run.tenant, run.dag_id, wanted))

    async def _look_up(self, run_id: str, tenant: str, dag_id: str, wanted: list[Wanted]) -> None:
        try:
            found = await self._found(tenant, dag_id, wanted)
        except JournalUnavailable as unavailable:
            _log.warning("tasks of %s are not looked up: %s", run_id, unavailable)
            found = [Found(each) for each in wanted]
        self._post(Recalled(run_id, tuple(found)))

    async def _found(self, tenant: str, dag_id: str, wanted: list[Wanted]) -> list[Found]:
        keyed = {(each.kind, each.key): None for each in wanted if each.key is not None}
        results = await self._read(keyed)
        if not results:
            return [Found(each) for each in wanted]
        marks = dict.fromkeys(caching.uncached_key(tenant, dag_id, task) for task in ("", *(w.task for w in wanted)))
        instants = {
            key: instant(int(record))
            for (_, key), record in (await self._read((UNCACHED, key) for key in marks)).items()
        }
        found = []
        for each in wanted:
            record = results.get((each.kind, each.key or ""))
            kept = _kept(record) if record is not None else None
            since = (caching.uncached_key(tenant, dag_id, task) for task in ("", each.task))
            found.append(Found(each, kept, tuple(instants[key] for key in since if key in instants)))
        return found

    async def _read(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        wanted, out = list(keys), dict[tuple[str, str], bytes]()
        for start in range(0, len(wanted), AT_ONCE):
            chunk = wanted[start : start + AT_ONCE]
            records = await asyncio.gather(*(self._journal.record(kind, key) for kind, key in chunk))
            out |= {key: record for key, record in zip(chunk, records, strict=True) if record is not None}
        return out

    def recalls(self, hosted: HostedRun, recalled: Recalled) -> Iterator[run_commands.Recall]:
        """What is known, one command after another; all other tasks wait for a slot."""
        run, lookups = hosted.run, hosted.run.lookups
        if lookups is None:
            return
        for found in recalled.found:
            position = found.wanted.position
            if not lookups.answered(position) or not startable(run, position):
                continue  # should it be again, it is looked up again
            if not going(run):
                lookups.wanted[position] = None
            elif (kept := self._usable(hosted, found)) is not None:
                source = e.CachedFrom(kept.run_id, kept.task, kept.attempt, kept.at)
                yield run_commands.Recall(run.compiled.specs[position].id, kept.value, kept.length, source)
            else:
                self.compute(hosted, position)

    def compute(self, hosted: HostedRun, position: int) -> None:
        """Nothing is known of the task that it can use: it waits for a slot like any other."""
        run = hosted.run
        if run.lookups is not None:
            hosted.counts.append((f"task_cache_misses_total|{label_of(run.dag_id)}", 1))
            run.lookups.known.add(position)
            aside.line_up(run, position)

    def _usable(self, hosted: HostedRun, found: Found) -> Kept | None:
        run, position, kept = hosted.run, found.wanted.position, found.kept
        ttl_s = run.compiled.specs[position].cache_ttl_s
        if kept is None or ttl_s is None or not caching.holds(kept, ttl_s, found.uncached, self._clock.now()):
            return None
        if caching.key_of(run, position) != found.wanted.key:
            return None  # what it is called with has changed meanwhile
        artifact = kept.value.artifact
        there = artifact is None or self._in_store or touched(Path(self._artifacts, artifact))
        return kept if there else None

    # ── when it has run ──

    def begin(self, hosted: HostedRun, positions: Iterable[int]) -> None:
        """These tasks go to a worker, as they are now."""
        run = hosted.run
        for position in positions:
            task, spec = run.tasks[position], run.compiled.specs[position]
            if spec.cache_ttl_s is None or task.started_at is None:
                continue
            if (key := caching.key_of(run, position)) is not None:
                kind = caching.kind_of(run.tenant, run.dag_id, spec.cache_key)
                hosted.begun[spec.id] = Begun(task.attempt, task.started_at, kind, key, spec.cache_ttl_s)

    def keep(self, hosted: HostedRun) -> None:
        """Results were accepted, durably: equal tasks may use them."""
        computed, hosted.computed = hosted.computed, []
        for begun, event in computed:
            expires_at = event.at + timedelta(seconds=begun.ttl_s)
            source = (hosted.run.run_id, event.task, event.attempt, begun.started_at, event.at, expires_at)
            kept = Kept(event.value or Value(), *source, event.length)
            self._unwritten.setdefault(begun.kind, {})[begun.key] = codec.encode_document(kept)
        if self._unwritten and not self._writing:
            self._writing = True
            self._spawn(self._write())

    async def _write(self) -> None:
        while self._unwritten:
            kind = next(iter(self._unwritten))
            records = self._unwritten.pop(kind)
            try:
                await self._journal.put_records(CACHES, {kind.removeprefix(RESULTS): b"true"})
                await self._journal.put_records(kind, records)
            except JournalUnavailable as unavailable:
                _log.warning("results are not kept yet: %s", unavailable)
                self._again(kind, records)
                await asyncio.sleep(AGAIN_S)
        self._writing = False

    def _again(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        waiting = {**records, **self._unwritten.get(kind, {})}
        if sum(map(len, self._unwritten.values())) + len(waiting) <= UNWRITTEN_MAX:
            self._unwritten[kind] = waiting


def _kept(record: bytes) -> Kept | None:
    """None = nobody of this version wrote it, so it is as good as none."""
    try:
        return codec.decode_document(record, Kept)
    except Broken as broken:
        _log.warning("a kept result is not used: %s", broken)
        return None
