from __future__ import annotations

import pytest

from orchestrator.control import Bound
from orchestrator.leases import Lease, label_of
from orchestrator.limits import Limit, Rate
from orchestrator.messages import Need
from orchestrator.permits import STARTS_MAX, Permits
from orchestrator.slots import Grant

W = "l/t/w"
NEED = Need("default", ((W, 1),))
LEAF = ("t", "manual", "d")


def a_ledger(limit: Limit | None = None, key: str = W) -> Permits:
    permits = Permits()
    permits.opened = True
    if limit is not None:
        permits.define(key, limit, 0.0)
    return permits


def bid(permits: Permits, holder: str, need: Need = NEED, n: int = 1, now_s: float = 0.0) -> bool:
    """It has tasks, and a slot is there: does it get its permits?"""
    label = permits.demand(holder, need, {LEAF: n}, now_s)
    permits.offers(now_s, {"default"})
    return permits.take(label, now_s)


def lease(permits: Permits, holder: str, number: int, need: Need = NEED, now_s: float = 0.0, n: int = 1) -> Lease:
    assert bid(permits, holder, need, n, now_s)
    return permits.bind(Grant(label_of(holder, need), f"worker-{number}", "i", number), now_s)


def release(permits: Permits, worker: str, number: int, now_s: float) -> bool:
    found = next((each for each in permits.leases.values() if (each.worker, each.number) == (worker, number)), None)
    if found is not None:
        permits.release(found, now_s)
    return found is not None


def begun(permits: Permits, worker: str, number: int, starts: int, now_s: float) -> None:
    permits.begun(next(each for each in permits.leases.values() if each.worker == worker), starts, now_s)


def test_permits_are_taken_all_or_none() -> None:
    permits = a_ledger(Limit(1))
    permits.define("l/t/b", Limit(0), 0.0)
    assert not bid(permits, "a", Need("default", (("l/t/b", 1), (W, 1))))
    assert W not in permits.usage() or permits.usage()[W][0] == 0
    lease(permits, "b", 1)
    assert not bid(permits, "c")
    assert release(permits, "worker-1", 1, 0.0)
    assert [claim.holder for claim in permits.offers(0.0, {"default"})] == ["c"]


def test_a_release_of_another_lease_changes_nothing() -> None:
    permits = a_ledger(Limit(1))
    granted = lease(permits, "a", 1)
    assert permits.find("a", "worker-1", 1) is granted
    assert permits.find("a", "worker-1", 2) is None
    assert permits.find("b", "worker-1", 1) is None
    assert not bid(permits, "b")


def test_a_key_that_nobody_defined_is_counted_and_counts_once_it_is_defined() -> None:
    permits = a_ledger()
    for number in (1, 2, 3):
        lease(permits, f"h{number}", number)
    assert permits.usage() == {W: (3, 0)}
    permits.define(W, Limit(2), 0.0)
    assert not bid(permits, "x")
    assert [each.number for each in permits.yields(0.0)] == [1], "one more than there may be starts nothing more"
    release(permits, "worker-1", 1, 0.0)
    assert not bid(permits, "x")
    permits.define(W, None, 0.0)
    assert [claim.holder for claim in permits.offers(0.0, {"default"})] == ["x"]


def test_a_pattern_limits_each_key_by_itself_and_the_longest_counts() -> None:
    permits = a_ledger(Limit(1), "l/t/api-*")
    permits.define("l/t/*", Limit(0), 0.0)
    eu, us = (Need("default", ((f"l/t/api-{name}", 1),)) for name in ("eu", "us"))
    lease(permits, "a", 1, eu)
    lease(permits, "a", 2, us)
    assert not bid(permits, "b", eu)
    assert not bid(permits, "b")
    permits.define("l/t/api-eu", Limit(2), 0.0)
    lease(permits, "b", 3, eu)
    permits.define("l/t/api-eu", None, 0.0)
    assert permits.limit_of("l/t/api-eu") == Limit(1)


