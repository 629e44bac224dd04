"""Which failures are tried again, against the documentation read line by line (docs/deadlines.md)."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import run_commands
from orchestrator.definition import RetryPolicy, TaskSpec
from orchestrator.failures import TIMEOUT_NAMES, exit_mark, names_of, status_marks
from orchestrator.messages import Report
from orchestrator.retry import allowance, ceiling_s
from tests.builders import Story

KINDS: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (ConnectionResetError, TimeoutError, KeyError, ValueError, RuntimeError)
}
NAMES = (*KINDS, "ConnectionError", "OSError", "LookupError", "Exception", "nobody.Known")
_names = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)
_policies = st.builds(
    RetryPolicy,
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(tuple),
    st.none() | st.integers(0, 4),
    st.none() | st.sampled_from([0.0, 7.0]),
)


@st.composite
def specs(draw: st.DrawFn) -> TaskSpec:
    return TaskSpec(
        id="a",
        type=draw(st.sampled_from(["python", "bash", "http"])),
        retries=draw(st.integers(0, 3)),
        retry_delay_s=3.0,
        retry_on=draw(_names),
        no_retry_on=draw(_names),
        retry_policies=tuple(draw(st.lists(_policies, max_size=3))),
        retry_exit_codes=tuple(draw(st.lists(st.integers(1, 3), max_size=2))),
        retry_statuses=tuple(draw(st.lists(st.sampled_from(["503", "429", "404", "5xx", "4xx"]), max_size=2))),
    )


@st.composite
def failures(draw: st.DrawFn, attempt: int = 1) -> Report:
    permanent = draw(st.integers(0, 4)) == 0
    how = draw(st.sampled_from(["raised", "raised", "timed_out", "stalled", "exit", "status"]))
    if how in ("timed_out", "stalled"):
        return Report("run_1", "a", attempt, how, error=how)
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    marks: tuple[str, ...] = ()
    if how == "exit":
        marks = (exit_mark(draw(st.integers(1, 4))),)
    if how == "status":
        marks = status_marks(draw(st.sampled_from([404, 429, 500, 503])))
    return Report("run_1", "a", attempt, "error", error=how, permanent=permanent, raised=names_of(kind(), marks))


def as_documented(spec: TaskSpec, report: Report) -> tuple[int, float]:
    """Retries and base delay, by the order in the documentation."""
    raised = set(report.raised or TIMEOUT_NAMES)
    codes = {name.split()[1] for name in raised if name.startswith("exit ")}
    statuses = {name.split()[1] for name in raised if name.startswith("status ")}
    if raised & set(spec.no_retry_on):
        return 0, 3.0
    listed = False
    if codes and spec.retry_exit_codes:
        listed = bool(codes & {str(code) for code in spec.retry_exit_codes})
        if not listed:
            return 0, 3.0
    elif statuses and spec.retry_statuses:
        listed = bool(statuses & set(spec.retry_statuses))
        if not listed:
            return 0, 3.0
    if report.permanent and not listed:
        return 0, 3.0
    fitting = [policy for policy in spec.retry_policies if raised & set(policy.exceptions)]
    if fitting:
        first = fitting[0]
        retries = first.retries if first.retries is not None else spec.retries
        return retries, first.retry_delay_s if first.retry_delay_s is not None else 3.0
    if spec.retry_on and not raised & set(spec.retry_on):
        return 0, 3.0
    return spec.retries, 3.0


@settings(max_examples=1500, deadline=None)
@given(specs(), failures())
def test_a_failure_is_allowed_what_the_documentation_says(spec: TaskSpec, report: Report) -> None:
    retries, delay_s = allowance(spec, report)
    documented = as_documented(spec, report)
    assert retries == documented[0]
    assert retries == 0 or delay_s == documented[1]


@settings(max_examples=300, deadline=None)
@given(specs(), st.lists(failures(), min_size=6, max_size=6))
def test_a_task_is_tried_again_until_a_failure_is_allowed_no_more(spec: TaskSpec, reports: list[Report]) -> None:
    story = Story(spec).start()
    for number, each in enumerate(reports, 1):
        story.wait(10_000.0)
        story.do(run_commands.Begin((0,), "w", "i"))
        report = msgspec.structs.replace(each, attempt=number)
        retries, delay_s = as_documented(spec, report)
        [event, *_] = story.do(run_commands.Settle(report, 0.5))
        if number > retries:
            assert isinstance(event, e.TaskFailed)
            assert event.timed_out == (report.outcome != "error")
            return
        assert isinstance(event, e.TaskRetrying)
        assert (event.due - story.now).total_seconds() == ceiling_s(delay_s, 300.0, number) / 2
        assert event.reason == {"timed_out": "run", "stalled": "heartbeat"}.get(report.outcome)
