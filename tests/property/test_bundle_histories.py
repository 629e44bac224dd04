"""Any history of deploys, runs and sweeps of two tenants: what is kept for each is what is new, current or pinned by a
run of its own, and all of it; a file is there as long as somebody has it.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import bundle
from orchestrator.errors import Conflict, NotFound
from orchestrator.ids import DEFAULT_TENANT
from tests.bundle_builders import files
from tests.unit.serve_app.test_bundles import World

HOUR = timedelta(hours=1)
VERSIONS = ("one", "two")
NAMES = {version: bundle.id_of_files(files(version)) for version in VERSIONS}
TENANTS = (DEFAULT_TENANT, "other")

#: (what, whose, a number)
Step = tuple[str, str, int]
_whose = st.sampled_from(TENANTS)
_steps = st.one_of(
    st.tuples(st.sampled_from(("deploy", "put", "delete")), _whose, st.integers(0, len(VERSIONS) - 1)),
    st.tuples(st.sampled_from(("run", "prune")), _whose, st.just(0)),
    st.tuples(st.just("forget"), _whose, st.integers(0, 5)),
    st.tuples(st.just("wait"), st.just(DEFAULT_TENANT), st.integers(20, 70)),
)


class Oracle:
    """What ought to be kept for one tenant, worked out from everything that it did."""

    def __init__(self) -> None:
        self.touched: dict[str, datetime] = {}
        self.current = ""
        #: run -> bundle
        self.runs: dict[str, str] = {}

    def needed(self) -> set[str]:
        """What must not go."""
        return {self.current, *self.runs.values()}

    def prune(self, now: datetime) -> set[str]:
        """What goes."""
        gone = {name for name, at in self.touched.items() if now - at >= HOUR and name not in self.needed()}
        self.touched = {name: at for name, at in self.touched.items() if name not in gone}
        return gone


async def delete(world: World, tenant: str, oracle: Oracle, name: str) -> None:
    """It goes, or is refused for the reason that there is."""
    if name not in oracle.touched:
        with pytest.raises(NotFound):
            await world.bundles.delete(tenant, name)
    elif name in oracle.needed():
        with pytest.raises(Conflict):
            await world.bundles.delete(tenant, name)
    else:
        await world.bundles.delete(tenant, name)
        del oracle.touched[name]


async def step(world: World, oracle: Oracle, what: str, tenant: str, number: int) -> None:
    """One of them, in the world and for the oracle."""
    match what:
        case "deploy":
            oracle.current, _ = await world.deploy(VERSIONS[number], tenant=tenant)
            oracle.touched[oracle.current] = world.clock.at
        case "put":
            oracle.touched[await world.put(VERSIONS[number], tenant)] = world.clock.at
        case "delete":
            await delete(world, tenant, oracle, NAMES[VERSIONS[number]])
        case "run" if oracle.current:
            oracle.runs[await world.run(tenant)] = oracle.current
        case "forget" if oracle.runs:
            run_id = sorted(oracle.runs)[number % len(oracle.runs)]
            del oracle.runs[run_id], world.journal.runs[run_id]
        case "wait":
            world.clock.at += timedelta(minutes=number)
        case "prune":
            assert set(await world.prune(tenant)) == oracle.prune(world.clock.at)


async def play(world: World, steps: list[Step]) -> None:
    oracles = {tenant: Oracle() for tenant in TENANTS}
    for what, tenant, number in steps:
        await step(world, oracles[tenant], what, tenant, number)
        for whose, oracle in oracles.items():
            kept = await world.kept(whose)
            assert kept.keys() == oracle.touched.keys()
            assert {name for name, (_, current) in kept.items() if current} == ({oracle.current} - {""})
        held = set().union(*(oracle.touched for oracle in oracles.values()))
        assert {name for name in NAMES.values() if world.store.has(name)} == held


@given(steps=st.lists(_steps, min_size=6, max_size=25))
@settings(deadline=None, max_examples=40)
def test_what_is_new_current_or_pinned_is_kept_and_nothing_else(steps: list[Step]) -> None:
    last: list[Step] = [("wait", DEFAULT_TENANT, 60), *(("prune", tenant, 0) for tenant in TENANTS)]
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        asyncio.run(play(World(Path(home), patch), [*steps, *last]))
