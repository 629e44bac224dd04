"""Branches: which dependents go on, which are skipped, and what is no choice."""

from __future__ import annotations

import pytest

from orchestrator import run_commands
from orchestrator.messages import Value
from tests.builders import Story, a_task, a_value
from tests.invariants import check_replay


def choose(story: Story, value: object) -> Story:
    """The branch `which` ends with that value."""
    story.begin("which").do(story.report("which", "ok", value=a_value(value)))
    check_replay(story.run, story.replayed())
    return story


def two_ways() -> Story:
    return Story(
        a_task("which", branch=True),
        a_task("a", "which"),
        a_task("b", "which"),
        a_task("after_b", "b"),
        a_task("join", "a", "after_b", trigger_rule="none_failed_min_one_success"),
    ).start()


def test_what_is_not_named_is_skipped_with_all_that_comes_after_it_alone() -> None:
    story = choose(two_ways(), "a")
    assert story.states == {
        "which": "succeeded",
        "a": "pending",
        "b": "skipped",
        "after_b": "skipped",
        "join": "pending",
    }
    assert story.ready == ["a"]
    assert story.ok("a", "join").run.state == "succeeded"


def test_several_may_go_on() -> None:
    assert choose(two_ways(), ["a", "b"]).ready == ["a", "b"]


@pytest.mark.parametrize("nothing", [None, []])
def test_none_may_go_on(nothing: object) -> None:
    story = choose(two_ways(), nothing)
    assert set(story.states.values()) == {"succeeded", "skipped"}
    assert story.run.state == "succeeded"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("c", "'c' is not a direct dependent; those are: 'a', 'b'"),
        (["a", "join"], "'join' is not a direct dependent"),
        (7, "a branch returns the id of a dependent, a list of ids, or None"),
        ({"a": True}, "a branch returns the id"),
    ],
)
def test_a_wrong_choice_fails_the_branch_and_says_why(value: object, told: str) -> None:
    story = choose(two_ways(), value)
    assert story.states["which"] == "failed"
    assert story.states["a"] == "upstream_failed"
    assert told in (story.run.error or "")
    assert story.run.state == "failed"


def test_a_choice_that_is_too_large_to_be_one_is_wrong() -> None:
    story = two_ways().begin("which")
    story.do(story.report("which", "ok", value=Value(artifact="x")))
    assert story.states["which"] == "failed"


def test_a_dependent_that_also_comes_after_a_chosen_one_goes_on() -> None:
    story = Story(
        a_task("which", branch=True),
        a_task("a", "which"),
        a_task("join", "which", "a"),
        a_task("b", "which"),
    ).start()
    choose(story, "a")
    assert story.states == {"which": "succeeded", "a": "pending", "join": "pending", "b": "skipped"}


def test_a_dependent_that_has_started_keeps_on() -> None:
    story = Story(a_task("which", branch=True), a_task("x", "which", trigger_rule="always"), a_task("a", "which"))
    choose(story.start().begin("x"), "a")
    assert story.states == {"which": "succeeded", "x": "running", "a": "pending"}


def test_a_branch_that_a_person_skips_has_chosen_nothing_and_all_proceed() -> None:
    story = two_ways()
    story.do(run_commands.SkipTask("which"))
    assert story.ready == ["a", "b"]


def test_a_branch_skips_no_teardown() -> None:
    story = Story(
        a_task("up"),
        a_task("which", "up", branch=True),
        a_task("a", "which"),
        a_task("down", "which", "a", teardown_of=("up",)),
    ).start()
    choose(story.ok("up"), None)
    assert story.states == {"up": "succeeded", "which": "succeeded", "a": "skipped", "down": "pending"}


def test_a_restart_chooses_again() -> None:
    story = choose(two_ways(), "a").ok("a", "join")
    story.do(run_commands.Restart(1))
    story.start()
    assert choose(story, "b").ready == ["b"]


def test_in_a_kubernetes_job_nobody_hears_what_a_branch_chose() -> None:
    story = Story(a_task("which", branch=True), a_task("a", "which"), mode="k8s").start()
    choose(story, "a")
    assert "Kubernetes Job" in (story.run.error or "")
