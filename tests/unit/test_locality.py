"""orchestrator.locality and what a RunActor makes of it: tasks rather run where their large values are."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.crew import Seat
from actors.hosted import HostedRun
from actors.readiness import ReadyRuns
from orchestrator import events as e
from orchestrator import locality
from orchestrator import run as runs
from orchestrator.definition import TaskSpec
from orchestrator.messages import Need, Value
from orchestrator.shares import Shares
from tests.builders import AT, a_dag, a_task, created, versions

MB = 1024 * 1024


class Nodes:
    """The part of a crew that is asked: seats on nodes, each with room, and tasks of so many seconds."""

    def __init__(self, *nodes: str, seconds: float | None = None) -> None:
        self.free = [Seat(f"w{n}", "i", n, node=node) for n, node in enumerate(nodes)]
        self.seats = {seat.worker: seat for seat in self.free}
        self._seconds = seconds

    def with_room(self) -> list[Seat]:
        return list(self.free)

    def takes_s(self, _kind: str) -> float | None:
        return self._seconds


def a_run(*tasks: TaskSpec, dag_id: str = "d") -> HostedRun:
    history = [created(f"run_{dag_id}", dag_id=dag_id), e.RunStarted(AT, 1)]
    return HostedRun(runs.fold(history, versions(a_dag(*tasks, dag_id=dag_id))))


def makes(hosted: HostedRun, name: str, node: str, size_bytes: int = 8 * MB) -> None:
    """A task ran and returned something large on that node."""
    run = hosted.run
    attempt = run.tasks[run.position(name)].attempt + 1
    runs.apply(run, e.TaskStarted(AT, name, attempt, "w", "i"))
    value = Value(artifact=f"{run.run_id}/{name}.{attempt}", size_bytes=size_bytes, node=node)
    runs.apply(run, e.TaskSucceeded(AT, name, attempt, value))


def composed(crew: Nodes, *waiting: HostedRun) -> dict[str, list[str]]:
    """worker -> tasks that it gets in one turn."""
    ready = ReadyRuns(Shares(), lambda: 0.0, lambda: False)
    for hosted in waiting:
        ready.look(hosted)
    out: dict[str, list[str]] = {}
    begin = lambda run, wanted: run.step(wanted, AT + timedelta(seconds=1))  # noqa: E731
    for sending in ready.compose(crew, begin):  # type: ignore[arg-type]  # the part of it that is asked
        for run_id, positions in sending.positions.items():
            names = sending.runs[run_id].run.compiled.graph.names
            out.setdefault(sending.seat.worker, []).extend(names[i] for i in positions)
    return out


def takes(name: str, *producers: str, **changes: object) -> TaskSpec:
    return a_task(name, *producers, type="core.sleep", inputs={p: p for p in producers}, **changes)


def split() -> HostedRun:
    """What `left` made is on A, what `right` made on B; six tasks take it, in turns."""
    consumers = [takes(f"{of[0]}{n}", of) for n in range(3) for of in ("left", "right")]
    hosted = a_run(a_task("left"), a_task("right"), *consumers)
    makes(hosted, "left", "A")
    makes(hosted, "right", "B")
    return hosted


def test_a_task_is_at_home_where_most_bytes_of_its_large_inputs_are() -> None:
    hosted = a_run(*(a_task(p) for p in "xyz"), takes("c", "x", "y", "z"))
    for name, node, size in (("x", "A", 3 * MB), ("y", "B", 2 * MB), ("z", "B", 2 * MB)):
        makes(hosted, name, node, size)
    assert locality.home_of(hosted.run, 3) == "B"


@pytest.mark.parametrize(("node", "size_bytes"), [("", 8 * MB), ("A", MB - 1)])
def test_who_has_no_large_values_keeps_nothing_about_places(node: str, size_bytes: int) -> None:
    hosted = a_run(a_task("x"), takes("c", "x"))
    makes(hosted, "x", node, size_bytes)
    assert hosted.run.homes is None


def test_a_seat_takes_a_task_that_has_its_value_on_its_node() -> None:
    assert composed(Nodes("B"), split()) == {"w0": ["r0"]}
    assert composed(Nodes("A"), split()) == {"w0": ["l0"]}


def test_a_task_goes_to_the_seat_on_its_node_when_several_are_free() -> None:
    hosted = a_run(a_task("x"), takes("c", "x"))
    makes(hosted, "x", "B")
    assert composed(Nodes("A", "A", "B"), hosted) == {"w2": ["c"]}


def test_every_seat_gets_a_task_and_the_fitting_one_if_there_is_one() -> None:
    given = composed(Nodes("A", "B", "A", "B", "C"), split())
    assert {worker: names[0][0] for worker, names in given.items() if worker != "w4"} == {
        **{"w0": "l", "w1": "r", "w2": "l", "w3": "r"}
    }
    assert len(given["w4"]) == 1, "a node that has none of it is not left idle"


def test_a_task_does_not_wait_for_a_seat_on_its_node() -> None:
    assert composed(Nodes("C"), split()) == {"w0": ["l0"]}
    assert composed(Nodes(""), split()) == {"w0": ["l0"]}, "nor for a seat of which nobody knows where it is"


def test_priority_comes_before_place() -> None:
    hosted = a_run(a_task("left"), a_task("right"), takes("far", "left", priority=1), takes("near", "right"))
    makes(hosted, "left", "A")
    makes(hosted, "right", "B")
    assert composed(Nodes("B"), hosted) == {"w0": ["far"]}


def test_short_tasks_of_one_batch_are_those_of_its_node() -> None:
    assert composed(Nodes("A", "B", seconds=0.001), split()) == {"w0": ["l0", "l1", "l2"], "w1": ["r0", "r1", "r2"]}


def test_a_run_without_large_values_beside_one_with_them_is_served_as_ever() -> None:
    plain = a_run(*(a_task(f"t{n}", type="core.sleep") for n in range(2)), dag_id="e")
    given = composed(Nodes("A", "B", "A", "B"), split(), plain)
    assert sum(name.startswith("t") for names in given.values() for name in names) == 2


def test_places_are_known_again_when_a_run_is_read_again() -> None:
    hosted = split()
    history = [created("run_d", dag_id="d"), e.RunStarted(AT, 1)]
    for name, node in (("left", "A"), ("right", "B")):
        value = Value(artifact=f"run_d/{name}.1", size_bytes=8 * MB, node=node)
        history += [e.TaskStarted(AT, name, 1, "w", "i"), e.TaskSucceeded(AT, name, 1, value)]
    again = HostedRun(runs.fold(history, hosted.run.compiled_by_version))
    assert composed(Nodes("B"), again) == {"w0": ["r0"]}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("AB-"), min_size=1, max_size=8), st.integers(1, 20), st.randoms(use_true_random=False))
def test_whatever_seats_there_are_each_task_starts_once_and_no_seat_is_left_idle(
    nodes: list[str], consumers: int, random: Random
) -> None:
    tasks = [
        takes(f"c{n}", random.choice(("left", "right", "small")), priority=random.randint(0, 1)) for n in range(20)
    ]
    hosted = a_run(a_task("left"), a_task("right"), a_task("small"), *tasks[:consumers])
    for name, node, size in (("left", "A", 8 * MB), ("right", "B", 8 * MB), ("small", "B", 10)):
        makes(hosted, name, node, size)
    crew, started = Nodes(*(n.strip("-") for n in nodes)), Counter[str]()
    for _ in range(consumers):
        before = consumers - started.total()
        given = composed(crew, hosted)
        assert len(given) == min(len(nodes), before), "as many seats work as there are tasks"
        started.update(name for names in given.values() for name in names)
    assert started == Counter({task.id: 1 for task in tasks[:consumers]})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("AB-"), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_runs_with_large_values_never_hold_up_others_while_their_tasks_run(nodes: list[str], random: Random) -> None:
    def placed(dag_id: str) -> HostedRun:
        takers = [takes(f"c{n}", random.choice(("left", "right", "small"))) for n in range(random.randint(1, 6))]
        hosted = a_run(a_task("left"), a_task("right"), a_task("small"), *takers, dag_id=dag_id)
        for name, node, size in (("left", "A", 8 * MB), ("right", "B", 8 * MB), ("small", "B", 10)):
            makes(hosted, name, node, size)
        return hosted

    plain = a_run(*(a_task(f"t{n}", type="core.sleep") for n in range(4)), dag_id="plain")
    waiting = [placed("x"), placed("y"), plain]
    random.shuffle(waiting)
    ready, crew = ReadyRuns(Shares(), lambda: 0.0, lambda: False), Nodes(*(n.strip("-") for n in nodes))
    for hosted in waiting:
        ready.look(hosted)
    left = sum(task.state == "pending" for hosted in waiting for task in hosted.run.tasks)
    while left:
        begin = lambda run, wanted: run.step(wanted, AT + timedelta(seconds=1))  # noqa: E731
        sent = ready.compose(crew, begin)  # type: ignore[arg-type]  # the part of it that is asked
        assert len(sent) == min(len(nodes), left), "nobody is idle while there is something to do"
        left -= sum(sending.size for sending in sent)
    assert not ready
    assert ready.demand() == {}


# ---------------------------------------------------------------- tasks with needs

GPU = Need("gpu")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("AB-"), st.integers(0, 1)), min_size=1, max_size=12),
    st.integers(0, 1000),
)
def test_of_tasks_with_a_need_the_highest_priority_goes_first_and_of_these_one_of_that_node(
    tasks: list[tuple[str, int]], seed: int
) -> None:
    random = Random(seed)
    makers = {"A": "left", "B": "right", "-": "small"}
    takers = [takes(f"c{n}", makers[home], pool="gpu", priority=p) for n, (home, p) in enumerate(tasks)]
    hosted = a_run(a_task("left"), a_task("right"), a_task("small"), *takers)
    for name, node, size in (("left", "A", 8 * MB), ("right", "B", 8 * MB), ("small", "B", 10)):
        makes(hosted, name, node, size)
    aside = hosted.run.aside
    assert aside is not None
    waiting = {hosted.run.position(f"c{n}"): task for n, task in enumerate(tasks)}
    while waiting:
        homes = Counter(home for home, _ in waiting.values() if home != "-")
        assert (aside.count(GPU), aside.at_home(GPU)) == (len(waiting), homes)
        node = random.choice(("A", "B", ""))
        if random.random() < 0.5:  # it is offered again, as when its attempt was lost
            aside.offer(position := random.choice(sorted(waiting)))
            aside.settle(hosted.run, position)
        top = max(priority for _, priority in waiting.values())
        first = [position for position, (_, priority) in sorted(waiting.items()) if priority == top]
        own = [position for position in first if waiting[position][0] == node]
        assert aside.peek(GPU, node) == aside.pop(GPU, node) == (own or first)[0]
        gone = waiting.pop((own or first)[0])
        if random.random() < 0.2:
            aside.offer((own or first)[0])
            aside.settle(hosted.run, (own or first)[0])
            waiting[(own or first)[0]] = gone
    assert (aside.count(GPU), aside.at_home(GPU), aside.waited_for()) == (0, {}, [])


def test_a_run_without_large_values_keeps_no_places_for_tasks_with_needs() -> None:
    hosted = a_run(a_task("x"), takes("c", "x", pool="gpu"))
    makes(hosted, "x", "A", MB - 1)
    assert hosted.run.aside is not None
    assert hosted.run.aside.places is None
