"""Who still has permits when somebody has died."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import guard as guards
from actors.bound_work import BoundWork
from actors.claims import Claimant
from actors.clock import Clock
from actors.crew import Crew
from actors.guard import Guard
from actors.settings import Settings
from orchestrator import actor_codec, codec
from orchestrator.control import Binding, Bound, Claims
from orchestrator.limits import Limit
from orchestrator.messages import Fenced, Need
from orchestrator.slots import Slots

W = "l/t/w"
NEED = Need("default", ((W, 1),))
LEAF = ("t", "manual", "d")
WORKER = "worker-default-0"


class FakePeers:
    """A worker that is at a batch as long as it is told to be; RunActors that hear everything."""

    def __init__(self) -> None:
        self.batch: tuple[str, int, int] | None = None
        self.looks = 0

    def meet(self, _worker: str, _incarnation: str) -> None: ...

    async def control(self, _worker: str, _method: str, *_args: Any) -> bytes:
        self.looks += 1
        return actor_codec.encode_fenced(Fenced("i", self.batch, NEED if self.batch else None))

    async def tell(self, _actor: str, _method: str, _blob: bytes) -> None:
        return


async def a_lease(peers: Any) -> Guard:
    """A guard that has granted the only permit to `a`."""
    tasks: set[asyncio.Task[None]] = set()
    slots = Slots()
    slots.add(WORKER, "default", "i")
    spawn = lambda work: tasks.add(asyncio.get_running_loop().create_task(work))  # noqa: E731
    guard = Guard(peers, Clock(), slots, spawn, lambda: None, lambda: ("a",), lambda: (WORKER,))
    guard.begin(1, {W: codec.encode_limit(Limit(1))})
    guard.permits.opened = guard._opening = True
    guard.take_claims(Claims("a", 1, 1, ((NEED, ((LEAF, 1),)),), whole=True, held=()))
    now_s = Clock().monotonic()
    assert guard.offer(now_s)
    (grant,) = slots.grants(now_s, guard.takes(now_s))
    assert guard.grant(grant, now_s)
    return guard


@pytest.mark.parametrize("how", ["replaced", "lost", "ended"])
async def test_permits_of_who_is_gone_stay_in_use_until_the_worker_has_stopped(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(guards, "LOOK_MAX_S", 0.002)
    peers = FakePeers()
    guard = await a_lease(peers)
    peers.batch = ("a", 1, 7)
    (lease,) = guard.permits.leases.values()
    match how:
        case "replaced":
            guard.take_claims(Claims("a", 2, 1, whole=True, held=()))
        case "lost":
            guard.take_claims(Claims("a", 1, 2, lost=((WORKER, lease.number),)))
        case "ended":
            guard.forget("a")
    while peers.looks < 4:  # noqa: ASYNC110 # nobody tells
        await asyncio.sleep(0.002)
    assert guard.permits.uses[W].running == 1
    assert guard._slots.slots[WORKER].holder == lease.label, "nor is its slot anybody else's"
    peers.batch = None
    while W in guard.permits.uses:  # noqa: ASYNC110 # as above
        await asyncio.sleep(0.002)
    assert guard._slots.slots[WORKER].holder is None


async def test_what_the_new_incarnation_took_over_it_also_gives_back() -> None:
    guard = await a_lease(FakePeers())
    guard.take_claims(Claims("a", 2, 1, whole=True, held=(Bound(WORKER, "i", 0, NEED, 0),)))
    assert (guard.permits.uses[W].running, guard.permits.ghosts) == (1, [])
    guard.take_claims(Claims("a", 1, 9, released=((WORKER, 0),)))
    assert guard.permits.uses[W].running == 1, "a former incarnation says nothing any more"
    guard.take_claims(Claims("a", 2, 2, released=((WORKER, 0),)))
    assert W not in guard.permits.uses
    assert guard._slots.slots[WORKER].holder is None


async def test_only_bindings_for_this_incarnation_of_the_newest_scheduler_count() -> None:
    peers: Any = FakePeers()
    crew = Crew("a", 5, peers, lambda _: None, Settings())
    claimant = Claimant("a", peers, BoundWork())
    claimant.start(5, scheduler=3, crew=crew)
    grant = Bound(WORKER, "i", 9, NEED)
    claimant.bind(Binding(3, 4, (grant,)))
    claimant.bind(Binding(2, 5, (grant,)))
    assert crew.seats == {}
    held = actor_codec.decode_claims(claimant.stock(4)).held
    assert held == ()
    claimant.bind(Binding(3, 5, (grant,)))
    assert crew.seats == {}, "a former scheduler, since a new one took stock"
    claimant.bind(Binding(4, 5, (grant,)))
    assert crew.bound() == (grant,)
    crew.seen()
    assert crew.leave_bound() == [(WORKER, 9)]
    claimant.bind(Binding(4, 5, (grant,)))
    assert crew.seats == {}, "it was given back, and came for the second time"
