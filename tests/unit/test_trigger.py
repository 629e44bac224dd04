"""Trigger rules: the whole truth table, in the table itself and in runs that get there in every way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

import pytest

from orchestrator import run_commands
from orchestrator.definition import TriggerRule
from orchestrator.run_state import going
from orchestrator.task import TaskState
from orchestrator.trigger import Verdict, judge, judge_teardown, worth
from tests.builders import Story, a_task
from tests.invariants import check_replay
from tests.rule_oracle import SKIPPED, STARTS, UPSTREAM_FAILED, WAITS, at_the_end, becomes, seen

RULES: tuple[TriggerRule, ...] = get_args(TriggerRule)
WORDS = {Verdict.START: STARTS, Verdict.WAIT: WAITS, Verdict.SKIP: SKIPPED, Verdict.GIVE_UP: UPSTREAM_FAILED}
#: every state of an upstream, and who skipped it
STATES = [(state, "") for state in TaskState] + [(TaskState.SKIPPED, by) for by in ("task", "branch", "rule")]

#: how the tests bring a task to its end -> its state then, and who skipped it
ENDS = {
    "ok": ("succeeded", ""),
    "error": ("failed", ""),
    "timed_out": ("timed_out", ""),
    "skipped": ("skipped", "task"),
    "by_hand": ("skipped", ""),
    "upstream_failed": ("upstream_failed", ""),
}
#: what the tests see of a dependent
AFTERWARDS = {STARTS: "pending", SKIPPED: "skipped", UPSTREAM_FAILED: "upstream_failed"}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", range(4))
def test_the_table_is_what_the_documentation_says_for_all_states_of_up_to_three_upstreams(
    rule: TriggerRule, size: int
) -> None:
    for states in itertools.product(STATES, repeat=size):
        tally = size + sum(worth(*state) for state in states)
        expected = becomes(rule, [seen(str(state), by) for state, by in states])
        assert WORDS[judge(rule, size, tally)] == expected, states


@pytest.mark.parametrize("size", range(1, 4))
def test_a_teardown_runs_when_all_has_ended_and_one_setup_is_good(size: int) -> None:
    for states in itertools.product(STATES, repeat=size):
        tally = size + sum(worth(*state) for state in states)
        ends = [seen(str(state), by) for state, by in states]
        expected = STARTS if "good" in ends else UPSTREAM_FAILED if "bad" in ends else SKIPPED
        verdict = judge_teardown(tally, [worth(*state) for state in states])
        assert WORDS[verdict] == (WAITS if "open" in ends else expected), states


@pytest.mark.parametrize("rule", RULES)
def test_a_task_without_upstreams_starts_at_once(rule: TriggerRule) -> None:
    assert Story(a_task("a", trigger_rule=rule)).start().ready == ["a"]


def _with(rule: TriggerRule, ends: Sequence[str]) -> Story:
    """A task `x` of that rule below so many others, each below a root of its own that fails where that is wanted."""
    roots = [a_task(f"r{n}") for n, _ in enumerate(ends)]
    tasks = [a_task(f"u{n}", f"r{n}") for n, _ in enumerate(ends)]
    story = Story(*roots, *tasks, a_task("x", *(task.id for task in tasks), trigger_rule=rule), a_task("other"))
    story.start()
    story.ok(*(f"r{n}" for n, end in enumerate(ends) if end != "upstream_failed"))
    return story


def _end(story: Story, n: int, end: str) -> None:
    match end:
        case "by_hand":
            story.do(run_commands.SkipTask(f"u{n}"))
        case "upstream_failed":
            story.fail(f"r{n}")
        case _:
            story.begin(f"u{n}")
            story.do(story.report(f"u{n}", end, error="why", permanent=True))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", range(4))
def test_a_run_follows_the_table_step_by_step_in_whatever_order_its_tasks_end(rule: TriggerRule, size: int) -> None:
    for ends in itertools.product(ENDS, repeat=size):
        final = set()
        for order in itertools.permutations(range(size)) if size < 3 else (range(3), (2, 0, 1)):
            story = _with(rule, ends)
            told = ["open"] * size
            for n in order:
                _end(story, n, ends[n])
                told[n] = seen(*ENDS[ends[n]])
                expected = becomes(rule, told)
                assert ("x" in story.ready) == (expected == STARTS), (ends, order, told)
                assert story.state("x") == AFTERWARDS.get(expected, "pending"), (ends, order, told)
            check_replay(story.run, story.replayed())
            final.add(story.state("x"))
        assert final == {TaskState(AFTERWARDS[at_the_end(rule, [seen(*ENDS[end]) for end in ends])])}


def test_the_first_success_starts_a_task_and_the_others_do_not_start_it_again() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("x", "a", "b", trigger_rule="one_success")).start()
    assert story.ok("a").begin("b").ready == ["x"]
    story.begin("x").ok("b")
    assert story.ready == []
    assert story.ok("x").run.state == "succeeded"


def test_who_cleans_up_after_a_failure_runs_and_the_run_has_failed_all_the_same() -> None:
    story = Story(a_task("a"), a_task("b", "a"), a_task("mail", "a", "b", trigger_rule="one_failed")).start()
    story.fail("a", error="Boom")
    assert story.states == {"a": "failed", "b": "upstream_failed", "mail": "pending"}
    assert story.ok("mail").run.state == "failed"
    assert story.run.error == "a: Boom"


def test_what_a_task_skips_itself_is_skipped_after_it_and_nothing_has_failed() -> None:
    story = Story(a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "c", trigger_rule="none_failed")).start()
    story.begin("a").do(story.report("a", "skipped", error="nothing new"))
    assert story.states == {"a": "skipped", "b": "skipped", "c": "skipped", "d": "pending"}
    assert not story.aborts
    assert story.ok("d").run.state == "succeeded"
    check_replay(story.run, story.replayed())


def test_what_a_person_skips_counts_as_done() -> None:
    story = Story(a_task("a"), a_task("b", "a", trigger_rule="none_failed_min_one_success")).start()
    story.do(run_commands.SkipTask("a"))
    assert story.ready == ["b"]


def test_a_retry_takes_back_what_followed_and_keeps_what_ran() -> None:
    story = Story(
        a_task("a"),
        a_task("b", "a"),
        a_task("fine", "a", trigger_rule="all_failed"),
        a_task("mail", "a", trigger_rule="one_failed"),
        a_task("none", "mail", trigger_rule="all_failed"),
    ).start()
    story.fail("a").ok("mail", "fine")
    assert story.states | {"none": "skipped", "b": "upstream_failed"} == story.states
    assert story.kinds(run_commands.RetryTask("a")) == ["run_revived", "task_reset", "task_reset"]
    assert story.states == {"a": "pending", "b": "pending", "fine": "succeeded", "mail": "succeeded", "none": "skipped"}
    assert story.ok("a", "b").run.state == "succeeded"


def test_a_retried_task_whose_rule_has_become_impossible_is_skipped() -> None:
    story = Story(a_task("a"), a_task("mail", "a", trigger_rule="one_failed")).start()
    story.fail("a", "mail")
    story.do(run_commands.RetryTask("a"))
    story.ok("a")
    assert (story.state("mail"), story.run.state) == ("failed", "failed")
    assert story.kinds(run_commands.RetryTask("mail")) == ["run_revived", "task_reset", "task_skipped", "run_succeeded"]


def test_a_task_that_is_ready_is_so_no_longer_when_its_upstream_is_retried() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("mail", "a", "b", trigger_rule="one_failed")).start()
    story.fail("a")
    assert "mail" in story.ready
    story.do(run_commands.RetryTask("a"))
    assert "mail" not in story.ready
    story.ok("a", "b")
    assert story.states == {"a": "succeeded", "b": "succeeded", "mail": "skipped"}
    assert story.run.state == "succeeded"


def test_a_skip_by_hand_rules_out_who_waits_for_failures() -> None:
    story = Story(a_task("a"), a_task("b"), a_task("x", "a", "b", trigger_rule="all_failed"), a_task("y", "x")).start()
    story.fail("a")
    assert story.kinds(run_commands.SkipTask("a")) == ["task_skipped", "task_skipped", "task_skipped"]
    assert story.states == {"a": "skipped", "b": "pending", "x": "skipped", "y": "skipped"}


def test_always_starts_before_what_it_comes_after() -> None:
    story = Story(a_task("a"), a_task("x", "a", trigger_rule="always")).start()
    assert story.ready == ["a", "x"]


def test_a_pause_holds_tasks_back_whatever_their_rule() -> None:
    story = Story(a_task("a"), a_task("x", "a", trigger_rule="all_done")).start().begin("a")
    story.do(run_commands.Pause())
    story.fail("a")
    assert (story.state("x"), going(story.run)) == ("pending", False)
    story.do(run_commands.Resume())
    assert story.ok("x").run.state == "failed"
