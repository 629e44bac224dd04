"""Any history of deploys, runs and sweeps: what is kept is what is new, current or pinned by a run, and all of it."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serve_app.test_bundles import World

HOUR = timedelta(hours=1)
VERSIONS = ("one", "two", "three")

_steps = st.one_of(
    st.tuples(st.just("deploy"), st.integers(0, len(VERSIONS) - 1)),
    st.tuples(st.just("put"), st.integers(0, len(VERSIONS) - 1)),
    st.tuples(st.sampled_from(("run", "prune")), st.just(0)),
    st.tuples(st.just("forget"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(20, 70)),
)


class Oracle:
    """What ought to be kept, worked out from everything that happened."""

    def __init__(self) -> None:
        self.touched: dict[str, datetime] = {}
        self.current = ""
        #: run -> bundle
        self.runs: dict[str, str] = {}

    def prune(self, now: datetime) -> set[str]:
        """What goes."""
        needed = {self.current, *self.runs.values()}
        gone = {name for name, at in self.touched.items() if now - at >= HOUR and name not in needed}
        self.touched = {name: at for name, at in self.touched.items() if name not in gone}
        return gone


async def play(world: World, steps: list[tuple[str, int]]) -> None:
    oracle = Oracle()
    for what, number in steps:
        match what:
            case "deploy":
                oracle.current, _ = await world.deploy(VERSIONS[number])
                oracle.touched[oracle.current] = world.clock.at
            case "put":
                oracle.touched[await world.put(VERSIONS[number])] = world.clock.at
            case "run" if oracle.current:
                oracle.runs[await world.run()] = oracle.current
            case "forget" if oracle.runs:
                run_id = sorted(oracle.runs)[number % len(oracle.runs)]
                del oracle.runs[run_id], world.journal.runs[run_id]
            case "wait":
                world.clock.at += timedelta(minutes=number)
            case "prune":
                assert set(await world.prune()) == oracle.prune(world.clock.at)
        kept = await world.kept()
        assert kept.keys() == oracle.touched.keys()
        assert all(world.store.has(name) for name in kept)
        assert {name for name, (_, current) in kept.items() if current} == ({oracle.current} - {""})


@given(steps=st.lists(_steps, max_size=20))
@settings(deadline=None, max_examples=40)
def test_what_is_new_current_or_pinned_is_kept_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        asyncio.run(play(World(Path(home), patch), [*steps, ("wait", 60), ("prune", 0)]))
