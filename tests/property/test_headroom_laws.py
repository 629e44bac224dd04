"""Laws of the slots that backfills leave free: nobody has one too many, and none is idle for who may have it.

Leases are held to a brute force over all of them after every step. Then RunActors that give back what they cannot use
play in virtual time, and random trees of servers, of which some are kept, hold who waits to the bound.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import Invalid
from orchestrator.headroom import HEADROOM_MAX, OTHERS, Headroom, read_headroom, spares
from orchestrator.shares import Path, Shares
from orchestrator.slots import QUANTUM_S, Grant, Slots
from tests.property.test_shares_laws import bound

POOL = "default"
LEAVES = [(tenant, kind, "d") for tenant in "ab" for kind in ("scheduled", "manual", "backfill")]
HOLDERS = "ABCD"

_ops = st.lists(
    st.tuples(
        st.sampled_from(
            ["demand"] * 4 + ["release"] * 4 + ["obey", "add", "lose", "drain", "forget", "spare", "adopt"]
        ),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=70,
)


class Book:
    """What ought to be known: slots, leases and demand, in plain dictionaries."""

    def __init__(self, headroom: int, leases: dict[str, Grant] | None = None) -> None:
        self.headroom = headroom
        self.there: dict[str, str] = {}
        self.draining: set[str] = set()
        self.leases = leases if leases is not None else {}
        self.asked: set[int] = set()
        self.demand: dict[str, dict[Path, int]] = {}

    @property
    def keeps(self) -> int:
        """Slots that are kept now."""
        return max(0, min(self.headroom, len(self.there) - len(self.draining) - 1))

    def count(self, kept: bool, unasked: bool = False) -> int:
        """Leases of that kind, of workers that do not leave."""
        mine = [grant for worker, grant in self.leases.items() if worker not in self.draining]
        return sum(grant.kept == kept and not (unasked and grant.lease in self.asked) for grant in mine)

    def free(self) -> int:
        return sum(worker not in self.leases and worker not in self.draining for worker in self.there)

    def waits(self, backfill: bool) -> bool:
        return any(spares(leaf) == backfill for leaves in self.demand.values() for leaf in leaves)

    def granted(self, grant: Grant) -> None:
        """Held to the limit, and noted."""
        assert grant.worker in self.there
        assert grant.worker not in self.leases, "one holder at a time"
        self.leases[grant.worker] = grant
        room = self.keeps if grant.kept else len(self.there) - len(self.draining) - self.keeps
        assert self.count(grant.kept) <= room, "I7: more than may be leased of that kind"
        assert not (grant.kept and grant.leaf is not None and spares(grant.leaf)), "a kept slot for a backfill"
        if grant.leaf is not None:
            leaves = self.demand[grant.holder]
            leaves[grant.leaf] -= 1
            self.demand[grant.holder] = {leaf: n for leaf, n in leaves.items() if n}


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 4), _ops)
def test_no_lease_is_one_too_many_and_no_slot_is_idle_that_somebody_may_have(
    headroom: int, ops: list[tuple[str, int, int]]
) -> None:
    slots, book, now_s = Slots(wakes=("scheduled",), headroom={OTHERS: headroom}), Book(headroom), 0.0
    for kind, which, share in ops:
        now_s += QUANTUM_S / 2
        _do(slots, book, kind, which, share, now_s)
        for grant in slots.grants(now_s):
            book.granted(grant)
        full = book.count(kept=False) >= len(book.there) - len(book.draining) - book.keeps
        assert not (book.free() and book.waits(backfill=False)), "I9"
        assert not (book.free() and book.waits(backfill=True) and not full), "I9"
        for ask in slots.yields(now_s):
            assert book.leases[ask.worker].lease == ask.lease
            book.asked.add(ask.lease)
        assert book.count(False, unasked=True) <= max(0, len(book.there) - len(book.draining) - book.keeps), "surplus"
        assert book.count(True, unasked=True) <= book.keeps, "surplus"


def _do(slots: Slots, book: Book, kind: str, which: int, share: int, now_s: float) -> None:
    holder, worker = HOLDERS[which % 4], f"w{which}"
    match kind:
        case "demand":
            leaves = {LEAVES[share]: which + 1, LEAVES[which]: share} if share else {}
            book.demand[holder] = {leaf: n for leaf, n in leaves.items() if n}
            slots.demand(holder, dict(book.demand[holder]))
        case "release" if worker in book.leases:
            grant = book.leases.pop(worker)
            slots.release(grant.holder, worker, grant.lease)
        case "obey":
            for name, grant in [(w, g) for w, g in book.leases.items() if g.lease in book.asked]:
                del book.leases[name]
                slots.release(grant.holder, name, grant.lease)
        case "add" if worker not in book.there or share == 0:
            book.leases.pop(worker, None)
            book.draining.discard(worker)
            book.there[worker] = f"i{now_s}"
            slots.add(worker, POOL, f"i{now_s}")
        case "lose":
            slots.remove(worker)
            book.there.pop(worker, None)
            book.leases.pop(worker, None)
            book.draining.discard(worker)
        case "drain" if worker in book.there:
            slots.drain(worker)
            book.draining.add(worker)
        case "forget":
            slots.forget(holder)
            book.demand.pop(holder, None)
            for name in [name for name, grant in book.leases.items() if grant.holder == holder]:
                del book.leases[name]
        case "spare" if (grant := slots.spare(holder, now_s, backfill=share > 2)) is not None:
            assert not (grant.kept and share > 2), "it is for a window"
            book.granted(grant)
        case "adopt" if worker in book.there and worker not in book.leases:
            lease = 10_000 + int(now_s * 1000)
            slots.adopt(holder, worker, lease, now_s, kept=share > 3)
            book.leases[worker] = Grant(holder, worker, book.there[worker], lease, None, share > 3)


# ── RunActors that give back what they cannot use ──


@dataclass
class Actors:
    """RunActors with endless work, which obey at once. Their leases are what is busy."""

    slots: Slots
    work: dict[str, dict[Path, int]]
    held: dict[str, Grant] = field(default_factory=dict)
    now_s: float = 0.0

    def play(self, seconds: float) -> None:
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s += QUANTUM_S / 4
            for holder, leaves in self.work.items():
                self.slots.demand(holder, leaves)
                for grant in [g for g in self.held.values() if g.holder == holder and not self.uses(g)]:
                    self.give_back(grant)
            for grant in self.slots.grants(self.now_s):
                self.held[grant.worker] = grant
            for ask in self.slots.yields(self.now_s):
                self.give_back(self.held[ask.worker])

    def uses(self, grant: Grant) -> bool:
        """Has its holder something for it?"""
        return any(not (grant.kept and spares(leaf)) for leaf in self.work[grant.holder])

    def give_back(self, grant: Grant) -> None:
        del self.held[grant.worker]
        self.slots.release(grant.holder, grant.worker, grant.lease)


def _actors(workers: int, headroom: int, work: dict[str, dict[Path, int]]) -> Actors:
    slots = Slots(headroom={POOL: headroom})
    for n in range(workers):
        slots.add(f"w{n}", POOL, "i")
    return Actors(slots, work)


MANUAL, BACKFILL = ("a", "manual", "d"), ("a", "backfill", "d")


@pytest.mark.parametrize(("workers", "headroom", "busy"), [(4, 1, 3), (4, 3, 1), (4, 9, 1), (1, 1, 1), (4, 0, 4)])
def test_backfills_that_are_alone_have_all_but_the_headroom_and_one_slot_at_least(
    workers: int, headroom: int, busy: int
) -> None:
    actors = _actors(workers, headroom, {"A": {BACKFILL: 9}, "B": {BACKFILL: 9}})
    actors.play(3.0)
    assert len(actors.held) == busy


def test_a_run_on_an_open_slot_moves_to_a_kept_one_that_is_idle_while_backfills_wait() -> None:
    actors = _actors(4, 1, {"A": {MANUAL: 4}})
    actors.play(QUANTUM_S / 4)
    assert sorted(grant.kept for grant in actors.held.values()) == [False, False, False, True]
    busy, *others = sorted(actors.held.values(), key=lambda grant: grant.kept)
    for grant in others:
        actors.give_back(grant)
    actors.work = {"A": {}, "B": {BACKFILL: 9}}  # A is at one task, and has no more for now
    slots, now_s = actors.slots, 2 * QUANTUM_S
    slots.demand("A", {})
    slots.demand("B", {BACKFILL: 9})
    assert [grant.kept for grant in slots.grants(now_s)] == [False, False]
    assert slots.next_review_s(now_s) == 0.0
    (ask,) = slots.yields(now_s)
    assert (ask.holder, ask.lease) == ("A", busy.lease)
    assert slots.yields(now_s) == [], "it is asked once"
    slots.release("A", ask.worker, ask.lease)
    slots.demand("A", {MANUAL: 1})
    assert {(grant.holder, grant.kept) for grant in slots.grants(now_s)} == {("A", True), ("B", False)}


def test_a_kept_slot_goes_along_with_a_run_whose_actor_has_open_ones_only() -> None:
    actors = _actors(4, 1, {"A": {BACKFILL: 9}, "B": {BACKFILL: 9}})
    actors.play(1.0)
    assert actors.slots.spare("A", 1.0, backfill=True) is None
    spare = actors.slots.spare("A", 1.0)
    assert spare is not None
    assert spare.kept
    assert actors.slots.kept([(spare.worker, "i", spare.lease)]) == (spare.lease,)
    assert actors.slots.spare("B", 1.0) is None, "there was one"


@pytest.mark.parametrize("seed", range(20))
def test_bidders_without_a_slot_get_one_in_turn_whatever_is_kept(seed: int) -> None:
    rng = Random(seed)
    work = {holder: {rng.choice(LEAVES): 9} for holder in HOLDERS}
    actors = _actors(rng.randint(1, 4), rng.randint(0, 3), work)
    served: set[str] = set()
    for _ in range(200):
        actors.play(QUANTUM_S / 4)
        served |= {grant.holder for grant in actors.held.values()}
        for grant in list(actors.held.values()):
            name = grant.leaf or MANUAL
            actors.slots.served(grant.holder, {("default kept" if grant.kept else POOL, *name): QUANTUM_S / 4})
    assert served == set(HOLDERS)


# ── the bound ──


@pytest.mark.parametrize("seed", range(80))
def test_with_headroom_nobody_waits_longer_than_the_bound_of_the_open_slots_or_of_the_kept_ones(seed: int) -> None:
    rng = Random(seed)
    leaves = [(t, c, d) for t in "abc" for c in ("scheduled", "manual", "backfill") for d in "xyz"]
    full = rng.sample(leaves, rng.randint(2, 9))
    rest = [leaf for leaf in full if not spares(leaf)]
    weights = {leaf[:n]: rng.choice((0.5, 1, 2, 5)) for leaf in full for n in (1, 2, 3)}
    count = rng.randint(2, 8)
    kept = rng.randint(1, count - 1)
    waited, used = _servers(weights, full, count, kept, rng)
    for leaf in full:
        longest = bound(weights, full, leaf, count - kept, 1.0)
        if leaf in rest:
            longest = min(longest, bound(weights, rest, leaf, kept, 1.0))
        assert waited[leaf] <= longest, leaf
    open_s = sum(used.values())
    for leaf in full:
        due = 1.0
        for n in (1, 2, 3):
            siblings = {other[:n] for other in full if other[: n - 1] == leaf[: n - 1]}
            due *= weights[leaf[:n]] / sum(weights[node] for node in siblings)
        assert used[leaf] / open_s == pytest.approx(due, rel=0.06, abs=2 / open_s), "open slots are shared by weight"


def _servers(
    weights: dict[Path, float], full: list[Path], count: int, kept: int, rng: Random
) -> tuple[dict[Path, float], dict[Path, float]]:
    """Leaf -> longest time between two turns, and seconds it had of the open servers. Turns take up to a second."""
    trees = {False: Shares(), True: Shares()}
    for node, weight in weights.items():
        trees[False].weigh(node, weight)
        trees[True].weigh(node, weight)
    for leaf in full:
        trees[False].arrive(leaf)
        if not spares(leaf):
            trees[True].arrive(leaf)
    since, waited, used = dict.fromkeys(full, 0.0), dict.fromkeys(full, 0.0), dict.fromkeys(full, 0.0)
    busy = [(0.0, n, n < kept) for n in range(count)]
    while busy and busy[0][0] < 4000.0:
        now, server, is_kept = heapq.heappop(busy)
        leaf = trees[is_kept].next()
        if leaf is None:
            continue  # a kept one, and all are backfills
        waited[leaf], since[leaf] = max(waited[leaf], now - since[leaf]), now
        takes = rng.uniform(0.1, 1.0)
        trees[is_kept].charge(leaf, takes)
        used[leaf] += 0.0 if is_kept else takes
        heapq.heappush(busy, (now + takes, server, is_kept))
    return waited, used


# ── what is set ──


def test_headroom_is_for_all_pools_or_by_pool() -> None:
    assert read_headroom("2") == {OTHERS: 2}
    assert read_headroom(" default=2, gpu=0 ,1") == {"default": 2, "gpu": 0, OTHERS: 1}
    kept = Headroom(read_headroom("1,gpu=3"))
    assert [kept.kept("default", n) for n in (0, 1, 2, 8)] == [0, 0, 1, 1]
    assert [kept.kept("gpu", n) for n in (0, 1, 2, 8)] == [0, 0, 1, 3]


@pytest.mark.parametrize("text", ["-1", "x", "a=b", "gpu=", f"{HEADROOM_MAX + 1}", "a b=1"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_headroom(text)