def test_starts_come_back_a_span_after_they_were_reported() -> None:
    permits = a_ledger(Limit(rate=Rate(2, 10.0)))
    granted = lease(permits, "a", 1, now_s=0.0)
    assert (granted.metered, granted.tokens) == (True, 1)
    begun(permits, "worker-1", 1, 1, 3.0)
    begun(permits, "worker-1", 1, 1, 4.0)  # it is told twice
    release(permits, "worker-1", 1, 5.0)
    lease(permits, "a", 2, now_s=5.0)
    begun(permits, "worker-2", 2, 1, 6.0)
    assert not bid(permits, "a", now_s=12.9)
    assert permits.next_review_s(12.9) == pytest.approx(0.1)
    assert bid(permits, "a", now_s=13.0)


def test_starts_that_were_not_used_are_there_again_and_those_nobody_tells_of_count_as_used() -> None:
    permits = a_ledger(Limit(rate=Rate(100, 10.0)))
    assert lease(permits, "a", 1, n=1000).tokens == STARTS_MAX
    begun(permits, "worker-1", 1, 1, 0.0)
    assert permits.uses[W].meter is not None
    assert permits.uses[W].meter.free(0.0) == 99
    lease(permits, "a", 2, n=1000)
    release(permits, "worker-2", 2, 0.0)
    assert permits.uses[W].meter.free(0.0) == 99 - STARTS_MAX


def test_a_new_ledger_begins_with_all_starts_used() -> None:
    permits = Permits()
    permits.begin(100.0)
    permits.define(W, Limit(rate=Rate(2, 10.0)), 100.0)
    permits.opened = True
    assert not bid(permits, "a", now_s=109.9)
    assert bid(permits, "a", now_s=110.0)


def test_starts_by_leave_of_a_former_ledger_count_until_everybody_was_heard() -> None:
    permits = Permits()
    permits.begin(100.0)
    permits.define(W, Limit(rate=Rate(1, 10.0)), 100.0)
    permits.adopt(Lease.of("b", Bound("worker-1", "i", 7, NEED, 0), 100.0), 100.0)
    permits.open(103.0, 105.0)
    assert not bid(permits, "a", now_s=112.9)
    assert bid(permits, "a", now_s=113.0)


def test_nothing_with_a_key_is_granted_before_everybody_was_heard() -> None:
    permits = Permits()
    permits.demand("a", NEED, {LEAF: 1}, 0.0)
    permits.demand("a", Need("gpu"), {LEAF: 1}, 0.0)
    assert [claim.need for claim in permits.offers(0.0, {"default"})] == [Need("gpu")]
    assert not permits.take(label_of("a", NEED), 0.0)
    permits.adopt(Lease.of("b", Bound("worker-1", "i", 7, NEED), 0.0), 0.0)
    permits.define(W, Limit(1), 0.0)
    permits.opened = True
    assert permits.offers(0.0, {"default"}) == []
    release(permits, "worker-1", 7, 0.0)
    assert [claim.holder for claim in permits.offers(0.0, {"default"})] == ["a"]


def test_a_ghost_keeps_its_permits_until_it_is_laid() -> None:
    permits = a_ledger(Limit(1))
    ghost = lease(permits, "a", 1)
    permits.haunt(ghost)
    permits.release(ghost, 0.0)
    assert not bid(permits, "b")
    permits.lay(ghost, 0.0)
    permits.lay(ghost, 0.0)
    assert permits.uses[W].running == 0


def test_whoever_has_had_a_permit_for_a_quantum_gives_it_back_when_another_one_waits() -> None:
    permits = a_ledger(Limit(1))
    lease(permits, "a", 1)
    permits.demand("a", NEED, {LEAF: 5}, 0.0)
    permits.offers(0.0, {"default"})
    assert permits.yields(1.0) == [], "only its own tasks wait"
    assert not bid(permits, "b")
    assert permits.yields(0.05) == []
    assert permits.next_review_s(0.05) == pytest.approx(0.05)
    assert [each.number for each in permits.yields(0.11)] == [1]
    assert permits.yields(0.2) == [], "asked once"


def test_what_nobody_uses_is_forgotten() -> None:
    permits = a_ledger()
    for n in range(100):
        need = Need("default", ((f"l/t/{n}", 1),))
        lease(permits, "a", 1, need)
        release(permits, "worker-1", 1, 0.0)
    assert (permits.uses, permits.claims, permits.leases) == ({}, {}, {})
