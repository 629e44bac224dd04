"""Runs that tasks call: whom, what their ends mean for the task, and what comes back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from actors.hosted import HostedRun
from orchestrator import Invalid, dag, run_commands, run_duties, task
from orchestrator import events as e
from orchestrator.calls import DEPTH_MAX, Return, callees_of, child_id, last_tasks, result_of
from orchestrator.codec import decode_events, encode_events
from orchestrator.definition import TaskSpec, Window
from orchestrator.messages import Value
from orchestrator.run_state import Run
from orchestrator.spec import from_yaml, parse_dag
from orchestrator.task import TaskState
from tests.builders import AT, Story, a_dag, a_task, a_value
from tests.invariants import check_replay


def a_call(name: str = "call", *needs: str, dag_id: Any = "other", inputs: Any = None, **params: Any) -> TaskSpec:
    return a_task(name, *needs, type="core.dag", params={"dag_id": dag_id, **params}, inputs=inputs or {})


def called(story: Story, name: str = "call") -> e.Call:
    """What the task waits for now."""
    assert story.run.standby is not None
    call = story.run.standby.open[story.run.position(name)].wait.call
    assert call is not None
    return call


def error_of(story: Story) -> str:
    [failed] = [event for event in story.events if isinstance(event, e.TaskFailed)]
    return failed.error


# ── the call ──


def test_a_task_calls_when_its_turn_comes_and_holds_no_worker() -> None:
    story = Story(a_task("a"), a_call("call", "a", params={"n": 2})).start()
    assert story.ready == ["a"]
    story.ok("a")
    assert story.states["call"] == "waiting"
    assert story.ready == []
    call = called(story)
    assert (call.dag_id, call.params, call.window, call.chain) == ("other", {"n": 2}, story.run.window, ("d",))
    assert run_duties.owed(story.run) == [run_duties.WakeAt(story.now + timedelta(days=366))]


def test_the_params_of_a_call_take_values_of_tasks_and_of_the_run_where_they_say_so() -> None:
    call = a_call("call", "a", params={"n": None, "day": "{{ run_id }}"}, inputs={"params/n": "a"})
    story = Story(a_task("a"), call).start().begin("a")
    story.do(story.report("a", "ok", value=a_value([1, 2])))
    assert called(story).params == {"n": [1, 2], "day": "run_1"}


@pytest.mark.parametrize(
    ("window", "expected"),
    [(None, None), ({"from": "2026-01-01", "to": "2026-01-02"}, Window("2026-01-01", "2026-01-02"))],
)
def test_a_call_may_be_about_another_window(window: Any, expected: Window | None) -> None:
    assert called(Story(a_call(window=window)).start()).window == expected


def test_the_id_of_the_child_says_when_and_by_whom_it_was_called() -> None:
    ids = {child_id("run_1", task, attempt, AT) for task in ("a", "b") for attempt in (1, 2)}
    assert len(ids) == 4
    assert child_id("run_1", "a", 1, AT) == child_id("run_1", "a", 1, AT) < child_id("run_1", "a", 1, AT + timedelta(1))


def test_what_makes_no_sense_fails_at_once() -> None:
    for params, told in (
        ({"dag_id": {"$param": "x", "default": 7}}, "params.dag_id must be the id of a DAG"),
        ({"window": {"from": "2026-01-02", "to": "2026-01-01"}}, "params.window: to is before from"),
    ):
        story = Story(a_call(**params)).start()
        assert story.run.state == "failed"
        assert told in error_of(story)


def test_a_dag_is_not_called_from_below_itself() -> None:
    story = Story(a_call(dag_id={"$param": "x", "default": "d"})).start()
    assert "d -> d: a run would wait for a run of its own DAG" in error_of(story)


@pytest.mark.parametrize(("depth", "state"), [(DEPTH_MAX - 1, "running"), (DEPTH_MAX, "failed")])
def test_so_many_runs_wait_for_each_other_and_not_more(depth: int, state: str) -> None:
    story = Story(a_call())
    story.run.called_by = e.CalledBy("run_0", "t", 1, tuple(f"d{n}" for n in range(depth)))
    assert story.start().run.state == state


def test_what_a_window_of_a_backfill_calls_is_of_its_class() -> None:
    def class_of(run: Run) -> str:
        return HostedRun(run).leaf[1]

    story = Story(a_call())
    assert class_of(story.run) == "manual"
    story.run.parent = "run_b"
    call = called(story.start())
    assert (call.backfill, class_of(story.run)) == ("run_b", "backfill")
    below = Story(a_call())
    below.run.called_by = e.CalledBy("run_1", "call", 1, call.chain, call.backfill)
    below.run.dag_id = "middle"
    assert (class_of(below.run), called(below.start(), "call").backfill) == ("backfill", "run_b")


# ── its end ──


def test_the_result_of_the_run_is_the_value_of_the_task() -> None:
    story = Story(a_call(), a_task("take", "call", inputs={"n": "call"})).start()
    story.do(Return("call", 1, a_value(5)))
    assert story.states == {"call": "succeeded", "take": "pending"}
    assert story.run.values[0] == a_value(5)
    check_replay(story.run, story.replayed())


def test_the_task_fails_with_the_run() -> None:
    story = Story(a_call()).start()
    story.do(Return("call", 1, error="RunFailed: run x is failed: a: Boom"))
    assert story.run.state == "failed"
    assert story.run.error == "call: RunFailed: run x is failed: a: Boom"


def test_an_end_counts_once_and_for_its_attempt_only() -> None:
    story = Story(a_call(), a_call("second")).start()
    assert story.do(Return("call", 2, a_value(1))) == []
    assert story.do(Return("nobody", 1, a_value(1))) == []
    assert len(story.do(Return("call", 1, a_value(1)))) == 1
    assert story.do(Return("call", 1, a_value(1))) == []


def test_a_paused_run_takes_the_end_of_what_it_called() -> None:
    story = Story(a_call(), a_task("after", "call")).start()
    story.do(run_commands.Pause())
    story.do(Return("call", 1, a_value(1)))
    assert (story.states["call"], story.run.state) == ("succeeded", "paused")


def test_a_call_has_a_limit() -> None:
    story = Story(a_call(timeout_s=5)).start()
    child = called(story).run_id
    story.wait(5).elapse()
    assert story.run.tasks[0].state is TaskState.TIMED_OUT
    assert f"WaitTimedOut: run {child} did not end until" in error_of(story)


def test_a_retry_calls_anew() -> None:
    story = Story(a_call()).start()
    first = called(story).run_id
    story.do(Return("call", 1, error="RunFailed"))
    story.do(run_commands.RetryTask("call"))
    assert called(story).run_id != first
    assert story.do(Return("call", 1, a_value(1))) == []


def test_calls_are_written_and_read_like_all_events() -> None:
    story = Story(a_call(params={"n": [1]})).start()
    made = e.RunCreated(AT, "run_2", "t", "other", 1, "manual", called_by=e.CalledBy("run_1", "call", 1, ("d",)))
    assert decode_events(encode_events([*story.events, made])) == [*story.events, made]


# ── what comes back ──


def done(task: str, value: object = None) -> e.TaskSucceeded:
    return e.TaskSucceeded(AT, task, 1, a_value(value))


def result(*events: e.Event, tasks: tuple[TaskSpec, ...]) -> Any:
    return msgspec.json.decode(result_of(a_dag(*tasks), events).inline)


ONE = (a_task("a"), a_task("b", "a"), a_task("undo", "a", compensates="a"), a_task("tidy", "b", teardown_of=("a",)))
TWO = (a_task("a"), a_task("b", "a"), a_task("c", "a"))


def test_one_last_task_says_what_the_run_came_to() -> None:
    assert last_tasks(a_dag(*ONE)) == ("b",)
    assert result(done("a", 1), done("b", 2), done("tidy", 3), tasks=ONE) == 2


def test_several_last_tasks_say_it_by_their_ids() -> None:
    assert result(done("a", 1), done("b", 2), done("c", [3]), tasks=TWO) == {"b": 2, "c": [3]}
    assert result(done("a"), done("b", 2), e.TaskSkipped(AT, "c"), tasks=TWO) == {"b": 2}


def test_what_a_retry_or_a_restart_took_back_does_not_count() -> None:
    assert result(done("b", 1), e.TaskReset(AT, "b"), done("b", 2), tasks=ONE) == 2
    assert result(done("b", 1), e.RunRestarted(AT, 1), done("c", 2), tasks=TWO) == {"c": 2}


def test_a_map_at_the_end_comes_to_the_list_of_its_instances() -> None:
    mapped = (a_task("m", expand={"n": [1, 2]}),)
    events = (e.TaskExpanded(AT, "m", 1, 2), done("m[1]", "b"), done("m[0]", "a"), done("m"))
    assert result(*events, tasks=mapped) == ["a", "b"]


def test_a_large_value_comes_back_alone_and_not_with_others() -> None:
    large = Value(artifact="x", size_bytes=10**6)
    end = e.TaskSucceeded(AT, "b", 1, large)
    assert result_of(a_dag(*ONE), [end]) == large
    assert result_of(a_dag(*TWO), [end, done("c", 1)]) == Value()
    assert result_of(a_dag(*TWO), [done("b", "x" * 40_000), done("c", "y" * 40_000)]) == Value()


# ── writing it ──


@task
def take(sales: int) -> None: ...


@dag
def other() -> None:
    take(1)


def test_python_calls_a_dag_by_itself_or_its_id() -> None:
    @dag(dag_id="outer")
    def outer(day: str = "2026-01-01") -> None:
        one = task.dag("one", other, params={"day": day})
        two = task.dag("two", "elsewhere", window=("2026-01-01", "2026-01-02"), timeout_s=60)
        task.dag("three", "elsewhere", window=None).after(two)
        take(one)

    made = {each.id: each for each in outer.definition().tasks}
    param = {"$param": "day", "default": "2026-01-01"}
    assert made["one"].params == {"dag_id": "other", "params": {"day": param}}
    assert made["two"].params["window"] == {"from": "2026-01-01", "to": "2026-01-02"}
    assert made["three"].params == {"dag_id": "elsewhere", "window": None}
    assert made["take"].inputs == {"sales": "one"}
    assert callees_of(outer.definition()) == ("other", "elsewhere")


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("params: {}", "params/dag_id: is required"),
        ("params: {dag_id: '@flow'}", "params/dag_id: must be the id of a DAG"),
        ("params: {dag_id: x, params: [1]}", "params/params: must be an object"),
        ("params: {dag_id: x, window: {from: a}}", "params/window: must be"),
        ("params: {dag_id: x, dag: y}", "params/dag: is no param of core.dag"),
        ("params: {dag_id: x}, retries: 1", "retries: a core.dag task is not tried again by itself"),
        ("params: {dag_id: x}, expand: {dag_id: [a]}", "expand: a task that waits cannot be mapped"),
    ],
)
def test_what_a_definition_may_not_say_is_refused(task: str, told: str) -> None:
    with pytest.raises(Invalid, match="tasks/0/") as refused:
        from_yaml(f"{{dag_id: d, owner: o, tasks: [{{id: a, type: core.dag, {task}}}]}}")
    assert told in str(refused.value)


def test_a_call_of_what_a_param_says_is_a_definition() -> None:
    body = {"id": "a", "type": "core.dag", "params": {"dag_id": {"$param": "which"}}}
    assert callees_of(parse_dag({"dag_id": "d", "owner": "o", "tasks": [body]})[0]) == ()
