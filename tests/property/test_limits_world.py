"""Limits in worlds from many seeds: whatever is killed, lost, late or twice, none is exceeded, and every run ends."""

from __future__ import annotations

import os

import pytest

from tests.limits_world import play

SEEDS = 60
#: more of them with LIMITS_MANY=2000
MANY = int(os.environ.get("LIMITS_MANY", "400"))


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_limits_hold_in_every_world_and_all_work_is_done(first: int) -> None:
    for seed in range(first, first + 10):
        play(seed)


def test_a_world_gets_up_to_its_limits() -> None:
    worlds = [play(seed) for seed in range(8)]
    reached = [
        key
        for world in worlds
        for key, limit in world.limits.items()
        if limit.max_running and world.most[key] == limit.max_running
    ]
    assert len(reached) > 5, "else nothing is tested"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY, 100))
def test_limits_hold_in_many_worlds(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed)


@pytest.mark.skipif("WORLD_SEED" not in os.environ, reason="plays the world of WORLD_SEED")
def test_one_seed() -> None:
    play(int(os.environ["WORLD_SEED"]))


def test_a_worker_that_has_old_reports_alone_is_nobodys_seat() -> None:
    play(10107)  # a RunActor that comes back took one of another pool for its own
