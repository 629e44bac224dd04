"""Token buckets, occupancy."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from serve_app.limits import Allowance, Buckets, Occupancy


def test_a_burst_passes_and_the_next_request_waits() -> None:
    buckets = Buckets(10, 20)
    found = [buckets.take("t", 0.0) for _ in range(21)]
    assert [each.remaining for each in found[:20]] == list(range(19, -1, -1))
    assert found[20] == Allowance(20, 0, 1)


def test_a_bucket_fills_at_its_rate_and_never_beyond_its_size() -> None:
    buckets = Buckets(10, 2)
    assert [buckets.take("t", 0.0).retry_after_s for _ in range(3)] == [0, 0, 1]
    assert buckets.take("t", 0.1).retry_after_s == 0
    assert buckets.take("t", 0.15).retry_after_s == 1
    assert buckets.take("t", 1000.0) == Allowance(2, 1)


def test_the_wait_is_told_in_whole_seconds_rounded_up() -> None:
    buckets = Buckets(0.4, 1)
    buckets.take("t", 0.0)
    assert buckets.take("t", 0.0).retry_after_s == 3


def test_tenants_do_not_share() -> None:
    buckets = Buckets(1, 1)
    assert [buckets.take(tenant, 0.0).retry_after_s for tenant in ("a", "a", "b")] == [0, 1, 0]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    buckets = Buckets(10, 1)
    buckets.take("t", 5.0)
    assert buckets.take("t", 4.0).retry_after_s == 1


def test_replicas_share_rate_and_burst() -> None:
    buckets = Buckets(10, 20, replicas=2)
    assert buckets.untouched == Allowance(10, 10)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_limit_of_nothing_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(Invalid):
        Buckets(rate, burst)


# -- occupancy


def test_each_holder_has_at_most_so_many_at_once() -> None:
    occupancy = Occupancy(2)
    assert [occupancy.enter("a") for _ in range(3)] == [True, True, False]
    assert occupancy.enter("b")
    occupancy.leave("a")
    assert [occupancy.enter("a"), occupancy.enter("a")] == [True, False]


def test_a_holder_of_nothing_is_forgotten() -> None:
    occupancy = Occupancy(1)
    occupancy.enter("a")
    occupancy.leave("a")
    assert not occupancy._held


def test_replicas_share_what_may_be_held() -> None:
    assert (Occupancy(100, replicas=3).most, Occupancy(1, replicas=3).most) == (33, 1)
