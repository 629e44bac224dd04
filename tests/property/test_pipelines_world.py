"""Worlds of CI pipelines from many seeds: whatever dies, falls silent or gets lost, the account is right."""

from __future__ import annotations

import os

import pytest

from tests.pipelines_world import play

SEEDS = int(os.environ.get("PIPELINES_WORLD_MANY", "40"))


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_every_world_of_pipelines_ends_well(first: int) -> None:
    for seed in range(first, first + 10):
        print("seed", seed)
        play(seed)


def test_a_seed_makes_the_same_world_of_pipelines_every_time() -> None:
    assert play(3) == play(3)
    assert play(3) != play(4)
