"""Live streams: every event once and in order, whoever is slow, late or cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.errors import JournalUnavailable
from orchestrator.rows import EventBatch
from orchestrator.steps import Append
from orchestrator.views import Frame
from serve_app import channel, hub
from serve_app.hub import Hub
from serve_app.run_stream import run_frames
from tests.conformance.journal_builders import AT, Owner, create, new_run
from tests.fakes_journal import MemoryJournal


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


def step(run: str, expected: int, *events: e.Event, state: str | None = None) -> Append:
    return Append(run_id=run, expected=expected, count=len(events), events=codec.encode_events(events), state=state)


def started(n: int) -> e.TaskStarted:
    return e.TaskStarted(AT, f"task{n}", 1, "w")


async def collect(chunks: AsyncIterator[Sequence[Frame]]) -> list[int | str]:
    return [frame.kind if frame.seq is None else frame.seq async for frames in chunks for frame in frames]


async def test_a_finished_run_is_replayed_and_ends(journal: MemoryJournal) -> None:
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    await owner.commit(step(run, 1, e.RunStarted(AT, 1), started(1), state="running"))
    await owner.commit(step(run, 3, e.RunSucceeded(AT), state="succeeded"))
    for after, seen in ((0, [1, 2, 3, 4, "end"]), (2, [3, 4, "end"]), (3, [4, "end"])):
        assert await collect(run_frames(Hub(journal), run, after)) == seen


async def test_followers_see_each_event_once_and_in_order_wherever_they_begin(journal: MemoryJournal) -> None:
    owner = await Owner(journal).start()
    [run, other] = await create(journal, new_run(), new_run())
    live = Hub(journal)
    await owner.commit(step(run, 1, e.RunStarted(AT, 1), started(1), state="running"))
    readers = [asyncio.create_task(collect(run_frames(live, run, after))) for after in (0, 1, 2, 3)]
    await asyncio.sleep(0)
    version = 3
    for n in range(200):
        await owner.commit(step(run, version, started(n), started(n + 1000)), step(other, n + 1, started(n)))
        version += 2
        if n % 17 == 0:
            await asyncio.sleep(0)
        if n == 100:
            readers.append(asyncio.create_task(collect(run_frames(live, run, 50))))
    await owner.commit(step(run, version, e.RunSucceeded(AT), state="succeeded"))
    seen = await asyncio.wait_for(asyncio.gather(*readers), 5)
    for after, numbers in zip((0, 1, 2, 3, 50), seen, strict=True):
        assert numbers == [*range(after + 1, version + 2), "end"]


async def test_silence_is_filled_and_a_change_ends_it(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "KEEP_ALIVE_S", 0.02)
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    frames = run_frames(Hub(journal), run, 0)
    kinds = [[frame.kind for frame in await anext(frames)] for _ in range(3)]
    assert kinds == [["run_state"], ["keep_alive"], ["keep_alive"]]
    await owner.commit(step(run, 1, e.RunCancelled(AT), state="cancelled"))
    rest = [frame.kind async for chunk in frames for frame in chunk if frame.kind != "keep_alive"]
    assert rest == ["run_state", "end"]


async def test_a_feed_that_breaks_off_loses_nothing(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_PAUSE_S", 0.01)
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    live = Hub(journal)
    reader = asyncio.create_task(collect(run_frames(live, run, 0)))
    await asyncio.sleep(0.01)
    real = journal.tail

    async def broken(stream: str, cursor: str, block_ms: int, limit: int = 1000) -> object:
        raise JournalUnavailable("gone")

    journal.tail = broken  # type: ignore[method-assign, assignment]  # a stand-in, in this one object
    await owner.commit(step(run, 1, e.RunStarted(AT, 1), state="running"))
    await asyncio.sleep(0.03)
    await owner.commit(step(run, 2, e.RunSucceeded(AT), state="succeeded"))
    journal.tail = real  # type: ignore[method-assign]  # a stand-in, in this one object
    assert await asyncio.wait_for(reader, 2) == [1, 2, 3, "end"]


async def test_the_feed_is_read_only_while_somebody_follows(journal: MemoryJournal) -> None:
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    live = Hub(journal)
    one, two = await live.follow(run), await live.follow(run)
    await owner.commit(step(run, 1, started(1)))
    await asyncio.wait_for(asyncio.gather(one.changed.wait(), two.changed.wait()), 1)
    live.leave(one)
    assert live._reader is not None
    live.leave(two)
    assert live._reader is None


async def test_a_run_is_read_and_folded_once_for_all_who_follow_it(journal: MemoryJournal) -> None:
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    await owner.commit(step(run, 1, e.RunStarted(AT, 1), state="running"))
    live = Hub(journal)
    reads = 0
    real = journal.events

    async def counted(run_id: str, after: int, limit: int) -> list[EventBatch]:
        nonlocal reads
        reads += 1
        return await real(run_id, after, limit)

    journal.events = counted  # type: ignore[method-assign]  # a stand-in, in this one object
    readers = [asyncio.create_task(collect(run_frames(live, run, 0))) for _ in range(20)]
    await asyncio.sleep(0.01)
    for n in range(10):
        await owner.commit(step(run, 2 + n, started(n)))
        await asyncio.sleep(0)
    await owner.commit(step(run, 12, e.RunSucceeded(AT), state="succeeded"))
    seen = await asyncio.wait_for(asyncio.gather(*readers), 5)
    assert seen == [[*range(1, 14), "end"]] * 20
    assert reads < 40


async def test_a_reader_that_falls_far_behind_misses_nothing_and_holds_nothing_up(
    journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "KEPT", 4)
    monkeypatch.setattr(channel, "FRAMES_MAX", 16)
    owner = await Owner(journal).start()
    [run] = await create(journal, new_run())
    live = Hub(journal)
    slow = run_frames(live, run, 0)
    got = [frame.seq for frame in await anext(slow)]
    fast = asyncio.create_task(collect(run_frames(live, run, 0)))
    for n in range(100):
        await owner.commit(step(run, 1 + n, started(n)))
        await asyncio.sleep(0)
    await owner.commit(step(run, 101, e.RunSucceeded(AT), state="succeeded"))
    assert await asyncio.wait_for(fast, 5) == [*range(1, 103), "end"]
    [shared] = live._channels.values()
    assert shared.base > 50
    assert got + await asyncio.wait_for(collect(slow), 5) == [*range(1, 103), "end"]


async def test_a_channel_lives_as_long_as_somebody_follows(journal: MemoryJournal) -> None:
    [run] = await create(journal, new_run())
    live = Hub(journal)
    one, two = run_frames(live, run, 0), run_frames(live, run, 0)
    await anext(one)
    await anext(two)
    [shared] = live._channels.values()
    assert shared.users == 2
    await one.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert live._channels
    await two.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert not live._channels
    assert live._reader is None


async def test_a_hub_is_draining_once_the_server_is_about_to_go_away(journal: MemoryJournal) -> None:
    [run] = await create(journal, new_run())
    live = Hub(journal)
    follower = await live.follow(run)
    assert not live.draining.is_set()
    await journal.part()
    await asyncio.wait_for(live.draining.wait(), 1)
    live.leave(follower)
