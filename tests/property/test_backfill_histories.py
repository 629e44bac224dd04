"""Whatever is seen of its windows, twice, late or with steps left out: a backfill counts right and ends right."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator.backfill import CancelAll, Observe, owed
from orchestrator.errors import Conflict
from orchestrator.run_state import ENDED, RunState
from tests.builders import Watch
from tests.invariants import check_backfill, check_replayed_backfill
from tests.strategies import observations

WINDOWS = 4
Seen = list[list[tuple[str, str]]]


def play(watch: Watch, seen: Seen) -> dict[str, str]:
    """Show it all; the last state in which each window was seen."""
    last = {child: "queued" for child, _ in watch.children if child not in watch.kept}
    for states in seen:
        if states[0][0] == "":
            _cancel(watch)
            continue
        watch.do(Observe(tuple(states)))
        last |= {child: state for child, state in states if child in last}
        _check(watch, last)
    return last


def _cancel(watch: Watch) -> None:
    try:
        watch.do(CancelAll())
    except Conflict:
        assert watch.state in ENDED - {RunState.CANCELLED}
    else:
        assert watch.state in (RunState.CANCELLING, RunState.CANCELLED)


def _check(watch: Watch, last: dict[str, str]) -> None:
    assert watch.backfill.states == last
    open_ = [child for child, state in last.items() if state not in ENDED]
    assert watch.backfill.open == len(open_)
    if watch.state in ENDED:
        assert not open_, "I6"
    if watch.state is RunState.CANCELLING:
        assert {effect.child for effect in owed(watch.backfill)} == set(open_) != set(), "I8"


@settings(max_examples=200, deadline=None)
@given(observations(WINDOWS), st.sets(st.sampled_from(["c1", "c2", "c3"]), max_size=2))
def test_any_news_are_counted_right_and_a_fold_of_them_is_the_backfill(seen: Seen, kept: set[str]) -> None:
    watch = Watch(WINDOWS, sorted(kept))
    play(watch, seen)
    assert check_backfill(watch.events) == watch.state
    check_replayed_backfill(watch.backfill, watch.replayed())
    for event in watch.events:
        if isinstance(event, e.WindowChanged):
            counts = event.counts
            parts = (counts.queued, counts.running, counts.succeeded, counts.failed, counts.cancelled, counts.skipped)
            assert sum(parts) == counts.total == WINDOWS
            assert min(parts) >= 0


@settings(max_examples=100, deadline=None)
@given(observations(WINDOWS), st.lists(st.sampled_from(["succeeded", "failed", "cancelled"]), min_size=4, max_size=4))
def test_when_all_windows_have_ended_so_has_the_backfill(seen: Seen, ends: list[str]) -> None:
    watch = Watch(WINDOWS)
    play(watch, seen)
    cancelled = watch.state in (RunState.CANCELLING, RunState.CANCELLED)
    watch.see(**{f"c{n}": state for n, state in enumerate(ends, 1)})
    assert watch.state in ENDED, "I10"
    if not cancelled:
        assert watch.state is (RunState.SUCCEEDED if set(ends) == {"succeeded"} else RunState.FAILED)


@settings(max_examples=100, deadline=None)
@given(observations(WINDOWS))
def test_seeing_everything_twice_is_seeing_it_once(seen: Seen) -> None:
    once, twice = Watch(WINDOWS), Watch(WINDOWS)
    play(once, seen)
    play(twice, [states for each in seen for states in (each, each[-1:])])
    assert once.backfill.states == twice.backfill.states
    assert once.state == twice.state
