"""The shell of held runs, over the journal in memory and with virtual time: its runs are plain tallies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

import actors.holder as holder_module
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


# recovery and birth


def test_a_holder_finds_the_runs_it_owns() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", "b")
        holder = stage.begin()
        assert await holder.ping() == 2
        assert holder.log == [("adopted", "a"), ("adopted", "b")]
        assert (await found(holder, "a")).sum == 1

    play(story)


def test_runs_are_recovered_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_module, "LOAD_CHUNK", 2)

    async def story(stage: Stage) -> None:
        await stage.create(*"abcde", event=b'[{"greets": true}]')
        holder = stage.begin()
        assert await holder.ping() == 5
        assert holder.log == [("adopted", run) for run in "abcde"]
        assert (stage.journal.owners[NAME].turn, stage.version("e")) == (3, 2)

    play(story)


def test_recovery_outlasts_an_absence_of_the_journal() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        stage.journal.failing = [False] * 7
        assert await stage.begin().ping() == 1

    play(story)


def test_a_run_that_is_born_is_adopted() -> None:
    async def story(stage: Stage) -> None:
        holder = stage.begin()
        assert await holder.ping() == 0
        await stage.create("a", "b")
        await asyncio.sleep(1)
        assert holder.log == [("adopted", "a"), ("adopted", "b")]
        assert await holder.do(add(await found(holder, "b"), 4)) == 5

    play(story)


def test_a_birth_older_than_the_start_is_not_told_again() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", "b")
        holder = stage.begin()
        await asyncio.sleep(1)
        assert holder.log == [("adopted", "a"), ("adopted", "b")]

    play(story)


def test_a_birth_is_not_told_after_its_run_has_ended() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        first = stage.begin()
        await first.do(tell(await found(first, "a"), ended=True))
        second = stage.begin()
        await asyncio.sleep(120)
        assert (await second.ping(), second.log) == (0, [])

    play(story, SlowPost)


def test_a_run_born_while_its_holder_recovers_is_adopted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_module, "PAST_MAX", 0)

    class BornMeanwhile(SlowPost):
        async def owned(self, owner: str) -> list[str]:
            await stages[0].create("late")
            return await super().owned(owner)

    stages: list[Stage] = []

    async def story(stage: Stage) -> None:
        stages.append(stage)
        holder = stage.begin()
        await holder.do(tell(await found(holder, "late"), ended=True))
        await asyncio.sleep(120)
        assert holder.log == [("adopted", "late")]
        assert await holder.ping() == 0

    play(story, BornMeanwhile)


def test_a_run_can_be_found_before_its_birth_is_read() -> None:
    async def story(stage: Stage) -> None:
        holder = stage.begin()
        await holder.ping()
        await stage.create("a")
        early, again = await asyncio.gather(found(holder, "a"), found(holder, "a"))
        assert early is again
        await holder.do(add(early))
        await asyncio.sleep(120)
        assert await holder.do(add(await found(holder, "a"))) == 3
        assert holder.log == [("adopted", "a")]

    play(story, SlowPost)


def test_a_run_that_was_found_early_and_has_ended_is_not_born_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_module, "PAST_MAX", 0)

    async def story(stage: Stage) -> None:
        holder = stage.begin()
        await holder.ping()
        await stage.create("a")
        await holder.do(tell(await found(holder, "a"), ended=True))
        await asyncio.sleep(120)
        assert holder.log == [("adopted", "a")]
        assert await holder.ping() == 0

    play(story, SlowPost)


def test_nothing_is_found_of_unknown_runs_and_of_those_that_others_hold() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("theirs", owner="gateway-0.others")
        holder = stage.begin()
        assert await holder.find("theirs") is None
        assert await holder.find("unknown") is None
        assert await holder.ping() == 0

    play(story)


# turns


def test_an_act_is_answered_when_it_is_durable() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        holder = stage.begin()
        tally, done = await found(holder, "a"), list[str]()

        def act(turn: Turn[Tally]) -> None:
            turn.touch(tally)
            tally.tell(add=1)
            turn.after.append(lambda: done.append("owed"))

        asked = asyncio.ensure_future(holder.do(act))
        await asyncio.sleep(30)
        assert (asked.done(), done, stage.version("a")) == (False, [], 1)
        stage.journal.gate.set()  # type: ignore[attr-defined]  # of Gated
        await asked
        await asyncio.sleep(0)
        assert (done, stage.version("a")) == (["owed"], 2)

    play(story, Gated)


@pytest.mark.parametrize("failing", [[False], [True], [False, True, True]])
def test_a_commit_is_sent_again_until_it_is_answered(failing: list[bool]) -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        holder = stage.begin()
        tally = await found(holder, "a")
        stage.journal.failing = list(failing)
        assert await holder.do(add(tally)) == 2
        assert await holder.do(add(tally)) == 3
        assert (stage.version("a"), len(await stage.journal.events("a", 0, 10))) == (3, 3)

    play(story)


def test_a_refused_act_changes_nothing_and_does_not_disturb_the_others() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", "b")
        holder = stage.begin()
        a, b = await found(holder, "a"), await found(holder, "b")
        await holder.do(tell(a, ended=True))
        refused, added = await asyncio.gather(holder.do(add(a)), holder.do(add(b)), return_exceptions=True)
        assert isinstance(refused, Conflict)
        assert (added, stage.version("a"), stage.version("b")) == (2, 2, 2)

    play(story)


def test_what_was_asked_at_once_is_one_commit() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", "b")
        holder = stage.begin()
        a, b = await found(holder, "a"), await found(holder, "b")
        await asyncio.gather(*(holder.do(add(tally)) for tally in (a, b, a, b)))
        assert stage.journal.owners[NAME].turn == 1
        assert [batch.last_version for batch in await stage.journal.events("a", 1, 10)] == [3]

    play(story)


def test_a_turn_may_only_count_or_only_write_to_others() -> None:
    async def story(stage: Stage) -> None:
        holder = stage.begin()
        await holder.do(lambda turn: turn.counts.append(("jobs_refused", 2)))
        await holder.do(lambda turn: turn.mail.append(Mail("other", codec.encode_mail(NAME, b"1"))))
        assert await stage.journal.metrics() == {"jobs_refused": 2}
        assert len(await stage.journal.tail("in:other", "0-0", 0)) == 1

    play(story)


def test_a_posted_act_that_is_refused_is_dropped() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        holder = stage.begin()
        tally = await found(holder, "a")
        await holder.do(tell(tally, ended=True))
        holder.post(add(tally))
        await asyncio.sleep(1)
        assert not holder.crashed.is_set()
        assert stage.version("a") == 2

    play(story)


# time


def test_a_timer_rings_once() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", event=b'[{"wake_s": 60}]')
        holder = stage.begin()
        await asyncio.sleep(59)
        assert ("woken", "a") not in holder.log
        await asyncio.sleep(2)
        assert holder.log.count(("woken", "a")) == 1
        await asyncio.sleep(300)
        assert holder.log.count(("woken", "a")) == 1

    play(story)


def test_a_timer_is_moved_and_taken_back() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("moved", "none", "ended", event=b'[{"wake_s": 60}]')
        holder = stage.begin()
        await holder.do(tell(await found(holder, "moved"), wake_s=90))
        await holder.do(tell(await found(holder, "none"), wake_s=0))
        await holder.do(tell(await found(holder, "ended"), ended=True))
        await asyncio.sleep(80)
        assert [what for what, _ in holder.log if what == "woken"] == []
        await asyncio.sleep(20)
        assert holder.log[3:] == [("woken", "moved")]

    play(story)


def test_a_timer_that_rings_early_by_the_wall_clock_rings_again() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", event=b'[{"wake_s": 60}]')
        holder = stage.begin()
        await holder.ping()
        stage.clock.skew = timedelta(seconds=-10)
        await asyncio.sleep(65)
        assert ("woken", "a") not in holder.log
        await asyncio.sleep(6)
        assert holder.log.count(("woken", "a")) == 1

    play(story)


def test_a_timer_that_was_due_while_nobody_was_there_rings_at_once() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", event=b'[{"wake_s": 5}]')
        await asyncio.sleep(100)
        holder = stage.begin()
        await asyncio.sleep(1)
        assert holder.log == [("adopted", "a"), ("woken", "a")]

    play(story)


# the past


def test_an_ended_run_is_found_in_memory_and_read_back_from_the_journal() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        holder = stage.begin()
        tally = await found(holder, "a")
        await holder.do(tell(tally, add=4, ended=True))
        assert await holder.ping() == 0
        assert await found(holder, "a") is tally
        again = await found(stage.begin(), "a")
        assert (again.sum, again.ended, again.version) == (5, True, 2)
        assert stage.holders[-1].log == []

    play(story)


def test_the_past_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_module, "PAST_MAX", 1)

    async def story(stage: Stage) -> None:
        await stage.create("a", "b")
        holder = stage.begin()
        a, b = await found(holder, "a"), await found(holder, "b")
        for tally in (a, b):
            await holder.do(tell(tally, ended=True))
        assert await found(holder, "b") is b
        assert await found(holder, "a") is not a

    play(story)


def test_an_ended_run_can_be_written_to_and_can_go_on() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        holder = stage.begin()
        tally = await found(holder, "a")
        await holder.do(tell(tally, ended=True))
        await holder.do(tell(tally, add=1))
        assert await holder.ping() == 0
        await holder.do(tell(tally, ended=False, wake_s=60))
        assert await holder.ping() == 1
        assert await stage.journal.owned(NAME) == ["a"]
        await asyncio.sleep(61)
        assert ("woken", "a") in holder.log

    play(story)


# erasure


def test_a_run_that_turns_out_to_be_erased_is_dropped() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", "b")
        holder = stage.begin()
        a, b = await found(holder, "a"), await found(holder, "b")
        await stage.journal.erase(["a"])
        await asyncio.gather(holder.do(add(a)), holder.do(add(b)))
        assert await holder.find("a") is None
        assert await holder.ping() == 1
        assert not holder.crashed.is_set()

    play(story)


def test_a_run_that_is_erased_while_its_commit_is_under_way_does_not_come_back() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a", event=b'[{"wake_s": 60}]')
        holder = stage.begin()
        asked = asyncio.ensure_future(holder.do(add(await found(holder, "a"))))
        await asyncio.sleep(1)
        holder.drop("a")
        stage.journal.gate.set()  # type: ignore[attr-defined]  # of Gated
        await asked
        await asyncio.sleep(120)
        assert holder.log == [("adopted", "a")]
        assert await holder.ping() == 0

    play(story, Gated)


# others


def test_a_stale_append_ends_the_process() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        holder = stage.begin()
        tally = await found(holder, "a")
        stage.journal.runs["a"].version = 7
        asked = asyncio.ensure_future(holder.do(add(tally)))
        await holder.crashed.wait()
        assert not asked.done()
        asked.cancel()

    play(story)


def test_a_former_incarnation_ends_when_it_writes() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        former = stage.begin()
        tally = await found(former, "a")
        successor = Tallies(stage.journal, stage.clock)
        stage.holders.append(successor)
        successor.start()
        assert await successor.do(add(await found(successor, "a"), 2)) == 3
        former.post(add(tally))
        await former.crashed.wait()
        assert stage.version("a") == 2

    play(story)


def test_letters_are_received_in_order() -> None:
    async def story(stage: Stage) -> None:
        holder = stage.begin()
        await holder.ping()
        await stage.post("one")
        await stage.post("two")
        await asyncio.sleep(1)
        assert holder.log == [("letter", "one"), ("letter", "two")]

    play(story)


def test_letters_are_received_again_after_a_restart_until_something_was_committed_after_them() -> None:
    async def story(stage: Stage) -> None:
        await stage.create("a")
        await stage.post("one")
        for n in range(2):
            holder = stage.begin()
            await asyncio.sleep(1)
            assert ("letter", "one") in holder.log, n
        await holder.do(add(await found(holder, "a")))
        last = stage.begin()
        await asyncio.sleep(1)
        assert last.log == [("adopted", "a")]

    play(story)


def test_the_inbox_is_read_on_after_an_absence_of_the_journal() -> None:
    async def story(stage: Stage) -> None:
        holder = stage.begin()
        await holder.ping()
        await asyncio.sleep(1)
        await stage.post("one")
        stage.journal.failing = [False] * 3
        await asyncio.sleep(30)
        assert holder.log == [("letter", "one")]

    play(story)
