"""Groups of tasks: ids, edges to and from the whole, and what a group stands for as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from orchestrator import Definition, Invalid, dag, group, task
from orchestrator.branches import not_chosen
from orchestrator.definition import content_hash
from orchestrator.messages import Value
from orchestrator.spec import from_yaml, parse_dag, to_json
from tests.builders import Story


@task
def load(n: int = 1) -> int:
    return n


@task
def parse(text: int) -> int:
    return text


@task
def check(text: Any) -> int:
    return 3


@task
def tell(*parts: int) -> None: ...


@task
def wipe() -> None: ...


@task.branch
def choose() -> str:
    return "parse"


@group
def clean(text: Any) -> Any:
    """Two tasks in a row, and one beside them."""
    wipe()
    return check(parse(text))


@group
def silent() -> None:
    wipe()


@group
def several() -> Any:
    return load(1), load(2)


@group
def nothing() -> None: ...


def described(function: Callable[[], Any]) -> Definition:
    return dag(dag_id="d")(function).definition()


def needs(definition: Definition) -> dict[str, set[str]]:
    return {each.id: set(each.depends_on) for each in definition.tasks}


def test_ids_begin_with_the_name_of_the_group_and_tasks_tell_it() -> None:
    made = described(lambda: tell(clean(load())))
    assert needs(made) == {
        "load": set(),
        "clean.wipe": set(),
        "clean.parse": {"load"},
        "clean.check": {"clean.parse"},
        "tell": {"clean.check"},
    }
    assert [each.group for each in made.tasks] == ["", "clean", "clean", "clean", ""]


def test_a_group_as_an_argument_is_what_its_function_returned() -> None:
    made = {each.id: each for each in described(lambda: check({"deep": [clean(1)]})).tasks}
    assert made["check"].inputs == {"text/deep/0": "clean.check"}


def test_before_and_after_a_group_is_before_its_first_and_after_its_last_tasks() -> None:
    def around() -> None:
        load() >> clean(5) >> tell()

    assert needs(described(around)) == {
        "load": set(),
        "clean.wipe": {"load"},
        "clean.parse": {"load"},
        "clean.check": {"clean.parse"},
        "tell": {"clean.wipe", "clean.check"},
    }


def test_groups_order_groups_and_lists() -> None:
    def chained() -> None:
        [load(), silent()] >> silent() >> [several(), tell()]

    made = needs(described(chained))
    assert made["silent_2.wipe"] == {"load", "silent.wipe"}
    assert made["several.load"] == made["several.load_2"] == made["tell"] == {"silent_2.wipe"}


def test_groups_nest_and_a_second_call_is_another_group() -> None:
    @group
    def outer() -> Any:
        load()
        return clean(1), clean(2)

    def twice() -> None:
        outer()
        first, _ = outer()
        tell(first)

    made = described(twice)
    assert {each.group for each in made.tasks} == {
        "",
        "outer",
        "outer.clean",
        "outer.clean_2",
        "outer_2",
        "outer_2.clean",
        "outer_2.clean_2",
    }
    assert needs(made)["tell"] == {"outer_2.clean.check"}


def test_several_outputs_come_apart() -> None:
    def parted() -> None:
        one, two = several()
        tell(two, several()[0], one)

    assert needs(described(parted))["tell"] == {"several.load", "several.load_2", "several_2.load"}


def test_what_cleans_up_is_neither_first_nor_last() -> None:
    @group
    def resource() -> None:
        made = load()
        wipe().teardown_of(made)
        parse(2).compensates(made)

    def around() -> None:
        tell() >> resource() >> check(1)

    made = needs(described(around))
    assert made["resource.load"] == {"tell"}
    assert made["check"] == {"resource.load"}
    assert "tell" not in made["resource.wipe"]


def test_a_group_without_tasks_has_no_place_in_the_order() -> None:
    with pytest.raises(Invalid, match="group 'nothing' has no tasks"):
        described(lambda: load() >> nothing())


def test_a_group_that_returns_nothing_is_no_argument() -> None:
    with pytest.raises(Invalid, match="group 'silent' returns nothing to pass on"):
        described(lambda: tell(silent()))
    with pytest.raises(TypeError, match="does not return several outputs"):
        described(lambda: tell(*silent()))


def test_a_group_is_mapped_over_as_what_it_returned() -> None:
    made = {each.id: each for each in described(lambda: check.expand(text=clean(1))).tasks}
    assert made["check"].expand == {"text": "clean.check"}


def test_outside_a_dag_a_group_is_a_function() -> None:
    assert several() == (1, 2)
    assert clean(9) == 3


def test_a_group_has_the_name_that_it_was_given() -> None:
    @group(name="tidy")
    def anything() -> None:
        load()

    assert needs(described(lambda: anything())) == {"tidy.load": set()}


def test_an_id_that_gets_too_long_is_refused() -> None:
    @group(name="g" * 60)
    def long() -> None:
        load()

    with pytest.raises(Invalid, match="tasks/0/id"):
        described(lambda: long())


def test_a_branch_in_a_group_names_tasks_as_the_group_does() -> None:
    @group
    def ways() -> None:
        choose() >> [parse(1), check(2)]

    run = Story(*described(lambda: ways()).tasks).run
    names = run.compiled.graph.names
    for chosen in (b'"parse"', b'"ways.parse"', b'["parse"]'):
        others = not_chosen(run, run.position("ways.choose"), Value(msgspec.Raw(chosen)))
        assert [names[i] for i in others] == ["ways.check"]


def test_an_approval_in_a_group_leads_to_tasks_of_the_group() -> None:
    @group
    def ways() -> None:
        task.approval("ask", "go?", branches={"approve": ["parse"], "reject": ["ways.check"]}) >> [parse(1), check(2)]

    assert described(lambda: ways()).tasks[0].params["branches"] == {
        "approve": ["parse"],
        "reject": ["ways.check"],
    }


def test_the_group_is_kept_in_json_and_yaml() -> None:
    made = described(lambda: several())
    assert parse_dag(to_json(made))[0] == made
    assert '"group": "several"' in msgspec.json.format(msgspec.json.encode(to_json(made))).decode()
    with pytest.raises(Invalid, match="tasks/0/group"):
        from_yaml("{dag_id: d, owner: o, tasks: [{id: a, group: 'no spaces'}]}")


def test_tasks_outside_groups_are_hashed_as_before() -> None:
    body = {"dag_id": "d", "owner": "o", "tasks": [{"id": "a"}]}
    assert content_hash(parse_dag(body)[0]) == content_hash(parse_dag(body | {"tasks": [{"id": "a", "group": ""}]})[0])
    assert "group" not in to_json(parse_dag(body)[0])["tasks"][0]
