"""Whose tasks make the next batch: one DAG alone costs nothing, several share by weight, with needs or without."""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import timedelta

import pytest

from actors.crew import Seat
from actors.hosted import HostedRun
from actors.readiness import ReadyRuns
from orchestrator import events as e
from orchestrator import run as runs
from orchestrator import run_commands
from orchestrator.messages import Need
from orchestrator.shares import Shares
from tests.builders import AT, a_dag, a_task, created, versions


class OneSeat:
    """The part of a crew that is asked: one seat that is always free, and tasks of 15 ms, or of 1 ms."""

    quick = False

    def __init__(self, need: Need | None = None) -> None:
        self.seat = Seat("w", "i", 1, need=need)
        self.seats = {"w": self.seat}

    def with_room(self) -> list[Seat]:
        return [self.seat]

    bound_with_room = with_room

    def takes_s(self, _kind: str) -> float:
        return 0.001 if self.quick else 0.015

    def seen(self) -> None:
        """Nobody asks."""


def hosted(tenant: str, dag_id: str = "d", tasks: int = 60, **changes: object) -> HostedRun:
    """A run that has begun."""
    definition = a_dag(*(a_task(f"t{n}", type="core.sleep") for n in range(tasks)), dag_id=dag_id, **changes)
    history = [created(f"run_{tenant}_{dag_id}", tenant=tenant, dag_id=dag_id), e.RunStarted(AT, 1)]
    return HostedRun(runs.fold(history, versions(definition)))


def begin(run: HostedRun, wanted: run_commands.Begin) -> None:
    run.step(wanted, AT + timedelta(seconds=1))


class Stage:
    """Runs of a RunActor, and what was composed."""

    def __init__(self, *waiting: HostedRun, need: Need | None = None, competing: bool = False) -> None:
        self.shares, self.crew = Shares(), OneSeat(need)
        self.ready = ReadyRuns(self.shares, lambda: 0.0, lambda: competing)
        for run in waiting:
            self.ready.look(run)

    def turns(self, number: int) -> Counter[str]:
        """tenant/DAG -> tasks in the next batches, of one seat, one after another."""
        out: Counter[str] = Counter()
        for _ in range(number):
            made = self.ready.compose(self.crew, begin)  # type: ignore[arg-type]  # the part of it that is asked
            if self.crew.seat.need is not None:
                made += self.ready.compose_bound(self.crew, begin, lambda *_: None)  # type: ignore[arg-type]  # what was begun is not looked at
            for sending in made:
                for run_id, positions in sending.positions.items():
                    out[run_id] += len(positions)
        return out


def test_a_dag_that_is_alone_is_charged_nothing_and_has_no_rivals() -> None:
    stage = Stage(hosted("a"))
    assert stage.turns(9) == {"run_a_d": 9}
    assert not stage.shares.contended
    assert ("a", "manual", "d") not in stage.shares
    assert stage.shares.leads() == {}


def test_a_dag_that_is_alone_here_is_charged_while_others_compete_elsewhere() -> None:
    stage = Stage(hosted("a"), competing=True)
    stage.turns(1)
    assert stage.shares.lead(("a",), ("b",)) == 0.0, "who has been alone is not ahead of who comes"
    late = hosted("b")
    stage.ready.look(late)
    stage.turns(1)
    assert stage.shares.contended


def test_dags_of_a_tenant_share_by_weight() -> None:
    assert Stage(hosted("a", "x"), hosted("a", "y", weight=3)).turns(40) == {"run_a_x": 10, "run_a_y": 30}


def test_tenants_share_what_tasks_with_one_need_get() -> None:
    need = Need("gpu")
    tasks = tuple(a_task(f"t{n}", type="core.sleep", pool="gpu") for n in range(60))

    def run(tenant: str) -> HostedRun:
        history = [created(f"run_{tenant}_d", tenant=tenant), e.RunStarted(AT, 1)]
        return HostedRun(runs.fold(history, versions(a_dag(*tasks))))

    stage = Stage(run("a"), run("b"), need=need)
    assert stage.turns(20) == {"run_a_d": 10, "run_b_d": 10}
    tree = stage.ready.bound.shares(need)
    assert tree is not None
    tree.charge(("a", "manual", "d"), 0.15)
    assert stage.turns(10) == {"run_b_d": 10}, "what was served elsewhere counts"
    assert stage.ready.demand() == {}, "none of them is plain"


