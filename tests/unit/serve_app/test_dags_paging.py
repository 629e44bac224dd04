"""Lists over several core states put together, and cursors as callers see them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.archive_store import ArchiveStore
from actors.settings import Settings
from orchestrator import archive
from orchestrator.errors import Invalid
from orchestrator.ids import DEFAULT_TENANT, place
from orchestrator.starts import Trigger
from orchestrator.steps import Creation
from orchestrator.views import Page, RunView
from serve_app.gateway import Gateway
from serve_app.surfaces.dags.paging import cursor_of, cursor_text, merged
from serve_app.surfaces.dags.parse import RUN_STATES
from tests.conformance.journal_builders import new_run
from tests.fakes_gateway import EPOCH
from tests.gateway_stage import SetClock, World, definition
from tests.unit.serve_app.conftest import Connect

STATES = ("failed", "timed_out", "quarantined")


def run(number: int, state: str) -> RunView:
    return RunView(f"run_{number:03d}", "d", 1, "manual", state, None, 1, EPOCH)


def read(runs: list[RunView], cursor: str | None, limit: int, scan: int) -> Page[RunView]:
    """A page as the journal gives it: it may be short, when it has looked at `scan` runs."""
    older = [each for each in runs if cursor is None or each.run_id < cursor]
    looked_at = older[: min(limit, scan)]
    return Page(tuple(looked_at), looked_at[-1].run_id if len(older) > len(looked_at) else None)


@given(
    states=st.lists(st.sampled_from(STATES), max_size=30),
    limit=st.integers(1, 10),
    scans=st.lists(st.integers(1, 10), min_size=3, max_size=3),
)
def test_paging_shows_every_run_once_newest_first(states: list[str], limit: int, scans: list[int]) -> None:
    runs = [run(number, state) for number, state in enumerate(states)][::-1]
    by_state = [[each for each in runs if each.state == state] for state in STATES]
    seen: list[RunView] = []
    cursor: str | None = None
    for _ in range(200):
        page = merged([read(own, cursor, limit, scan) for own, scan in zip(by_state, scans, strict=True)], limit)
        assert len(page.items) <= limit
        seen += page.items
        if (cursor := page.next_cursor) is None:
            break
    assert seen == runs


@pytest.mark.parametrize("inner", ["run_00abc", "a.b-c_d", "x" * 250])
def test_a_cursor_survives_the_way_out_and_in(inner: str) -> None:
    text = cursor_text("runs", inner)
    assert text is not None
    assert cursor_of("runs", text) == inner
    with pytest.raises(Invalid, match="bad cursor"):
        cursor_of("dags", text)


@pytest.mark.parametrize(
    "text", ["", "x", "run_00abc", "cnVucw", "cnVuczpydW5fMQ==", "cnVuczpydW5fMR", "\0", "ä", "A" * 600]
)
def test_anything_else_is_no_cursor(text: str) -> None:
    with pytest.raises(Invalid, match="bad cursor"):
        cursor_of("runs", text)
    assert cursor_of("runs", None) is cursor_text("runs", None) is None


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With an archive."""
    made = World()
    made.gateway = Gateway(made.journal, made.stage, SetClock(), settings=Settings(home=str(tmp_path)))
    return made


@pytest.fixture
def gateway(world: World) -> Gateway:
    """The real one, below the client of the surface."""
    return world.gateway


async def listed(client: httpx.AsyncClient, query: str) -> list[str]:
    """All pages, two runs each."""
    found: list[str] = []
    cursor = ""
    for _ in range(100):
        answer = await client.get(f"/api/v1/runtime/orchestrator/runs?limit=2{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [run["run_id"] for run in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
    raise AssertionError(f"{query}: no end")


async def runs_of_all_states(world: World) -> dict[str, list[str]]:
    """Core state -> its runs, newest first; no two of a state follow one another, some have ids of the surface runs."""
    await world.gateway.define_dag(DEFAULT_TENANT, definition(), keep_tasks=False, expect=None, idem=None)
    cores = sorted({core for group in RUN_STATES.values() for core in group})
    found: dict[str, list[str]] = {core: [] for core in cores}
    for _ in range(5):
        for core in cores:
            run_id = await a_run(world, bare=len(found[core]) % 3 == 1)
            if core != "queued":
                await world.end(run_id, core)
            found[core].insert(0, run_id)
    return found


def newest_first(runs: Iterable[str]) -> list[str]:
    return sorted(runs, key=place, reverse=True)


async def a_run(world: World, bare: bool) -> str:
    if not bare:
        return (await world.gateway.trigger(DEFAULT_TENANT, Trigger(dag_id="d"), None)).run_id
    run_id = world.gateway._clock.new_run_id().removeprefix("run_")
    new = new_run(run_id=run_id, tenant=DEFAULT_TENANT)
    [made] = await world.journal.create_runs([Creation((new,))])
    return made.runs[0].run_id


async def test_every_state_is_listed_whole_over_http(world: World, connect: Connect) -> None:
    """A state of the surface is up to three of the core, each with a list and a cursor of its own."""
    known = await runs_of_all_states(world)
    client = connect("admin")
    for state, cores in RUN_STATES.items():
        of_state = newest_first(run for core in cores for run in known[core])
        assert await listed(client, f"&state={state}") == of_state
        assert await listed(client, f"&state={state}&dag_id=d") == of_state
    assert await listed(client, "") == newest_first(run for runs in known.values() for run in runs)


async def test_every_state_of_what_left_is_listed_whole_over_http(
    world: World, connect: Connect, tmp_path: Path
) -> None:
    known = await runs_of_all_states(world)
    histories = await world.journal.load([run for runs in known.values() for run in runs])
    ArchiveStore(tmp_path).add([archive.shelved(history, {}, {}) for history in histories])
    world.journal.runs.clear()
    client = connect("admin")
    for state, cores in RUN_STATES.items():
        of_state = newest_first(run for core in cores for run in known[core])
        assert await listed(client, f"&archived=true&state={state}") == of_state


@pytest.mark.parametrize("inner", ["d", "run_\n", "run_1/2", "cnVuXzE"])
async def test_a_cursor_that_names_no_run_is_refused(world: World, connect: Connect, inner: str) -> None:
    for more in ("", "&archived=true", "&state=failed"):
        cursor = cursor_text("runs", inner)
        answer = await connect("admin").get(f"/api/v1/runtime/orchestrator/runs?cursor={cursor}{more}")
        assert answer.status_code == 400
