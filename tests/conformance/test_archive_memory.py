"""The journal's memory comes back when runs leave for the archive, and every one of them can still be read.

Runs are put in by the journal's own bulk steps: one in two has a window, one in ten has printed something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import redis

from actors.archive_store import ArchiveStore
from actors.archiver import Archiver
from actors.clock import Clock
from actors.journal import Journal
from actors.settings import Settings
from orchestrator import codec
from orchestrator import events as e
from orchestrator.archive import Sweep
from orchestrator.definition import Window
from orchestrator.rows import RunFilter
from orchestrator.steps import Append, Creation
from tests.conformance.journal_builders import AT, NOW_MS, Owner, new_run, put
from tests.conformance.servers import Server, valkey_binary

BULK = 1000
_EVENTS = codec.encode_events(
    [e.RunStarted(AT, 1), e.TaskStarted(AT, "a", 1, "w"), e.TaskSucceeded(AT, "a", 1), e.RunSucceeded(AT)]
)


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are older than news of them are kept."""
    monkeypatch.setattr("actors.archiver.NEWS_MS", -1000)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(valkey_binary())
    yield server
    server.stop()


def memory_bytes(server: Server) -> int:
    """What the server has in use, after it gave back what it could."""
    with redis.Redis.from_url(server.url) as client:
        client.memory_purge()
        found: int = client.info("memory")["used_memory"]  # type: ignore[index]  # of a blocking client
        return found


def resident_bytes(server: Server) -> int:
    """What the operating system counts as the server's."""
    with redis.Redis.from_url(server.url) as client:
        found: int = client.info("memory")["used_memory_rss"]  # type: ignore[index]  # of a blocking client
        return found


def window(number: int) -> Window:
    day = (date(1600, 1, 1) + timedelta(days=number)).isoformat()
    return Window(day, day)


async def finished(journal: Journal, owner: Owner, server: Server, first: int, count: int) -> dict[str, str]:
    """So many runs that have ended -> window key."""
    runs = [new_run(window_key=window(number).key() if number % 2 else "") for number in range(first, first + count)]
    [result] = await journal.create_runs([Creation(tuple(runs))])
    assert result.status == "ok"
    over = {"state": "succeeded", "attempts": 1, "started_ms": NOW_MS, "finished_ms": NOW_MS}
    appends = [
        Append(run_id=run.run_id, expected=1, count=4, events=_EVENTS, tasks=(("a", "d"),), **over) for run in runs
    ]
    assert set(await owner.commit(*appends)) == {"ok"}
    with redis.Redis.from_url(server.url) as client, client.pipeline(transaction=False) as pipe:
        for run in runs[::10]:
            pipe.rpush(f"log:{run.run_id}:a:1", f"printed by {run.run_id}")
        pipe.execute()
    return {run.run_id: run.window_key for run in runs}


async def swept(journal: Journal, home: Path) -> Sweep:
    archiver = Archiver(journal, Clock(), Settings(home=str(home)))
    return await archiver.sweep(Sweep(id="one", before_ms=NOW_MS + 1, to=""))


async def filled_and_swept(server: Server, home: Path, count: int) -> tuple[dict[str, str], tuple[int, int, int]]:
    """Runs -> window key, and memory at the start, with all of them, and after they left."""
    journal = Journal(server.url)
    try:
        await journal.put_dag(put())
        owner = await Owner(journal).start()
        # a server that has worked: its scripts are loaded, its streams and counters are there
        await finished(journal, owner, server, 10**5 + 1, BULK)
        await swept(journal, home / "before")
        start = memory_bytes(server)
        runs: dict[str, str] = {}
        for first in range(0, count, BULK):
            runs |= await finished(journal, owner, server, first, BULK)
        full = memory_bytes(server)
        sweep = await swept(journal, home)
        assert (sweep.state, sweep.runs, sweep.left) == ("done", count, 0)
        return runs, (start, full, memory_bytes(server))
    finally:
        await journal.close()


def check_all_can_be_read(home: Path, runs: dict[str, str]) -> None:
    store = ArchiveStore(home)
    ids = list(runs)
    for first in range(0, len(ids), BULK):
        chunk = ids[first : first + BULK]
        found = store.read(chunk)
        assert found.keys() == set(chunk)
        for number, run_id in enumerate(chunk):
            run = found[run_id]
            told = [event for batch in run.batches for event in codec.decode_events(batch.events, batch.schema)]
            assert [type(event) for event in told] == [
                e.RunCreated, e.RunStarted, e.TaskStarted, e.TaskSucceeded, e.RunSucceeded
            ]  # fmt: skip
            assert (run.row.state, run.tasks) == ("succeeded", {"a": "d"})
            assert list(run.printed("a")) == ([] if number % 10 else [(1, f"printed by {run_id}")])
        keys = [runs[run_id] for run_id in chunk if runs[run_id]]
        assert set(store.by_window("t", "d", keys)) == {run_id for run_id in chunk if runs[run_id]}
    listed, cursor = list[str](), None
    while True:
        page = store.page(RunFilter(tenant="t", dag_id="d"), cursor, 200)
        listed += [row.run_id for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert listed == sorted(runs, reverse=True)


async def check(server: Server, home: Path, count: int) -> tuple[int, int, int]:
    runs, figures = await filled_and_swept(server, home, count)
    await asyncio.to_thread(check_all_can_be_read, home, runs)
    return figures


async def test_memory_comes_back_when_a_thousand_runs_leave(server: Server, tmp_path: Path) -> None:
    start, full, after = await check(server, tmp_path, 1000)
    assert after < full
    assert after <= 1.2 * start, f"{start:,} at the start, {full:,} full, {after:,} after"


@pytest.mark.slow
async def test_memory_comes_back_when_a_hundred_thousand_runs_leave(
    server: Server, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    start, full, after = await check(server, tmp_path, 100_000)
    record_property("memory_bytes", (start, full, after))
    figures = f"{start:,} bytes at the start, {full:,} with 100,000 runs, {after:,} after"
    print(f"{figures}; {resident_bytes(server):,} resident")
    assert full > 10 * start
    assert after <= 1.2 * start
