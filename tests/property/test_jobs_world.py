"""Every job ends right, and no result counts that must not, whatever goes wrong meanwhile (`tests/jobs_world.py`)."""

from __future__ import annotations

import os

import pytest

from tests.jobs_world import JobsWorld

SEEDS = range(24)
MANY = range(100, 250)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_ends_right_whatever_goes_wrong(seed: int) -> None:
    JobsWorld(seed).play()


def test_a_thousand_stale_results_change_nothing() -> None:
    refused, seed = 0, 1_000
    while refused < 1_000:
        refused += JobsWorld(seed, jobs=40).play().stale
        seed += 1
    assert seed < 1_040


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_more_worlds(seed: int) -> None:
    JobsWorld(seed).play()


def test_one_seed() -> None:
    JobsWorld(int(os.environ.get("JOBS_WORLD_SEED", "5"))).play()


def test_the_same_seed_makes_the_same_world() -> None:
    first, second = (JobsWorld(7).play() for _ in range(2))
    assert first.loop.time() == second.loop.time()
    assert [report.answers for report in first.reports] == [report.answers for report in second.reports]
