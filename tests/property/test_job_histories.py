"""Any history of a job is legal, replayable, applies each result once, and never forgets what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import job as jobs
from orchestrator import job_events as e
from orchestrator import job_fold
from orchestrator.blueprint import Action, Approval, Blueprint, Dispatch, Outcome, Parallel, SubBlueprint, Transition
from orchestrator.errors import Refused
from orchestrator.job import CORE_STATES, TRANSITIONS, Status
from orchestrator.job_state import Job
from tests.job_stories import JobStory, a_blueprint

STATES = ("start", "s1", "s2")
TARGETS = (*STATES, *STATES, *STATES, "shipped", "billed", "finished", "failed", "cancelled", "quarantined", "nowhere")
WORKERS = ("w1", "w2", "w3")
STATUSES = ("success", "failure", "failure", "cancelled", "odd")
ERRORS = (None, "boom", {"code": "PERMANENT_ERROR", "message": "no"}, {"code": "INVALID_INPUT_ERROR"})
SECONDS = (0.0, 1.0, 31.0, 400.0)


class Move(NamedTuple):
    """One thing that happens: its kind, and numbers that choose among what is there."""

    kind: str
    which: int
    share: int
    action: Action | None


def _transitions(*words: str) -> st.SearchStrategy[dict[str, str]]:
    """Most words lead on, so that few jobs end early."""
    some = st.dictionaries(st.sampled_from(words), st.sampled_from(TARGETS), max_size=3)
    return some.map(lambda chosen: dict.fromkeys(words, "s1") | chosen) | some


_dispatches = st.builds(
    Dispatch,
    st.sampled_from(["a", "b"]),
    transitions=_transitions(*STATUSES),
    timeout_seconds=st.sampled_from([None, 0.0, 20.0]),
)
_parallels = st.builds(Parallel, st.lists(_dispatches, max_size=3).map(tuple), st.sampled_from(TARGETS))
actions = st.one_of(
    _dispatches,
    _parallels,
    _dispatches,
    _parallels,
    st.builds(Transition, st.sampled_from(TARGETS)),
    st.builds(Approval, st.just("mail"), st.just("ok?"), _transitions("yes", "no")),
    st.builds(SubBlueprint, st.just("other"), transitions=_transitions("success", "failure")),
)
#: how often each kind of move is tried; `advance` is whatever comes next where the job is
WEIGHTS = {
    "advance": 24,
    "raise": 1,
    "late_visit": 1,
    "deliver": 2,
    "settle": 2,
    "settle_any": 6,
    "undeliver": 2,
    "redeliver": 4,
    "report": 2,
    "wait": 6,
    "cancel": 1,
    "release": 1,
}
_kinds = st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)])
_move = st.builds(Move, _kinds, st.integers(0, 30), st.integers(0, 3), actions)
_moves = st.lists(_move, min_size=25, max_size=60)
_rules = st.fixed_dictionaries(
    {
        "retries_max": st.integers(0, 2),
        "redeliveries_max": st.integers(0, 2),
        "retry_backoff_s": st.sampled_from([0.0, 2.0]),
    }
)


@dataclass
class Ledger:
    """The rules a second time, as plainly as possible, over events alone."""

    #: status; "" = it goes on
    ended: str = ""
    cancelling: bool = False
    #: slot -> the task id that lives there
    lives: dict[int, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    leased: dict[str, str] = field(default_factory=dict)
    had: dict[str, set[str]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    serials: list[int] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    cancelled_at: datetime | None = None

    def feed(self, event: e.AnyJobEvent) -> None:
        assert not self.ended or (isinstance(event, e.JobReleased) and self.ended == "quarantined"), "I1"
        match event:
            case e.StateStarted():
                self.serials.append(event.serial)
                assert self.serials == list(range(1, len(self.serials) + 1))
                assert not self.cancelling
                self.lives.clear()
            case e.TaskQueued():
                assert event.task_id not in self.slots, "I2: a task id was minted twice"
                assert event.slot not in self.lives, "I2: two live attempts of one task"
                assert not self.cancelling
                self.lives[event.slot], self.slots[event.task_id] = event.task_id, event.slot
                self.had[event.task_id] = set()
            case e.TaskDelivered():
                assert event.task_id in self.lives.values(), "I2: an old attempt was delivered"
                assert event.task_id not in self.leased, "I2: leased twice"
                assert not self.cancelling
                self.leased[event.task_id] = event.worker_id
                self.had[event.task_id].add(event.worker_id)
            case e.TaskReturned() | e.TaskRedelivered():
                del self.leased[event.task_id]
            case e.TaskFinished() | e.TaskGivenUp():
                self._over(event)
            case e.SubJobStarted():
                self.children.append(event.child_id)
            case e.SubJobEnded():
                assert self.children.pop() == event.child_id, "a second end of a sub-job"
            case e.CancelRequested():
                self.cancelling, self.cancelled_at = True, event.at
            case e.JobReleased():
                self.ended = ""
                self.lives.clear()
                self.leased.clear()
                self.children.clear()
            case e.JobEnded():
                self.ended = event.status
                self._cancelled(event)

    def _cancelled(self, event: e.JobEnded) -> None:
        if self.cancelled_at is None:
            return
        assert event.status == "cancelled", "I10"
        patient = event.at - self.cancelled_at >= timedelta(seconds=30)
        assert patient or not (self.leased or self.children), "it did not wait for who works for it"

    def _over(self, event: e.TaskFinished | e.TaskGivenUp) -> None:
        assert event.task_id not in self.over, "I12: a second outcome of one attempt"
        assert self.lives.pop(self.slots[event.task_id]) == event.task_id, "I12"
        self.over.add(event.task_id)
        self.leased.pop(event.task_id, None)
        if isinstance(event, e.TaskFinished):
            assert event.worker_id in self.had[event.task_id], "I12: a result of a worker that never had it"
            assert not self.cancelling or event.status == "cancelled"


class Player:
    """Plays moves on a job the way its holder would, and checks every step."""

    def __init__(self, blueprint: Blueprint, rules: dict[str, float]) -> None:
        self.story = JobStory(blueprint, **rules)
        self.job = self.story.job
        self.ledger = Ledger()
        self.ledger.feed(self.story.events[0])
        #: folds the same events behind the job's back
        self.shadow = jobs.revive(self.story.events, None)
        #: (task, worker) -> how its result was answered
        self.accepted: dict[tuple[str, str], str] = {}

    def play(self, move: Move) -> None:
        before = len(self.story.events), self.job.version, self.job.status
        try:
            MOVES[move.kind](self, move)
        except Refused:
            assert (len(self.story.events), self.job.version, self.job.status) == before
        self.check()

    def check(self) -> None:
        for event in self.story.events[self.shadow.version :]:
            assert type(event) in TRANSITIONS[self.shadow.status], (self.shadow.status, event)
            self.ledger.feed(event)
            jobs.apply(self.shadow, event)
        assert same(self.shadow, self.job), "I4"
        assert self.job.version == len(self.story.events), "I5"
        assert {slot.task_id: slot.worker_id for slot in self.job.leased()} == self.ledger.leased or self.job.ended
        assert all((slot.worker_id is not None) == (slot.stage is jobs.Stage.LEASED) for slot in self.job.slots)
        self.check_owed()
        self.check_view()

    def check_owed(self) -> None:
        owed, wake = jobs.owed(self.job), jobs.next_wake(self.job, self.story.rules)
        if self.job.ended:
            assert wake is None
            assert all(isinstance(effect, jobs.Recall) for effect in owed)
            return
        if self.job.status in (Status.PENDING, Status.WAITING_FOR_HUMAN):
            assert wake is None
        else:
            assert wake is not None or owed, "I8"
        if self.job.cancel_requested_at is not None:
            assert wake is not None, "I10"
            assert not any(isinstance(effect, jobs.Offer | jobs.MakeVisit | jobs.StartChild) for effect in owed)

    def check_view(self) -> None:
        view = job_fold.show(self.shadow)
        assert (view.status, view.current_state) == (self.job.status, self.job.state)
        assert (view.finished_at is not None) == self.job.ended
        assert (view.current_task_id is not None) <= (view.status == "waiting_for_worker")
        assert bool(view.active_branches) == (view.status == "waiting_for_parallel_tasks")
        assert CORE_STATES[Status(view.status)]

    def check_all(self) -> None:
        """The whole of it, read afresh."""
        assert same(jobs.revive(self.story.events, None), self.job), "I4"
        assert self.story.view == job_fold.show(self.job)
        lines = self.story.lines
        told = [line.event_type for line in lines]
        assert told.count("job_finished") == told.count("job_released") + self.job.ended
        versions = [int(line.event_id.rpartition("-")[2]) for line in lines]
        assert versions == sorted(set(versions))
        assert versions[0] == 1

    # ── moves ─────────────────────────────────────────────────────────────────────────────────────

    def advance(self, move: Move) -> None:
        match self.job.status:
            case Status.PENDING:
                self.story.do(jobs.Begin())
            case Status.RUNNING:
                end = self.job.blueprint.status_at(self.job.state)
                self.story.visit(move.action if end is None else None, **{f"k{move.share}": move.which})
            case Status.WAITING_FOR_HUMAN:
                self.story.do(jobs.Approve("yes" if move.share else "no"))
            case Status.WAITING_FOR_SUB_JOB:
                self.child(move)
            case Status.AWAITING_RETRY:
                self.story.wait(self.story.due_s or 0.0)
            case _:
                (self.settle if self.job.leased() and move.which % 3 else self.deliver)(move)

    def raises(self, move: Move) -> None:
        self.story.fail_visit(again=move.share > 0)

    def late_visit(self, move: Move) -> None:
        outcome = jobs.Visited(self.job.serial - 1, Outcome(move.action))
        assert self.story.do(outcome) == []

    def deliver(self, move: Move) -> None:
        waiting = [effect.task_id for effect in self.story.owes(jobs.Offer)]
        if waiting:
            task_id = waiting[move.which % len(waiting)]
            assert self.story.do(jobs.Deliver(task_id, WORKERS[move.share % 3]))
            with pytest.raises(Refused):
                self.story.do(jobs.Deliver(task_id, "w9"))

    def settle(self, move: Move) -> None:
        out = self.job.leased()
        if out:
            slot = out[move.which % len(out)]
            self.result(slot.task_id, slot.worker_id or "", move)

    def settle_any(self, move: Move) -> None:
        known = [*self.job.sent, "foreign"]
        self.result(known[move.which % len(known)], WORKERS[move.share % 3], move)

    def result(self, task: str, worker: str, move: Move) -> None:
        version, status = self.job.version, STATUSES[(move.share + move.which) % 5]
        word = self.story.settle(status, worker, task, data={"n": move.which}, error=ERRORS[move.which % 4])
        if (task, worker) in self.accepted:
            assert word == self.accepted[task, worker]
            assert self.job.version == version
        elif "accepted" in word:
            self.accepted[task, worker] = word
            assert self.job.version > version
        else:
            assert word in ("stale_task", "job_cancelled", "worker_mismatch")
            assert self.job.version == version or self.job.cancel_requested_at is not None
        assert (word == "worker_mismatch") == (task == "foreign")

    def take_back(self, move: Move) -> None:
        kind = jobs.Undeliver if move.kind == "undeliver" else jobs.Redeliver
        out = self.job.leased()
        if out:
            self.story.do(kind(out[move.which % len(out)].task_id, WORKERS[move.share] if move.share < 3 else ""))

    def report(self, move: Move) -> None:
        for task_id in list(self.job.sent)[-1:]:
            self.story.do(jobs.Report(task_id, WORKERS[move.share % 3], move.which / 10, "on"))

    def child(self, move: Move) -> None:
        outcome = ("finished", "failed", "cancelled", "quarantined")[move.share]
        self.story.do(jobs.ChildEnded(self.job.child_id or "none", outcome, outcome, None))

    def cancel(self, _: Move) -> None:
        out = bool(self.job.leased()) or self.job.child_open
        self.story.do(jobs.Cancel())
        assert self.job.ended or out

    def release(self, _: Move) -> None:
        self.story.do(jobs.Release())
        assert not self.job.ended or self.job.status is Status.ERROR

    def wait(self, move: Move) -> None:
        takers = [effect.task_id for effect in self.story.owes(jobs.Offer)] if move.which % 2 else []
        self.story.wait(SECONDS[move.share], *takers)
        wake = jobs.next_wake(self.job, self.story.rules)
        assert wake is None or wake > self.story.now, "it would go round in circles"


MOVES: dict[str, Callable[[Player, Move], None]] = {
    "advance": Player.advance,
    "raise": Player.raises,
    "late_visit": Player.late_visit,
    "deliver": Player.deliver,
    "settle": Player.settle,
    "settle_any": Player.settle_any,
    "undeliver": Player.take_back,
    "redeliver": Player.take_back,
    "report": Player.report,
    "cancel": Player.cancel,
    "wait": Player.wait,
    "release": Player.release,
}


def same(one: Job, other: Job) -> bool:
    """Equal in everything that is a fold of the events."""
    return all(getattr(one, name) == getattr(other, name) for name in Job.__slots__ if name != "_blueprint")


def played(moves: list[Move], rules: dict[str, float]) -> Player:
    player = Player(a_blueprint(*STATES, ends=("shipped",), handled_ends=("billed",)), rules)
    for move in moves:
        player.play(move)
    player.check_all()
    return player


@settings(max_examples=200, deadline=None)
@given(_moves, _rules)
def test_any_history_is_legal_and_replays_and_waits_for_something(moves: list[Move], rules: dict[str, float]) -> None:
    played(moves, rules)


@settings(max_examples=100, deadline=None)
@given(_moves, _rules)
def test_a_cancel_ends_within_the_grace_period_whatever_came_before(moves: list[Move], rules: dict[str, float]) -> None:
    player = played(moves, rules)
    if not player.job.ended:
        player.story.do(jobs.Cancel())
        player.story.wait(player.story.rules.cancel_grace_s)
        assert player.job.status is Status.CANCELLED, "I10"


@settings(max_examples=100, deadline=None)
@given(_moves, _rules)
def test_with_a_world_that_does_its_part_every_job_ends(moves: list[Move], rules: dict[str, float]) -> None:
    player = played(moves, rules)
    for _ in range(40):
        if player.job.ended:
            return
        _help(player)
    raise AssertionError(f"{player.job.status} does not end")


def _help(player: Player) -> None:
    job, story = player.job, player.story
    match job.status:
        case Status.PENDING:
            story.do(jobs.Begin())
        case Status.RUNNING:
            end = job.blueprint.status_at(job.state)
            story.visit(Transition("finished") if end is None else None)
        case Status.WAITING_FOR_HUMAN if job.transitions:
            story.do(jobs.Approve(next(iter(job.transitions))))
        case Status.WAITING_FOR_HUMAN:
            story.do(jobs.Cancel())
        case Status.WAITING_FOR_SUB_JOB:
            story.do(jobs.ChildEnded(job.child_id or "", "finished", "finished", None))
        case _:
            _help_tasks(player)
    player.check()


def _help_tasks(player: Player) -> None:
    story = player.story
    for effect in story.owes(jobs.Offer):
        story.do(jobs.Deliver(effect.task_id, "w1"))
    for slot in player.job.leased():
        story.settle("success", slot.worker_id or "", slot.task_id)
    wake = jobs.next_wake(player.job, story.rules)
    if wake is not None:
        story.wait(max(0.0, (wake - story.now).total_seconds()))
