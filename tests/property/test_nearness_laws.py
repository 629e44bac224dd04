"""Hints about nodes say which slot somebody gets and nothing else: held to the same history without, and brute force.

Two schedulers' memories live through the same history of chance, permits, shares and headroom included. One knows on
which node each worker is, and where tasks are at home; the other one, which knows nothing of that, is the oracle of who
gets a slot, when, with which number, and who is asked for one back. Which slot it is, is held to the best assignment
that trying all of them finds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.leases import Lease
from orchestrator.limits import Limit, Rate
from orchestrator.messages import Need
from orchestrator.nearness import NODES_MAX, Hints, Near, hint
from orchestrator.permits import Permits
from orchestrator.shares import Path
from orchestrator.slots import QUANTUM_S, Grant, Slots

NODES = ("A", "B", "C")
POOLS = ("default", "gpu")
HOLDERS = ("run-actor-0", "run-actor-1", "run-actor-2")
LEAVES: tuple[Path, ...] = (("t", "manual", "d"), ("u", "manual", "e"), ("u", "backfill", "e"))
KEYS = ("l/t/a", "l/t/b")
STEPS = 50

#: what was decided, without a word about workers
Decision = tuple[object, ...]


@dataclass
class Memory:
    """Of one scheduler."""

    slots: Slots
    sees: bool
    permits: Permits = field(default_factory=Permits)
    #: number of a lease -> it, and the claim's lease if it has permits
    held: dict[int, tuple[Grant, Lease | None]] = field(default_factory=dict)
    #: leases given for a task that is at home where the slot is
    near: int = 0

    def come(
        self, holder: str, need: Need | None, leaves: dict[Path, int], near: dict[Path, Near], now_s: float
    ) -> None:
        """So many tasks wait."""
        label = holder
        if need is None:
            self.slots.demand(holder, leaves)
        else:
            label = self.permits.demand(holder, need, leaves, now_s)
            if not leaves:
                self.slots.demand(label, {})
        if self.sees:
            self.slots.hints.set(label, near if leaves else {})

    def end(self, number: int, now_s: float) -> None:
        """Nothing runs on that lease any more."""
        grant, lease = self.held.pop(number)
        if lease is not None:
            self.permits.release(lease, now_s)
        self.slots.release(grant.holder, grant.worker, grant.lease)

    def decide(self, now_s: float) -> list[Decision]:
        """As the scheduler does."""
        out = self._grant(now_s)
        while claims := self.permits.offers(now_s, POOLS):
            for claim in claims:
                self.slots.demand(claim.label, claim.leaves, claim.need.pool)
            out += self._grant(now_s)
        for ask in self.slots.yields(now_s):
            out.append(("ask", ask.holder, ask.lease))
            lease = self.held[ask.lease][1]
            if lease is not None:
                lease.yielding = True
        for lease in self.permits.yields(now_s):
            self.slots.ask_back(lease.worker, lease.number)
            out.append(("permits", lease.holder, lease.number))
        reviews = (self.slots.next_review_s(now_s), self.permits.next_review_s(now_s))
        return [*out, ("reviews", *reviews), ("leads", self.slots.leads()), ("usage", self.permits.usage())]

    def _grant(self, now_s: float) -> list[Decision]:
        hints = {bidder: dict(near) for bidder, near in self.slots.hints._near.items()}
        grants = self.slots.grants(now_s, lambda label: self.permits.take(label, now_s))
        out: list[Decision] = []
        for grant in grants:
            lease = self.permits.bind(grant, now_s) if "\n" in grant.holder else None
            slot = self.slots.slots[grant.worker]
            starts = lease.tokens if lease is not None and lease.metered else None
            assert grant.lease not in self.held
            assert grant.worker not in {held.worker for held, _ in self.held.values()}, "one lease of a slot at a time"
            self.held[grant.lease] = grant, lease
            if lease is not None and lease.metered:
                self.permits.begun(lease, 1, now_s)
            self.near += slot.node in hints.get(grant.holder, {}).get(grant.leaf or (), {})
            out.append(("grant", grant.holder, grant.leaf, grant.lease, grant.kept, slot.pool, starts))
        return out


def two_memories(rng: Random) -> tuple[Memory, Memory]:
    """Alike, but for what they see."""
    headroom = rng.choice(({}, {}, {"default": 40}))
    halves = [Memory(Slots({(1, "backfill"): 0.5}, ("manual",), headroom), sees) for sees in (False, True)]
    for n in range(rng.randint(1, 9)):
        pool, node = rng.choice(POOLS), rng.choice((*NODES, ""))
        for half in halves:
            half.slots.add(f"worker-{n}", pool, "i", node if half.sees else "")
    limits = {key: Limit(rng.choice((None, 1, 2)), rng.choice((None, None, Rate(2, 0.5)))) for key in KEYS}
    for half in halves:
        half.permits.begin(0.0)
        half.permits.opened = True
        for key, limit in limits.items():
            half.permits.define(key, limit, 1.0)
    return halves[0], halves[1]


def play(seed: int) -> Memory:
    """One history; the memory that sees."""
    rng, now_s = Random(seed), 10.0
    blind, seeing = two_memories(rng)
    needs = [
        None,
        *(Need(pool, keys) for pool in POOLS for keys in ((), ((KEYS[0], 1),), ((KEYS[0], 1), (KEYS[1], 2)))),
    ]
    needs.remove(Need("default"))
    for step in range(STEPS):
        match rng.choice(("come", "come", "come", "end", "end", "end", "serve", "wait")):
            case "come":
                leaves = {leaf: rng.randint(1, 4) for leaf in rng.sample(LEAVES, rng.randint(0, 2))}
                near = {leaf: hint({node: rng.randint(1, 2) for node in rng.sample(NODES, 2)}) for leaf in leaves}
                asks = rng.choice(HOLDERS), rng.choice(needs), leaves, near if rng.random() < 0.8 else {}, now_s
                blind.come(*asks)
                seeing.come(*asks)
            case "end" if blind.held:
                number = rng.choice(list(blind.held))
                blind.end(number, now_s)
                seeing.end(number, now_s)
            case "serve":
                served = (rng.choice(HOLDERS), {(rng.choice(POOLS), *rng.choice(LEAVES)): rng.random()})
                blind.slots.served(*served)
                seeing.slots.served(*served)
            case "wait":
                now_s += rng.choice((0.01, QUANTUM_S, 0.6, 15.0))
        assert seeing.decide(now_s) == blind.decide(now_s), f"seed {seed}, step {step}"
    return seeing


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_hints_change_neither_who_gets_a_slot_nor_when(first: int) -> None:
    played = [play(seed) for seed in range(first, first + 100)]
    assert sum(memory.near for memory in played) > 150, "else they change nothing at all"


# ---------------------------------------------------------------- which slot

_nodes = st.lists(st.sampled_from((*NODES, "")), min_size=1, max_size=6)
_turns = st.lists(st.integers(0, 2), max_size=6)


def matched(turns: list[int], homes: list[dict[str, int]], nodes: list[str], slots: tuple[int, ...]) -> int:
    """Turns that have a task at home where their slot is, each task counted once."""
    left = [dict(home) for home in homes]
    count = 0
    for turn, slot in zip(turns, slots, strict=True):
        if left[turn].get(nodes[slot], 0) > 0:
            left[turn][nodes[slot]] -= 1
            count += 1
    return count


def chosen(turns: list[int], homes: list[dict[str, int]], nodes: list[str]) -> tuple[int, ...]:
    hints = Hints()
    for bidder, home in enumerate(homes):
        hints.set(str(bidder), {LEAVES[0]: hint(home)} if home else {})
    slots = tuple(hints.choose([(str(turn), LEAVES[0]) for turn in turns], nodes))
    assert len(set(slots)) == len(slots) == len(turns), "a slot each"
    return slots


@settings(max_examples=150, deadline=None)
@given(_nodes, _turns, st.lists(st.tuples(st.sampled_from(NODES), st.integers(0, 3)), min_size=3, max_size=3))
def test_as_many_as_possible_get_the_node_that_has_their_data(
    nodes: list[str], turns: list[int], at: list[tuple[str, int]]
) -> None:
    turns = turns[: len(nodes)]
    homes = [{node: tasks} if tasks else {} for node, tasks in at]
    best = max(matched(turns, homes, nodes, slots) for slots in permutations(range(len(nodes)), len(turns)))
    assert matched(turns, homes, nodes, chosen(turns, homes, nodes)) == best


@settings(max_examples=150, deadline=None)
@given(_nodes, _turns, st.lists(st.dictionaries(st.sampled_from(NODES), st.integers(1, 3)), min_size=3, max_size=3))
def test_with_data_on_several_nodes_at_least_half_as_many_do_as_could(
    nodes: list[str], turns: list[int], homes: list[dict[str, int]]
) -> None:
    turns = turns[: len(nodes)]
    best = max(matched(turns, homes, nodes, slots) for slots in permutations(range(len(nodes)), len(turns)))
    assert 2 * matched(turns, homes, nodes, chosen(turns, homes, nodes)) >= best


def test_without_a_hint_slots_go_as_they_come() -> None:
    assert chosen([0, 1, 2], [{}, {}, {}], ["B", "A", "C", "A"]) == (0, 1, 2)


def test_who_has_no_hint_leaves_the_node_to_who_has_one() -> None:
    assert chosen([0, 1], [{}, {"A": 1}], ["A", "B"]) == (1, 0)


def test_most_tasks_first_and_no_node_for_more_tasks_than_are_at_home_there() -> None:
    assert chosen([0, 0, 0], [{"A": 1, "B": 2}, {}, {}], ["A", "B", "B", "B"]) == (1, 2, 0)


def test_a_hint_is_bounded() -> None:
    told = hint({f"n{n}": n for n in range(1, 100)})
    assert len(told) == NODES_MAX
    assert told[0] == ("n99", 99)
