"""Mapped tasks in the machine of a run: how they expand, what they come to, and what people may do with them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator import codec, mapped, run_commands
from orchestrator import events as e
from orchestrator.definition import TaskSpec
from orchestrator.errors import Conflict, NotFound, StaleAttempt
from orchestrator.expansion import tolerated
from orchestrator.messages import Report, Value
from orchestrator.run_state import RunState
from tests.builders import Story, a_value
from tests.invariants import check_history, check_replay


def a_map(**changes: Any) -> TaskSpec:
    return TaskSpec(**({"id": "work", "depends_on": ("list",), "expand": {"item": "list"}, "priority": 1} | changes))


def a_story(*more: TaskSpec, **changes: Any) -> Story:
    """list >> work >> reduce, and what else there is; `list` has not run yet."""
    reduce = TaskSpec(id="reduce", depends_on=("work",), inputs={"results": "work"})
    return Story(TaskSpec(id="list"), a_map(**changes), reduce, *more).start()


def listed(story: Story, elements: object) -> Story:
    """`list` returns that."""
    story.begin("list")
    story.do(story.report("list", "ok", value=a_value(elements)))
    return story


def expanded(elements: object, *more: TaskSpec, **changes: Any) -> Story:
    return listed(a_story(*more, **changes), elements)


def value(story: Story, name: str = "work") -> list[Any]:
    values = mapped.gathered(story.run, story.run.position(name))
    return [msgspec.json.decode(each.inline) for each in values]


def checked(story: Story) -> Story:
    check_history(story.events, lambda version: story.compiled(version).definition)
    check_replay(story.run, story.replayed())
    return story


def test_an_instance_runs_for_each_element_and_the_value_is_the_list_of_theirs() -> None:
    story = expanded(["a", "b", "c"])
    assert story.ready == ["work[0]", "work[1]", "work[2]"]
    assert story.states["work"] == "running"
    story.ok("work[2]", "work[0]", "work[1]")
    assert (story.states["work"], story.ready) == ("succeeded", ["reduce"])
    assert value(story) == ["work[0]", "work[1]", "work[2]"]
    assert checked(story.ok("reduce")).run.state is RunState.SUCCEEDED


def test_it_expands_in_the_commit_of_the_success_that_made_its_list() -> None:
    story = a_story()
    story.begin("list")
    assert story.kinds(story.report("list", "ok", value=a_value([1, 2]))) == ["task_succeeded", "task_expanded"]


def test_an_instance_gets_its_element_and_the_reduce_the_list() -> None:
    story = expanded([{"n": 1}, None])
    run = story.run
    inputs: dict[str, Value] = {}
    part = mapped.part_of(run, run.position("work[0]"), inputs)
    assert part is not None
    assert (part.map, part.index, part.picks) == ("work", 0, None)
    assert msgspec.json.decode(inputs["item"].inline) == {"n": 1}
    story.ok("work[0]", "work[1]")
    inputs = {"results": Value()}
    part = mapped.part_of(run, run.position("reduce"), inputs)
    assert part is not None
    assert [msgspec.json.decode(each.inline) for each in part.lists["results"]] == ["work[0]", "work[1]"]
    assert inputs == {}


def test_a_list_in_an_artifact_is_counted_by_its_worker_and_sent_whole() -> None:
    story = a_story()
    story.begin("list")
    story.do(story.report("list", "ok", value=Value(artifact="run_1/list.1", size_bytes=9), length=2))
    assert story.ready == ["work[0]", "work[1]"]
    inputs: dict[str, Value] = {}
    part = mapped.part_of(story.run, story.run.position("work[1]"), inputs)
    assert part is not None
    assert (part.picks, part.index, inputs["item"].artifact) == ("item", 1, "run_1/list.1")
    checked(story)


def test_an_empty_list_makes_a_map_that_is_done_with_an_empty_value() -> None:
    story = expanded([])
    assert (story.states["work"], story.ready, value(story)) == ("succeeded", ["reduce"], [])
    assert checked(story.ok("reduce")).run.state is RunState.SUCCEEDED


@pytest.mark.parametrize("wrong", [None, "text", {"a": 1}, 7, list(range(10_001))])
def test_what_cannot_be_mapped_over_fails_the_map_at_once_without_a_retry(wrong: object) -> None:
    story = expanded(wrong, retries=3)
    assert (story.states["work"], story.states["reduce"]) == ("failed", "upstream_failed")
    assert (story.run.error or "").startswith("work: WrongList: ")
    assert checked(story).run.state is RunState.FAILED


def test_ten_thousand_elements_are_not_too_many() -> None:
    story = expanded(list(range(10_000)))
    assert len(story.states) == 10_003
    assert len(story.ready) == 10_000


def test_all_maps_of_a_run_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.expansion.RUN_INSTANCES_MAX", 5)
    story = expanded([1, 2, 3], a_map(id="other"))
    assert (story.states["work"], story.states["other"]) == ("running", "failed")
    assert "5 instances" in (story.run.error or "")


@pytest.mark.parametrize(
    ("source", "params", "count"),
    [
        (["x", "y"], {}, 2),
        ({"$param": "names", "default": [1]}, {}, 1),
        ({"$param": "names", "default": [1]}, {"names": [1, 2, 3]}, 3),
    ],
)
def test_a_map_over_what_is_known_expands_when_the_run_starts(source: object, params: Any, count: int) -> None:
    story = Story(TaskSpec(id="work", expand={"item": source}))
    story.run.params = params
    story.start()
    assert len(story.ready) == count


def test_a_map_goes_over_the_value_of_another_map() -> None:
    story = expanded([1, 2], a_map(id="next", depends_on=("work",), expand={"item": "work"}))
    story.ok("work[1]", "work[0]")
    inputs: dict[str, Value] = {}
    mapped.part_of(story.run, story.run.position("next[1]"), inputs)
    assert msgspec.json.decode(inputs["item"].inline) == "work[1]"
    story.ok("next[0]", "next[1]")
    assert checked(story).states["next"] == "succeeded"


def test_no_more_instances_run_at_a_time_than_allowed() -> None:
    story = expanded([1, 2, 3, 4], max_active=2)
    assert story.ready == ["work[0]", "work[1]"]
    story.begin("work[0]", "work[1]")
    assert story.ready == []
    story.fail("work[0]")
    assert story.ready == ["work[2]"]
    story.ok("work[1]")
    assert story.ready == ["work[2]", "work[3]"]


def test_an_instance_that_waits_for_its_retry_leaves_its_place_to_another() -> None:
    story = expanded([1, 2], max_active=1, retries=1, retry_delay_s=5.0)
    story.fail("work[0]")
    assert story.ready == ["work[1]"]
    story.begin("work[1]").wait(10)
    assert story.ready == []
    story.ok("work[1]")
    assert story.ready == ["work[0]"]
    assert checked(story.ok("work[0]")).states["work"] == "succeeded"


@pytest.mark.parametrize(
    ("limit", "failed", "state"),
    [(0, 1, "failed"), (1, 1, "succeeded"), (1, 2, "failed"), ("50%", 2, "succeeded"), ("100%", 4, "succeeded")],
)
def test_it_fails_when_more_instances_failed_than_it_tolerates(limit: int | str, failed: int, state: str) -> None:
    story = expanded([1, 2, 3, 4], tolerated_failures=limit)
    story.fail(*(f"work[{n}]" for n in range(failed)))
    assert failed == 4 or story.states["work"] == "running", "the others go on"
    story.ok(*(f"work[{n}]" for n in range(failed, 4)))
    assert story.states["work"] == state
    assert value(story) == [None] * failed + [f"work[{n}]" for n in range(failed, 4)]
    checked(story)


def test_a_percentage_is_rounded_down() -> None:
    assert [tolerated("10%", n) for n in (1, 9, 10, 19, 20)] == [0, 0, 1, 1, 2]
    assert tolerated("0.1%", 1000) == 1


def test_the_error_names_the_first_of_those_that_failed() -> None:
    story = expanded(list(range(7)))
    story.fail(*(f"work[{n}]" for n in range(7)))
    assert story.run.error == (
        "work: MapFailed: 7 of 7 instances failed: work[0], work[1], work[2], work[3], work[4] and 2 more"
    )


def test_a_late_report_of_a_replaced_instance_is_refused() -> None:
    story = expanded([1])
    story.lose("work[0]")
    story.begin("work[0]")
    with pytest.raises(StaleAttempt):
        story.do(run_commands.Settle(Report("run_1", "work[0]", 1, "ok"), 0.0))


def test_what_happens_to_an_instance_is_fenced_like_a_task() -> None:
    story = expanded([1, 2])
    for _ in range(3):
        story.lose("work[0]")
    assert story.states["work[0]"] == "failed", "the third loss fails it"
    with pytest.raises(StaleAttempt):
        story.do(run_commands.Settle(Report("run_1", "work[7]", 1, "ok"), 0.0))


# ── by hand ──


def test_a_retry_of_the_map_runs_what_failed_and_keeps_what_is_done() -> None:
    story = expanded([1, 2, 3])
    story.ok("work[0]")
    story.fail("work[1]", "work[2]")
    story.do(run_commands.RetryTask("work"))
    assert (story.states["work"], story.states["reduce"], story.ready) == ("running", "pending", ["work[1]", "work[2]"])
    assert story.ok("work[1]", "work[2]").attempt("work[1]") == 2
    assert checked(story).ready == ["reduce"]


def test_a_retry_of_one_instance_runs_that_one() -> None:
    story = expanded([1, 2])
    story.fail("work[0]", "work[1]")
    story.do(run_commands.RetryTask("work[1]"))
    assert (story.states["work"], story.ready) == ("running", ["work[1]"])
    story.ok("work[1]")
    assert checked(story).states["work"] == "failed", "work[0] is still failed"


def test_an_instance_may_be_retried_while_its_map_runs() -> None:
    story = expanded([1, 2])
    story.fail("work[0]")
    assert [type(event) for event in story.do(run_commands.RetryTask("work[0]"))] == [e.TaskReset]
    assert story.ready == ["work[0]", "work[1]"]


def test_a_tolerated_instance_can_be_retried_and_what_came_after_stays() -> None:
    story = expanded([1, 2], tolerated_failures="100%")
    story.fail("work[0]")
    story.ok("work[1]", "reduce")
    with pytest.raises(Conflict, match="no failed task"):
        story.do(run_commands.RetryFailed())
    story.do(run_commands.RetryTask("work[0]"))
    assert (story.run.state, story.states["reduce"]) == (RunState.RUNNING, "succeeded")
    story.ok("work[0]")
    assert (story.run.state, value(story)) == (RunState.SUCCEEDED, ["work[0]", "work[1]"])
    checked(story)


def test_a_skip_of_the_map_skips_its_instances_and_stops_those_that_run() -> None:
    story = expanded([1, 2, 3])
    story.ok("work[0]").begin("work[1]")
    story.do(run_commands.SkipTask("work"))
    assert [story.states[f"work[{n}]"] for n in range(3)] == ["succeeded", "skipped", "skipped"]
    assert [(abort.task, abort.worker) for abort in story.aborts] == [("work[1]", "w0")]
    assert (story.ready, value(story)) == (["reduce"], ["work[0]", None, None])
    with pytest.raises(Conflict):
        story.do(run_commands.RetryTask("work[1]"))
    checked(story)


def test_a_skip_of_the_instance_that_failed_makes_the_map_good() -> None:
    story = expanded([1, 2])
    story.fail("work[0]")
    story.ok("work[1]")
    assert story.run.state is RunState.FAILED
    story.do(run_commands.SkipTask("work[0]"))
    assert (story.states["work"], value(story), story.ready) == ("succeeded", [None, "work[1]"], ["reduce"])
    checked(story)


def test_an_instance_that_is_not_there_is_unknown() -> None:
    story = expanded([1])
    for command in (
        run_commands.RetryTask("work[1]"),
        run_commands.SkipTask("work[-1]"),
        run_commands.SkipTask("list[0]"),
    ):
        with pytest.raises(NotFound):
            story.do(command)


def test_a_cancel_ends_the_map_and_all_instances_and_a_retry_goes_on_with_them() -> None:
    story = expanded([1, 2, 3])
    story.ok("work[0]").begin("work[1]")
    story.do(run_commands.Cancel())
    assert story.run.state is RunState.CANCELLED
    assert [abort.task for abort in story.aborts] == ["work[1]"]
    story.do(run_commands.RetryFailed())
    assert story.ready == ["work[1]", "work[2]"]
    story.ok("work[1]", "work[2]", "reduce")
    assert checked(story).run.state is RunState.SUCCEEDED


def test_a_pause_holds_instances_back() -> None:
    story = a_story()
    story.begin("list")
    story.do(run_commands.Pause())
    story.do(story.report("list", "ok", value=a_value([1])))
    with pytest.raises(Conflict):
        story.do(run_commands.Begin((story.run.position("work[0]"),), "w0", "i1"))
    story.do(run_commands.Resume())
    assert story.ready == ["work[0]"]


def _around(second: object) -> Story:
    """setup makes the list of a map that fails; its teardown has run; a retry makes it again, and it is `second`."""
    story = Story(
        TaskSpec(id="list"), a_map(), TaskSpec(id="down", depends_on=("work",), teardown_of=("list",))
    ).start()
    listed(story, [1, 2, 3])
    story.ok("work[0]", "work[2]").fail("work[1]").ok("down")
    story.do(run_commands.RetryTask("work"))
    assert (story.states["work"], story.ready) == ("pending", ["list"]), "what was set up is gone"
    return listed(story, second)


def test_the_same_list_again_keeps_what_is_done() -> None:
    story = _around([1, 2, 3])
    assert story.ready == ["work[1]"]
    assert checked(story.ok("work[1]", "down")).run.state is RunState.SUCCEEDED


def test_another_list_makes_all_instances_begin_afresh_and_attempts_go_on_counting() -> None:
    story = _around([1, 9])
    assert story.ready == ["work[0]", "work[1]"]
    assert "work[2]" not in story.run.compiled.graph.index
    story.ok("work[0]", "work[1]", "down")
    assert [story.attempt(f"work[{n}]") for n in range(2)] == [2, 2]
    assert checked(story).run.state is RunState.SUCCEEDED


def test_a_longer_list_adds_instances() -> None:
    story = _around([1, 2, 3, 4])
    assert story.ready == [f"work[{n}]" for n in range(4)]
    checked(story)


def test_a_map_that_sets_up_runs_wholly_again() -> None:
    down = TaskSpec(id="down", depends_on=("reduce",), teardown_of=("work",))
    story = expanded([1, 2], down)
    story.ok("work[0]", "work[1]").fail("reduce").ok("down")
    story.do(run_commands.RetryTask("reduce"))
    assert story.ready == ["work[0]", "work[1]"]
    checked(story.ok("work[0]", "work[1]", "reduce", "down"))


def test_a_restart_begins_with_no_instances_and_attempts_go_on_counting() -> None:
    story = expanded([1])
    story.ok("work[0]", "reduce")
    story.do(run_commands.Restart(1))
    assert list(story.states) == ["list", "work", "reduce"]
    listed(story.start(), [5])
    assert story.ok("work[0]").attempt("work[0]") == 2
    checked(story)


def test_a_rule_below_a_map_sees_one_task() -> None:
    story = expanded([1, 2], TaskSpec(id="alarm", depends_on=("work",), trigger_rule="one_failed"))
    story.fail("work[0]")
    assert "alarm" not in story.ready
    story.ok("work[1]")
    assert story.ready == ["alarm"]


def test_nothing_is_mapped_over_in_a_run_of_kubernetes_jobs() -> None:
    story = Story(TaskSpec(id="work", expand={"item": [1]}), mode="k8s").start()
    assert (story.run.state, "Kubernetes" in (story.run.error or "")) == (RunState.FAILED, True)


def test_its_events_travel_as_written() -> None:
    events = [e.TaskExpanded(story.now, "work", 1, 3, True) for story in [a_story()]]
    assert codec.decode_events(codec.encode_events(events)) == events
    old = b'[{"t":"task_succeeded","at":"2026-01-01T00:00:00Z","task":"a","attempt":1}]'
    (read,) = codec.decode_events(old)
    assert isinstance(read, e.TaskSucceeded)
    assert read.length is None
