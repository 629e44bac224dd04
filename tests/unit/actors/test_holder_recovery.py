"""Holders: recovery, birth, what is found of the past, and erasure."""

from __future__ import annotations

import asyncio

import pytest

import actors.holder as holder_module
from tests.holder_stage import NAME, Gated, SlowPost, Stage, add, found, play, tell

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
