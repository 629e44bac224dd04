"""What a due schedule comes to: catch-up, overlap, jitter, bounds and calendars (contracts/dags.md section 6)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.definition import Calendar, Catchup, Definition, Overlap
from orchestrator.errors import Invalid
from orchestrator.fires import (
    COUNTED_MAX,
    GRACE,
    MISSED,
    OVERLAP,
    Dropped,
    Timetable,
    Turn,
    decide,
    preview,
    same_times,
    timetable_of,
)

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
BUSY = {"run_1": "running"}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def a_dag(schedule: str = "* * * * *", **changes: Any) -> Definition:
    return Definition(dag_id="d", owner="o", schedule=schedule, **changes)


def table(schedule: str = "* * * * *", **changes: Any) -> Timetable:
    found = timetable_of(a_dag(schedule, **changes), "t")
    assert found is not None
    return found


EVERY_MINUTE, DAILY = table(), table("0 2 * * *")


def turn(
    timetable: Timetable,
    first: datetime,
    now: datetime,
    catchup: Catchup = "none",
    overlap: Overlap = "allow",
    live: dict[str, str] | None = None,
    **more: Any,
) -> Turn:
    return decide(timetable, catchup, overlap, first, now, live or {}, **more)


# ── catch-up


def test_a_fire_starts_once_and_the_schedule_goes_on() -> None:
    done = turn(EVERY_MINUTE, NOON, NOON + SECOND)
    assert done == Turn((NOON,), (), (), NOON + MINUTE)
    assert turn(EVERY_MINUTE, NOON + MINUTE, NOON + SECOND) == Turn((), (), (), NOON + MINUTE)


@pytest.mark.parametrize("catchup", ["none", "last", "all"])
def test_a_clock_that_was_set_back_finds_nothing_whatever_the_catch_up(catchup: Catchup) -> None:
    assert turn(EVERY_MINUTE, NOON, NOON - DAY, catchup) == Turn((), (), (), NOON)


def test_without_catch_up_what_is_late_by_less_than_the_grace_runs() -> None:
    first = utc("2026-01-01T02:00")
    late = first + 3 * DAY + GRACE
    assert turn(DAILY, first, late - SECOND).starts == (first + 3 * DAY,)
    assert turn(DAILY, first, late - SECOND).dropped == (Dropped(MISSED, 3, first + 2 * DAY),)
    assert turn(DAILY, first, late) == Turn((), (Dropped(MISSED, 4, first + 3 * DAY),), (), first + 4 * DAY)


def test_catch_up_runs_the_latest_or_each_oldest_first() -> None:
    first, now = utc("2026-01-02T02:00"), utc("2026-01-05T12:00")
    four = tuple(first + n * DAY for n in range(4))
    assert turn(DAILY, first, now, "all") == Turn(four, (), (), four[-1] + DAY)
    assert turn(DAILY, first, now, "all", most=3) == Turn(four[1:], (Dropped(MISSED, 1, first),), (), four[-1] + DAY)
    assert turn(DAILY, first, now, "last") == Turn(four[3:], (Dropped(MISSED, 3, four[2]),), (), four[-1] + DAY)


def test_catching_up_over_years_looks_at_the_latest_and_counts_so_far_and_no_further() -> None:
    first = utc("2016-01-01T00:00")
    done = turn(EVERY_MINUTE, first, NOON, "all")
    assert done.starts == tuple(NOON - MINUTE * (999 - n) for n in range(1000))
    assert done.dropped == (Dropped(MISSED, COUNTED_MAX, NOON - 1000 * MINUTE),)
    assert turn(table("@yearly"), first, NOON, "last").starts == (utc("2026-01-01T00:00"),)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["none", "last", "all"]),
    st.sampled_from(["allow", "skip", "buffer_one", "cancel_previous"]),
    st.lists(st.tuples(st.integers(-300, 4000), st.sampled_from([0, 1, 2])), min_size=1, max_size=8),
    st.sampled_from([0, 25, 90]),
)
def test_every_fire_is_decided_on_exactly_once_and_in_order(
    catchup: Catchup, overlap: Overlap, looks: list[tuple[int, int]], jitter_s: int
) -> None:
    """Looks at any times, clocks set back among them: started and dropped fires together are all there were."""
    timetable = table("*/7 * * * *", jitter_s=jitter_s)
    stands = begin = timetable.next(NOON) or NOON
    now, started, counted = NOON, list[datetime](), 0
    for after_s, live in looks:
        now += timedelta(seconds=after_s)
        done = turn(timetable, stands, now, catchup, overlap, {f"run_{n}": "queued" for n in range(live)})
        assert done.next is not None
        assert all(timetable.due(fire) <= now for fire in done.starts)
        started += done.starts
        counted += len(done.starts) + sum(drop.count for drop in done.dropped)
        assert done.next >= stands
        stands = done.next
        assert counted == len(timetable.between(begin, stands - SECOND))
    assert started == sorted(set(started))


# ── overlap


@pytest.mark.parametrize(
    ("overlap", "live", "starts", "dropped", "replaces"),
    [
        ("allow", {}, 1, 0, ()),
        ("allow", BUSY, 1, 0, ()),
        ("skip", {}, 1, 0, ()),
        ("skip", BUSY, 0, 1, ()),
        ("skip", {"run_1": "queued"}, 0, 1, ()),
        ("buffer_one", {}, 1, 0, ()),
        ("buffer_one", BUSY, 1, 0, ()),
        ("buffer_one", {"run_1": "paused"}, 1, 0, ()),
        ("buffer_one", BUSY | {"run_2": "queued"}, 0, 1, ()),
        ("cancel_previous", {}, 1, 0, ()),
        ("cancel_previous", BUSY | {"run_2": "queued"}, 1, 0, ("run_1", "run_2")),
    ],
)
@pytest.mark.parametrize("catchup", ["none", "last", "all"])
def test_a_fire_on_time_keeps_to_the_overlap_policy(
    catchup: Catchup, overlap: Overlap, live: dict[str, str], starts: int, dropped: int, replaces: tuple[str, ...]
) -> None:
    done = turn(EVERY_MINUTE, NOON, NOON + SECOND, catchup, overlap, live)
    assert (len(done.starts), sum(drop.count for drop in done.dropped), done.replaces) == (starts, dropped, replaces)
    assert all(drop == Dropped(OVERLAP, 1, NOON) for drop in done.dropped)
    assert done.next == NOON + MINUTE


@pytest.mark.parametrize("overlap", ["skip", "buffer_one"])
def test_of_what_all_makes_up_for_nothing_is_dropped(overlap: Overlap) -> None:
    now = NOON + 3 * DAY + SECOND
    assert len(turn(table("0 12 * * *"), NOON, now, "all", overlap, BUSY).starts) == 4
    assert len(turn(table("0 12 * * *"), NOON, NOON + 2 * MINUTE, "all", overlap, BUSY).starts) == 1


def test_under_cancel_previous_only_the_newest_of_many_counts() -> None:
    done = turn(table("0 12 * * *"), NOON, NOON + 3 * DAY, "all", "cancel_previous", BUSY)
    assert done == Turn((NOON + 3 * DAY,), (Dropped(OVERLAP, 3, NOON + 2 * DAY),), ("run_1",), NOON + 4 * DAY)


def test_two_fires_within_the_grace_are_one_that_runs_and_one_that_waits() -> None:
    first, now = NOON - MINUTE, NOON - SECOND + MINUTE
    at = turn(EVERY_MINUTE, first - MINUTE, now - MINUTE, overlap="buffer_one").starts
    assert at == (first,)
    crowded = table("* * * * *", jitter_s=59)
    done = turn(crowded, first, crowded.due(NOON), overlap="buffer_one")
    assert NOON in done.starts
    assert len(done.starts) + len(done.dropped) <= 2


def test_nothing_replaces_when_nothing_starts() -> None:
    done = turn(DAILY, NOON - 10 * DAY, NOON, "none", "cancel_previous", BUSY)
    assert (done.starts, done.replaces) == ((), ())


# ── jitter


def test_jitter_is_a_share_that_a_restart_finds_again() -> None:
    one, same = table("0 * * * *", jitter_s=600), table("0 * * * *", jitter_s=600)
    fires = one.between(NOON, NOON + DAY)
    delays = [one.due(fire) - fire for fire in fires]
    assert delays == [same.due(fire) - fire for fire in fires]
    assert all(timedelta(0) <= delay < timedelta(seconds=600) for delay in delays)
    assert len(set(delays)) > 20
    other = timetable_of(a_dag("0 * * * *", jitter_s=600), "u")
    assert other is not None
    assert [other.due(fire) - fire for fire in fires] != delays


def test_a_delayed_fire_comes_before_the_next_one_is_due() -> None:
    timetable = table("*/5 * * * *", jitter_s=86_400)
    due = [timetable.due(fire) for fire in timetable.between(NOON, NOON + DAY)]
    assert all(one < other for one, other in pairwise(due))
    assert all(timetable.due(fire) < fire + 5 * MINUTE for fire in timetable.between(NOON, NOON + DAY))


def test_a_fire_waits_for_its_delay_and_is_on_time_then() -> None:
    timetable = table("0 12 * * *", jitter_s=3600)
    due = timetable.due(NOON)
    assert due > NOON + GRACE
    assert turn(timetable, NOON, due - SECOND) == Turn((), (), (), NOON)
    assert turn(timetable, NOON, due + SECOND).starts == (NOON,)
    assert turn(timetable, NOON, due + GRACE).starts == ()


# ── bounds


def test_a_schedule_fires_from_its_start_to_its_end_both_included() -> None:
    timetable = table("0 12 * * *", start_at="2026-01-05T12:00:00Z", end_at="2026-01-07T12:00:00Z")
    assert timetable.next(NOON - 100 * DAY) == NOON
    assert timetable.next(NOON + DAY) == NOON + 2 * DAY
    assert timetable.next(NOON + 2 * DAY) is None
    done = turn(timetable, NOON, NOON + 100 * DAY, "all")
    assert (len(done.starts), done.next) == (3, None)


def test_the_last_fire_of_all_leaves_nothing_to_look_for() -> None:
    timetable = table("0 12 * * *", end_at="2026-01-05T12:00:00Z")
    assert turn(timetable, NOON, NOON).next is None


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(Invalid, match="before start_at"):
        table(start_at="2026-01-02T00:00:00Z", end_at="2026-01-01T00:00:00Z")


def test_what_changes_the_times_of_a_schedule() -> None:
    assert same_times(a_dag(), a_dag(catchup="all", overlap="skip", max_active_runs=1))
    for change in (
        {"timezone": "Europe/Berlin"},
        {"calendar": Calendar(weekdays=("mon",))},
        {"start_at": "2026-01-01T00:00:00Z"},
        {"end_at": "2027-01-01T00:00:00Z"},
        {"jitter_s": 5},
    ):
        assert not same_times(a_dag(), a_dag(**change))
    assert timetable_of(Definition(dag_id="d", owner="o"), "t") is None


# ── calendars


def test_a_calendar_excludes_includes_and_picks_weekdays() -> None:
    calendar = Calendar(exclude=("2026-01-05",), include=("2026-01-10",), weekdays=("mon", "wed", "fri"))
    timetable = table("0 12 * * *", calendar=calendar)
    days = [fire.day for fire in timetable.between(utc("2026-01-01T00:00"), utc("2026-01-15T00:00"))]
    assert days == [2, 7, 9, 10, 12, 14]


def test_an_included_date_fires_whatever_the_day_fields_say() -> None:
    timetable = table("0 9,17 * 6 MON", calendar=Calendar(include=("2026-01-10",)))
    assert timetable.between(NOON, NOON + 60 * DAY) == [utc("2026-01-10T09:00"), utc("2026-01-10T17:00")]


def test_dates_are_those_of_the_zone() -> None:
    tokyo = table("0 3 * * *", timezone="Asia/Tokyo", calendar=Calendar(exclude=("2026-01-06",)))
    assert tokyo.between(NOON, NOON + 2 * DAY) == [utc("2026-01-06T18:00")]


def test_a_window_reaches_over_what_the_calendar_skips() -> None:
    hourly = table("0 * * * *", calendar=Calendar(weekdays=("mon", "tue")))
    [last] = preview(hourly, utc("2026-01-06T23:00"), 1)
    assert (last.window.start, last.window.end) == ("2026-01-06T23:00:00Z", "2026-01-12T00:00:00Z")


# ── preview


def test_a_preview_tells_what_the_calendar_skips_and_why() -> None:
    calendar = Calendar(exclude=("2026-01-07",), weekdays=("mon", "wed", "thu"))
    ticks = preview(table("0 12 * * *", calendar=calendar), NOON, 4)
    assert [(tick.at.day, tick.skipped) for tick in ticks] == [(5, None), (6, "weekday"), (7, "excluded"), (8, None)]
    assert ticks[0].window.start == "2026-01-05"


def test_a_preview_shows_both_clocks_and_where_they_change() -> None:
    ticks = preview(table("30 2 * * *", timezone="Europe/Berlin"), utc("2026-03-28T00:00"), 3)
    assert [tick.local.isoformat()[:16] for tick in ticks] == [
        "2026-03-28T02:30",
        "2026-03-29T03:00",
        "2026-03-30T02:30",
    ]
    assert [tick.at for tick in ticks] == [utc("2026-03-28T01:30"), utc("2026-03-29T01:00"), utc("2026-03-30T00:30")]
    assert [tick.moved for tick in ticks] == [False, True, False]
    nuuk = preview(table("30 23 * * *", timezone="America/Nuuk"), utc("2024-03-31T01:00"), 1)
    assert (nuuk[0].moved, nuuk[0].window.start) == (True, "2024-03-30")


def test_a_preview_lies_within_the_bounds_of_the_schedule() -> None:
    timetable = table("0 12 * * *", start_at="2026-02-01T00:00:00Z", end_at="2026-02-03T00:00:00Z", jitter_s=60)
    ticks = preview(timetable, NOON, 10)
    assert [tick.local.date() for tick in ticks] == [date(2026, 2, 1), date(2026, 2, 2)]
    assert [tick.runs_at for tick in ticks] == [timetable.due(tick.at) for tick in ticks]
