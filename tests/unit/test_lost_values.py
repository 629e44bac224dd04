"""orchestrator.lost_values: whoever made a value that is gone runs again, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import codec, run_commands
from orchestrator import events as e
from orchestrator.definition import TaskSpec
from orchestrator.lost_values import LOST_MAX
from orchestrator.messages import Value
from orchestrator.narration import Narrator
from orchestrator.run_state import RunState
from tests.builders import Story, a_task, a_value
from tests.invariants import check_history, check_replay


def takes(name: str, *producers: str, **changes: Any) -> TaskSpec:
    return a_task(name, *producers, inputs={f"of_{p}": p for p in producers}, **changes)


def large(story: Story, name: str) -> Value:
    return Value(artifact=f"run_1/{name}.{story.attempt(name)}", size_bytes=10**7, node="A")


def made(story: Story, *names: str) -> Story:
    """These run and return something large."""
    for name in names:
        story.begin(name)
        story.do(story.report(name, "ok", value=large(story, name), **({"length": 3} if name == "list" else {})))
    return story


def misses(story: Story, name: str, *artifacts: str, **changes: Any) -> list[str]:
    """The running attempt finds that these are gone; the new events, in short."""
    told = [f"run_1/{artifact}" for artifact in artifacts]
    new = story.do(story.report(name, "missing", missing=tuple(told), error="MissingArtifact: gone", **changes))
    return [f"{str(event.__struct_config__.tag).removeprefix('task_')} {getattr(event, 'task', '')}" for event in new]


def checked(story: Story) -> Story:
    check_history(story.events, lambda version: story.compiled(version).definition)
    check_replay(story.run, story.replayed())
    assert codec.decode_events(codec.encode_events(story.events), e.SCHEMA) == story.events
    return story


def a_chain() -> Story:
    return Story(a_task("a"), takes("b", "a"), takes("c", "b"), takes("d", "c")).start()


def test_the_producer_runs_again_and_the_task_that_misses_its_value_waits_for_that() -> None:
    story = made(a_chain(), "a", "b")
    story.begin("c")
    assert misses(story, "c", "b.1") == ["returned c", "reset b"]
    assert story.ready == ["b"], "a is not disturbed, c waits"
    made(story, "b", "c", "d")
    assert [story.attempt(name) for name in "abcd"] == [1, 2, 2, 1]
    assert checked(story).run.state is RunState.SUCCEEDED


def test_a_loss_costs_no_retry() -> None:
    story = made(a_chain(), "a", "b")
    story.begin("c")
    misses(story, "c", "b.1")
    assert story.run.tasks[story.run.position("c")].failures == 0


def test_a_chain_of_lost_values_is_computed_again_from_the_last_one_that_is_there() -> None:
    story = made(a_chain(), "a", "b", "c")
    story.begin("d")
    misses(story, "d", "c.1")
    story.begin("c")
    assert misses(story, "c", "b.1") == ["returned c", "reset b"]
    made(story, "b", "c", "d")
    assert [story.attempt(name) for name in "abcd"] == [1, 2, 3, 2]
    assert checked(story).run.state is RunState.SUCCEEDED


def test_consumers_that_report_the_same_loss_wait_for_one_new_attempt() -> None:
    story = Story(a_task("a"), *(takes(f"c{n}", "a") for n in range(4))).start()
    made(story, "a")
    story.begin("c0", "c1", "c2", "c3")
    assert misses(story, "c0", "a.1") == ["returned c0", "reset a"]
    assert misses(story, "c1", "a.1") == ["returned c1"]
    story.do(story.report("c2", "ok"))
    made(story, "a")
    assert misses(story, "c3", "a.1") == ["returned c3"], "it was told of the value before"
    assert sorted(story.ready) == ["c0", "c1", "c3"]
    story.ok("c0", "c1", "c3")
    assert story.attempt("a") == 2
    assert checked(story).run.state is RunState.SUCCEEDED


def test_several_missing_values_are_computed_again_at_once() -> None:
    story = Story(a_task("a"), a_task("b"), takes("c", "a", "b")).start()
    made(story, "a", "b")
    story.begin("c")
    assert misses(story, "c", "a.1", "b.1") == ["returned c", "reset a", "reset b"]


def test_a_value_that_is_lost_again_and_again_ends_in_a_failure() -> None:
    story = Story(a_task("a"), takes("b", "a")).start()
    made(story, "a")
    for attempt in range(1, LOST_MAX + 1):
        story.begin("b")
        misses(story, "b", f"a.{attempt}")
        made(story, "a")
    story.begin("b")
    assert misses(story, "b", f"a.{LOST_MAX + 1}") == ["failed b", "run_failed "]
    assert story.attempt("a") == LOST_MAX + 1
    checked(story)


def test_a_person_who_retries_what_failed_of_losses_starts_their_count_anew() -> None:
    story = Story(a_task("a"), takes("b", "a")).start()
    made(story, "a")
    for attempt in range(1, LOST_MAX + 2):
        story.begin("b")
        misses(story, "b", f"a.{attempt}")
        if attempt <= LOST_MAX:
            made(story, "a")
    story.do(run_commands.RetryTask("b"))
    story.begin("b")
    assert misses(story, "b", f"a.{LOST_MAX + 1}") == ["returned b", "reset a"]
    checked(story)


@pytest.mark.parametrize("name", ["other/x.1", "a.7", "a", "x.1"])
def test_what_no_dependency_made_is_an_ordinary_failure(name: str) -> None:
    story = made(Story(a_task("a"), takes("b", "a", retries=1)).start(), "a")
    story.begin("b")
    assert misses(story, "b", name) == ["retrying b"]


def test_a_run_that_was_cancelled_computes_nothing_again() -> None:
    story = Story(a_task("a"), a_task("clean", "a", teardown_of=("a",), inputs={"x": "a"})).start()
    made(story, "a")
    story.begin("clean")
    assert misses(story, "clean", "a.1") == ["failed clean", "run_succeeded "], "nor does a teardown set up again"
    checked(story)


def test_a_task_that_may_start_without_the_lost_value_starts_without_it() -> None:
    story = Story(a_task("a"), a_task("b"), takes("c", "a", "b", trigger_rule="one_success")).start()
    made(story, "a", "b")
    story.begin("c")
    assert misses(story, "c", "a.1") == ["returned c", "reset a"]
    assert sorted(story.ready) == ["a", "c"]
    assert story.run.position("a") not in story.run.values
    checked(story)


def test_an_instance_whose_value_is_lost_runs_again_with_its_map() -> None:
    mapped = TaskSpec(id="work", depends_on=("list",), expand={"item": "list"})
    story = Story(a_task("list"), mapped, takes("all", "work")).start()
    story.begin("list")
    story.do(story.report("list", "ok", value=a_value(["x", "y"])))
    made(story, "work[0]", "work[1]")
    story.begin("all")
    assert misses(story, "all", "work[1].1") == ["returned all", "reset work", "reset work[1]", "expanded work"]
    assert story.ready == ["work[1]"]
    made(story, "work[1]")
    story.ok("all")
    assert checked(story).run.state is RunState.SUCCEEDED


def test_a_lost_list_of_a_map_is_an_ordinary_failure_of_its_instances() -> None:
    mapped = TaskSpec(id="work", depends_on=("list",), expand={"item": "list"})
    story = Story(a_task("list"), mapped).start()
    made(story, "list")
    story.begin("work[0]")
    assert misses(story, "work[0]", "list.1") == ["failed work[0]"]


def test_a_result_of_another_run_that_is_gone_is_computed_here() -> None:
    story = Story(a_task("a", cache_ttl_s=60.0), takes("b", "a"), takes("c", "a")).start()
    source = e.CachedFrom("run_0", "a", 4, story.now)
    story.run.lookups.take(story.run)  # type: ignore[union-attr]  # it is cached
    value = Value(artifact="run_0/a.4", size_bytes=10**7)
    story.do(run_commands.Recall("a", value, None, source))
    story.begin("b", "c")
    for name, events in (("b", ["returned b", "reset a"]), ("c", ["returned c"])):
        report = story.report(name, "missing", missing=("run_0/a.4",))
        new = story.do(report)
        assert [f"{type(event).__name__[4:].lower()} {event.task}" for event in new] == events  # type: ignore[attr-defined]  # all are about tasks
    assert story.ready == ["a"], "it is not looked up again"
    made(story, "a")
    story.ok("b", "c")
    checked(story)


def test_a_pause_holds_the_new_attempt_too() -> None:
    story = made(a_chain(), "a", "b")
    story.begin("c")
    story.do(run_commands.Pause())
    assert misses(story, "c", "b.1") == ["returned c", "reset b"]
    story.do(run_commands.Resume())
    assert story.ready == ["b"]
    checked(story)


def test_people_who_follow_the_run_are_told_what_is_missing_and_what_is_lost() -> None:
    story = made(a_chain(), "a", "b")
    story.begin("c")
    misses(story, "c", "b.1")
    narrator = Narrator("run_1")
    frames = [narrator.tell(event).data for event in story.events]
    assert [(f["task"], f["to"], f.get("missing"), f.get("lost")) for f in frames[-2:]] == [
        ("c", "pending", ["run_1/b.1"], None),
        ("b", "pending", None, "run_1/b.1"),
    ]


def test_events_of_journals_that_know_nothing_of_losses_are_read() -> None:
    old = (
        b'[{"t":"task_reset","at":"2026-01-01T00:00:00Z","task":"a"},{"t":"task_returned","at":"2026-01-01T00:00:00Z",'
    )
    old += b'"task":"b","attempt":1},{"t":"task_succeeded","at":"2026-01-01T00:00:00Z","task":"a","attempt":1,'
    old += b'"value":[null,"run_1/a.1",9]}]'
    reset, returned, done = codec.decode_events(old, 1)
    assert (reset.lost, returned.missing, done.value) == (  # type: ignore[attr-defined]  # of these kinds
        "",
        (),
        Value(artifact="run_1/a.1", size_bytes=9),
    )
