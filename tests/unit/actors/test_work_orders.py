"""What goes to workers: what is durable, and nothing of a run that is in doubt."""

from __future__ import annotations

from actors.crew import Seat
from actors.hosted import HostedRun
from actors.names import KUBERNETES
from actors.readiness import Sending
from actors.work_orders import WorkOrders
from orchestrator.messages import Assignment, RunContext
from orchestrator.run_duties import Abort
from orchestrator.run_state import Run
from tests.turn_builders import House, Time, a_run, begin


class Way:
    """As crew, Kubernetes seat, slot time and cache it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def send(self, seat: Seat, contexts: list[RunContext], tasks: list[Assignment], expected_s: float) -> int:
        self.told.append(("send", seat.worker, *((task.run_id, task.task) for task in tasks)))
        return 9

    def sent(self, sending: Sending, number: int, now_s: float) -> None:
        self.told.append(("sent", number))

    def kept(self, sending: Sending) -> None:
        self.told.append(("kept", sending.seat.worker))

    def begin(self, hosted: HostedRun, positions: list[int]) -> None:
        self.told.append(("keyed", hosted.run.run_id, *positions))

    def order(self, run: Run, positions: list[int]) -> None:
        self.told.append(("order", run.run_id, *positions))

    def abort(self, worker: str, key: tuple[str, str, int]) -> None:
        self.told.append(("abort", worker, key))


class Desk:
    """Orders that are given: to workers by `crew`, to Jobs by `jobs`."""

    def __init__(self) -> None:
        self.crew, self.jobs, self.slot_time, self.cache = Way(), Way(), Way(), Way()
        parts = (self.crew, self.jobs, self.slot_time, self.cache)
        self.orders = WorkOrders("run-actor-0", Time(), *parts, traced=False)  # type: ignore[arg-type]  # the parts that are told something


def batch(*hosted: HostedRun, worker: str = "w0") -> Sending:
    """Task `a` of each, begun."""
    runs = {each.run.run_id: each for each in hosted}
    for each in hosted:
        begin(House().turn(), each, "a", worker)
    return Sending(Seat(worker, "i1", 1), runs, {run_id: [0] for run_id in runs})


def test_a_batch_goes_to_its_seat_without_the_tasks_of_runs_that_are_in_doubt() -> None:
    desk, turn = Desk(), House().turn()
    turn.sendings = [batch(a_run("run_1"), a_run("run_2"))]
    desk.orders.give(turn, {"run_1"})
    assert desk.crew.told == [("send", "w0", ("run_2", "a"))]
    assert desk.slot_time.told == [("sent", 9)]


def test_a_batch_of_which_nothing_is_left_does_not_leave_and_its_slot_time_is_given_back() -> None:
    desk, turn = Desk(), House().turn()
    turn.sendings = [batch(a_run("run_1"))]
    desk.orders.give(turn, {"run_1"})
    assert not desk.crew.told
    assert desk.slot_time.told == [("kept", "w0")]


def test_tasks_whose_results_are_kept_are_keyed_as_they_are_when_they_leave() -> None:
    desk, turn, cached, plain = Desk(), House().turn(), a_run("run_1"), a_run("run_2")
    cached.run.compiled.cached = True
    turn.sendings = [batch(cached, plain)]
    desk.orders.give(turn, ())
    assert desk.cache.told == [("keyed", "run_1", 0)]


def test_jobs_are_ordered_and_attempts_are_stopped_where_they_run_unless_in_doubt() -> None:
    desk, turn = Desk(), House().turn()
    turn.jobs = [(a_run("run_1"), [0]), (a_run("run_2"), [1])]
    turn.aborts = [
        (run_id, worker, Abort("b", 2, worker)) for run_id in ("run_1", "run_2") for worker in ("w0", KUBERNETES)
    ]
    desk.orders.give(turn, {"run_1"})
    assert desk.jobs.told == [("order", "run_2", 1), ("abort", KUBERNETES, ("run_2", "b", 2))]
    assert desk.crew.told == [("abort", "w0", ("run_2", "b", 2))]
