"""A holder of tallies, its journal, and time that is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from actors.holder import Holder, Turn
from orchestrator import codec
from orchestrator.errors import Conflict
from orchestrator.rows import EventBatch
from orchestrator.steps import Append, Commit, CommitResult, Creation, Mail, NewRun
from orchestrator.streams import Entry, Letter
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import START, VirtualLoop, WorldClock, virtually

NAME = "gateway-0.tallies"
Story = Callable[["Stage"], Coroutine[Any, Any, None]]
Act = Callable[[Turn["Tally"]], int]


class Tally:
    """A run that adds numbers up, and has ended when it is told so."""

    def __init__(self, run_id: str, version: int = 0) -> None:
        self.run_id = run_id
        self.version = version
        self.sum = 0
        self.ended = False
        self.wake_at: datetime | None = None
        #: it owes something when it is adopted
        self.greets = False
        self._news: list[dict[str, Any]] = []

    def tell(self, **event: Any) -> None:
        """An event happens."""
        self.apply(event)
        self._news.append(event)

    def apply(self, event: dict[str, Any]) -> None:
        self.sum += event.get("add", 0)
        self.ended = event.get("ended", self.ended)
        self.greets = event.get("greets", self.greets)
        if "wake_s" in event:
            self.wake_at = START + timedelta(seconds=event["wake_s"]) if event["wake_s"] else None

    def append(self) -> Append | None:
        if not self._news:
            return None
        state = "succeeded" if self.ended else "running"
        events = json.dumps(self._news).encode()
        return Append(run_id=self.run_id, expected=self.version, count=len(self._news), events=events, state=state)

    def committed(self) -> None:
        self.version += len(self._news)
        self._news = []

    def next_wake(self) -> datetime | None:
        return self.wake_at


class Tallies(Holder[Tally]):
    """What it was told is written down in `log`."""

    def __init__(self, journal: MemoryJournal, clock: WorldClock) -> None:
        super().__init__(NAME, journal, clock)
        self.log: list[tuple[str, str]] = []
        self.crashed = asyncio.Event()

    def revive(self, run_id: str, batches: Sequence[EventBatch]) -> Tally:
        tally = Tally(run_id, batches[-1].last_version)
        for batch in batches:
            for event in json.loads(batch.events):
                tally.apply(event)
        return tally

    def adopted(self, turn: Turn[Tally], held: Tally) -> None:
        self.log.append(("adopted", held.run_id))
        if held.greets:
            held.tell(add=1)

    def woken(self, turn: Turn[Tally], held: Tally) -> None:
        if held.wake_at is not None and held.wake_at <= self._clock.now():
            self.log.append(("woken", held.run_id))
            held.tell(wake_s=0)

    def received(self, turn: Turn[Tally], letter: Letter) -> None:
        self.log.append(("letter", json.loads(bytes(letter.data))))

    def on_crash(self) -> None:
        self.crashed.set()

    def stop(self) -> None:
        """As if the process were killed."""
        for task in self._tasks:
            task.cancel()


class Stage:
    """A journal, a clock and one holder after another."""

    def __init__(self, journal: MemoryJournal) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.journal = journal
        self.clock = WorldClock(loop, Random(1))
        self.holders: list[Tallies] = []

    def begin(self) -> Tallies:
        """A new incarnation; the one before is gone."""
        if self.holders:
            self.holders[-1].stop()
        self.holders.append(Tallies(self.journal, self.clock))
        self.holders[-1].start()
        return self.holders[-1]

    async def create(self, *run_ids: str, owner: str = NAME, event: bytes = b'[{"add": 1}]') -> None:
        runs = tuple(
            NewRun(
                run_id=run_id,
                tenant="t",
                dag_id="@tally",
                dag_version=1,
                run_type="tally",
                created_ms=1,
                event=event,
                owner=owner,
            )
            for run_id in run_ids
        )
        [result] = await self.journal.create_runs([Creation(runs)])
        assert result.status == "ok"

    def version(self, run_id: str) -> int:
        return self.journal.runs[run_id].version

    async def post(self, data: object) -> None:
        """A letter of another actor."""
        letter = Mail(NAME, codec.encode_mail("somebody", json.dumps(data).encode()))
        other = await self.journal.take_epoch("somebody")
        await self.journal.commit(Commit(owner="somebody", epoch=other, turn=1, mail=(letter,)))


class SlowPost(MemoryJournal):
    """Whose inboxes are read a minute late."""

    async def tail(self, stream: str, cursor: str, block_ms: int, limit: int = 1000) -> list[Entry]:
        await asyncio.sleep(60)
        return await super().tail(stream, cursor, block_ms, limit)


class Gated(MemoryJournal):
    """Whose commits wait at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def commit(self, commit: Commit) -> list[CommitResult]:
        await self.gate.wait()
        return await super().commit(commit)


def play(story: Story, journal: type[MemoryJournal] = MemoryJournal) -> None:
    async def whole() -> None:
        stage = Stage(journal())
        try:
            await asyncio.wait_for(story(stage), 600)
        finally:
            for holder in stage.holders:
                holder.stop()

    virtually(whole())


def add(tally: Tally, n: int = 1) -> Act:
    """An act: the sum, with `n` more."""

    def act(turn: Turn[Tally]) -> int:
        if tally.ended:
            raise Conflict(f"{tally.run_id} has ended")
        turn.touch(tally)
        tally.tell(add=n)
        return tally.sum

    return act


def tell(tally: Tally, **event: Any) -> Act:
    """An act: the event happens."""

    def act(turn: Turn[Tally]) -> int:
        turn.touch(tally)
        tally.tell(**event)
        return tally.sum

    return act


async def found(holder: Tallies, run_id: str) -> Tally:
    tally = await holder.find(run_id)
    assert tally is not None
    return tally
