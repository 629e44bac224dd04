"""What workers say counts for the attempt that it is about, and for no other (I12)."""

from __future__ import annotations

import asyncio

import msgspec

from actors.crew import Ended, Gone
from actors.hosted import HostedRun
from actors.mail import Loaded, Noted, Redo, RunMessage, Woken
from actors.turn import Turn
from actors.worker_reports import WorkerReports
from orchestrator import run_commands
from orchestrator.messages import Need, Note, Report, Settled
from orchestrator.task import TaskState
from tests.builders import a_value
from tests.turn_builders import House, a_run, begin
from tests.virtual_time import virtually

Key = tuple[str, str, int]


class Office(House):
    """Reports come in; as crew, slot time, reporter and claimant it notes what those are told."""

    def __init__(self, *hosted: HostedRun) -> None:
        super().__init__(*hosted)
        self.told: list[tuple[object, ...]] = []
        #: attempts of the next batch that is over, of which nobody said anything
        self.unreported: list[Key] = []
        self.reports = WorkerReports(self.time, self.residents, self, self, self, self)  # type: ignore[arg-type]  # the parts that are told something

    def settle(self, _ended: Ended) -> list[Key]:
        return self.unreported

    def took(self, kind: str, seconds: float) -> None:
        self.told.append(("took", seconds))

    def ended(self, worker: str, number: int, now_s: float) -> None:
        self.told.append(("batch", worker, number))

    def lost(self, worker: str, incarnation: str) -> None:
        self.told.append(("lost", worker, incarnation))

    def released(self, leases: list[tuple[str, int]]) -> None:
        self.told.append(("released", *leases))

    def gone(self, worker: str | Gone, _now_s: float = 0.0) -> None:
        if isinstance(worker, Gone):
            self.told.append(("permits", worker.worker))

    def answered(self, *reports: Report, untouched: tuple[Key, ...] = (), batch: int | None = 1) -> Turn:
        """A worker answers; the turn after that."""
        turn = self.turn()
        self.reports.ended(turn, Ended("w0", Settled("w0", "i1", 1, reports, untouched), batch))
        return turn


def running(*tasks: str) -> HostedRun:
    """These tasks of `run_1` run."""
    run = a_run()
    for task in tasks:
        begin(House().turn(), run, task)
    run.committed()
    return run


def state(run: HostedRun, task: str) -> TaskState:
    return run.run.tasks[run.run.position(task)].state


def ok(task: str, attempt: int = 1, **changes: object) -> Report:
    return Report("run_1", task, attempt, "ok", a_value(1), took_s=0.25, **changes)  # type: ignore[arg-type]  # fields of it


def test_a_result_is_taken_and_may_be_decided_again() -> None:
    run = running("a")
    office = Office(run)
    turn = office.answered(ok("a"))
    assert state(run, "a") is TaskState.SUCCEEDED
    assert [type(command) for command in turn.commands["run_1"]] == [run_commands.Settle]
    assert office.told == [("batch", "w0", 1), ("took", 0.25)]


def test_a_result_of_a_replaced_attempt_has_no_effect_and_is_not_learnt_from() -> None:
    run = running("a")
    office = Office(run)
    turn = office.answered(ok("a", attempt=7), batch=None)
    assert state(run, "a") is TaskState.RUNNING
    assert not turn.touched
    assert not turn.commands["run_1"]
    assert not office.told


def test_a_result_that_comes_twice_counts_once() -> None:
    run = running("a")
    office = Office(run)
    office.answered(ok("a"))
    run.committed()
    assert not office.answered(ok("a")).touched


def test_what_had_not_begun_is_given_back_and_what_nobody_reported_is_lost() -> None:
    run = running("a", "b")
    office = Office(run)
    office.unreported = [("run_1", "b", 1)]
    turn = office.answered(untouched=(("run_1", "a", 1),))
    assert [type(command) for command in turn.commands["run_1"]] == [run_commands.GiveBack, run_commands.Lose]
    assert TaskState.RUNNING not in (state(run, "a"), state(run, "b"))


def test_a_report_on_a_run_that_is_being_read_waits_for_it() -> None:
    office = Office()
    office.residents.find("run_1", Woken("run_1"))
    office.answered(ok("a"))
    run, turn, redone = running("a"), office.turn(), list[RunMessage]()

    def handle(turn: Turn, message: RunMessage) -> None:
        redone.append(message)
        if isinstance(message, Redo):
            office.reports.redo(turn, run, message)

    office.residents.came(turn, Loaded("run_1", run), handle)
    assert [type(message) for message in redone] == [Woken, Redo]
    assert state(run, "a") is TaskState.SUCCEEDED
    assert turn.touched == {"run_1": run}


def test_a_report_on_a_run_that_is_not_here_is_late() -> None:
    office = Office()
    assert not office.answered(ok("a")).touched
    assert not office.loads


def test_what_a_dead_worker_had_is_lost_and_its_lease_is_given_back() -> None:
    run = running("a")
    office = Office(run)
    office.reports.gone(office.turn(), Gone("w0", "i1", (("run_1", "a", 1),), (), lease=3))
    assert state(run, "a") is not TaskState.RUNNING
    assert office.told == [("lost", "w0", "i1"), ("released", ("w0", 3))]


def test_permits_are_lost_with_the_worker_that_had_them() -> None:
    office = Office()
    office.reports.gone(office.turn(), Gone("w0", "i1", (), (), lease=3, need=Need("gpu")))
    assert office.told == [("lost", "w0", "i1"), ("permits", "w0")]


def test_an_attempt_that_did_not_stop_in_time_has_timed_out() -> None:
    run = running("a")
    office = Office(run)
    turn = office.turn()
    office.reports.gone(turn, Gone("w0", "i1", (), ((("run_1", "a", 1), "timed_out"),)))
    [settle] = turn.commands["run_1"]
    assert isinstance(settle, run_commands.Settle)
    assert settle.report.outcome == "timed_out"
    assert state(run, "a") is not TaskState.RUNNING


def test_large_values_are_counted_where_the_run_is() -> None:
    run = running("a")
    Office(run).answered(ok("a", read_bytes=10, fetched_bytes=4))
    assert sorted(run.counts) == [
        ("orchestrator_value_fetched_bytes_total|d", 4),
        ("orchestrator_value_read_bytes_total|d", 10),
    ]


def test_a_note_of_a_running_attempt_is_answered_when_it_is_durable_and_one_of_another_at_once() -> None:
    async def story() -> None:
        run = running("a")
        office, turn = Office(run), House().turn()
        notes = []
        for attempt in (1, 7):
            note = Note("run_1", "a", attempt, "checkpoint", msgspec.Raw(b"1"))
            notes.append(Noted(note, asyncio.get_running_loop().create_future()))
            turn.messages["run_1"].append(notes[-1])
            office.reports.noted(turn, run, notes[-1])
        current, stale = notes
        assert stale.answer.result() is False
        assert turn.messages["run_1"] == [current]
        assert not current.answer.done()
        turn.answer(())
        assert current.answer.result() is True

    virtually(story())
