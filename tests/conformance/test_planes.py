"""The lease in the journal's scripts follows `orchestrator/planes.py`, and fences what a former plane decides."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
import redis

from actors.plane_journal import CastJournal, PlaneJournal
from orchestrator import planes
from orchestrator.errors import Fenced, JournalUnavailable
from orchestrator.planes import Claim, Lease
from tests.conformance.journal_builders import Owner, a_fire, append, create, new_run
from tests.conformance.servers import Server, valkey_binary
from tests.fakes_journal import MemoryJournal
from tests.fakes_planes import MemoryPlanes

#: longer than a test, and shorter than the time by which a lease is aged here
LONG_MS, AGED_MS = 60_000, 600_000


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    server = Server(valkey_binary())
    yield server
    server.stop()


View = Callable[[str], Any]


@pytest.fixture(params=["memory", "valkey"])
async def view(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[View]:
    """plane -> the journal as its actors see it."""
    async with contextlib.AsyncExitStack() as opened:
        if request.param == "memory":
            memory = MemoryJournal()
            yield lambda plane: MemoryPlanes(memory, plane, lambda: 1_000)
            return
        valkey.flush()

        def connect(plane: str) -> CastJournal:
            journal = CastJournal(valkey.url, plane)
            opened.push_async_callback(journal.close)
            return journal

        yield connect


async def owner_of(view: View, plane: str, name: str = "actor-1") -> Owner:
    journal = view(plane)
    owner = Owner(getattr(journal, "journal", journal), name)
    owner.epoch = await journal.take_epoch(name)
    return owner


async def test_epochs_are_for_the_plane_in_charge(view: View) -> None:
    assert (await view("a").claim_lease(Claim("a"))).plane == "a"
    assert await view("a").take_epoch("actor-1") == 1
    with pytest.raises(JournalUnavailable):
        await view("b").take_epoch("actor-1")
    await view("a").release_lease("a")
    for plane in ("a", "b"):
        with pytest.raises(JournalUnavailable):
            await view(plane).take_epoch("actor-1")


async def test_where_no_plane_ever_was_in_charge_everybody_gets_epochs(view: View) -> None:
    assert [await view(plane).take_epoch("actor-1") for plane in ("a", "b")] == [1, 2]


async def test_a_plane_that_took_over_fences_every_owner_of_the_former_one_at_once(view: View) -> None:
    await view("a").claim_lease(Claim("a"))
    former, other = await owner_of(view, "a"), await owner_of(view, "a", "actor-2")
    [run] = await create(former.journal, new_run())
    assert await former.commit(append(run, 1, state="running")) == ["ok"]
    await view("b").claim_lease(Claim("b", alone=True))
    for owner in (former, other):
        with pytest.raises(Fenced):
            await owner.commit(append(run, 2))
    later = await owner_of(view, "b", "actor-2")
    assert await later.commit(append(run, 2)) == ["stale"]  # the row still names the former owner
    same = await owner_of(view, "b")
    assert await same.commit(append(run, 2)) == ["ok"]


async def test_a_step_that_was_done_is_not_answered_again_to_a_former_plane(view: View) -> None:
    await view("a").claim_lease(Claim("a"))
    former = await owner_of(view, "a")
    [run] = await create(former.journal, new_run())
    step = former.step(append(run, 1))
    assert [r.status for r in await former.journal.commit(step)] == ["ok"]
    await view("b").claim_lease(Claim("b", alone=True))
    with pytest.raises(Fenced):
        await former.journal.commit(step)


async def test_the_scheduler_of_a_former_plane_fires_and_pops_nothing(view: View) -> None:
    await view("a").claim_lease(Claim("a"))
    scheduler = await owner_of(view, "a", "scheduler")
    [run] = await create(scheduler.journal, new_run())
    await view("b").claim_lease(Claim("b", alone=True))
    assert (await scheduler.journal.fire(a_fire(scheduler, 1))).status == "fenced"
    with pytest.raises(Fenced):
        await scheduler.journal.pop_timers(scheduler.epoch, 10**13)
    actor = await owner_of(view, "b")
    admission = append(run, 1, state="running", scheduler_epoch=scheduler.epoch)
    assert await actor.commit(admission) == ["refused"]


async def test_records_of_a_former_plane_are_refused_and_change_nothing(view: View) -> None:
    await view("a").put_records("pool", {"before": b"1"})  # nobody ever was in charge
    await view("a").claim_lease(Claim("a"))
    await view("a").put_records("pool", {"gpu": b"1"})
    await view("b").claim_lease(Claim("b", alone=True))
    for change in ({"gpu": b"2", "late": b"2"}, {"gpu": None}):
        with pytest.raises(JournalUnavailable, match="in charge"):
            await view("a").put_records("pool", change)
    await view("b").put_records("pool", {"later": b"3"})
    assert await view("b").records("pool") == {"before": b"1", "gpu": b"1", "later": b"3"}
    await view("b").release_lease("b")
    for plane in ("a", "b"):
        with pytest.raises(JournalUnavailable, match="in charge"):
            await view(plane).put_records("pool", {"gpu": b"4"})


async def test_what_replicas_of_a_plane_that_stands_by_take_is_recorded(valkey: Server) -> None:
    valkey.flush()
    journal = PlaneJournal(valkey.url, "b")
    try:
        await journal.claim_lease(Claim("a"))
        await journal.put_records("share", {"acme": b"2"})
        assert await journal.record("share", "acme") == b"2"
    finally:
        await journal.close()


async def test_a_plane_that_renews_keeps_its_term_and_its_epochs(view: View) -> None:
    first = await view("a").claim_lease(Claim("a"))
    owner = await owner_of(view, "a")
    [run] = await create(owner.journal, new_run())
    assert (await view("a").claim_lease(Claim("a"))).term == first.term
    assert await owner.commit(append(run, 1)) == ["ok"]


# ---------------------------------------------------------------- the scripts and the rule


def an_ask(rng: Random) -> Claim:
    return Claim(
        rng.choice("abc"),
        rng.choice((0, LONG_MS, LONG_MS)),
        rng.choice(("", "home-1", "home-2")),
        rng.choice(("", "http://x")),
        returning=rng.random() < 0.2,
        alone=rng.random() < 0.05,
        wants=rng.random() < 0.3,
    )


def untimed(lease: Lease) -> Lease:
    """What can be compared without the server's clock, and whether there is an end."""
    return msgspec.structs.replace(lease, since_ms=0, until_ms=int(lease.until_ms > 0))