def test_the_second_dag_that_comes_finds_the_first_in_line() -> None:
    first = hosted("a")
    stage = Stage(first)
    stage.turns(5)
    stage.ready.look(hosted("b"))
    assert stage.turns(20) == {"run_a_d": 10, "run_b_d": 10}
    stage.ready.drop("run_b_d")
    stage.ready.drop("run_a_d")
    assert not stage.ready
    stage.ready.look(hosted("c"))
    assert stage.turns(3) == {"run_c_d": 3}


def test_a_task_that_was_offered_twice_is_in_one_batch_once() -> None:
    run = hosted("a", tasks=3)
    run.run.ready.append(run.run.ready[0])
    heapq.heapify(run.run.ready)
    stage = Stage(run)
    stage.crew.quick = True
    [sending] = stage.ready.compose(stage.crew, begin)  # type: ignore[arg-type]  # the part of it that is asked
    assert sending.positions == {"run_a_d": [0, 1, 2]}
    assert sending.size == 3
    assert sending.expected_s == pytest.approx(3 * 0.001)
    assert [task.attempt for task in run.run.tasks] == [1, 1, 1]
    assert not stage.ready


def test_a_task_that_was_offered_twice_alone_makes_one_batch() -> None:
    run = hosted("a", tasks=1)
    run.run.ready.append(run.run.ready[0])
    assert Stage(run).turns(5) == {"run_a_d": 1}


# ── seats that are kept from backfills ──


class TwoSeats(OneSeat):
    """One that is kept, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Seat("k", "i", 2, kept=True)
        self.seats["k"] = self.kept

    def with_room(self) -> list[Seat]:
        return [self.kept, self.seat]


def a_window(tenant: str, dag_id: str = "d", **changes: object) -> HostedRun:
    """A run of a backfill that has begun."""
    definition = a_dag(*(a_task(f"t{n}", type="core.sleep") for n in range(60)), dag_id=dag_id, **changes)
    history = [
        created(f"run_{tenant}_{dag_id}", tenant=tenant, dag_id=dag_id, parent="run_b"),
        e.RunStarted(AT, 1),
    ]
    return HostedRun(runs.fold(history, versions(definition)))


def batches(stage: Stage) -> dict[str, set[str]]:
    """Worker -> runs of its next batch."""
    made = stage.ready.compose(stage.crew, begin)  # type: ignore[arg-type]  # the part of it that is asked
    return {sending.seat.worker: set(sending.runs) for sending in made}


def test_a_kept_seat_gets_no_task_of_a_backfill_and_does_not_keep_others_from_theirs() -> None:
    stage = Stage(a_window("a"))
    stage.crew = TwoSeats()
    assert stage.ready.only_backfills
    assert batches(stage) == {"w": {"run_a_d"}}
    stage.ready.look(a_window("b"))
    assert batches(stage).keys() == {"w"}, "nor one of several"


def test_a_kept_seat_does_the_others_by_turns_that_its_open_neighbour_does_not_count() -> None:
    stage = Stage(a_window("a"), hosted("b"), hosted("c"), competing=True)
    stage.crew = TwoSeats()
    turns = [batches(stage) for _ in range(8)]
    assert not stage.ready.only_backfills
    kept = [next(iter(turn["k"])) for turn in turns]
    assert sorted(kept) == ["run_b_d"] * 4 + ["run_c_d"] * 4
    assert {run for turn in turns for run in turn["w"]} == {"run_a_d", "run_b_d", "run_c_d"}


def test_a_kept_seat_with_a_need_gets_no_task_of_a_backfill_either() -> None:
    need = Need("default", (("d/a/d", 1),))
    window, other = a_window("a", max_active_tasks=1), hosted("a", max_active_tasks=1)
    window.run.run_id = "run_window"
    for waiting, turns in (((window,), {}), ((window, other), {"run_a_d": 2})):
        stage = Stage(*waiting, need=need)
        stage.crew.seat.kept = True
        assert stage.turns(2) == turns
