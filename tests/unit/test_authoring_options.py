"""Options of tasks and DAGs, and what is made without a function."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from orchestrator import Invalid, dag, task
from orchestrator.authoring_options import DagOptions, NamedTaskOptions, TaskOptions
from orchestrator.definition import Calendar, Definition, RetryPolicy, TaskSpec
from orchestrator.spec import from_yaml
from tests.unit.test_authoring import described, nothing


class Busy(ConnectionError):
    """Somebody else's error."""


@task(
    retries=1,
    retry_on=(Busy, TimeoutError, "pkg.Other"),
    no_retry_on={KeyError},
    retry_policies=[{"exceptions": [Busy], "retries": 3}],
    sla_s=5,
    on_sla_miss=("cancel",),
)
def hurried() -> None: ...


@dag(sla_s=9, on_sla_miss=("mark", "webhook"), callback_url="https://example.org/hook", queue_timeout_s=3)
def in_time() -> None:
    hurried()
    task.http("ask", "http://example.org", retries=1, retry_statuses=[503, "4xx"])


def test_classes_are_written_by_their_names() -> None:
    definition = in_time.definition()
    one, ask = definition.tasks
    assert one.retry_on == (f"{__name__}.Busy", "TimeoutError", "pkg.Other")
    assert (one.no_retry_on, one.on_sla_miss) == (("KeyError",), ("cancel",))
    assert one.retry_policies == (RetryPolicy((f"{__name__}.Busy",), 3),)
    assert ask.retry_statuses == ("503", "4xx")
    assert (definition.on_sla_miss, definition.queue_timeout_s) == (("mark", "webhook"), 3)


def test_a_bad_option_is_refused() -> None:
    with pytest.raises(TypeError, match=r"unknown option 'retry'; there are .*retries"):
        task(retry=3)  # type: ignore[call-overload]  # the mistake
    with pytest.raises(TypeError, match="unknown option 'cron'"):
        dag(cron="x")  # type: ignore[call-overload]  # the mistake
    with pytest.raises(Invalid, match="isolation: must be 'shared' or 'dedicated'"):
        described(nothing, isolation="none")


def test_every_option_is_one_that_definitions_have() -> None:
    assert TaskOptions.__optional_keys__ <= set(TaskSpec.__struct_fields__)
    assert NamedTaskOptions.__optional_keys__ - TaskOptions.__optional_keys__ == {"name"}
    assert DagOptions.__optional_keys__ <= set(Definition.__struct_fields__)


def test_a_schedule_is_written_with_dates_and_instants_of_python() -> None:
    berlin = timezone(timedelta(hours=1))

    @dag(
        schedule="30 2 * * *",
        catchup="all",
        overlap="cancel_previous",
        calendar={"exclude": [date(2026, 12, 25), "2026-12-26"], "weekdays": ("mon", "FRI")},
        start_at=datetime(2026, 1, 1, 1, tzinfo=berlin),
        end_at="2026-12-31T00:00:00Z",
        jitter_s=5,
    )
    def nightly() -> None:
        nothing()

    found = nightly.definition()
    assert (found.catchup, found.overlap, found.jitter_s) == ("all", "cancel_previous", 5)
    assert found.calendar == Calendar(exclude=("2026-12-25", "2026-12-26"), weekdays=("mon", "fri"))
    assert (found.start_at, found.end_at) == ("2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z")
    assert from_yaml(nightly.to_yaml()) == found


def test_an_instant_without_a_zone_is_refused() -> None:
    @dag(schedule="@daily", end_at=datetime(2026, 1, 1))
    def nightly() -> None:
        nothing()

    with pytest.raises(Invalid, match="end_at: give the time zone"):
        nightly.definition()


def test_what_waits_is_written_without_a_function() -> None:
    @dag(owner="me")
    def waits(day: str = "2026-01-01") -> None:
        came = task.signal("came", timeout_s=60, on_timeout={"value": 0})
        ask = task.approval("ask", came, choices=("yes", "no"), quorum=2, branches={"yes": ["wait"], "no": []})
        task.wait("wait", until=datetime(2026, 1, 2, tzinfo=UTC)).after(ask)
        task.wait("other", until=day, trigger_rule="all_done").after(ask)

    came, ask, wait, other = waits.definition().tasks
    assert (came.type, came.params) == (
        "core.signal",
        {"name": "came", "timeout_s": 60, "on_timeout": {"value": 0}},
    )
    assert (ask.type, ask.branch, ask.inputs) == ("core.approval", True, {"prompt": "came"})
    assert ask.params["branches"] == {"yes": ["wait"], "no": []}
    assert (wait.type, wait.params, wait.depends_on) == ("core.wait", {"until": "2026-01-02T00:00:00Z"}, ("ask",))
    assert other.params == {"until": {"$param": "day", "default": "2026-01-01"}}
    with pytest.raises(TypeError, match="retries"):
        dag(lambda: task.wait("w", seconds=1, retries=2)).definition()  # type: ignore[call-arg]  # it is refused
    with pytest.raises(Invalid, match="inside a @dag function"):
        task.signal("s")
