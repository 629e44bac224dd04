"""actors.run_queue: where runs wait that are told of, or found, and how long they are known."""

from __future__ import annotations

from actors.clock import Clock
from actors.run_queue import RunQueue, key_of
from orchestrator.dispatch import Admission, Queued
from orchestrator.rows import RunRow
from orchestrator.streams import RunMoved, RunsCreated


class Scene:
    """A DAG with places for ten runs."""

    def __init__(self) -> None:
        self.admissions = Admission()
        self.admissions.configure("acme/d", 10, paused=False)
        self.queue = RunQueue(Clock(), self.admissions)

    def admitted(self) -> list[str]:
        """Who starts now, in order."""
        return [queued.run_id for queued in self.admissions.admit()]

    def lane(self, run_id: str) -> tuple[str, str]:
        """Class and backfill of a run that waits."""
        waits = self.admissions.waiting(run_id)
        assert waits is not None
        return waits[0].lane[0], waits[0].lane[1]


def a_row(
    run_id: str,
    state: str = "queued",
    parent: str = "",
    watchers: tuple[str, ...] = (),
    run_type: str = "manual",
    cap: int | None = None,
) -> RunRow:
    of_dag = ("acme", "d", 1, run_type, "", parent)
    return RunRow(run_id, 3, "", state, *of_dag, 1, 0, None, None, None, "", cap, False, "", watchers)


def created(*run_ids: str, run_type: str = "manual", parent: str = "", versions: tuple[int, ...] = ()) -> RunsCreated:
    return RunsCreated("acme", "d", 1, run_type, parent, run_ids, 0, 2, bool(versions), versions)


def moved(run_id: str, after: str, run_type: str = "manual") -> RunMoved:
    return RunMoved(run_id, "acme", "d", run_type, "", "succeeded", after, "")


def test_runs_start_in_the_order_in_which_they_are_told_of() -> None:
    scene = Scene()
    scene.queue.create(created("r2", "r1"))
    scene.queue.create(created("r0"))
    assert scene.admitted() == ["r2", "r1", "r0"]


def test_runs_that_are_found_stand_before_those_that_come() -> None:
    scene = Scene()
    scene.queue.find(a_row("r5"), {})
    scene.queue.create(created("r1"))
    assert scene.admitted() == ["r5", "r1"]


def test_a_run_that_is_active_takes_a_place_and_does_not_wait() -> None:
    scene = Scene()
    scene.queue.find(a_row("r1", "running"), {})
    scene.queue.occupy(moved("r2", "running"))
    assert (scene.admissions.active, scene.admissions.queued) == (2, 0)
    assert scene.queue.known("r1") is None


def test_runs_wait_in_the_lane_of_what_made_them() -> None:
    scene = Scene()
    scene.queue.create(created("r1", run_type="scheduled"))
    scene.queue.create(created("r2", run_type="manual"))
    scene.queue.create(created("r3", run_type="scheduled", parent="b1"))
    assert [scene.lane(run_id) for run_id in ("r1", "r2", "r3")] == [
        ("scheduled", ""),
        ("manual", ""),
        ("backfill", "b1"),
    ]


def test_a_run_that_is_found_waits_for_the_last_backfill_that_is_at_it() -> None:
    scene = Scene()
    going = {each: a_row(each, "running", run_type="backfill", cap=1) for each in ("b2", "b3")}
    scene.queue.find(a_row("r1", parent="b1", watchers=("b1", "b2", "b3")), going)
    scene.queue.find(a_row("r2", parent="b2", watchers=("b2", "b3")), going)
    scene.queue.find(a_row("r3", parent="b1", watchers=("b1",)), going)
    assert [scene.lane(run_id)[1] for run_id in ("r1", "r2", "r3")] == ["b3", "b2", "b1"]


def test_a_run_that_waits_again_stands_where_it_stood() -> None:
    scene = Scene()
    scene.queue.create(created("r1", "r2"))
    first = scene.admissions.admit()[0]
    known = scene.queue.known("r1")
    assert known == first
    scene.admissions.requeue("r2", Queued("r2", "acme/d", None, order=9))
    scene.queue.again(first)
    assert scene.admitted() == ["r1", "r2"]


def test_an_admission_is_for_the_life_in_which_the_run_was_queued_last() -> None:
    scene = Scene()
    scene.queue.create(created("r1"))
    scene.queue.create(created("r1", versions=(7,)))
    (admitted,) = scene.admissions.admit()
    assert scene.queue.since(admitted) == 7


def test_a_run_is_known_until_it_has_ended() -> None:
    scene = Scene()
    scene.queue.create(created("r1", "r2"))
    scene.queue.end("r1")
    assert (scene.admitted(), scene.queue.known("r1")) == (["r2"], None)
    assert scene.queue.known("r2") is not None
    scene.queue.end("r2")
    assert (scene.admissions.active, scene.queue.known("r2")) == (0, None)


def test_dags_of_tenants_are_told_apart() -> None:
    assert key_of("a", "d") != key_of("b", "d")