@pytest.mark.parametrize("seed", range(30))
async def test_the_scripts_do_what_the_rule_says(seed: int, valkey: Server) -> None:
    rng, told = Random(seed), list[str]()
    valkey.flush()
    journal = PlaneJournal(valkey.url, "a")
    with redis.Redis.from_url(valkey.url) as server:
        try:
            for _ in range(40):
                before = await journal.lease()
                seconds, micros = server.time()
                now_ms = seconds * 1000 + micros // 1000
                step = rng.random()
                if step < 0.6:
                    asked = an_ask(rng)
                    expected, found = planes.claim(before, asked, now_ms), await journal.claim_lease(asked)
                elif step < 0.8:
                    plane = rng.choice("abc")
                    expected, found = planes.release(before, plane, now_ms), await journal.release_lease(plane)
                else:
                    aged_ms = rng.choice((-AGED_MS, AGED_MS))  # time passes, or the clock is set back
                    until_ms = before.until_ms and before.until_ms + aged_ms
                    if server.exists("plane"):
                        server.hset("plane", "until_ms", until_ms)
                    expected, found = msgspec.structs.replace(before, until_ms=until_ms), await journal.lease()
                told.append(f"{step:.2f} {found}")
                assert untimed(found) == untimed(expected), told
                assert abs(found.until_ms - expected.until_ms) < 5_000, told
                assert abs(found.since_ms - expected.since_ms) < 5_000, told
                assert found == await journal.lease(), told
        finally:
            await journal.close()
