"""The journal suites on every implementation, and what only a real server can show."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from actors.journal import Journal as RedisJournal
from orchestrator.errors import JournalUnavailable
from orchestrator.ports import Journal
from orchestrator.rows import RunFilter
from orchestrator.steps import Creation
from tests.conformance.archive_suite import ArchiveSuite
from tests.conformance.backfills_suite import BackfillsSuite
from tests.conformance.calls_suite import CallsSuite
from tests.conformance.creations_suite import CreationsSuite
from tests.conformance.held_suite import HeldSuite
from tests.conformance.journal_builders import Owner, append, create, new_run, put
from tests.conformance.journal_suite import JournalSuite
from tests.conformance.news_suite import NewsSuite
from tests.conformance.recovery_suite import RecoverySuite
from tests.conformance.reshape_suite import ReshapeSuite
from tests.conformance.retention_suite import RetentionSuite
from tests.conformance.schedules_suite import DagsSuite, SchedulesSuite
from tests.conformance.servers import Server, redis_binary, valkey_binary
from tests.conformance.triggers_suite import TriggersSuite
from tests.fakes_journal import MemoryJournal


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    server = Server(valkey_binary())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    server = Server(str(redis_binary()))
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[RedisJournal]:
    journal = RedisJournal(server.url)
    try:
        yield journal
    finally:
        await journal.close()


class EverySuite(
    JournalSuite,
    NewsSuite,
    CreationsSuite,
    BackfillsSuite,
    DagsSuite,
    SchedulesSuite,
    RecoverySuite,
    HeldSuite,
    ReshapeSuite,
    RetentionSuite,
    CallsSuite,
    TriggersSuite,
    ArchiveSuite,
):
    """All that a journal does."""


class TestInMemory(EverySuite):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()

    async def test_a_step_can_fail_before_or_after_it_took_effect(self) -> None:
        journal = MemoryJournal()
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        step = owner.step(append(run, 1))
        for lost, version in ((False, 1), (True, 2)):
            journal.failing = [lost]
            with pytest.raises(JournalUnavailable):
                await journal.commit(step)
            assert journal.runs[run].version == version
        assert [r.status for r in await journal.commit(step)] == ["ok"]


class TestValkey(EverySuite):
    @pytest.fixture
    async def journal(self, valkey: Server) -> AsyncIterator[Journal]:
        valkey.flush()
        async with connected(valkey) as journal:
            yield journal

    async def test_scripts_are_sent_again_to_a_server_that_forgot_them(self, valkey: Server, journal: Journal) -> None:
        await create(journal, new_run())
        valkey.forget_scripts()
        await create(journal, new_run())

    async def test_an_index_holds_only_what_is_in_that_state(self, valkey: Server, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run("2025-01-01"), new_run("2025-01-02"))
        await owner.commit(append(one, 1, state="running"), append(two, 1, state="running"))
        await owner.commit(append(one, 2, state="failed"))
        await create(journal, new_run("2025-01-01", reprocess="failed"))
        assert {key: valkey.members(key) for key in ("i:t:s:queued", "i:t:s:running", "i:t:d:d:s:failed", "i:t")} == {
            "i:t:s:queued": [one],
            "i:t:s:running": [two],
            "i:t:d:d:s:failed": [],
            "i:t": [one, two],
        }

    async def test_a_page_looks_at_a_bounded_part_of_the_index(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("actors.journal._SCAN_LIMIT", 10)
        [wanted] = await create(journal, new_run(run_type="scheduled"))
        await create(journal, *(new_run() for _ in range(25)))
        found, cursor, pages = list[str](), None, 0
        while True:
            page = await journal.summaries(RunFilter(tenant="t", run_type="scheduled"), cursor, 5)
            found, cursor, pages = [*found, *(r.run_id for r in page.rows)], page.next_cursor, pages + 1
            if cursor is None:
                break
        assert (found, pages) == ([wanted], 3)


if redis_binary():

    class TestRedis(EverySuite):
        @pytest.fixture
        async def journal(self, redis_server: Server) -> AsyncIterator[Journal]:
            redis_server.flush()
            async with connected(redis_server) as journal:
                yield journal

else:

    @pytest.mark.skip(reason="redis-server is not installed")
    def test_the_suite_on_redis() -> None: ...


async def test_what_was_acknowledged_survives_the_death_of_the_server() -> None:
    server = Server(valkey_binary())
    try:
        async with connected(server) as journal:
            owner = await Owner(journal).start()
            ids = await create(journal, *(new_run() for _ in range(4)))
            acknowledged, version = [], 1
            for _ in range(3):
                killer = asyncio.get_running_loop().call_later(0.05, server.kill)
                pending = None
                while pending is None:
                    step = owner.step(*(append(run, version, 2, tasks=(("a", "r"),)) for run in ids))
                    try:
                        results = await journal.commit(step)
                        acknowledged.append([r.status for r in results])
                        version += 2
                    except JournalUnavailable:
                        pending = step
                killer.cancel()
                server.start()
                results = await journal.commit(pending)
                acknowledged.append([r.status for r in results])
                version += 2
            assert {tuple(a) for a in acknowledged} == {("ok",) * 4}
            for history in await journal.load(ids):
                assert history.row.version == version
                assert [b.last_version for b in history.batches] == [1, *range(3, version + 1, 2)]
            assert await journal.owned("actor-1") == ids
    finally:
        server.stop()


async def test_a_read_outlasts_a_short_absence_of_the_server() -> None:
    server = Server(valkey_binary())
    try:
        async with connected(server) as journal:
            await create(journal, new_run())
            server.kill()
            asyncio.get_running_loop().call_later(0.3, server.start)
            [result] = await journal.create_runs([Creation((new_run(),))])
            assert result.status == "ok"
    finally:
        server.stop()


async def test_a_server_that_hangs_holds_nobody_up_for_longer_than_a_second() -> None:
    server = Server(valkey_binary())
    try:
        async with connected(server) as journal:
            assert await journal.ask_leave("k", 1, 60_000) == 0
            server.freeze()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(JournalUnavailable):
                await journal.ask_leave("k", 1, 60_000)
            assert 0.9 < loop.time() - begun < 1.5
            server.thaw()
            assert await journal.ask_leave("k", 1, 60_000) > 0
    finally:
        server.stop()


async def test_an_absent_server_is_unavailable_within_the_deadline() -> None:
    server = Server(valkey_binary())
    journal = RedisJournal(server.url, deadline_s=0.5)
    try:
        await journal.put_dag(put())
        server.kill()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(JournalUnavailable):
            await journal.dag("t", "d")
        assert loop.time() - begun < 1.5
        assert not await journal.ping()
        with pytest.raises(JournalUnavailable):
            await journal.tail("feed", "0-0", 1000)
    finally:
        await journal.close()
        server.stop()
