"""Graphs: compiled by position, refused by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.definition import TaskSpec
from orchestrator.errors import Invalid
from orchestrator.graph import check, compile_graph, generations, needs


def tasks(**depends_on: str) -> list[TaskSpec]:
    """`tasks(a="", b="a")`: b depends on a."""
    return [TaskSpec(name, depends_on=tuple(above.split())) for name, above in depends_on.items()]


def refused(specs: list[TaskSpec]) -> Invalid:
    with pytest.raises(Invalid) as caught:
        check(specs)
    return caught.value


def test_a_compiled_graph_knows_parents_children_and_roots_by_position() -> None:
    graph = compile_graph(tasks(a="", b="a", c="a", d="b c", e=""))
    assert graph.names == ("a", "b", "c", "d", "e")
    assert graph.index == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert graph.parents == ((), (0,), (0,), (1, 2), ())
    assert graph.children == ((1, 2), (3,), (3,), (), ())
    assert graph.roots == (0, 4)


def test_no_tasks_make_an_empty_graph() -> None:
    check([])
    assert compile_graph([]).names == ()
    assert generations([]) == ()


def test_a_dependency_counts_once_however_often_it_is_named() -> None:
    twice = TaskSpec("b", depends_on=("a", "a"), inputs={"x": "a", "y": "c"})
    assert needs(twice) == ("a", "c")
    graph = compile_graph([TaskSpec("a"), twice, TaskSpec("c")])
    assert graph.parents == ((), (0, 2), ())
    assert graph.children == ((1,), (), (1,))


def test_tasks_may_be_listed_before_what_they_depend_on() -> None:
    late_first = tasks(b="a", a="")
    check(late_first)
    assert generations(late_first) == (("a",), ("b",))


def test_generations_keep_the_authors_order() -> None:
    assert generations(tasks(z="", y="", x="y z", w="z", v="x")) == (("z", "y"), ("x", "w"), ("v",))


def test_an_unknown_dependency_is_named_by_its_field() -> None:
    error = refused(tasks(a="", b="x"))
    assert error.details == (("tasks/1/depends_on/0", "unknown task 'x'"),)
    assert str(error) == "tasks/1/depends_on/0: unknown task 'x'"


def test_an_unknown_producer_of_an_input_is_named_by_its_field() -> None:
    error = refused([TaskSpec("a", inputs={"rows/0": "x"})])
    assert error.details == (("tasks/0/inputs/rows/0", "unknown task 'x'"),)


def test_duplicate_ids_are_named_at_the_later_one() -> None:
    error = refused([TaskSpec("a"), TaskSpec("b"), TaskSpec("a")])
    assert error.details == (("tasks/2/id", "duplicate task 'a'"),)


def test_a_refusal_lists_twenty_faults_and_counts_the_rest() -> None:
    error = refused([TaskSpec(f"t{i}", depends_on=("x",)) for i in range(50)])
    assert len(error.details) == 20
    assert str(error) == "tasks/0/depends_on/0: unknown task 'x' (and 49 more)"


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (tasks(extract="load", load="extract"), "dependency cycle: extract -> load -> extract"),
        (tasks(a="a"), "dependency cycle: a -> a"),
        (tasks(a="", b="a d", c="b", d="c", e="d"), "dependency cycle: b -> c -> d -> b"),
        # through its first task the shorter way round
        (tasks(a="b d", b="a", c="b", d="c"), "dependency cycle: a -> b -> a"),
        # two cycles: the one that holds the earlier task
        (tasks(y="z", z="y", a="b", b="a"), "dependency cycle: y -> z -> y"),
        ([TaskSpec("a", inputs={"x": "b"}), TaskSpec("b", depends_on=("a",))], "dependency cycle: a -> b -> a"),
    ],
)
def test_a_cycle_is_named_by_its_path(specs: list[TaskSpec], message: str) -> None:
    error = refused(specs)
    assert str(error) == message
    assert error.details == (("tasks", "cycle"),)


def test_a_long_cycle_is_named_by_its_ends() -> None:
    ring = [TaskSpec(f"t{i}", depends_on=(f"t{(i - 1) % 30_000}",)) for i in range(30_000)]
    message = str(refused(ring))
    assert message.startswith("dependency cycle: t0 -> t1 -> ")
    assert message.endswith("-> t29999 -> t0")
    assert "(29981 more)" in message
    assert len(message) < 300


def test_a_cycle_behind_a_long_chain_listed_backwards_is_found() -> None:
    """A depth-first search from every task in turn takes minutes here."""
    chain = [TaskSpec(f"t{i}", depends_on=(f"t{i - 1}",) if i else ()) for i in range(30_000)]
    assert str(refused([*reversed(chain), *tasks(x="y", y="x")])) == "dependency cycle: x -> y -> x"


def test_running_and_checking_a_good_graph_needs_no_networkx() -> None:
    code = (
        "import sys; from orchestrator.graph import check, compile_graph, generations\n"
        "from orchestrator.definition import TaskSpec\n"
        "ts = [TaskSpec('a'), TaskSpec('b', depends_on=('a',))]\n"
        "check(ts); compile_graph(ts); generations(ts)\n"
        "assert not {'networkx', 'pydantic'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
