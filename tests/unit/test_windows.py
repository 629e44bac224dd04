"""Windows of backfills, manual runs and fires, and which fires are due."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from orchestrator.calendars import Days
from orchestrator.dates import instant_text, parse_date, parse_instant
from orchestrator.definition import Window
from orchestrator.errors import Invalid
from orchestrator.schedule import parse
from orchestrator.windows import backfill_windows, manual_window, window_of

LIMIT = 100_000
EVERY_MINUTE = parse("* * * * *", "UTC")
DAILY = parse("0 2 * * *", "UTC")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days(windows: list[Window]) -> list[str]:
    assert all(window.start == window.end for window in windows)
    return [window.start for window in windows]


def backfill(expression: str | None, zone: str, start: str, end: str, limit: int = LIMIT) -> list[Window]:
    schedule = parse(expression, zone) if expression else None
    return backfill_windows(schedule, zone, date.fromisoformat(start), date.fromisoformat(end), limit)


# text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-13-01",
        "2025-02-29",
        "2025-1-1",
        "20250101",
        "2025-W01-1",
        "2025-01-01T00:00:00Z",
        "2025-01-01\n",
        "٢٠٢٥-01-01",
        "0000-01-01",
        "x" * 9999,
    ],
)
def test_only_real_dates_are_dates(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_date(text, "from")
    assert [field for field, _ in caught.value.details] == ["from"]
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-01",
        "2025-01-01T00:00Z",
        "2025-01-01T00:00:00",
        "2025-01-01T00:00:00+00:00",
        "2025-01-01 00:00:00Z",
        "2025-01-01t00:00:00z",
        "2025-01-01T24:00:00Z",
        "2025-01-01T00:00:60Z",
        "2025-02-30T00:00:00Z",
        "2025-01-01T00:00:00.1234567Z",
    ],
)
def test_only_utc_instants_with_a_z_are_instants(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_instant(text, "to")
    assert [field for field, _ in caught.value.details] == ["to"]


def test_an_instant_has_one_spelling() -> None:
    assert parse_date("2024-02-29", "from") == date(2024, 2, 29)
    assert instant_text(parse_instant("2025-01-01T02:03:04.000Z", "from")) == "2025-01-01T02:03:04Z"
    assert instant_text(parse_instant("2025-01-01T02:03:04.5Z", "from")) == "2025-01-01T02:03:04.500000Z"


# manual


def test_a_manual_run_may_have_no_window() -> None:
    assert manual_window(None, None) is None


def test_a_manual_window_is_a_date_pair_or_an_instant_pair() -> None:
    assert manual_window("2025-10-01", "2025-10-01") == Window("2025-10-01", "2025-10-01")
    assert manual_window("2025-10-01T00:00:00.0Z", "2025-10-01T01:00:00Z") == Window(
        "2025-10-01T00:00:00Z", "2025-10-01T01:00:00Z"
    )


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        ("2025-10-01", None, "to"),
        (None, "2025-10-01", "from"),
        ("2025-10-02", "2025-10-01", "to"),
        ("2025-10-01", "2025-10-01T00:00:00Z", "to"),
        ("2025-10-01T00:00:00Z", "2025-10-02", "to"),
        ("2025-10-01T01:00:00Z", "2025-10-01T00:00:00Z", "to"),
        ("2025-10-01T01:00:00Z", "2025-10-01T01:00:00Z", "to"),
        ("yesterday", "2025-10-01", "from"),
    ],
)
def test_other_manual_windows_are_refused(start: str | None, end: str | None, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        manual_window(start, end)
    assert [name for name, _ in caught.value.details] == [field]


# fires


def test_a_daily_fire_is_about_its_local_date() -> None:
    late = parse("30 23 * * *", "America/New_York")
    assert window_of(late, utc("2026-01-02T04:30")) == Window("2026-01-01", "2026-01-01")


def test_a_more_frequent_fire_is_about_the_time_until_the_next() -> None:
    twice = parse("0 6,18 * * *", "UTC")
    assert window_of(twice, utc("2025-10-01T18:00")) == Window("2025-10-01T18:00:00Z", "2025-10-02T06:00:00Z")


def test_a_fire_and_a_backfill_name_the_same_window() -> None:
    for expression in ("30 2 * * *", "*/20 2 * * *", "*/30 * * * *"):
        schedule = parse(expression, "Europe/Berlin")
        for day in (date(2026, 3, 29), date(2026, 10, 25)):
            filled = backfill_windows(schedule, "Europe/Berlin", day, day, LIMIT)
            dated = schedule.dated(utc(f"{day}T00:00") - timedelta(days=1), utc(f"{day}T00:00") + timedelta(days=2))
            assert filled == [window_of(schedule, fire) for fire, local in dated if local == day]


# backfills


def test_the_end_of_a_backfill_is_inclusive() -> None:
    four = ["2025-10-01", "2025-10-02", "2025-10-03", "2025-10-04"]
    assert days(backfill("0 2 * * *", "UTC", "2025-10-01", "2025-10-04")) == four
    assert days(backfill(None, "UTC", "2025-10-01", "2025-10-04")) == four
    assert days(backfill("59 23 * * *", "Pacific/Kiritimati", "2025-10-01", "2025-10-04")) == four
    assert days(backfill("0 0 * * *", "Pacific/Pago_Pago", "2025-10-01", "2025-10-04")) == four


def test_a_sparse_schedule_has_windows_only_where_it_fires() -> None:
    assert days(backfill("@weekly", "UTC", "2025-10-01", "2025-10-14")) == ["2025-10-05", "2025-10-12"]


def test_sub_daily_windows_join_without_gap_over_changing_clocks() -> None:
    windows = backfill("*/30 * * * *", "Europe/Berlin", "2026-10-24", "2026-10-26")
    assert len(windows) == 48 + 50 + 48
    assert all(a.end == b.start for a, b in pairwise(windows))
    assert (windows[0].start, windows[-1].end) == ("2026-10-23T22:00:00Z", "2026-10-26T23:00:00Z")


def test_a_date_that_does_not_exist_has_no_window() -> None:
    for expression in ("0 2 * * *", None):
        assert days(backfill(expression, "Pacific/Apia", "2011-12-29", "2011-12-31")) == ["2011-12-29", "2011-12-31"]
        with pytest.raises(Invalid):
            backfill(expression, "Pacific/Apia", "2011-12-30", "2011-12-30")


def test_a_gap_that_ends_at_midnight_leaves_no_date_without_its_window() -> None:
    expected = ["2024-03-29", "2024-03-30", "2024-03-31"]
    assert days(backfill("30 23 * * *", "America/Nuuk", "2024-03-29", "2024-03-31")) == expected


def test_a_date_has_one_window_even_if_its_only_hour_comes_twice() -> None:
    twice = parse("0 */24 * * *", "America/Havana")
    assert len(list(twice.between(utc("2026-11-01T00:00"), utc("2026-11-01T12:00")))) == 2
    windows = backfill("0 */24 * * *", "America/Havana", "2026-10-31", "2026-11-02")
    assert days(windows) == ["2026-10-31", "2026-11-01", "2026-11-02"]


@pytest.mark.parametrize(
    ("expression", "start", "end", "limit", "field"),
    [
        (None, "2025-10-02", "2025-10-01", LIMIT, "to"),
        (None, "2025-10-01", "2025-10-04", 3, "to"),
        ("* * * * *", "2025-10-01", "2025-10-01", 1439, "to"),
        ("@monthly", "2025-10-02", "2025-10-31", LIMIT, "from"),
        (None, "0001-01-01", "0001-01-01", LIMIT, "from"),
        (None, "9999-12-31", "9999-12-31", LIMIT, "to"),
        ("@yearly", "0001-01-01", "9999-12-31", LIMIT, "from"),
    ],
)
def test_backfills_without_windows_or_with_too_many_are_refused(
    expression: str | None, start: str, end: str, limit: int, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        backfill(expression, "UTC", start, end, limit)
    assert [name for name, _ in caught.value.details] == [field]


def test_exactly_the_limit_is_allowed() -> None:
    assert len(backfill(None, "UTC", "2025-10-01", "2025-10-04", 4)) == 4
    assert len(backfill("* * * * *", "UTC", "2025-10-01", "2025-10-01", 1440)) == 1440


def test_the_years_that_are_supported_are_supported_to_their_ends() -> None:
    assert len(backfill(None, "Pacific/Kiritimati", "1500-01-01", "1500-01-03")) == 3
    assert len(backfill("0 23 * * *", "Pacific/Pago_Pago", "2500-12-29", "2500-12-31")) == 3


def test_a_backfill_has_the_dates_of_the_calendar() -> None:
    days = Days(
        exclude=frozenset([date(2026, 1, 6)]), include=frozenset([date(2026, 1, 10)]), weekdays=frozenset([1, 2])
    )
    schedule = parse("0 2 * * *", "UTC", days)
    windows = backfill_windows(schedule, "UTC", date(2026, 1, 5), date(2026, 1, 13), LIMIT)
    assert [window.start[-2:] for window in windows] == ["05", "10", "12", "13"]
