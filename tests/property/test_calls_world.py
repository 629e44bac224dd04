"""Worlds of runs that call runs: whatever is killed, lost, late or twice, each call starts one run, and ends so."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.calls_world import play

SEEDS = 40
#: more of them with CALLS_MANY=2000
MANY = int(os.environ.get("CALLS_MANY", "400"))


def test_each_call_starts_one_run_and_ends_as_that_does() -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        seen += play(seed)
    expected = {"succeeded", "failed", "timed out", "given up", "unknown"}
    assert expected <= seen.keys(), f"not everything is tested: {seen}"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY, 100))
def test_many_worlds_of_calls(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed)


@pytest.mark.skipif("WORLD_SEED" not in os.environ, reason="plays the world of WORLD_SEED")
def test_one_seed() -> None:
    play(int(os.environ["WORLD_SEED"]))
