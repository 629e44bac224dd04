"""Lists over several core states put together, and cursors as callers see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import Invalid
from orchestrator.views import Page, RunView
from serve_app.surfaces.dags.paging import cursor_of, cursor_text, merged
from tests.fakes_gateway import EPOCH

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
