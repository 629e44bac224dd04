"""Worlds from many seeds.

Whatever is killed, lost, late or twice, every accepted run ends and every invariant holds.
"""

from __future__ import annotations

import logging
import os

import pytest

from tests.world import digest, play

SEEDS, STEPS = 200, 10
#: longer worlds; more of them with WORLD_MANY=2000
MANY = int(os.environ.get("WORLD_MANY", "200"))


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_world_ends_well(first: int) -> None:
    for seed in range(first, first + 20):
        play(seed, STEPS)


def test_a_seed_makes_the_same_world_every_time() -> None:
    assert [digest(play(seed, STEPS)) for seed in (2, 3)] == [digest(play(seed, STEPS)) for seed in (2, 3)]


@pytest.mark.skipif("WORLD_SEED" not in os.environ, reason="plays the world of WORLD_SEED")
def test_one_seed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actors")
    play(int(os.environ["WORLD_SEED"]), int(os.environ.get("WORLD_STEPS", STEPS)))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY, 100))
def test_many_worlds_end_well(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed, 20)
