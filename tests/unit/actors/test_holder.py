"""The shell of held runs, over the journal in memory and with virtual time: its runs are plain tallies."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from actors.holder import Turn
from orchestrator import codec
from orchestrator.errors import Conflict
from orchestrator.steps import Mail
from tests.holder_stage import NAME, Gated, Stage, Tallies, Tally, add, found, play, tell

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
