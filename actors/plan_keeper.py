"""Keeps the files of plans in step with the instances that work on them. One of its kind, in the supervisor's process.

    instance's log ──fold──▶ findings, then status.json           every LIVE_S while there are instances
    status.json edited by others ──▶ commands on the instance     looked at every EDITS_S

It lives beside the supervisor because there is one supervisor, restarted for ever, whereas there are several API
replicas; and because an actor of its own would cost 50 MB for a loop that sleeps. At rest it reads one empty set every
IDLE_S.

Nothing it knows matters: it finds the instances in the journal (`beats`), reads their logs from the start, and notes
how far the files tell (`keep`). Findings and documents are pure functions of the log, so writing one again, after
a crash or beside a twin, changes nothing. An instance is forgotten when it has ended, its files are written and
its retention is over.

Edits: before it overwrites a status.json that somebody else has touched, and whenever it sees one, it compares that
with what it wrote last. Another word of a task becomes a `mark_task`, so that the change is in the log like any other;
foreign keys become an event too, and stay in the file. What cannot be (a task that runs made `failed`) is overwritten.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from actors.artifact_places import artifacts_of
from actors.artifacts import MissingArtifact
from actors.clock import Clock
from actors.fetched_values import Nodes
from actors.hosted import instant
from actors.names import own_actor_name, run_actor_name
from actors.peers import Peers
from actors.plan_store import FileStamp, PlanStore
from actors.recurring import Recurring
from actors.settings import Settings
from orchestrator import actor_codec, codec
from orchestrator import events as e
from orchestrator.command import Command, Posted
from orchestrator.errors import NotFound, OrchestratorError
from orchestrator.instance_events import EDITED, InstanceFold, finding_text
from orchestrator.messages import Value
from orchestrator.plan_entry import entry_view
from orchestrator.plan_status import PlanStatus, overlay
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, Beat, RunRow

#: seconds between looks at logs while instances live, when all have ended, and for new ones when there are none
LIVE_S = 0.2
ENDED_S = 0.5
IDLE_S = 0.5
#: seconds until what failed is tried again
AGAIN_S = 1.0
#: seconds between looks at files
EDITS_S = 1.0
#: event batches per read
BATCHES = 64
#: characters of a finding
FINDING_MAX = 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kept:
    """One instance, as far as its files go."""

    fold: InstanceFold
    #: (version, task id, value) whose finding is to be written
    outputs: list[tuple[int, str, Value]] = field(default_factory=list)
    #: status.json as it was written last; None = not in this life
    written: PlanStatus | None = None
    stamp: FileStamp | None = None
    #: somebody else touched it: write it again, whatever came of that
    touched: bool = False
    #: not before this: the last try failed
    again_s: float = float("-inf")
    looked_s: float = float("-inf")


class PlanKeeper(Recurring):
    """Writes what instances did, and tells them what others wrote. `start` returns at once."""

    def __init__(
        self,
        journal: Journal,
        peers: Peers,
        store: PlanStore,
        clock: Clock,
        settings: Settings,
        release: Callable[[str], Awaitable[None]],
        *,
        node: str = "",
        nodes: Nodes | None = None,
    ) -> None:
        super().__init__("keeping plans", IDLE_S)
        self._journal = journal
        self._peers = peers
        self._store = store
        self._clock = clock
        self._settings = settings
        #: ends the actor of that name, should it still be there
        self._release = release
        self._artifacts = artifacts_of(settings, node, nodes)
        self._kept: dict[str, _Kept] = {}

    async def look(self) -> float:
        """Bring all files up to date; seconds until it has to be done again. Raises JournalUnavailable."""
        beats = await self._journal.beats()
        for gone in self._kept.keys() - {beat.run_id for beat in beats}:
            del self._kept[gone]
        for beat in beats:
            kept = self._kept.setdefault(beat.run_id, _Kept(InstanceFold(beat.run_id)))
            if kept.again_s > self._clock.monotonic():
                continue
            try:
                await self._keep(beat, kept)
            except OrchestratorError as error:
                _log.warning("files of %s: %s", beat.run_id, error)
                kept.again_s = self._clock.monotonic() + AGAIN_S
        live = any(kept.fold.state not in TERMINAL for kept in self._kept.values())
        return LIVE_S if live else ENDED_S if beats else IDLE_S

    async def _keep(self, beat: Beat, kept: _Kept) -> None:
        row = await self._journal.summary(beat.run_id)
        if row is None:
            await self._journal.forget(beat.run_id)
            return
        await self._read_on(kept, row, beat.kept)
        await self._write_findings(kept)
        now_s = self._clock.monotonic()
        if kept.fold.version > beat.kept or kept.touched:
            await self._take_edits(kept, row, beat)
            await self._write_status(kept)
            await self._journal.keep(beat.run_id, kept.fold.version)
        elif now_s - kept.looked_s >= EDITS_S:
            kept.looked_s = now_s
            await self._take_edits(kept, row, beat)
        if self._is_over(row) and kept.fold.version == row.version:
            await self._release(own_actor_name(beat.run_id))  # nobody would end it once it is forgotten
            await self._journal.forget(beat.run_id)

    def _is_over(self, row: RunRow) -> bool:
        if row.state not in TERMINAL or row.finished_ms is None:
            return False
        ago = self._clock.now() - instant(row.finished_ms)
        return ago.total_seconds() >= self._settings.instance_retention_s

    # ── what instances did ────────────────────────────────────────────────────────────────────────

    async def _read_on(self, kept: _Kept, row: RunRow, before: int) -> None:
        """The fold is up to date; outputs that were written in an earlier life are left out."""
        fold = kept.fold
        while fold.version < row.version:
            for batch in await self._journal.events(row.run_id, fold.version, BATCHES):
                events = codec.decode_events(batch.events, batch.schema)
                if batch.last_version > before:
                    succeeded = (event for event in events if isinstance(event, e.TaskSucceeded))
                    kept.outputs += [(batch.last_version, s.task, s.value) for s in succeeded if s.value is not None]
                fold.tell(events)

    async def _write_findings(self, kept: _Kept) -> None:
        name = kept.fold.plan.name
        while kept.outputs:
            _, task, value = kept.outputs[0]
            if (text := await asyncio.to_thread(self._text_of, task, value)) is not None:
                await asyncio.to_thread(self._store.write_finding, name, task, text)
            del kept.outputs[0]

    def _text_of(self, task: str, value: Value) -> str | None:
        try:
            returned = self._artifacts.read_plain(value)
        except (MissingArtifact, pickle.UnpicklingError) as error:
            return f"The result of task {task} cannot be shown: {error}\n"
        if returned in (None, "", {}):
            return None
        text = finding_text(returned)
        return text if len(text) <= FINDING_MAX else f"(only the end)\n{text[-FINDING_MAX:]}"

    async def _write_status(self, kept: _Kept) -> None:
        ours, name = kept.fold.document(), kept.fold.plan.name
        theirs = await self._on_disk(name)
        merged = ours if theirs is None else overlay(theirs, ours)
        if kept.written is None or merged.raw != kept.written.raw:
            kept.stamp = await asyncio.to_thread(self._store.write_status, name, merged)
            kept.written = merged
        kept.touched = False

    async def _on_disk(self, name: str) -> PlanStatus | None:
        try:
            return await asyncio.to_thread(self._store.status, name)
        except NotFound:
            return None

    # ── what others wrote ─────────────────────────────────────────────────────────────────────────

    async def _take_edits(self, kept: _Kept, row: RunRow, beat: Beat) -> None:
        """Tell the instance what somebody else wrote since we did. Raises ActorUnreachable: then it is told again."""
        name = kept.fold.plan.name
        stamp = (await asyncio.to_thread(self._store.stamps, name)).status
        if stamp == kept.stamp:
            return
        theirs = await self._on_disk(name)
        mine = kept.written
        if mine is None and beat.kept == kept.fold.version:  # written in a former life, to the end
            mine = kept.fold.document()
        if theirs is not None and mine is not None:
            await self._tell_edits(row, mine, theirs)
            kept.touched = True
        kept.stamp, kept.written = stamp, theirs

    async def _tell_edits(self, row: RunRow, mine: PlanStatus, theirs: PlanStatus) -> None:
        for task, word, reason in _words_changed(mine, theirs):
            command = Command(kind="mark_task", run_id=row.run_id, task=task, word=word, reason=reason)
            await self._tell(row, command)
        if overlay(theirs, mine).raw != mine.raw:
            document = msgspec.Raw(msgspec.json.encode(theirs.raw))
            await self._tell(row, Command(kind="post", run_id=row.run_id, checkpoint=Posted(EDITED, document)))

    async def _tell(self, row: RunRow, command: Command) -> None:
        anybody = run_actor_name(crc32(row.run_id.encode()) % self._settings.run_actors_max)
        blob = await self._peers.ask(row.owner or anybody, "command", actor_codec.encode_command(command))
        reply = actor_codec.decode_command_reply(blob)
        if reply.refused is not None:
            _log.info("an edit of %s was refused: %s", row.run_id, reply.message)


def _words_changed(mine: PlanStatus, theirs: PlanStatus) -> Iterator[tuple[str, str, str | None]]:
    """(task, its new word, reason) where somebody else changed what we wrote."""
    known = {view.task_id: view.status for view in map(entry_view, mine.raw["tasks"])}
    for entry in theirs.raw["tasks"]:
        word = entry_view(entry).status
        if known.get(entry["id"], word) != word:
            reason = entry.get("reason")
            yield entry["id"], word, reason if isinstance(reason, str) else None
