"""Two or three control planes on one journal, in virtual time: paused, cut off, killed, started again, clocks set.

Each is the real keeper with a cast of one: an owner that takes an epoch and commits. A plane may be paused at any
instant, which holds up whatever it waits for; what it asks of the journal may be lost before or after it took effect.
At every accepted commit the plane is the one in charge; and once the weather clears up, one plane, and no other,
decides within a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import TypeVar

import pytest

from actors.plane_keeper import LOOK_S, RENEW_S, PlaneKeeper
from orchestrator.errors import Fenced, JournalUnavailable
from orchestrator.planes import KEPT_MS, LEASE_MS, Claim, Lease
from orchestrator.steps import Commit
from tests.fakes_journal import MemoryJournal
from tests.fakes_planes import MemoryPlanes
from tests.virtual_time import virtually

T = TypeVar("T")

#: seconds after which one plane decides once nothing goes wrong any more: the lease of a dead one, one look, and slack
DECIDES_WITHIN_S = (LEASE_MS + KEPT_MS) / 1000 + LOOK_S + 3.0
#: seconds after which a plane knows that it is not in charge, if it can know
KNOWS_WITHIN_S = RENEW_S + 1.0


class Sky:
    """One journal, its clock, and what goes wrong."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.memory = MemoryJournal()
        self.skew_ms = 0
        self.lost = 0.0
        self.planes: list[Plane] = []
        #: (seconds, plane, term) of each accepted commit
        self.commits: list[tuple[float, str, int]] = []
        self.started = 0
        self.wrong: list[str] = []

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return 1_000_000 + self.skew_ms + int(self.now_s * 1000)

    def start(self, seat: str) -> Plane:
        self.started += 1
        plane = Plane(self, f"plane-{self.started}", seat)
        self.planes.append(plane)
        return plane

    def deciding(self) -> list[str]:
        return [plane.name for plane in self.planes if plane.decides]


class Plane:
    """The supervisor's process of one plane, and its cast. Ray starts the process again when it ends."""

    def __init__(self, sky: Sky, name: str, seat: str) -> None:
        self.sky = sky
        self.name, self.seat = name, seat
        self.paused_until_s = 0.0
        self.view = MemoryPlanes(sky.memory, name, sky.now_ms)
        self.cast: asyncio.Task[None] | None = None
        #: planes need not have actors of the same names
        self.owner = sky.rng.choice(("scheduler", f"run-actor-{sky.started}"))
        self.life: asyncio.Task[None] | None = asyncio.create_task(self._live())
        self.keeper: PlaneKeeper | None = None

    @property
    def alive(self) -> bool:
        return self.life is not None

    @property
    def decides(self) -> bool:
        return self.cast is not None and not self.cast.done()

    async def _live(self) -> None:
        first = Claim(self.name, seat=self.seat, returning=True)
        with suppress(JournalUnavailable):
            await self._road(lambda: self.view.claim_lease(first))
        while True:
            self.keeper = PlaneKeeper(self, Claim(self.name, seat=self.seat), self._begin, self._end_cast, lambda: None)
            await self.keeper.run()
            await asyncio.sleep(self.sky.rng.uniform(0.1, 2.0))

    # ── as the keeper sees the journal, over a bad road ───────────────────────────────────────────

    async def claim_lease(self, asked: Claim) -> Lease:
        return await self._road(lambda: self.view.claim_lease(asked))

    async def release_lease(self, plane: str) -> Lease:
        return await self._road(lambda: self.view.release_lease(plane))

    async def lease(self) -> Lease:
        return self.sky.memory.lease

    async def _road(self, ask: Callable[[], Awaitable[T]]) -> T:
        await self._travel()
        answer = await ask()
        await self._travel()
        return answer

    async def _travel(self) -> None:
        rng = self.sky.rng
        await asyncio.sleep(rng.uniform(0.0, 0.05))
        while self.paused_until_s > self.sky.now_s:  # noqa: ASYNC110 (a pause may end sooner)
            await asyncio.sleep(min(0.5, self.paused_until_s - self.sky.now_s))
        if rng.random() < self.sky.lost:
            raise JournalUnavailable("lost")

    # ── its cast ──────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        self.cast = asyncio.create_task(self._decide())

    async def _end_cast(self) -> None:
        await self._travel()
        if self.cast is not None:
            self.cast.cancel()
            self.cast = None

    async def _decide(self) -> None:
        """An actor that Ray starts again whenever it is fenced."""
        while True:
            with suppress(JournalUnavailable, Fenced):
                epoch, turn = await self._road(lambda: self.view.take_epoch(self.owner)), 0
                while True:
                    turn += 1
                    step = Commit(owner=self.owner, epoch=epoch, turn=turn)
                    await self._road(lambda step=step: self._commit(step))  # type: ignore[misc]  # a default binds it
                    await asyncio.sleep(0.2)
            await asyncio.sleep(0.3)

    async def _commit(self, step: Commit) -> None:
        await self.sky.memory.commit(step)
        lease = self.sky.memory.lease
        if lease.plane != self.name:
            self.sky.wrong.append(f"{self.name} decided while {lease} held")
        self.sky.commits.append((self.sky.now_s, self.name, lease.term))

    # ── what happens to it ────────────────────────────────────────────────────────────────────────

    def kill(self) -> None:
        for task in (self.life, self.cast):
            if task is not None:
                task.cancel()
        self.life = self.cast = None

    def pause(self, seconds: float) -> None:
        self.paused_until_s = self.sky.now_s + seconds


