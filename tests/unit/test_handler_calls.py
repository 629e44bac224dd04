"""One call of a handler: its arguments, its one action, its outcome."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import pytest

from orchestrator.blueprint import Approval, Dispatch, Outcome, Parallel, SubBlueprint, Transition, Visit
from orchestrator.errors import Invalid, JournalUnavailable, PermanentFailure
from orchestrator.handler_calls import NAMES, HandlerCall
from tests.blueprint_builders import a_visit


def a_call(handler: Callable[..., Any], visit: Visit | None = None, *, is_end: bool = False) -> HandlerCall:
    return HandlerCall(handler, visit or a_visit(), is_end=is_end, data_stores="stores", task_files="files")


def outcome(handler: Callable[..., Any], visit: Visit | None = None, *, is_end: bool = False) -> Outcome:
    call = a_call(handler, visit, is_end=is_end)
    call.run()
    return call.outcome()


def test_arguments_are_given_by_name() -> None:
    seen: dict[str, Any] = {}

    def handler(  # every name of the contract
        context: Any,
        job_id: str,
        current_state: str,
        initial_data: Any,
        state_history: Any,
        client: Any,
        actions: Any,
        data_stores: Any,
        tracing_context: Any,
        aggregation_results: Any,
        webhook_url: Any,
        task_files: Any,
    ) -> None:
        seen.update({name: value for name, value in locals().items() if name not in ("seen", "context")})
        assert all(getattr(context, name) is value for name, value in seen.items())
        actions.transition_to("x")

    visit = a_visit(initial_data={"a": 1}, aggregation_results={"t": {}}, webhook_url="http://x", job_id="J")
    assert outcome(handler, visit).error is None
    assert set(seen) == set(NAMES)
    del seen["actions"]
    assert seen == {
        "job_id": "J",
        "current_state": "start",
        "initial_data": {"a": 1},
        "state_history": {},
        "client": {"name": "default", "plan": None},
        "data_stores": "stores",
        "tracing_context": {},
        "aggregation_results": {"t": {}},
        "webhook_url": "http://x",
        "task_files": "files",
    }


def test_other_arguments_come_from_the_history_then_from_the_initial_data_then_from_python() -> None:
    seen: list[Any] = []

    def handler(actions: Any, a: Any, b: Any, /, c: Any = 3, *rest: Any, job_id: Any, d: Any = 4, **more: Any) -> None:
        seen.extend([a, b, c, d, job_id, rest, more])
        actions.transition_to("x")

    visit = a_visit(state_history={"a": "h", "job_id": "no"}, initial_data={"a": "i", "b": "i", "d": None}, job_id="J")
    assert outcome(handler, visit).error is None
    assert seen == ["h", "i", 3, None, "J", (), {}]


def test_an_argument_that_is_nowhere_is_refused() -> None:
    def review(x: Any) -> None: ...

    with pytest.raises(Invalid, match=r"^Handler 'review' needs 'x'$"):
        a_call(review)


def test_each_action_is_taken_down_with_its_defaults() -> None:
    tasks = [{"type": "t", "params": {"n": 1}}]
    ways = {"success": "a"}
    cases: list[tuple[Callable[[Any], Any], Any]] = [
        (lambda actions: actions.transition_to("a"), Transition("a")),
        (lambda actions: actions.dispatch_task("t", {"n": 1}, ways), Dispatch("t", {"n": 1}, ways)),
        (lambda actions: actions.dispatch_parallel(tasks, "m"), Parallel((Dispatch("t", {"n": 1}),), "m")),
        (lambda actions: actions.await_human_approval("mail", "ok?", ways), Approval("mail", "ok?", ways)),
        (lambda actions: actions.run_blueprint("c", {"n": 1}, ways), SubBlueprint("c", {"n": 1}, ways)),
    ]
    for handler, action in cases:
        assert outcome(handler).action == action


def test_the_options_of_a_task_are_kept() -> None:
    options: dict[str, Any] = {
        "dispatch_strategy": "cheapest",
        "resource_requirements": {"installed_models": ["m"]},
        "timeout_seconds": 5,
        "max_cost": 0.5,
        "priority": 2,
    }
    found = outcome(lambda actions: actions.dispatch_task("t", params={}, transitions={}, **options))
    assert found.action == Dispatch("t", **options)


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda a: a.transition_to(""), "transition_to: must be a name"),
        (lambda a: a.dispatch_task(5), "dispatch_task/type: must be a name"),
        (lambda a: a.dispatch_task("t", {"at": datetime(2026, 1, 2)}), "dispatch_task/params/at: is not JSON but"),
        (lambda a: a.dispatch_task("t", {"n": float("nan")}), "params/n: must be a finite number"),
        (lambda a: a.dispatch_task("t", dispatch_strategy="x"), "dispatch_strategy: must be one of"),
        (lambda a: a.dispatch_task("t", timeout_seconds=-1), "timeout_seconds: must be above 0"),
        (lambda a: a.dispatch_parallel([], "m"), "tasks: must be a list of tasks"),
        (lambda a: a.dispatch_parallel([{"params": {}}], "m"), "tasks/0/type: is required"),
        (lambda a: a.await_human_approval("m", "?", {}), "must have at least one decision"),
        (lambda a: a.run_blueprint("x"), "must say where 'success' leads"),
    ],
)
def test_a_wrong_action_is_refused_where_it_is_made(act: Callable[[Any], None], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        a_call(lambda actions: act(actions)).run()


def test_a_handler_makes_exactly_one_action() -> None:
    def review(actions: Any, n: int) -> None:
        for _ in range(n):
            actions.transition_to("a")

    told = [outcome(review, a_visit(initial_data={"n": n})) for n in (0, 2, 4)]
    assert [one.error for one in told] == [
        "Handler 'review' made no action instead of one",
        "Handler 'review' made two actions instead of one: transition_to and transition_to",
        "Handler 'review' made 4 actions instead of one: transition_to and transition_to and transition_to"
        " and transition_to",
    ]
    assert not any(one.again or one.action for one in told)


def test_a_handler_of_an_end_state_makes_none() -> None:
    assert outcome(lambda state_history: state_history.update(a=1), is_end=True) == Outcome(None, {"a": 1})
    refused = outcome(lambda actions: actions.transition_to("a"), is_end=True)
    assert refused == Outcome(error="Handler '<lambda>' made transition_to in the end state 'start'")


def test_changes_of_the_history_are_kept() -> None:
    def handler(context: Any, state_history: Any) -> None:
        state_history["b"] = (1, OrderedDict(x="y"))
        context.state_history |= {"c": 3}
        context.actions.transition_to("x")

    found = outcome(handler, a_visit(state_history={"a": 1}))
    assert found.state_history == {"a": 1, "b": [1, {"x": "y"}], "c": 3}


def test_a_history_that_was_replaced_is_kept() -> None:
    def handler(context: Any) -> None:
        context.state_history = {"only": 1}
        context.actions.transition_to("x")

    assert outcome(handler, a_visit(state_history={"a": 1})).state_history == {"only": 1}


class Colour(StrEnum):
    RED = "red"


def endless() -> list[Any]:
    inner: list[Any] = []
    inner += [inner, inner]
    return inner


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({1}, "state_history/a is not JSON but a set"),
        ([datetime(2026, 1, 2)], "state_history/a/0 is not JSON but a datetime"),
        ({1: 2}, "state_history/a has a key that is not a string: 1"),
        (float("inf"), "state_history/a must be a finite number"),
        (2**70, "state_history/a does not fit in 64 bits"),
        ("\ud800", "state_history/a holds a lone surrogate"),
    ],
)
def test_a_history_that_is_not_json_fails_the_job(value: object, error: str) -> None:
    def handler(actions: Any, state_history: Any) -> None:
        state_history["a"] = value
        actions.transition_to("x")

    assert outcome(handler) == Outcome(error=error)


def test_a_history_that_holds_itself_fails_the_job_soon() -> None:
    def handler(actions: Any, state_history: Any) -> None:
        state_history["a"] = endless()
        actions.transition_to("x")

    error = outcome(handler).error
    assert error is not None
    assert error.startswith("state_history/a")


def test_a_history_that_is_no_object_fails_the_job() -> None:
    def handler(context: Any) -> None:
        context.state_history = None
        context.actions.transition_to("x")

    assert outcome(handler).error == "state_history must be an object, not NoneType"


def test_texts_of_other_kinds_become_text() -> None:
    def handler(actions: Any, state_history: Any) -> None:
        state_history[Colour.RED] = Colour.RED
        actions.transition_to(Colour.RED)

    found = outcome(handler)
    assert found == Outcome(Transition("red"), {"red": "red"})
    assert type(found.state_history["red"]) is str


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ValueError("x"), True),
        (JournalUnavailable("x"), True),
        (SystemExit(1), True),
        (Invalid("x"), False),
        (PermanentFailure("x"), False),
    ],
)
def test_what_a_handler_asked_for_on_purpose_is_not_tried_again(error: BaseException, again: bool) -> None:
    assert a_call(lambda: None).failure(error, "told") == Outcome(error="told", again=again)


def test_async_handlers_are_known() -> None:
    async def handler() -> None: ...

    class Callable_:
        async def __call__(self) -> None: ...

    assert a_call(handler).is_async
    assert a_call(Callable_()).is_async
    assert not a_call(lambda: None).is_async
