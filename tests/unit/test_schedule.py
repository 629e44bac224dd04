"""Cron text, and what it means when the clocks change (contracts/dags.md sections 6 and 9a)."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import Invalid
from orchestrator.schedule import Schedule, parse, zone_of

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(expression: str, zone: str, start: str, end: str) -> list[str]:
    """Fires in [start, end), as `MM-DDTHH:MM` of UTC."""
    return [f"{fire:%m-%dT%H:%M}" for fire in parse(expression, zone).between(utc(start), utc(end))]


def refused(call: Callable[[], Any]) -> Invalid:
    with pytest.raises(Invalid) as caught:
        call()
    return caught.value


# acceptance example 15


def test_a_missing_time_fires_once_at_the_first_instant_after_the_gap() -> None:
    assert fires("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T12:00") == ["03-29T01:00"]


def test_a_fixed_time_that_comes_twice_fires_the_first_time() -> None:
    assert fires("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25T12:00") == ["10-25T00:30"]


def test_an_hour_of_any_follows_real_time_through_25_hours() -> None:
    local_day = ("2026-10-24T22:00", "2026-10-25T23:00")
    assert len(fires("*/30 * * * *", BERLIN, *local_day)) == 50
    assert len(fires("*/30 * * * *", BERLIN, "2026-03-28T23:00", "2026-03-29T22:00")) == 46


# clocks that change


@pytest.mark.parametrize("hours", ["2", "2,2", "1-3", "0-23", "3-3", "2,14"])
def test_values_lists_and_plain_ranges_of_hours_are_fixed(hours: str) -> None:
    assert parse(f"30 {hours} * * *", BERLIN).fixed
    assert fires(f"30 {hours} * * *", BERLIN, "2026-10-25T00:00", "2026-10-25T02:00")[:1] == ["10-25T00:30"]
    assert "10-25T01:30" not in fires(f"30 {hours} * * *", BERLIN, "2026-10-25T00:00", "2026-10-25T12:00")


@pytest.mark.parametrize("hours", ["*", "*/2", "2/5", "0-4/2", "7,*/2"])
def test_stars_and_steps_of_hours_follow_real_time(hours: str) -> None:
    assert not parse(f"30 {hours} * * *", BERLIN).fixed
    assert fires(f"30 {hours} * * *", BERLIN, "2026-10-25T00:00", "2026-10-25T02:00") == ["10-25T00:30", "10-25T01:30"]
    assert "03-29T01:00" not in fires(f"30 {hours} * * *", BERLIN, "2026-03-29T00:00", "2026-03-29T04:00")


def test_all_missing_times_of_one_gap_give_one_fire() -> None:
    assert fires("*/10 2 * * *", BERLIN, "2026-03-29T00:00", "2026-03-29T12:00") == ["03-29T01:00"]


def test_a_gap_whose_end_is_due_anyway_fires_once_there() -> None:
    assert fires("0 2,3 * * *", BERLIN, "2026-03-29T00:00", "2026-03-29T12:00") == ["03-29T01:00"]


def test_a_repeated_hour_runs_its_first_pass_only_when_fixed() -> None:
    assert fires("*/20 2 * * *", BERLIN, "2026-10-25T00:00", "2026-10-25T12:00") == [
        "10-25T00:00",
        "10-25T00:20",
        "10-25T00:40",
    ]


def test_half_an_hour_of_daylight_saving() -> None:
    spring = ("2026-10-03T00:00", "2026-10-04T12:00")
    assert fires("15 2 * * *", "Australia/Lord_Howe", *spring) == ["10-03T15:30"]
    autumn = ("2026-04-04T14:00", "2026-04-04T18:00")
    assert fires("45 1 * * *", "Australia/Lord_Howe", *autumn) == ["04-04T14:45"]
    assert fires("45 * * * *", "Australia/Lord_Howe", *autumn)[:2] == ["04-04T14:45", "04-04T15:15"]


def test_a_date_that_does_not_exist_has_no_fire() -> None:
    days = [
        day for _, day in parse("0 2 * * *", "Pacific/Apia").dated(utc("2011-12-28T00:00"), utc("2012-01-02T00:00"))
    ]
    assert days == [date(2011, 12, d) for d in (28, 29, 31)] + [date(2012, 1, 1), date(2012, 1, 2)]


def test_a_gap_that_ends_at_midnight_keeps_the_date_of_the_time_that_was_due() -> None:
    nuuk = parse("30 23 * * *", "America/Nuuk")
    gap = utc("2024-03-31T01:00")
    assert gap.astimezone(nuuk.zone).date() == date(2024, 3, 31)
    assert nuuk.date_of(gap) == date(2024, 3, 30)
    assert nuuk.next(gap) == utc("2024-04-01T00:30")
    assert nuuk.date_of(utc("2024-04-01T00:30")) == date(2024, 3, 31)


def test_a_gap_at_midnight_moves_the_fire_to_one() -> None:
    assert fires("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", "2018-11-05T00:00") == ["11-04T03:00"]


def test_a_night_that_is_set_back_over_midnight_keeps_time_ascending() -> None:
    schedule = parse("*/15 * * * *", "America/St_Johns")
    night = list(schedule.between(utc("2010-11-07T00:00"), utc("2010-11-07T06:00")))
    assert night == [utc("2010-11-07T00:00") + timedelta(minutes=15 * i) for i in range(24)]
    fixed = list(parse("*/15 0-23 * * *", "America/St_Johns").between(night[0], night[-1]))
    assert fixed == sorted(set(fixed))
    assert len(fixed) == len(night) - 1 - 4


def test_a_daily_schedule_fires_once_on_every_date_whatever_the_zone() -> None:
    for zone in ("America/Havana", "Antarctica/Troll", "Africa/Casablanca", "Europe/Dublin", "Asia/Kathmandu", "UTC"):
        for expression in ("0 0 * * *", "30 0 * * *", "30 1 * * *", "45 2 * * *", "59 23 * * *"):
            dated = parse(expression, zone).dated(utc("2025-01-02T12:00"), utc("2027-01-02T12:00"))
            days = [day for _, day in dated]
            assert days == [days[0] + timedelta(days=i) for i in range(730)], (zone, expression)


# text


@pytest.mark.parametrize(
    ("expression", "day"),
    [
        ("0 0 * * 0", "01-04"),
        ("0 0 * * 7", "01-04"),
        ("0 0 * * SUN", "01-04"),
        ("0 0 * * sat-mon", "01-03"),
        ("0 0 * * FRI-MON", "01-02"),
        ("0 0 * * 5-7", "01-02"),
        ("0 0 13 * FRI", "01-02"),
        ("0 0 13 * *", "01-13"),
        ("0 0 31 2 MON", "02-02"),
        ("0 0 1 JUN *", "06-01"),
        ("0 0 29 2 *", "02-29"),
        ("0 0 */10 * *", "01-11"),
        ("  0\t0  2 * * ", "01-02"),
        ("@daily", "01-02"),
        ("@midnight", "01-02"),
        ("@Weekly", "01-04"),
        ("@monthly", "02-01"),
        ("@yearly", "01-01"),
        ("@annually", "01-01"),
    ],
)
def test_expressions_are_read_as_cron_has_them(expression: str, day: str) -> None:
    assert f"{parse(expression, 'UTC').next(utc('2026-01-01T12:00')):%m-%dT%H:%M}" == f"{day}T00:00"


def test_either_restricted_day_field_matches() -> None:
    days = fires("0 0 13 * FRI", "UTC", "2026-03-01T00:00", "2026-03-31T00:00")
    assert [day[3:5] for day in days] == ["06", "13", "20", "27"]
    assert parse("0 0 13,*/1 * FRI", "UTC").either_day
    assert not parse("0 0 * * FRI", "UTC").either_day


def test_wrapped_hours_go_over_midnight() -> None:
    schedule = parse("0 22-1 * * *", "UTC")
    assert [time / timedelta(hours=1) for time in schedule.times] == [0, 1, 22, 23]
    assert schedule.fixed


def test_hourly_follows_real_time_and_daily_does_not() -> None:
    assert not parse("@hourly", BERLIN).fixed
    assert parse("@daily", BERLIN).fixed
    assert fires("@hourly", "UTC", "2026-01-01T00:00", "2026-01-01T03:00") == [
        "01-01T00:00",
        "01-01T01:00",
        "01-01T02:00",
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "61 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * 0 *",
        "* * * * 8",
        "* * * *",
        "0 0 1 1 * *",
        "0 0 1 1 * 0 2026",
        "0 0 L * *",
        "0 0 15W * *",
        "0 0 LW * *",
        "0 0 * * 5L",
        "0 0 * * MON#2",
        "0 0 ? * *",
        "0 0 * * ?",
        "H * * * *",
        "R * * * *",
        "R(0-30) * * * *",
        "*/0 * * * *",
        "*/-5 * * * *",
        "-5 * * * *",
        "1, * * * *",
        "1,,2 * * * *",
        "1-2-3 * * * *",
        "*-5 * * * *",
        "MON * * * *",
        "0 0 * FRI *",
        "0 0 * * JAN",
        "0 0 * * XYZ",
        "0 0 31 2 *",
        "0 0 30 FEB *",
        "0 0 31 4,6,9,11 *",
        "@reboot",
        "@every 5m",
        "0\u00a00 * * *",
        "٣ * * * *",
        "0 0 * * *\n",
        "0," * 500 + "0 0 * * *",
        "not a cron at all",
    ],
)
def test_what_is_no_schedule_is_refused_about_its_field(expression: str) -> None:
    error = refused(lambda: parse(expression, "UTC"))
    assert [field for field, _ in error.details] == ["schedule"]
    assert len(str(error)) < 1500


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Base",
        "Europe",
        "../etc/passwd",
        "/etc/localtime",
        "localtime",
        "right/UTC",
        "a" * 5000,
        "a\0b",
        "\ud800",
        "Europe/Berlin ",
    ],
)
def test_what_is_no_zone_is_refused_about_its_field(zone: str) -> None:
    assert [field for field, _ in refused(lambda: parse("0 0 * * *", zone)).details] == ["timezone"]
    assert [field for field, _ in refused(lambda: zone_of(zone)).details] == ["timezone"]


_PIECE = st.sampled_from(
    [
        "*",
        "0",
        "5",
        "31",
        "7",
        "mon",
        "JAN",
        "1-5",
        "5-1",
        "*/7",
        "3/4",
        "1-9/2",
        "l",
        "5#2",
        "?",
        ",",
        "w",
        "-",
        "h",
        "60",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30), st.lists(st.lists(_PIECE, min_size=1, max_size=3).map(",".join), max_size=6).map(" ".join)
    )
)
def test_any_text_is_a_schedule_that_fires_or_is_refused(text: str) -> None:
    try:
        schedule = parse(text, BERLIN)
    except Invalid:
        return
    assert schedule.next(utc("2026-01-01T00:00")) <= utc("2026-01-01T00:00") + timedelta(days=9 * 366)


# next, between


def test_next_is_strictly_after_and_in_utc() -> None:
    schedule = parse("0 2 * * *", BERLIN)
    fire = schedule.next(utc("2026-01-01T00:00"))
    assert fire == utc("2026-01-01T01:00")
    assert fire.tzinfo is UTC
    assert schedule.next(fire) == utc("2026-01-02T01:00")
    assert schedule.next(fire - timedelta(microseconds=1)) == fire
    assert schedule.next(fire.astimezone(timezone(timedelta(hours=9)))) == utc("2026-01-02T01:00")


def test_between_takes_its_start_and_leaves_its_end() -> None:
    assert fires("0 * * * *", "UTC", "2026-01-01T01:00", "2026-01-01T03:00") == ["01-01T01:00", "01-01T02:00"]
    assert fires("0 * * * *", "UTC", "2026-01-01T03:00", "2026-01-01T01:00") == []


def test_next_walks_through_between() -> None:
    schedule = parse("7,30 */3 * * *", "America/New_York")
    start, end = utc("2026-03-06T00:00"), utc("2026-03-10T00:00")
    walked, at = [], start - timedelta(seconds=1)
    while (at := schedule.next(at)) < end:
        walked.append(at)
    assert walked == list(schedule.between(start, end))


def test_a_leap_day_is_awaited_over_a_century() -> None:
    assert parse("0 0 29 2 *", "UTC").next(utc("2096-03-01T00:00")) == utc("2104-02-29T00:00")


def test_the_end_of_time_is_refused_not_overrun() -> None:
    schedule = parse("0 0 1 1 *", "Pacific/Kiritimati")
    refused(lambda: schedule.next(datetime(9000, 1, 1, tzinfo=UTC)))
    assert list(schedule.between(datetime.min.replace(tzinfo=UTC), datetime(1400, 1, 1, tzinfo=UTC))) == []


def test_zones_before_standard_time_fire_on_their_own_minutes() -> None:
    assert parse("0 12 * * *", BERLIN).next(utc("1850-01-01T00:00")) == utc("1850-01-01T11:06:32")


def test_one_time_of_day_is_at_most_daily() -> None:
    assert parse("0 2 * * *", "UTC").at_most_daily
    assert parse("0 2 1,15 * MON", "UTC").at_most_daily
    assert not parse("0,30 2 * * *", "UTC").at_most_daily
    assert not parse("@hourly", "UTC").at_most_daily


def test_a_schedule_is_a_value() -> None:
    schedule = parse("0 2 * * *", BERLIN)
    assert schedule == parse("0 2 * * *", BERLIN)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert isinstance(schedule, Schedule)


def test_croniter_is_imported_only_to_parse() -> None:
    code = (
        "import sys, orchestrator.schedule as s; before = 'croniter' in sys.modules; s.parse('@daily', 'UTC');"
        "print(before, 'croniter' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "True"]
