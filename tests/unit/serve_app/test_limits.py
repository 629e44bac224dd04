"""Token buckets, sliding windows, occupancy."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from serve_app.limits import Allowance, Buckets, Occupancy, SlidingWindows


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


# -- sliding windows


def asked(windows: SlidingWindows, *at_s: float, key: str = "k") -> list[int]:
    return [windows.take(key, each) for each in at_s]


def test_in_no_span_of_the_window_more_than_the_most_pass() -> None:
    windows = SlidingWindows(3, 60)
    assert asked(windows, 0, 20, 40, 59.9) == [0, 0, 0, 1]
    assert asked(windows, 60, 60, 79.5, 80) == [0, 20, 1, 0]


def test_what_is_refused_does_not_count() -> None:
    windows = SlidingWindows(1, 10)
    assert asked(windows, 0, 9, 9.5, 10) == [0, 1, 1, 0]


def test_keys_do_not_share_a_window() -> None:
    windows = SlidingWindows(1, 10)
    assert [asked(windows, 1, key=each) for each in ("a", "b", "a")] == [[0], [0], [9 + 1]]


def test_a_key_that_has_not_asked_for_a_window_is_forgotten() -> None:
    windows = SlidingWindows(5, 10)
    for number in range(1000):
        windows.take(f"stranger {number}", 100.0)
    asked(windows, 105.0)
    asked(windows, 111.0)
    assert set(windows._of) == {"k"}
    assert asked(windows, 111, 111, 111, 111) == [0, 0, 0, 4]


def test_replicas_share_what_a_window_allows() -> None:
    assert SlidingWindows(120, 60, replicas=2).most == 60
    assert SlidingWindows(1, 60, replicas=2).most == 1


@pytest.mark.parametrize(("most", "window_s"), [(0, 60), (-1, 60), (1, 0), (1, -1)])
def test_a_window_of_nothing_is_refused(most: int, window_s: float) -> None:
    with pytest.raises(Invalid):
        SlidingWindows(most, window_s)


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
