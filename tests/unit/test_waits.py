"""Tasks that wait for the world: time, signals, people; and code that sleeps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from orchestrator import events as e
from orchestrator import run as runs
from orchestrator import run_commands, run_duties
from orchestrator.definition import TaskSpec
from orchestrator.errors import Conflict, Invalid, NotAllowed, NotFound
from orchestrator.run_state import RunState
from orchestrator.task import TaskState
from orchestrator.wait_decisions import VOTERS_MAX, LateVote
from orchestrator.wait_params import YEAR_S
from orchestrator.waits import SIGNALS_MAX, sleeps
from tests.builders import AT, Story, a_task, a_value
from tests.invariants import check_history, check_owed, check_replay


def a_wait(name: str, *needs: str, **params: Any) -> TaskSpec:
    return a_task(name, *needs, type="core.wait", params=params)


def a_signal(name: str, *needs: str, signal: str = "go", **params: Any) -> TaskSpec:
    return a_task(name, *needs, type="core.signal", params={"name": signal, **params})


def an_approval(name: str, *needs: str, branch: bool = False, **params: Any) -> TaskSpec:
    return a_task(name, *needs, type="core.approval", params={"prompt": "Well?", **params}, branch=branch)


def value_of(story: Story, task: str) -> Any:
    found = [x for x in story.events if isinstance(x, e.TaskSucceeded) and x.task == task]
    assert found[-1].value is not None
    return msgspec.json.decode(found[-1].value.inline)


def checked(story: Story) -> Story:
    """Its history is legal, replay equals live, and what waits owes something."""
    again = story.replayed()
    run_duties.wake(again, story.now)
    check_replay(story.run, again)
    check_history(story.events, lambda version: story.compiled(version).definition)
    check_owed(story.run)
    return story


# ── time ──


def test_a_wait_holds_no_worker_and_ends_at_its_instant_and_not_before() -> None:
    story = Story(a_wait("w", seconds=60), a_task("a", "w")).start()
    assert (story.states, story.ready, story.run.running) == ({"w": "waiting", "a": "pending"}, [], 0)
    assert run_duties.owed(story.run) == [run_duties.WakeAt(AT + timedelta(seconds=60))]
    assert story.wait(59.999).elapse() == []
    story.wait(0.001).elapse()
    assert checked(story).ready == ["a"]
    assert value_of(story, "w") == {"until": "2026-01-02T03:05:05Z"}


def test_an_instant_that_has_passed_is_no_wait() -> None:
    story = Story(a_wait("w", until="2020-01-01T00:00:00Z")).start()
    assert checked(story).run.state is RunState.SUCCEEDED


def test_an_instant_may_come_from_a_task_before_or_a_param_of_the_run() -> None:
    when = a_task("when")
    wait = a_task("w", "when", type="core.wait", inputs={"until": "when"})
    story = Story(when, wait).start().begin("when")
    story.do(story.report("when", "ok", value=a_value("2026-01-03")))
    assert story.run.standby is not None
    assert [o.wait.until.isoformat() for o in story.run.standby.open.values()] == ["2026-01-03T00:00:00+00:00"]


@pytest.mark.parametrize("told", ["tomorrow", 7, None, "2126-01-01T00:00:00Z", {"$param": "x"}, "2026-13-01"])
def test_an_instant_that_is_none_fails_the_task_and_not_the_system(told: Any) -> None:
    wait = a_task("w", "when", type="core.wait", inputs={"until": "when"})
    story = Story(a_task("when"), wait).start().begin("when")
    story.do(story.report("when", "ok", value=a_value(told)))
    assert checked(story).state("w") is TaskState.FAILED
    assert "until" in (story.run.error or "")


def test_a_pause_holds_a_wait_whose_time_comes_meanwhile() -> None:
    story = Story(a_wait("w", seconds=5), a_task("a", "w")).start()
    story.do(run_commands.Pause())
    assert story.wait(60).elapse() == []
    assert run_duties.next_wake(story.run) is None
    story.do(run_commands.Resume())
    assert checked(story).ready == ["a"]


def test_nothing_begins_to_wait_while_the_run_is_paused() -> None:
    story = Story(a_task("a"), a_wait("w", "a", seconds=5)).start().begin("a")
    story.do(run_commands.Pause())
    story.ok("a")
    assert story.state("w") is TaskState.PENDING
    checked(story).do(run_commands.Resume())
    assert checked(story).state("w") is TaskState.WAITING


@pytest.mark.parametrize("spec", [a_wait("w", seconds=5), a_signal("w"), an_approval("w")])
def test_a_cancel_ends_whatever_waits_at_once(spec: TaskSpec) -> None:
    story = Story(spec).start()
    assert story.kinds(run_commands.Cancel()) == ["task_cancelled", "run_cancelled"]
    assert checked(story).aborts == []


def test_the_limit_of_the_run_ends_a_wait() -> None:
    story = Story(a_wait("w", seconds=500), run_timeout_s=60.0).start()
    assert run_duties.owed(story.run) == [run_duties.WakeAt(AT + timedelta(seconds=60))]
    story.wait(60).do(run_commands.TimeOut())
    assert checked(story).run.state is RunState.TIMED_OUT


def test_a_wait_is_skipped_by_hand_and_one_that_failed_waits_again() -> None:
    story = Story(a_signal("s", timeout_s=5), a_task("a", "s")).start()
    story.wait(5).elapse()
    assert (story.state("s"), story.run.state) == (TaskState.TIMED_OUT, RunState.FAILED)
    story.do(run_commands.RetryTask("s"))
    assert (story.state("s"), story.attempt("s")) == (TaskState.WAITING, 2)
    story.do(run_commands.SkipTask("s"))
    assert checked(story).ready == ["a"]


# ── signals ──


def test_an_early_signal_is_kept_and_taken_by_the_first_who_waits() -> None:
    story = Story(a_task("a"), a_signal("s", "a"))
    story.signal("go", {"n": 1})  # while it is queued
    story.start()
    story.signal("go", {"n": 2})
    story.ok("a")
    assert value_of(checked(story), "s") == {"n": 1}
    assert story.run.state is RunState.SUCCEEDED


def test_signals_are_taken_once_in_the_order_in_which_they_came_by_who_waits_longest() -> None:
    story = Story(a_signal("s"), a_signal("t"), a_signal("u", "s")).start()
    for n in range(3):
        story.signal("go", n)
    assert [value_of(checked(story), name) for name in "stu"] == [0, 1, 2]


def test_a_signal_of_another_name_wakes_nobody() -> None:
    story = Story(a_signal("s")).start()
    story.signal("come")
    assert checked(story).state("s") is TaskState.WAITING
    assert story.run.standby is not None
    assert story.run.standby.kept == 1


def test_a_signal_with_the_id_of_an_earlier_one_is_that_one() -> None:
    story = Story(a_signal("s"), a_signal("t", "s")).start()
    assert story.signal("go", 1, "file-7")
    assert story.signal("go", 1, "file-7") == []
    assert checked(story).state("t") is TaskState.WAITING


def test_signals_to_a_run_that_has_ended_or_keeps_too_many_are_refused() -> None:
    story = Story(a_task("a")).start()
    for _ in range(SIGNALS_MAX):
        story.signal("go")
    with pytest.raises(Conflict, match=r"1000 signals"):
        story.signal("go")
    story.ok("a")
    with pytest.raises(Conflict, match="already succeeded"):
        checked(story).signal("go")


def test_a_signal_again_after_the_end_of_its_run_is_still_that_signal() -> None:
    story = Story(a_signal("s")).start()
    story.signal("go", 1, "x")
    assert story.run.state is RunState.SUCCEEDED
    assert story.signal("go", 1, "x") == []


def test_a_restart_begins_without_the_signals_before() -> None:
    story = Story(a_signal("s")).start()
    story.signal("go", 1, "x")
    story.do(run_commands.Restart(1))
    story.start()
    assert story.state("s") is TaskState.WAITING
    story.signal("go", 2, "x")
    assert value_of(checked(story), "s") == 2


@pytest.mark.parametrize(
    ("on_timeout", "state", "value"),
    [("fail", "timed_out", ...), ("skip", "skipped", ...), ({"value": [1]}, "succeeded", [1])],
)
def test_what_becomes_of_a_signal_that_does_not_come(on_timeout: Any, state: str, value: Any) -> None:
    story = Story(a_signal("s", timeout_s=10, on_timeout=on_timeout)).start()
    story.wait(10).elapse()
    assert checked(story).states == {"s": state}
    if value is not ...:
        assert value_of(story, "s") == value


def test_a_signal_that_comes_when_the_time_is_up_is_too_late_whichever_is_looked_at_first() -> None:
    story = Story(a_signal("s", timeout_s=10), a_signal("t", timeout_s=60)).start()
    story.wait(10).signal("go", 1)
    assert checked(story).states == {"s": "timed_out", "t": "succeeded"}


def test_a_signal_that_comes_in_a_pause_is_taken_after_it() -> None:
    story = Story(a_signal("s")).start()
    story.do(run_commands.Pause())
    story.signal("go", 1)
    assert checked(story).state("s") is TaskState.WAITING
    story.do(run_commands.Resume())
    assert checked(story).run.state is RunState.SUCCEEDED


def test_a_signal_may_choose_the_way_of_a_branch() -> None:
    branch = msgspec.structs.replace(a_signal("s"), branch=True)
    story = Story(branch, a_task("a", "s"), a_task("b", "s")).start()
    story.signal("go", "b")
    assert checked(story).states == {"s": "succeeded", "a": "skipped", "b": "pending"}


# ── approvals ──


def test_one_vote_decides_and_is_the_value() -> None:
    story = Story(an_approval("ask"), a_task("a", "ask")).start()
    story.vote("ask", "approve", comment="fine")
    vote = {"by": "ada", "choice": "approve", "comment": "fine", "at": "2026-01-02T03:04:05Z"}
    assert value_of(checked(story), "ask") == {"choice": "approve", "votes": [vote]}
    assert story.ready == ["a"]


def test_a_choice_needs_its_quorum_of_different_people_who_may_change_their_minds() -> None:
    story = Story(an_approval("ask", quorum=2)).start()
    assert len(story.vote("ask", "approve", "ada")) == 1
    assert story.vote("ask", "approve", "ada") == []
    story.vote("ask", "reject", "ada")
    story.vote("ask", "approve", "bob")
    assert checked(story).state("ask") is TaskState.WAITING
    story.vote("ask", "reject", "cid")
    told = value_of(checked(story), "ask")
    assert (told["choice"], [vote["by"] for vote in told["votes"]]) == ("reject", ["ada", "cid"])


def test_a_late_vote_is_refused_and_told_once() -> None:
    story = Story(an_approval("ask"), a_task("a", "ask")).start()
    story.vote("ask", "approve")
    with pytest.raises(LateVote, match="is not open to this vote any more") as late:
        story.vote("ask", "reject", "bob")
    assert late.value.told == e.VoteRefused(AT, "ask", 1, "reject", "bob")
    runs.apply(story.run, late.value.told)
    story.events.append(late.value.told)
    with pytest.raises(LateVote) as again:
        story.vote("ask", "reject", "bob")
    assert again.value.told is None
    checked(story)


def test_the_vote_that_decided_may_be_sent_again() -> None:
    story = Story(an_approval("ask")).start()
    story.vote("ask", "approve")
    assert story.run.state is RunState.SUCCEEDED
    assert story.vote("ask", "approve") == []
    with pytest.raises(LateVote):
        checked(story).vote("ask", "reject")


def test_a_vote_for_an_earlier_attempt_is_late() -> None:
    story = Story(an_approval("ask", expires_s=5)).start()
    story.wait(5).elapse()
    story.do(run_commands.RetryTask("ask"))
    with pytest.raises(LateVote):
        story.vote("ask", "approve", attempt=1)
    story.vote("ask", "approve", attempt=2)
    assert checked(story).run.state is RunState.SUCCEEDED


def test_a_vote_at_the_expiry_is_late_also_before_the_timer_has_fired() -> None:
    story = Story(an_approval("ask", expires_s=5), a_task("b")).start()
    with pytest.raises(LateVote):
        story.wait(5).vote("ask", "approve")


def test_who_may_not_vote_and_what_is_no_choice() -> None:
    story = Story(a_task("a"), an_approval("ask", roles=["admin", "bob"]), an_approval("next", "ask")).start()
    with pytest.raises(NotAllowed, match="only admin, bob may decide"):
        story.vote("ask", "approve")
    with pytest.raises(Invalid, match="one of approve, reject expected"):
        story.vote("ask", "perhaps", "bob", roles=("bob",))
    with pytest.raises(Conflict, match="is no approval"):
        story.vote("a", "approve")
    with pytest.raises(Conflict, match="does not ask yet"):
        story.vote("next", "approve")
    with pytest.raises(NotFound):
        story.vote("nobody", "approve")
    story.vote("ask", "approve", "eve", roles=("admin",))
    assert checked(story).state("next") is TaskState.WAITING


def test_no_more_than_so_many_people_vote() -> None:
    story = Story(an_approval("ask", quorum=20, choices=[f"c{n}" for n in range(20)])).start()
    for n in range(VOTERS_MAX):
        story.vote("ask", f"c{n % 20}", f"v{n}")
    with pytest.raises(Conflict, match=f"{VOTERS_MAX} others"):
        story.vote("ask", "c1", "one more")


@pytest.mark.parametrize(
    ("choice", "states"),
    [
        ("approve", {"ship": "pending", "tell": "pending", "drop": "skipped"}),
        ("reject", {"ship": "skipped", "tell": "pending", "drop": "pending"}),
    ],
)
def test_a_decision_steers_a_branch(choice: str, states: dict[str, str]) -> None:
    ways = {"approve": ["ship", "tell"], "reject": ["tell", "drop"]}
    below = [a_task(name, "ask") for name in ("ship", "tell", "drop")]
    story = Story(an_approval("ask", branch=True, branches=ways), *below).start()
    story.vote("ask", choice)
    assert checked(story).states == {"ask": "succeeded", **states}


def test_without_a_map_the_choice_is_the_dependent() -> None:
    story = Story(an_approval("ask", branch=True, choices=["a", "b"]), a_task("a", "ask"), a_task("b", "ask")).start()
    story.vote("ask", "b")
    assert checked(story).states == {"ask": "succeeded", "a": "skipped", "b": "pending"}


@pytest.mark.parametrize(
    ("on_expiry", "states"),
    [
        ("fail", {"ask": "timed_out", "yes": "upstream_failed", "late": "upstream_failed"}),
        ("skip", {"ask": "skipped", "yes": "skipped", "late": "skipped"}),
        ("approve", {"ask": "succeeded", "yes": "pending", "late": "skipped"}),
        ("expired", {"ask": "succeeded", "yes": "skipped", "late": "pending"}),
    ],
)
def test_what_becomes_of_an_approval_that_nobody_decides(on_expiry: str, states: dict[str, str]) -> None:
    ways = {"approve": ["yes"], "expired": ["late"]}
    ask = an_approval("ask", branch=True, branches=ways, expires_s=60, on_expiry=on_expiry)
    story = Story(ask, a_task("yes", "ask"), a_task("late", "ask")).start()
    story.wait(60).elapse()
    assert checked(story).states == states


def test_a_decision_counts_also_while_the_run_is_paused() -> None:
    story = Story(an_approval("ask"), a_task("a", "ask")).start()
    story.do(run_commands.Pause())
    story.vote("ask", "approve")
    assert checked(story).states == {"ask": "succeeded", "a": "pending"}


def test_an_approval_steers_a_branch_of_a_run_whose_tasks_are_kubernetes_jobs() -> None:
    story = Story(an_approval("ask", branch=True, choices=["a"]), a_task("a", "ask", type="mine"), mode="k8s").start()
    story.vote("ask", "a")
    assert checked(story).states == {"ask": "succeeded", "a": "pending"}


def test_every_wait_ends_within_a_year() -> None:
    for spec in (a_signal("s"), an_approval("s")):
        story = Story(spec).start()
        assert run_duties.owed(story.run) == [run_duties.WakeAt(AT + timedelta(seconds=YEAR_S))]


# ── code that sleeps ──


def test_sleeping_code_uses_up_no_retry_and_starts_again_at_its_instant() -> None:
    story = Story(a_task("a")).start().suspend("a", 60)
    assert (story.states, story.run.running, story.ready) == ({"a": "suspended"}, 0, [])
    assert story.wait(59).ready == []
    assert checked(story.wait(1)).ready == ["a"]
    story.begin("a")
    task = story.run.tasks[0]
    assert (task.attempt, task.failures, task.losses) == (2, 0, 0)


def test_sleeps_are_known_to_later_attempts_until_the_next_checkpoint() -> None:
    story = Story(a_task("a", retries=3, retry_delay_s=0.0)).start().suspend("a", 10)
    story.wait(10).suspend("a", 20, call=2)
    story.wait(20).fail("a")
    assert sorted(sleeps(story.run, 0)) == [1, 2]
    checked(story.wait(1)).begin("a")
    story.do(story.note("a", {"n": 1}))
    assert sleeps(checked(story).run, 0) == {}


def test_a_pause_holds_sleeping_code_and_a_cancel_ends_it() -> None:
    story = Story(a_task("a")).start().suspend("a", 10)
    story.do(run_commands.Pause())
    story.wait(60)
    with pytest.raises(Conflict):
        story.do(run_commands.Begin((0,), "w", "i"))
    assert checked(story).kinds(run_commands.Cancel()) == ["task_cancelled", "run_cancelled"]


def test_sleeping_code_is_given_up_when_its_rule_cannot_hold_any_more() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("c", "a", "b", trigger_rule="one_success")).start().ok("a")
    story.suspend("c", 10).fail("b")
    assert checked(story).state("c") is TaskState.SUSPENDED
    assert story.wait(10).ready == ["c"]