async def trouble(sky: Sky) -> None:
    rng = sky.rng
    alive = [plane for plane in sky.planes if plane.alive]
    match rng.choice(("pause", "pause", "kill", "start", "clock", "lost", "hand over")):
        case "pause" if alive:
            rng.choice(alive).pause(rng.choice((1.0, 5.0, 15.0, 40.0)))
        case "kill" if len(alive) > 1:
            rng.choice(alive).kill()
        case "start" if len(alive) < 3:
            gone = [plane.seat for plane in sky.planes if not plane.alive]  # a seat has one server at a time
            sky.start(rng.choice([*gone, f"seat-{sky.started}"]))
        case "clock":
            sky.skew_ms += rng.choice((-3_600_000, -20_000, 5_000, 20_000, 3_600_000))
        case "lost":
            sky.lost = rng.choice((0.0, 0.05, 0.3))
        case "hand over" if alive and (keeper := rng.choice(alive).keeper):
            keeper.take_over()
    await asyncio.sleep(rng.choice((0.1, 1.0, 5.0, 15.0)))


def check_terms(sky: Sky) -> None:
    """Commits of one plane after the other: a term is of one plane, and terms never go back."""
    assert not sky.wrong
    terms = [term for _, _, term in sky.commits]
    assert terms == sorted(terms)
    of: dict[int, str] = {}
    assert all(of.setdefault(term, plane) == plane for _, plane, term in sky.commits)


async def check_calm(sky: Sky) -> None:
    """One plane decides, and nobody else believes to."""
    sky.lost = 0.0
    for plane in sky.planes:
        plane.paused_until_s = 0.0
    await asyncio.sleep(DECIDES_WITHIN_S + KNOWS_WITHIN_S)
    [decider] = sky.deciding()
    before = len(sky.commits)
    await asyncio.sleep(2.0)
    assert {plane for _, plane, _ in sky.commits[before:]} == {decider}
    assert sky.memory.lease.plane == decider


async def story(seed: int) -> None:
    sky = Sky(Random(seed))
    for number in range(sky.rng.randint(2, 3)):
        sky.start(f"seat-{number}")
    for _ in range(12):
        await trouble(sky)
    await check_calm(sky)
    check_terms(sky)
    for plane in sky.planes:
        plane.kill()


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_whatever_happens_one_plane_at_a_time_decides_and_in_the_end_one_does(first: int) -> None:
    for seed in range(first, first + 20):
        try:
            virtually(story(seed))
        except Exception as failed:
            raise AssertionError(f"seed {seed}: {type(failed).__name__}: {failed}") from failed


async def two(seed: int = 0) -> tuple[Sky, Plane, Plane]:
    """One plane in charge, and one that stands by."""
    sky = Sky(Random(seed))
    first = sky.start("old")
    await asyncio.sleep(1.0)
    second = sky.start("new")
    await asyncio.sleep(5.0)
    assert sky.deciding() == [first.name]
    return sky, first, second


async def until(holds: Callable[[], bool], within_s: float) -> float:
    """Seconds until it held."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not holds():
        assert loop.time() - begun < within_s, "too late"
        await asyncio.sleep(0.01)
    return loop.time() - begun


def test_who_asks_takes_over_in_seconds_and_not_before_the_former_cast_is_gone() -> None:
    async def course(seed: int) -> None:
        sky, first, second = await two(seed)
        assert second.keeper is not None
        second.keeper.take_over()
        both = False

        def handed_over() -> bool:
            nonlocal both
            both |= first.decides and second.decides
            return second.decides

        await until(handed_over, RENEW_S + LOOK_S + 1.0)
        assert not both
        await asyncio.sleep(30.0)
        assert sky.deciding() == [second.name]

    for seed in range(20):
        virtually(course(seed))


def test_a_plane_whose_holder_was_killed_decides_once_the_lease_has_run_out() -> None:
    async def course(seed: int) -> None:
        _, first, second = await two(seed)
        first.kill()
        took_s = await until(lambda: second.decides, LEASE_MS / 1000 + LOOK_S + 1.0)
        assert took_s > LEASE_MS / 1000 - RENEW_S - 1.0

    for seed in range(20):
        virtually(course(seed))


def test_a_server_that_starts_again_on_its_data_directory_does_not_wait_for_its_own_lease() -> None:
    async def course() -> None:
        sky, first, second = await two()
        first.kill()
        again = sky.start("old")
        await until(lambda: again.decides, 1.0)
        assert not second.decides

    virtually(course())


def test_a_plane_that_slept_too_long_stops_deciding_once_it_can_know() -> None:
    async def course(seed: int) -> None:
        sky, first, second = await two(seed)
        first.pause(30.0)
        await until(lambda: second.decides, LEASE_MS / 1000 + LOOK_S + 1.0)
        assert first.decides  # so it believes
        await until(lambda: not first.decides, 30.0 + KNOWS_WITHIN_S)
        assert sky.deciding() == [second.name]

    for seed in range(20):
        virtually(course(seed))


def test_a_plane_keeps_its_lease_while_it_alone_cannot_reach_the_journal_for_a_moment() -> None:
    async def course(seed: int) -> None:
        sky, first, _ = await two(seed)
        first.pause(LEASE_MS / 1000 - RENEW_S - 0.5)
        await asyncio.sleep(60.0)
        assert sky.deciding() == [first.name]
        assert sky.memory.lease.term == 1

    for seed in range(20):
        virtually(course(seed))
