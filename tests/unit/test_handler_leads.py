"""Where handlers are seen to lead."""

from __future__ import annotations

import functools
from enum import StrEnum
from typing import Any

import pytest

from orchestrator.blueprint import Lead
from orchestrator.handler_leads import Leads, leads_in, text_of

DONE = "done"


class Names(StrEnum):
    """States, as some like to write them."""

    REVIEW = "review"


class Plain:
    """As others do."""

    MERGE = "merge"
    NUMBER = 5


_WAYS = {"success": "a"}


def literal(actions: Any) -> None:
    actions.transition_to("a")


def named(context: Any) -> None:
    context.actions.transition_to(state="a")


async def branching(actions: Any, n: int) -> None:
    if n:
        actions.transition_to("a" if n > 1 else "b")
    else:
        actions.transition_to(DONE)


def dispatching(actions: Any, initial_data: Any) -> None:
    actions.dispatch_task("t", initial_data, {"success": "a", "odd": DONE})


def dispatching_by_name(actions: Any) -> None:
    actions.dispatch_task(transitions={"success": "a"}, task_type="t", params={"transitions": {"x": "no"}})


def of_classes(actions: Any) -> None:
    actions.run_blueprint("x", transitions={"success": Names.REVIEW, "failure": Plain.MERGE})


def of_no_text(actions: Any) -> None:
    actions.transition_to(Plain.NUMBER)


def parallel(actions: Any) -> None:
    actions.dispatch_parallel([{"type": "t", "params": {}}], aggregate_into="merge")


def approval(actions: Any) -> None:
    actions.await_human_approval("mail", "ok?", {"yes": "a", "no": "b"})


def child(actions: Any) -> None:
    actions.run_blueprint("x", {}, {"success": "a"})


def idle(state_history: Any) -> None:
    state_history["a"] = 1


def computed(actions: Any, initial_data: Any) -> None:
    actions.transition_to(initial_data["next"])


def half_computed(actions: Any, initial_data: Any) -> None:
    if initial_data:
        actions.transition_to("a")
    else:
        actions.transition_to(f"state_{initial_data}")


def local(actions: Any) -> None:
    DONE = "other"
    actions.transition_to(DONE)


def other_ways(actions: Any) -> None:
    actions.dispatch_task("t", {}, _WAYS)


def more_ways(actions: Any) -> None:
    actions.dispatch_task("t", {}, {"odd": "b", **_WAYS})


def spread(actions: Any, args: Any) -> None:
    actions.dispatch_task(*args)


def handing_on(actions: Any) -> None:
    literal(actions)


def handing_context_on(context: Any) -> None:
    named(context)


def handing_actions_of_context_on(context: Any) -> None:
    literal(context.actions)


@pytest.mark.parametrize(
    ("handler", "leads"),
    [
        (literal, [("a", "")]),
        (named, [("a", "")]),
        (branching, [("a", ""), ("b", ""), ("done", "")]),
        (dispatching, [("a", "success"), ("done", "odd")]),
        (dispatching_by_name, [("a", "success")]),
        (of_classes, [("review", "success"), ("merge", "failure")]),
        (parallel, [("merge", "all results")]),
        (approval, [("a", "yes"), ("b", "no")]),
        (child, [("failed", "failure"), ("a", "success")]),
        (idle, []),
    ],
)
def test_what_is_written_down_is_known(handler: Any, leads: list[tuple[str, str]]) -> None:
    found = leads_in(handler)
    assert (sorted(found.known, key=repr), found.dynamic) == (sorted((Lead(*one) for one in leads), key=repr), False)


@pytest.mark.parametrize(
    ("handler", "known"),
    [
        (computed, ()),
        (half_computed, (Lead("a"),)),
        (local, ()),
        (of_no_text, ()),
        (other_ways, ()),
        (more_ways, (Lead("b", "odd"),)),
        (spread, ()),
        (handing_on, ()),
        (handing_context_on, ()),
        (handing_actions_of_context_on, ()),
    ],
)
def test_anything_else_makes_a_handler_dynamic(handler: Any, known: tuple[Lead, ...]) -> None:
    assert leads_in(handler) == Leads(known, dynamic=True)


def test_a_name_around_the_handler_is_known() -> None:
    target = "inner"

    def handler(actions: Any) -> None:
        actions.transition_to(target)

    assert leads_in(handler) == Leads((Lead("inner"),))


def test_a_wrapped_handler_is_looked_into() -> None:
    @functools.wraps(literal)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        literal(*args, **kwargs)

    assert leads_in(wrapper) == Leads((Lead("a"),))


def without_source(value: int) -> Any:
    names: dict[str, Any] = {}
    exec(f"def handler(actions): actions.transition_to('a', {value})", names)
    return names["handler"]


def test_a_handler_without_source_is_dynamic_and_known_by_its_code() -> None:
    assert leads_in(without_source(1)) == Leads(dynamic=True)
    assert text_of(without_source(1)) == text_of(without_source(1))
    assert text_of(literal) != text_of(named)


def test_an_object_that_can_be_called_is_dynamic() -> None:
    assert leads_in(functools.partial(literal)).dynamic
