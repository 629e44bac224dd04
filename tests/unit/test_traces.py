"""W3C trace context, and spans from events."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from orchestrator import codec, traces
from orchestrator import events as e

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"


def created(traceparent: str = "", **given: object) -> e.RunCreated:
    return e.RunCreated(AT, "run_1", "t", "d", 3, "manual", traceparent=traceparent, **given)  # type: ignore[arg-type]  # fields by their names


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN} ", GIVEN),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        (f"00-{TRACE}-{PARENT}-ff", GIVEN),
        (f"cc-{TRACE}-{PARENT}-01-later", GIVEN),
        (f"00-{TRACE}-{PARENT}-01-later", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (GIVEN.upper(), ""),
        ("nonsense", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_header_counts_when_it_has_the_form(given: str | None, found: str) -> None:
    assert traces.valid(given) == found


def test_a_run_without_a_caller_has_a_trace_of_its_own_always_the_same() -> None:
    one = traces.trace_of("run_1", "")
    assert (one, one.parent_id, one.sampled) == (traces.trace_of("run_1", ""), "", True)
    assert one.trace_id != traces.trace_of("run_2", "").trace_id
    assert traces.valid(one.at(traces.span_of_attempt("run_1", "a", 1)))


def test_an_attempt_is_told_its_own_span_where_spans_are_kept_and_else_its_callers() -> None:
    span_id = traces.span_of_attempt("run_1", "a", 2)
    assert traces.told_to("run_1", "a", 2, GIVEN, True) == f"00-{TRACE}-{span_id}-01"
    assert traces.told_to("run_1", "a", 2, GIVEN, False) == GIVEN
    assert traces.told_to("run_1", "a", 2, "", False) == ""


def test_instances_are_children_of_their_map_and_tools_of_their_attempt() -> None:
    history = [
        created(GIVEN),
        e.RunStarted(after(1), 1),
        e.TaskExpanded(after(1), "m", 1, 2),
        e.TaskStarted(after(1), "m[0]", 1, "w"),
        e.ToolStarted(after(2), "m[0]", 1, 1, "search"),
        e.ToolCompleted(after(3), "m[0]", 1, 1, "search", 1000, False),
        e.TaskSucceeded(after(3), "m[0]", 1),
        e.TaskStarted(after(3), "m[1]", 1, "w"),
        e.TaskSucceeded(after(4), "m[1]", 1),
        e.TaskSucceeded(after(4), "m", 1),
        e.RunSucceeded(after(4)),
    ]
    found = traces.spans(history, 0)
    assert [span.name for span in found] == ["tool search", *["attempt m", "task m"] * 2, "task m", "run d"]
    tool, attempt, instance, *_, mapped, run = found
    assert (tool.parent_id, attempt.parent_id) == (attempt.span_id, instance.span_id)
    assert (instance.parent_id, mapped.parent_id, run.parent_id) == (mapped.span_id, run.span_id, PARENT)
    assert (tool.error, mapped.attributes["orchestrator.instances"]) == ("failed", 2)
    assert run.attributes["orchestrator.queued_s"] == 1.0


def test_a_kept_result_is_a_task_without_length_that_says_so_and_has_no_attempt() -> None:
    source = e.CachedFrom("run_0", "a", 2, AT)
    history = [
        created(GIVEN),
        e.RunStarted(after(1), 1),
        e.TaskSucceeded(after(2), "a", 1, cached=source),
        e.TaskExpanded(after(2), "m", 1, 1),
        e.TaskSucceeded(after(3), "m[0]", 1, cached=source),
        e.TaskSucceeded(after(3), "m", 1),
        e.RunSucceeded(after(3)),
    ]
    task, instance, mapped, run = traces.spans(history, 0)
    assert [span.name for span in (task, instance, mapped, run)] == ["task a", "task m", "task m", "run d"]
    assert (task.start, task.end, task.parent_id) == (after(2), after(2), run.span_id)
    assert instance.parent_id == mapped.span_id
    for span in (task, instance):
        assert (span.attributes["orchestrator.cached"], span.attributes["orchestrator.cached_from"]) == (True, "run_0")
        assert span.attributes["orchestrator.state"] == "succeeded"
    assert "orchestrator.cached" not in mapped.attributes


def test_the_attempt_that_calls_a_run_and_that_run_name_each_other() -> None:
    call = e.Wait("run", after(60), call=e.Call("run_2", "child", {}, None, ("d",), ""))
    history = [created(), e.TaskWaiting(after(1), "a", 1, call), e.TaskSucceeded(after(2), "a", 1)]
    attempt, _, _ = traces.spans([*history, e.RunSucceeded(after(2))], 0)
    assert attempt.attributes["orchestrator.called_run_id"] == "run_2"
    below = [created(called_by=e.CalledBy("run_0", "a", 1, ("d",))), e.RunSucceeded(after(1))]
    assert traces.spans(below, 0)[0].attributes["orchestrator.parent_run_id"] == "run_0"


def test_what_is_open_when_the_run_ends_ends_with_it() -> None:
    history = [created(), e.TaskStarted(after(1), "a", 1, "w"), e.RunTimedOut(after(9), "too late")]
    attempt, task, run = traces.spans(history, 0)
    assert {each.end for each in (attempt, task, run)} == {after(9)}
    assert (run.error, run.attributes["orchestrator.state"]) == ("too late", "timed_out")


def test_only_the_life_that_ended_after_a_version_is_told() -> None:
    life = [e.TaskStarted(after(1), "a", 1, "w"), e.TaskSucceeded(after(2), "a", 1), e.RunSucceeded(after(2))]
    again = [e.RunRestarted(after(3), 4), e.TaskStarted(after(3), "a", 2, "w"), e.TaskSucceeded(after(4), "a", 2)]
    history = [created(), *life, *again, e.RunSucceeded(after(5))]
    first, second = traces.spans(history[:4], 0), traces.spans(history, 4)
    assert [span.name for span in first] == [span.name for span in second] == ["attempt a", "task a", "run d"]
    assert not {span.span_id for span in first} & {span.span_id for span in second}
    assert second[-1].start == after(3)
    assert traces.spans(history[:-1], 4) == [], "it goes on"


def test_times_that_go_back_make_no_span_that_ends_before_it_begins() -> None:
    history = [created(), e.TaskStarted(after(5), "a", 1, "w"), e.TaskSucceeded(after(1), "a", 1), e.RunSucceeded(AT)]
    assert all(span.end >= span.start for span in traces.spans(history, 0))


def test_a_run_created_before_traces_were_kept_still_decodes() -> None:
    batch = codec.encode_events([created()])
    assert b"traceparent" not in batch
    [read] = codec.decode_events(batch, e.SCHEMA)
    assert isinstance(read, e.RunCreated)
    assert read.traceparent == ""
    assert codec.decode_events(codec.encode_events([created(GIVEN)]), e.SCHEMA) == [created(GIVEN)]
    assert msgspec.json.decode(codec.encode_events([created(GIVEN)]))[0]["traceparent"] == GIVEN


def test_who_does_not_trace_imports_nothing_of_opentelemetry() -> None:
    script = "import sys, actors.tracer, actors.span_export, serve_app.request_traces, actors.worker_actor; "
    script += "sys.exit('opentelemetry.sdk.trace' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
