"""actors.scheduler_view: what the scheduler tells of itself is what is so now."""

from __future__ import annotations

from typing import Any

from actors.clock import Clock
from actors.guard import Guard
from actors.scheduler_view import SchedulerView
from orchestrator.cluster_views import RunWaiting
from orchestrator.dispatch import Admission, Queued
from orchestrator.slots import Slots
from tests.supervisor_stage import NoPeers

LEAF = ("acme", "manual", "d")


class SetClock(Clock):
    """Says what it was told."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class Scene:
    """A DAG with a place for one run."""

    def __init__(self) -> None:
        self.clock, self.admissions, self.slots = SetClock(), Admission(), Slots()
        peers: Any = NoPeers()
        self.guard = Guard(peers, self.clock, self.slots, lambda _: None, lambda: None, lambda: (), lambda: ())
        self.view = SchedulerView(self.clock, self.admissions, self.slots, self.guard)
        self.admissions.configure("acme/d", 1, paused=False)
        for order, run_id in enumerate(("r1", "r2", "r3")):
            self.admissions.enqueue(Queued(run_id, "acme/d", None, order=order, queued_s=90.0 + order))
        self.admissions.admit()


def test_a_queued_run_waits_for_a_place_behind_those_of_its_lane() -> None:
    assert Scene().view.waiting("r3") == RunWaiting("r3", "place", "manual", 1, 1, 1, False)


def test_an_active_run_waits_for_a_slot_while_tasks_of_its_dag_do() -> None:
    scene = Scene()
    assert scene.view.waiting("r1").waiting_for is None
    scene.slots.demand("A", {LEAF: 2})
    waiting = scene.view.waiting("r1")
    assert (waiting.waiting_for, waiting.run_class, waiting.share) == ("slot", "manual", 1.0)


def test_nothing_is_known_of_a_run_that_has_ended() -> None:
    scene = Scene()
    scene.admissions.finish("r1")
    assert scene.view.waiting("r1") == RunWaiting("r1")


def test_the_load_counts_runs_tasks_and_workers_and_how_long_the_oldest_has_waited() -> None:
    scene = Scene()
    scene.slots.add("w0", "default", "i1")
    scene.slots.demand("A", {LEAF: 2})
    assert scene.view.load() == {
        "queued_runs": 2,
        "active_runs": 1,
        "waiting_tasks": 2,
        "plain_waiting": 2,
        "workers": 1,
        "oldest_s": 9,
    }


def test_nobody_has_waited_when_nobody_waits() -> None:
    scene = Scene()
    for run_id in ("r2", "r3"):
        scene.admissions.finish(run_id)
    assert scene.view.load()["oldest_s"] == 0


def test_a_slot_is_idle_or_busy_and_may_be_draining() -> None:
    scene = Scene()
    for worker in ("w0", "w1", "w2", "w3"):
        scene.slots.add(worker, "default", "i1")
    for number, worker in enumerate(("w1", "w3"), 1):
        scene.slots.adopt("A", worker, number, 0.0)
    for worker in ("w2", "w3"):
        scene.slots.drain(worker)
    assert scene.view.slot_states() == {"w0": "idle", "w1": "busy", "w2": "draining", "w3": "draining_busy"}
