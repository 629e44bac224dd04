"""ctx.sleep, ctx.sleep_until and ctx.publish on a worker: what is reported, and what a later attempt does with it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.messages import Report
from orchestrator.waits import SLEEPS_MAX
from tests import worker_tasks
from tests.worker_builders import RUN, Bench, InThread, python

NOW = datetime.now(UTC)
PAST, FAR = NOW - timedelta(hours=1), NOW + timedelta(hours=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    worker_tasks.EVENTS.clear()
    return Bench(tmp_path)


def run(bench: Bench, sleeps: dict[int, datetime] | None = None, **params: Any) -> Report:
    task = python("naps", **params)
    return bench.run(msgspec.structs.replace(task, sleeps=sleeps or {}))


def asleep(report: Report) -> tuple[int, datetime]:
    assert report.outcome == "suspended", report.error
    return msgspec.json.decode(report.value.inline, type=tuple[int, datetime])


def test_a_sleep_ends_the_attempt_and_says_when_it_goes_on(bench: Bench) -> None:
    before = datetime.now(UTC)
    call, until = asleep(run(bench, naps=[3600]))
    assert call == 1
    assert before <= until - timedelta(seconds=3600) <= datetime.now(UTC)
    assert worker_tasks.EVENTS["cleaned up"].is_set(), "what it has open is closed"


def test_a_sleep_that_was_had_returns_at_once_and_the_next_one_is_counted_on(bench: Bench) -> None:
    call, _ = asleep(run(bench, {1: PAST}, naps=[3600, 60]))
    assert call == 2
    assert run(bench, {1: PAST, 2: PAST}, naps=[3600, 60]).outcome == "ok"


def test_a_sleep_keeps_its_instant_when_the_task_is_started_before(bench: Bench) -> None:
    assert asleep(run(bench, {1: FAR}, naps=[3600])) == (1, FAR)


def test_a_short_rest_of_a_known_sleep_is_waited_for_in_place(bench: Bench) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    assert run(bench, {1: soon}, naps=[3600]).outcome == "ok"
    assert datetime.now(UTC) >= soon


def test_a_rest_that_is_waited_for_ends_with_a_cancel(bench: Bench) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=4)
    going = InThread(run, bench, {1: soon}, naps=[3600])
    deadline_s = time.monotonic() + 2
    while not bench.worker.cancel(RUN, "t", 1, "cancelled") and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert going.result(2.0).outcome == "cancelled"


def test_an_instant_that_has_passed_is_no_sleep(bench: Bench) -> None:
    assert run(bench, naps=["2020-01-01T00:00:00+00:00", 0]).outcome == "ok"


def test_sleeps_are_counted_from_the_last_checkpoint(bench: Bench) -> None:
    assert asleep(run(bench, {1: PAST}, naps=[3600, "checkpoint", 3600]))[0] == 1


def test_code_that_catches_exceptions_does_not_catch_a_sleep(bench: Bench) -> None:
    assert run(bench, naps=[60], catches=True).outcome == "suspended"


def test_an_async_task_sleeps_too(bench: Bench) -> None:
    assert bench.run(python("naps_async")).outcome == "suspended"


@pytest.mark.parametrize(("nap", "why"), [(-1, "from 0 to"), (10**9, "from 0 to"), ("2026-01-01", "has no zone")])
def test_a_span_or_instant_that_makes_no_sense_is_an_error(bench: Bench, nap: Any, why: str) -> None:
    report = run(bench, naps=[nap])
    assert report.outcome == "error"
    assert why in (report.error or "")


def test_very_many_sleeps_need_a_checkpoint_between_them(bench: Bench) -> None:
    report = run(bench, naps=[0] * (SLEEPS_MAX + 1))
    assert (report.outcome, report.permanent) == ("error", True)
    assert "without a checkpoint" in (report.error or "")


def test_what_is_published_reaches_the_owner_of_the_run(bench: Bench) -> None:
    assert bench.value(python("publishes", word="rows", value=[1, 2])) is None
    [(_, note)] = bench.notes.notes
    assert (note.kind, msgspec.json.decode(note.data)) == ("publish", {"name": "rows", "value": [1, 2]})


@pytest.mark.parametrize("name", ["progress", "waiting_for", "", "a b", "x" * 200])
def test_a_name_that_is_built_in_or_none_is_not_published(bench: Bench, name: str) -> None:
    assert "is no name of a published value" in (bench.run(python("publishes", word=name, value=1)).error or "")
