"""Remote workers as the gateway keeps them: durable, alive, expired, forgotten; and records written in few steps."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from actors.record_writer import RecordWriter
from actors.worker_book import KIND, WorkerBook
from orchestrator.errors import Fenced
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import VirtualLoop, WorldClock, virtually

W1 = ("default", "w1")
DAY_S = 86_400.0


async def mine() -> None:
    """Nobody has replaced us."""


def a_book(journal: MemoryJournal, loop: asyncio.AbstractEventLoop) -> WorkerBook:
    assert isinstance(loop, VirtualLoop)
    return WorkerBook(RecordWriter(journal, KIND, mine), WorldClock(loop, Random(1)), 120.0)


async def a_known_worker(journal: MemoryJournal) -> WorkerBook:
    book = a_book(journal, asyncio.get_running_loop())
    book.meet(W1).register({"supported_tasks": ["video"], "load": 0.5})
    book.indexed(W1)
    await book.save(W1)
    return book


async def reread(journal: MemoryJournal) -> WorkerBook:
    book = a_book(journal, asyncio.get_running_loop())
    book.load(await journal.records(KIND))
    return book


def absent(_: Any) -> bool:
    return False


def test_a_worker_expires_after_a_ttl_and_is_forgotten_after_a_day_more() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        book = await a_known_worker(journal)
        await asyncio.sleep(119)
        assert book.expire(absent) == ([], [])
        await asyncio.sleep(2)
        assert book.expire(absent) == ([W1], [])
        assert (book.lives(W1), book.live(), book.offering("video")) == (False, [], [])
        assert book.get(W1) is not None
        await asyncio.sleep(DAY_S)
        assert book.expire(absent) == ([], [W1])
        await book.flush()
        assert await journal.records(KIND) == {}

    virtually(story())


def test_any_sign_of_life_brings_an_expired_worker_back_with_its_skills() -> None:
    async def story() -> None:
        book = await a_known_worker(MemoryJournal())
        await asyncio.sleep(121)
        book.expire(absent)
        await asyncio.sleep(DAY_S / 2)
        assert book.seen(W1) is book.get(W1)
        assert [worker.worker_id for worker in book.offering("video")] == ["w1"]
        await asyncio.sleep(DAY_S / 2 + 1)
        assert book.expire(absent) == ([W1], [])  # and not forgotten: it was seen half a day ago

    virtually(story())


def test_who_waits_in_a_poll_is_not_silent() -> None:
    async def story() -> None:
        book = await a_known_worker(MemoryJournal())
        await asyncio.sleep(121)
        assert book.expire(lambda key: key == W1) == ([], [])
        await asyncio.sleep(119)
        assert book.expire(absent) == ([], [])

    virtually(story())


def test_a_restart_gives_a_fresh_ttl_and_forgets_what_is_of_the_moment() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        await a_known_worker(journal)
        await asyncio.sleep(100)
        book = await reread(journal)
        await asyncio.sleep(100)
        assert book.expire(absent) == ([], [])
        [worker] = book.live()
        assert (worker.skills, worker.load) == ({"video"}, 0.0)

    virtually(story())


def test_who_had_expired_stays_so_over_a_restart_and_is_forgotten_in_time() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        book = await a_known_worker(journal)
        await asyncio.sleep(121)
        book.expire(absent)
        await book.flush()
        await asyncio.sleep(DAY_S - 100)
        again = await reread(journal)
        assert again.live() == []
        assert again.get(W1) is not None
        await asyncio.sleep(200)
        assert again.expire(absent) == ([], [W1])

    virtually(story())


def test_reputation_is_kept_when_a_worker_expires() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        book = await a_known_worker(journal)
        book.meet(W1).settled("failure")
        await asyncio.sleep(121)
        book.expire(absent)
        await book.flush()
        worker = (await reread(journal)).get(W1)
        assert worker is not None
        assert worker.reputation == pytest.approx(0.9)

    virtually(story())


def test_a_heartbeat_that_says_nothing_lasting_is_not_written() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        book = await a_known_worker(journal)
        journal.failing = [False]  # the next step would fail
        book.meet(W1).merge({"load": 0.9, "current_tasks": []})
        await book.save(W1)
        assert journal.failing == [False]

    virtually(story())


# ── the writer ────────────────────────────────────────────────────────────────────────────────────


class CountedJournal(MemoryJournal):
    """Knows how many steps were taken, each of which takes a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[set[str]] = []

    async def put_records(self, kind: str, records: Any) -> None:
        self.steps.append(set(records))
        await asyncio.sleep(0.01)
        await super().put_records(kind, records)


def test_who_comes_while_a_step_is_under_way_shares_the_next() -> None:
    async def story() -> None:
        journal = CountedJournal()
        writer = RecordWriter(journal, KIND, mine)
        puts = [asyncio.ensure_future(writer.put("a", b"1"))]
        await asyncio.sleep(0)
        puts += [asyncio.ensure_future(writer.put(key, b"1")) for key in "bcd"]
        await asyncio.gather(*puts)
        assert journal.steps == [{"a"}, {"b", "c", "d"}]
        assert set(await journal.records(KIND)) == set("abcd")

    virtually(story())


def test_nobody_is_told_of_a_record_before_it_is_durable() -> None:
    async def story() -> None:
        journal = CountedJournal()
        writer = RecordWriter(journal, KIND, mine)
        journal.failing = [False, True]
        put = asyncio.ensure_future(writer.put("a", b"1"))
        await asyncio.sleep(0.1)
        assert not put.done()
        assert writer.pending("a")
        await put
        assert (await journal.record(KIND, "a"), writer.pending("a")) == (b"1", False)

    virtually(story())


def test_who_was_replaced_acknowledges_nothing() -> None:
    async def story() -> None:
        async def replaced() -> None:
            raise Fenced("jobs", 1, 2)

        writer = RecordWriter(MemoryJournal(), KIND, replaced)
        with pytest.raises(Fenced):
            await writer.put("a", b"1")

    virtually(story())
