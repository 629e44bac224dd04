"""Backoff with full jitter."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.retry import ceiling_s, delay, may_retry


def test_the_ceiling_doubles_per_failure_up_to_the_cap() -> None:
    assert [ceiling_s(5, 300, failures) for failures in range(1, 9)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_the_delay_is_drawn_evenly_below_the_ceiling() -> None:
    assert delay(5, 300, 3, 0.0) == timedelta(0)
    assert delay(5, 300, 3, 0.5) == timedelta(seconds=10)
    assert delay(5, 300, 99, 0.25) == timedelta(seconds=75)


@pytest.mark.parametrize("failures", [1, 2, 1024, 10**9, 10**400])
@pytest.mark.parametrize("base_s", [0.0, 5e-324, 5.0, 1e308])
@pytest.mark.parametrize("cap_s", [0.0, 300.0, 1e308, math.inf])
def test_no_number_overflows(base_s: float, cap_s: float, failures: int) -> None:
    assert timedelta(0) <= delay(base_s, cap_s, failures, 0.999) <= timedelta(days=366)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_the_delay_never_exceeds_the_cap(base_s: float, cap_s: float, failures: int, jitter: float) -> None:
    assert timedelta(0) <= delay(base_s, cap_s, failures, jitter) <= timedelta(seconds=cap_s)


def test_as_many_retries_as_were_asked_for() -> None:
    assert not may_retry(1, 0, permanent=False)
    assert [may_retry(failures, 2, permanent=False) for failures in (1, 2, 3)] == [True, True, False]


def test_a_permanent_failure_is_not_retried() -> None:
    assert not may_retry(1, 20, permanent=True)
