"""How fast a backfill gets on: right for steady work, bursts and pauses, and silent when nothing is known."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orchestrator import events as e
from orchestrator.pace import SAMPLE, Pace, pace
from tests.builders import AT, day

#: seconds since AT when a window begins and ends
Work = list[tuple[float, float]]


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def told(total: int, work: Work, until: float, *others: e.Event) -> tuple[list[e.Event], e.Counts]:
    """What happened up to then, and the counts."""
    moments = sorted(
        (when, n, before, after)
        for n, (begun, ended) in enumerate(work)
        for when, before, after in ((begun, "queued", "running"), (ended, "running", "succeeded"))
        if when <= until
    )
    running = done = 0
    found: list[e.Event] = [e.RunStarted(at(0), 1), *others]
    counts = e.Counts(total=total, queued=total)
    for when, n, before, after in moments:
        running, done = (running + 1, done) if after == "running" else (running - 1, done + 1)
        counts = e.Counts(total=total, queued=total - running - done, running=running, succeeded=done)
        found.append(e.WindowChanged(at(when), day(1), f"c{n}", before, after, counts))
    return sorted(found, key=lambda event: event.at), counts


def one_by_one(n: int, seconds: float) -> Work:
    return [(i * seconds, (i + 1) * seconds) for i in range(n)]


def test_windows_one_after_the_other() -> None:
    events, counts = told(10, one_by_one(10, 60), 240)
    assert pace(events, counts, AT, "running") == Pace(0.4, round(1 / 60, 6), at(600))


def test_four_at_a_time_that_end_together_are_not_four_a_second() -> None:
    work = [(0, 3600 + n / 10) for n in range(4)]
    events, counts = told(12, work, 3600)
    found = pace(events, counts, AT, "running")
    assert found.windows_per_s == pytest.approx(4 / 3600, rel=0.001)
    assert found.eta is not None
    assert found.eta - at(3600 + 11 * 900) < timedelta(seconds=5)


def test_time_in_a_pause_does_not_count() -> None:
    work = [(0, 10), (10, 20), (1020, 1030), (1030, 1040)]
    events, counts = told(8, work, 1040, e.RunPaused(at(20)), e.RunResumed(at(1020)))
    assert pace(events, counts, AT, "running").eta == at(1080)
    assert pace(events, counts, AT, "paused") == Pace(0.5, 0.1, None)


def test_nothing_is_known_before_a_window_has_ended() -> None:
    events, counts = told(4, [(0, 60)], 30)
    assert pace(events, counts, AT, "running") == Pace(0.0)
    assert pace(events[:1], e.Counts(total=4, queued=4), None, "queued") == Pace(0.0)


def test_a_backfill_that_has_ended_is_through() -> None:
    events, counts = told(2, one_by_one(2, 10), 20)
    assert pace(events, counts, AT, "succeeded") == Pace(1.0)
    assert pace([], e.Counts(total=3, skipped=3), None, "succeeded") == Pace(1.0)


def test_kept_windows_count_as_over() -> None:
    assert pace([], e.Counts(total=4, skipped=1, queued=3), None, "queued") == Pace(0.25)


def test_only_the_latest_start_counts() -> None:
    before, _ = told(4, one_by_one(4, 1), 4)
    after, counts = told(4, one_by_one(2, 100), 200)
    later = [*before, *(e.RunRevived(at(0), 2), *after[1:])]
    assert pace(later, counts, AT, "running").windows_per_s == 0.01


def test_the_latest_events_tell_the_present_pace() -> None:
    slow, fast = one_by_one(300, 60), [(18_000 + n, 18_001 + n) for n in range(600)]
    events, counts = told(2000, slow + fast, 18_600)
    found = pace(events[-SAMPLE:], counts, AT, "running")
    assert found.windows_per_s == pytest.approx(1.0, rel=0.02)


def test_where_more_run_at_a_time_than_the_sample_has_the_average_since_the_start_has_to_do() -> None:
    work = [(n / 1000, 1000 + n / 1000) for n in range(1000)]
    events, counts = told(4000, work, 1001)
    found = pace(events[-SAMPLE:], counts, AT, "running")
    assert found.windows_per_s == pytest.approx(1.0, rel=0.01)
    assert found.eta is not None
    assert abs(found.eta - at(4000)) < timedelta(seconds=20)


def test_the_end_of_all_time_is_not_told() -> None:
    events, counts = told(100_000, [(0, 10**8)], 10**8)
    eta = pace(events, counts, AT, "running").eta
    assert eta is not None
    assert eta <= at(10**8) + timedelta(days=3650)


def test_progress_is_1_only_when_nothing_is_left() -> None:
    assert pace([], e.Counts(total=100_000, succeeded=99_999, running=1), None, "running").progress == 0.9999


def test_a_clock_that_is_set_back_does_not_make_it_go_backwards() -> None:
    events, counts = told(10, one_by_one(4, 60), 240)
    back = [*events[:-1], e.WindowChanged(at(-5), day(1), "c3", "running", "succeeded", counts)]
    found = pace(back, counts, AT, "running")
    assert found.windows_per_s is not None
    assert found.windows_per_s > 0
    assert found.eta is not None
    assert found.eta > at(-5)


def test_time_in_the_queue_again_is_not_time_at_work() -> None:
    events, counts = told(3, [(0, 10)], 10)
    again = e.Counts(total=3, queued=3)
    running = e.Counts(total=3, queued=2, running=1)
    more = [
        e.WindowChanged(at(20), day(1), "c0", "succeeded", "queued", again),
        e.WindowChanged(at(500), day(1), "c0", "queued", "running", running),
        e.WindowChanged(at(510), day(1), "c0", "running", "succeeded", counts),
    ]
    found = pace([*events, *more], counts, AT, "running")
    assert found.windows_per_s == pytest.approx(2 / 510, rel=0.01)
