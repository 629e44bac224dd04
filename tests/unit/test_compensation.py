"""Compensation: what succeeded is undone when the run does not, the last first, one after the other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator import events as e
from orchestrator import run_commands, run_duties
from orchestrator.errors import Conflict, Invalid
from orchestrator.run_state import going
from orchestrator.spec import parse_dag, to_json
from tests.builders import Story, a_task, a_value
from tests.invariants import check_history, check_owed, check_replay


def trip(**changes: Any) -> Story:
    """book and pay, then send; unbook and refund undo them."""
    return Story(
        a_task("book"),
        a_task("pay"),
        a_task("send", "book", "pay"),
        a_task("unbook", "book", compensates="book"),
        a_task("refund", "pay", compensates="pay", retries=changes.pop("retries", 0), retry_delay_s=1.0),
        **changes,
    ).start()


def checked(story: Story) -> Story:
    check_history(story.events, lambda version: story.compiled(version).definition)
    check_replay(story.run, story.replayed())
    check_owed(story.run)
    return story


def test_nothing_is_undone_when_the_run_succeeds() -> None:
    story = trip().ok("book", "pay")
    assert story.ready == ["send"]
    assert story.kinds(story.begin("send").report("send", "ok"))[1:] == [
        "task_skipped",
        "task_skipped",
        "run_succeeded",
    ]
    assert (checked(story).states["unbook"], story.states["refund"]) == ("skipped", "skipped")


@pytest.mark.parametrize(
    ("done", "undone"), [(("book", "pay"), ("refund", "unbook")), (("pay", "book"), ("unbook", "refund"))]
)
def test_what_was_done_last_is_undone_first(done: tuple[str, str], undone: tuple[str, str]) -> None:
    story = trip().ok(*done).fail("send")
    assert (story.run.state, story.ready) == ("running", [undone[0]])
    assert checked(story).ok(undone[0]).ready == [undone[1]]
    assert checked(story.ok(undone[1])).run.state == "failed"
    assert story.run.error == "send: Boom"


def test_the_next_one_waits_for_the_attempt_and_the_retries_of_the_one_before() -> None:
    story = trip(retries=1).ok("book", "pay").fail("send")
    story.begin("refund")
    assert story.ready == []
    story.fail("refund")
    assert (story.states["refund"], story.ready) == ("retrying", [])
    assert story.wait(60).ready == ["refund"]
    assert checked(story.ok("refund")).ready == ["unbook"]


def test_what_did_not_succeed_is_not_undone() -> None:
    story = trip().begin("book").fail("pay")
    assert story.ready == []
    assert checked(story.ok("book")).states["refund"] == "skipped"
    assert (story.states["send"], story.ready) == ("upstream_failed", ["unbook"])
    assert checked(trip().fail("book", "pay")).run.state == "failed"


def test_a_success_that_ends_the_rest_is_undone_too() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("undo", "b", compensates="b")).start()
    story.fail("a").ok("b")
    assert checked(story).ready == ["undo"]
    assert checked(story.ok("undo")).run.state == "failed"


def test_a_compensation_that_fails_lets_the_others_run_and_is_named() -> None:
    story = trip().ok("book", "pay").fail("send").fail("refund")
    assert checked(story).ready == ["unbook"]
    assert checked(story.ok("unbook")).run.error == "send: Boom; compensation failed: refund"
    assert checked(trip().ok("book", "pay").fail("send", "refund", "unbook")).run.error == (
        "send: Boom; compensation failed: unbook, refund"
    )


def test_a_cancelled_run_undoes_what_succeeded_and_a_second_cancel_changes_nothing() -> None:
    story = trip().ok("book", "pay").begin("send")
    assert story.kinds(run_commands.Cancel()) == ["run_cancelling", "task_cancelled", "run_compensating"]
    assert (checked(story).run.state, story.ready) == ("cancelling", ["refund"])
    story.begin("refund")
    assert story.kinds(run_commands.Cancel()) == []
    assert checked(story.ok("refund", "unbook")).run.state == "cancelled"


def test_a_cancelled_run_that_did_nothing_ends_at_once() -> None:
    assert trip().begin("book").kinds(run_commands.Cancel())[-1] == "run_cancelled"


def test_a_run_that_compensates_can_be_cancelled_and_goes_on_with_it() -> None:
    story = trip().ok("book", "pay").fail("send").begin("refund")
    assert story.kinds(run_commands.Cancel()) == ["run_cancelling"]
    assert checked(story.ok("refund", "unbook")).run.state == "cancelled"


def test_a_run_that_takes_too_long_undoes_what_succeeded() -> None:
    story = trip(run_timeout_s=60.0).ok("book")
    assert story.kinds(run_commands.TimeOut())[-1] == "run_compensating"
    assert (checked(story).ready, run_duties.deadline(story.run)) == (["unbook"], None)
    story.fail("unbook")
    assert checked(story).run.state == "timed_out"
    assert story.run.error == "RunTimedOut: longer than 60.0 s; compensation failed: unbook"


def test_compensation_has_no_limit() -> None:
    story = trip(run_timeout_s=60.0).ok("book").fail("pay")
    assert run_duties.deadline(story.run) is None
    with pytest.raises(Conflict, match="compensates"):
        story.do(run_commands.TimeOut())


def test_a_paused_run_undoes_once_it_is_resumed() -> None:
    story = trip().ok("book", "pay").begin("send")
    story.do(run_commands.Pause())
    story.fail("send")
    assert not going(checked(story).run)
    story.do(run_commands.Resume())
    assert checked(story.ok("refund", "unbook")).run.state == "failed"


def test_a_retry_runs_again_what_was_undone() -> None:
    story = trip().ok("book", "pay").fail("send").ok("refund", "unbook")
    story.do(run_commands.RetryTask("send"))
    assert set(checked(story).states.values()) == {"pending"}
    story.ok("pay", "book").fail("send")
    assert checked(story.ok("unbook", "refund")).run.state == "failed"
    story.do(run_commands.RetryFailed())
    story.ok("book", "pay", "send")
    assert checked(story).run.state == "succeeded"


def test_a_retry_between_two_compensations_runs_again_only_what_was_undone() -> None:
    story = trip().ok("book", "pay").fail("send").ok("refund")
    story.do(run_commands.RetryTask("send"))
    assert checked(story).states == {
        "book": "succeeded", "pay": "pending", "send": "pending", "unbook": "pending", "refund": "pending"
    }  # fmt: skip
    assert story.ready == ["pay"]
    assert checked(story.ok("pay", "send")).run.state == "succeeded"


def test_nothing_is_retried_while_a_compensation_is_under_way() -> None:
    story = trip().ok("book", "pay").fail("send").begin("refund")
    for command in (run_commands.RetryTask("send"), run_commands.RetryFailed(), run_commands.SkipTask("send")):
        with pytest.raises(Conflict, match="refund of run run_1 is under way"):
            story.do(command)


def test_a_failed_compensation_is_retried_or_skipped_before_anything_else() -> None:
    story = trip().ok("book", "pay").fail("send", "refund").ok("unbook")
    for command in (run_commands.RetryTask("send"), run_commands.RetryFailed()):
        with pytest.raises(Conflict, match="refund of run run_1 is failed; retry or skip that first"):
            story.do(command)
    assert story.kinds(run_commands.RetryTask("refund")) == ["run_revived", "task_reset", "run_compensating"]
    assert checked(story).ready == ["refund"]
    assert checked(story.ok("refund")).run.error == "send: Boom"
    story.do(run_commands.RetryTask("send"))
    assert set(checked(story).states.values()) == {"pending"}


@pytest.mark.parametrize(
    ("command", "end"), [(run_commands.Cancel(), "cancelled"), (run_commands.TimeOut(), "timed_out")]
)
def test_a_failed_compensation_of_a_run_that_was_ended_is_retried_alone(
    command: run_commands.Command, end: str
) -> None:
    story = trip(run_timeout_s=60.0).ok("pay").begin("book")
    story.do(command)
    story.fail("refund")
    story.do(run_commands.RetryTask("refund"))
    assert (checked(story).ready, story.states["book"]) == (["refund"], "cancelled")
    assert checked(story.fail("refund")).run.state == end
    story.do(run_commands.SkipTask("refund"))
    assert (checked(story).run.state, story.states["refund"]) == (end, "skipped")
    story.do(run_commands.RetryTask("book"))
    assert set(checked(story).states.values()) == {"pending"}


def test_a_compensation_that_a_person_skips_counts_as_done() -> None:
    story = trip().ok("book", "pay").fail("send").begin("refund")
    story.do(run_commands.SkipTask("refund"))
    assert ([abort.task for abort in story.aborts], checked(story).ready) == (["refund"], ["unbook"])
    assert checked(story.ok("unbook")).run.state == "failed"
    story.do(run_commands.RetryTask("send"))
    assert set(checked(story).states.values()) == {"pending"}


def test_a_compensation_that_a_person_skips_beforehand_does_not_run() -> None:
    story = trip().ok("book", "pay")
    story.do(run_commands.SkipTask("refund"))
    assert checked(story.fail("send")).ready == ["unbook"]


def test_a_failure_that_a_person_skips_leaves_nothing_to_undo() -> None:
    story = trip().ok("book", "pay").fail("send")
    assert story.kinds(run_commands.SkipTask("send")) == [
        "task_skipped",
        "task_skipped",
        "task_skipped",
        "run_succeeded",
    ]
    checked(story)


def test_only_a_failed_compensation_can_be_retried() -> None:
    story = trip().ok("book", "pay").fail("send").ok("refund", "unbook")
    with pytest.raises(Conflict, match="only a failed one"):
        story.do(run_commands.RetryTask("refund"))


def test_it_is_told_what_the_task_it_undoes_returned() -> None:
    story = Story(a_task("pay"), a_task("send", "pay"), a_task("refund", "pay", compensates="pay", inputs={"n": "pay"}))
    story.start().begin("pay").do(story.report("pay", "ok", value=a_value(7)))
    story.fail("send")
    assert msgspec.json.decode(story.run.values[story.run.position("pay")].inline) == 7


def test_teardowns_wait_for_the_compensations_of_what_they_enclose() -> None:
    story = Story(
        a_task("up"),
        a_task("pay", "up"),
        a_task("refund", "pay", compensates="pay"),
        a_task("down", "pay", teardown_of=("up",)),
        a_task("send"),
    ).start()
    story.ok("up", "pay")
    assert story.ready == ["send"]
    assert checked(story.fail("send")).ready == ["refund"]
    assert checked(story.ok("refund")).ready == ["down"]
    assert checked(story.ok("down")).run.state == "failed"
    story.do(run_commands.RetryTask("send"))
    assert set(checked(story).states.values()) == {"pending"}
    assert story.ok("up", "pay", "send").ready == ["down"]
    assert checked(story.ok("down")).run.state == "succeeded"


def test_a_cancelled_run_compensates_before_it_tears_down() -> None:
    story = Story(
        a_task("up"), a_task("pay", "up"), a_task("refund", "pay", compensates="pay"), a_task("send", "pay"),
        a_task("down", "send", teardown_of=("up",)),
    ).start()  # fmt: skip
    story.ok("up", "pay")
    story.do(run_commands.Cancel())
    assert checked(story).ready == ["refund"]
    assert checked(story.ok("refund", "down")).run.state == "cancelled"


def test_a_failed_teardown_undoes_nothing() -> None:
    story = Story(
        a_task("up"), a_task("unmake", "up", compensates="up"),
        a_task("down", teardown_of=("up",), on_failure_fail_run=True),
    ).start()  # fmt: skip
    assert checked(story.ok("up").fail("down")).states["unmake"] == "skipped"
    assert story.run.state == "failed"


def test_a_branch_does_not_choose_among_compensations() -> None:
    story = Story(a_task("choose", branch=True), a_task("a", "choose"), a_task("undo", "choose", compensates="choose"))
    story.start().begin("choose").do(story.report("choose", "ok", value=a_value("a")))
    assert (story.states["undo"], story.ready) == ("pending", ["a"])
    assert checked(story.fail("a").ok("undo")).run.state == "failed"


# ── definitions ──


def body(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"dag_id": "d", "owner": "team", "tasks": list(tasks)}


def test_a_definition_says_what_it_undoes_and_is_read_back_alike() -> None:
    definition, _ = parse_dag(body({"id": "pay"}, {"id": "refund", "compensates": "pay"}))
    assert (definition.tasks[1].compensates, definition.tasks[1].depends_on) == ("pay", ("pay",))
    assert parse_dag(to_json(definition))[0] == definition
    assert "compensates" not in to_json(definition)["tasks"][0]


@pytest.mark.parametrize(
    ("task", "field", "problem"),
    [
        ({"compensates": "nobody"}, "compensates", "unknown task 'nobody'"),
        ({"compensates": "x"}, "compensates", "'x' is a compensation and cannot be compensated"),
        ({"compensates": "refund"}, "compensates", "'refund' is a compensation and cannot be compensated"),
        ({"compensates": "down"}, "compensates", "'down' is a teardown and cannot be compensated"),
        ({"compensates": "pay"}, "compensates", "'pay' has a compensation already: 'refund'"),
        ({"compensates": "send", "trigger_rule": "always"}, "trigger_rule", "a compensation has a rule of its own"),
        ({"compensates": "send", "branch": True}, "compensates", "a branch cannot be a compensation"),
        ({"compensates": "send", "teardown_of": ["pay"]}, "compensates", "a teardown cannot be a compensation"),
        ({"depends_on": ["refund"]}, "depends_on", "'refund' is a compensation: no task may come after it"),
        ({"type": "core.echo", "inputs": {"a": "refund"}}, "depends_on", "'refund' is a compensation"),
        ({"teardown_of": ["refund"]}, "depends_on", "'refund' is a compensation"),
    ],
)
def test_what_cannot_be_undone_is_refused_by_name(task: dict[str, Any], field: str, problem: str) -> None:
    others = (
        {"id": "pay"},
        {"id": "refund", "compensates": "pay"},
        {"id": "send"},
        {"id": "down", "teardown_of": ["pay"]},
    )
    with pytest.raises(Invalid) as refused:
        parse_dag(body(*others, {"id": "x", **task}))
    assert any(at == f"tasks/4/{field}" and problem in what for at, what in refused.value.details), (
        refused.value.details
    )


def test_there_are_not_too_many() -> None:
    pairs = [each for n in range(1001) for each in ({"id": f"a{n}"}, {"id": f"b{n}", "compensates": f"a{n}"})]
    with pytest.raises(Invalid, match="at most 1000 of them may be compensations"):
        parse_dag(body(*pairs))


def test_a_retry_that_comes_to_nothing_leaves_what_is_owed() -> None:
    story = Story(
        a_task("book"),
        a_task("pay"),
        a_task("send", "pay", sla_s=5.0, on_sla_miss=("cancel",)),
        a_task("unbook", "book", compensates="book"),
    ).start()
    story.begin("pay").ok("book").wait(6)
    story.do(run_commands.CheckDeadlines())  # send is too late, although its turn has not come
    story.fail("pay")
    assert (story.states["send"], story.ready) == ("timed_out", ["unbook"])
    story.do(run_commands.RetryTask("send"))
    assert (checked(story).states["send"], story.ready) == ("upstream_failed", ["unbook"])
    assert checked(story.ok("unbook")).run.state == "failed"


def test_a_deadline_before_its_turn_does_not_end_a_compensation() -> None:
    story = Story(
        a_task("book"),
        a_task("send", "book"),
        a_task("unbook", "book", compensates="book", sla_s=1, on_sla_miss=("event", "cancel")),
    ).start()
    story.wait(2.0)
    assert [event.task for event in story.do(run_commands.CheckDeadlines()) if isinstance(event, e.SlaMissed)] == [
        "unbook"
    ]
    story.ok("book")
    assert story.ready == ["send"]
    story.fail("send")
    assert story.ready == ["unbook"], "what it undoes did not stay done"
    assert checked(story.ok("unbook")).run.error == "send: Boom"


def test_a_deadline_ends_a_compensation_whose_turn_it_is() -> None:
    story = Story(
        a_task("book"),
        a_task("send", "book"),
        a_task("unbook", "book", compensates="book", sla_s=1, on_sla_miss=("cancel",)),
    ).start()
    story.ok("book").fail("send").wait(2.0)
    story.do(run_commands.CheckDeadlines())
    assert checked(story).run.error == "send: Boom; compensation failed: unbook"
