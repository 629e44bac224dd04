"""Laws of fair shares: against a brute force, and with several servers in virtual time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ageing import POINT_S, AgedQueue
from orchestrator.shares import BORROW, Path, Shares

TENANTS, CLASSES, DAGS = "ab", ("manual", "backfill"), "xy"
LEAVES = [(t, c, d) for t in TENANTS for c in CLASSES for d in DAGS]
WEIGHTS = {("a",): 3.0, ("a", "backfill"): 0.5, ("b", "manual", "x"): 2.0}


class Plain:
    """The same rules over all nodes at once: no heap, no node, nothing remembered but numbers."""

    def __init__(self) -> None:
        self.tags = {leaf[:n]: 0.0 for leaf in LEAVES for n in (1, 2, 3)}
        self.clocks = {(): 0.0} | {leaf[:n]: 0.0 for leaf in LEAVES for n in (1, 2)}
        self.working: set[Path] = set()

    def active(self, node: Path) -> bool:
        return any(leaf[: len(node)] == node for leaf in self.working)

    def arrive(self, leaf: Path) -> None:
        for n in (1, 2, 3):
            if not self.active(leaf[:n]):
                self.tags[leaf[:n]] = max(self.tags[leaf[:n]], self.clocks[leaf[: n - 1]])
        self.working.add(leaf)

    def next(self) -> Path | None:
        node: Path = ()
        while self.working and len(node) < 3:
            children = [n for n in self.tags if n[:-1] == node and self.active(n)]
            child = min(children, key=lambda n: (self.tags[n], -WEIGHTS.get(n, 1.0), n))
            self.clocks[node] = max(self.clocks[node], self.tags[child])
            node = child
        return node or None

    def leave(self, leaf: Path) -> None:
        had = self.working & {leaf}
        self.working -= had
        for n in (3, 2, 1) if had else ():
            if not self.active(leaf[:n]):
                self.rest(leaf[:n])

    def charge(self, leaf: Path, amount: float) -> None:
        for n in (1, 2, 3):
            self.tags[leaf[:n]] += amount / WEIGHTS.get(leaf[:n], 1.0)
            self.rest(leaf[:n])

    def rest(self, node: Path) -> None:
        """Where nobody has work, nobody owes."""
        if not (self.active(node[:-1]) if len(node) > 1 else self.working):
            self.clocks[node[:-1]] = max(self.clocks[node[:-1]], self.tags[node])


_ops = st.lists(
    st.tuples(st.sampled_from(["arrive", "arrive", "leave", "turn", "turn", "refund"]), st.integers(0, 7)), max_size=80
)


@settings(max_examples=500, deadline=None)
@given(_ops)
def test_turns_are_those_of_the_brute_force(ops: list[tuple[str, int]]) -> None:
    made, plain = Shares(), Plain()
    for node, weight in WEIGHTS.items():
        made.weigh(node, weight)
    for kind, number in ops:
        leaf = LEAVES[number]
        match kind:
            case "arrive":
                made.arrive(leaf)
                plain.arrive(leaf)
            case "leave":
                made.leave(leaf)
                plain.leave(leaf)
            case "refund":
                made.charge(leaf, -0.25)
                plain.charge(leaf, -0.25)
            case "turn":
                turn = made.next()
                assert turn == plain.next()
                if turn is not None:
                    made.charge(turn, 1 + number / 8)
                    plain.charge(turn, 1 + number / 8)
        assert made.contended == (len(plain.working) > 1)
        assert {leaf for leaf in LEAVES if leaf in made} == plain.working


@dataclass
class Servers:
    """`count` servers in virtual time; leaves in `full` always have work, each turn takes up to `longest`."""

    shares: Shares
    full: list[Path]
    count: int
    longest: float
    rng: Random
    now: float = 0.0
    used: dict[Path, float] = field(default_factory=dict)
    #: leaf -> longest time from one turn to the next
    waited: dict[Path, float] = field(default_factory=dict)

    def play(self, until: float) -> Servers:
        busy: list[tuple[float, int, Path | None]] = [(self.now, n, None) for n in range(self.count)]
        since = dict.fromkeys(self.full, self.now)
        for leaf in self.full:
            self.shares.arrive(leaf)
        while busy[0][0] < until:
            self.now, server, _ = heapq.heappop(busy)
            leaf = self.shares.next()
            assert leaf is not None
            self.waited[leaf] = max(self.waited.get(leaf, 0.0), self.now - since[leaf])
            since[leaf] = self.now
            takes = self.rng.uniform(0.1, 1.0) * self.longest
            self.shares.charge(leaf, takes)
            self.used[leaf] = self.used.get(leaf, 0.0) + takes
            heapq.heappush(busy, (self.now + takes, server, leaf))
        return self


def bound(shares_of: dict[Path, float], full: list[Path], leaf: Path, count: int, longest: float) -> float:
    """What the docstring of `shares.py` says."""
    rate, total = float(count), longest
    for n in range(1, len(leaf) + 1):
        siblings = {other[:n] for other in full if other[: n - 1] == leaf[: n - 1]}
        weights = sum(shares_of.get(node, 1.0) for node in siblings)
        mine = shares_of.get(leaf[:n], 1.0)
        total += (weights / mine + len(siblings)) * longest / rate
        rate *= mine / weights
    return total


@pytest.mark.parametrize("seed", range(60))
def test_who_always_has_work_gets_its_weight_and_waits_no_longer_than_the_bound(seed: int) -> None:
    rng = Random(seed)
    leaves = [(t, c, d) for t in "abc" for c in ("scheduled", "manual", "backfill") for d in "xyz"]
    full = rng.sample(leaves, rng.randint(2, 9))
    weights = {leaf[:n]: rng.choice((0.5, 1, 2, 5)) for leaf in full for n in (1, 2, 3)}
    shares, count = Shares(), rng.randint(1, 8)
    for node, weight in weights.items():
        shares.weigh(node, weight)
    servers = Servers(shares, full, count, 1.0, rng).play(4000.0)
    for leaf in full:
        due = 1.0
        for n in (1, 2, 3):
            siblings = {other[:n] for other in full if other[: n - 1] == leaf[: n - 1]}
            due *= weights[leaf[:n]] / sum(weights[node] for node in siblings)
        assert servers.used[leaf] / sum(servers.used.values()) == pytest.approx(due, rel=0.05), (leaf, due)
        assert servers.waited[leaf] <= bound(weights, full, leaf, count, 1.0), leaf


def test_idleness_saves_nothing_up() -> None:
    shares = Shares()
    shares.arrive(("back",))
    shares.leave(("back",))
    servers = Servers(shares, [("busy",)], 1, 1.0, Random(1)).play(500.0)
    servers.full.append(("back",))
    servers.used.clear()
    servers.play(520.0)
    assert servers.used["back",] == pytest.approx(servers.used["busy",], abs=2.0)


def test_who_used_more_while_alone_owes_nothing_for_it() -> None:
    shares = Shares()
    shares.arrive(("alone",))
    shares.next()
    shares.charge(("alone",), 1000.0)
    shares.next()
    shares.arrive(("late",))
    turns = []
    for _ in range(6):
        turn = shares.next()
        assert turn is not None
        turns.append(turn[0])
        shares.charge(turn, 1.0)
    assert sorted(turns) == ["alone"] * 3 + ["late"] * 3


def test_who_wakes_is_next_but_not_again_and_again() -> None:
    shares = Shares(wakes=("scheduled",))
    cron, backfill, other = ("a", "scheduled", "c"), ("a", "backfill", "b"), ("b", "backfill", "b")
    served = {"a": 0.0, "b": 0.0}
    shares.arrive(backfill)
    shares.arrive(other)
    first = 0
    for n in range(400):
        if n % 2:
            shares.arrive(cron)
        turn = shares.next()
        assert turn is not None
        first += turn == cron
        shares.charge(turn, 0.1)
        served[turn[0]] += 0.1
        shares.leave(cron)
    assert first > 20
    assert abs(served["a"] - served["b"]) <= BORROW + 0.2, "its tenant pays for it"


def test_what_others_served_counts_here_too() -> None:
    shares, elsewhere = Shares(), Shares()
    for each in (shares, elsewhere):
        each.arrive(("a",))
        each.arrive(("b",))
    elsewhere.charge(("a",), 3.0)
    shares.take_leads(elsewhere.leads())
    turns = []
    for _ in range(4):
        turn = shares.next()
        assert turn is not None
        turns.append(turn[0])
        shares.charge(turn, 1.0)
    assert turns in (list("bbba"), list("bbbb"))


# ── ageing ──


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.floats(0, 30)), min_size=1, max_size=60))
def test_the_order_of_claims_is_that_of_a_brute_force(steps: list[tuple[int, int, float]]) -> None:
    queue, waiting, now = AgedQueue(), dict[str, tuple[float, int]](), 0.0
    for number, priority, passes in steps:
        now += passes
        who = f"r{number}"
        if number == 5 and waiting:
            claims = {name: points + (now - since) / POINT_S for name, (since, points) in waiting.items()}
            chosen = queue.first()
            assert claims[chosen] == pytest.approx(max(claims.values()))
            queue.drop(chosen)
            del waiting[chosen]
        elif number < 5:
            queue.put(who, priority, now)
            waiting[who] = (waiting[who][0] if who in waiting else now, priority)
        assert len(queue) == len(waiting)


@pytest.mark.parametrize("others", [1, 7, 40])
def test_the_lowest_priority_waits_no_longer_than_the_bound_behind_a_stream_of_the_highest(others: int) -> None:
    queue, now, turn_s, last, longest = AgedQueue(), 0.0, 0.5, 0.0, 0.0
    queue.put("low", 0, now)
    while now < 600:
        for n in range(others):
            queue.put(f"high{n}", 100, now)
        who = queue.first()
        queue.drop(who)
        if who == "low":
            longest, last = max(longest, now - last), now
            queue.put("low", 0, now)
        now += turn_s
    assert 0 < longest <= 100 * POINT_S + others * turn_s
