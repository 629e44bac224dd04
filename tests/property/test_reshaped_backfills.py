"""A backfill that is paused, capped, made wider, cancelled and reprocessed while processes crash: the machine and the
scheduler's choice together, against a model in plain dictionaries.

Each window runs exactly once for each time that it was queued, no cap is exceeded by what starts, nothing starts in a
pause, counts add up to the windows there are, and once nobody interferes any more everything ends.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import backfill as backfills
from orchestrator import events as e
from orchestrator.backfill import Backfill, CancelAll, Observe, PauseAll, Recap, ResumeAll
from orchestrator.definition import Window
from orchestrator.dispatch import Admission, Queued
from orchestrator.errors import Conflict
from orchestrator.pace import pace
from orchestrator.plan import plan_window
from orchestrator.run_state import ENDED, RunState
from tests.builders import AT, day
from tests.invariants import check_backfill, check_replayed_backfill

ENDS = ("succeeded", "failed")
Op = tuple[str, int]
_ops = st.lists(
    st.tuples(
        st.sampled_from(
            ["start", "end", "end", "pause", "resume", "cap", "widen", "cancel", "failed", "completed", "crash", "late"]
        ),
        st.integers(0, 5),
    ),
    max_size=50,
)


class Stage:
    """One backfill, its windows as the journal has them, and who admits them."""

    def __init__(self, windows: int, cap: int | None) -> None:
        self.children: list[tuple[str, Window]] = []
        self.rows: dict[str, str] = {}
        #: child -> how often it was queued, and started
        self.queued: dict[str, int] = {}
        self.started: dict[str, int] = {}
        self.seconds = 0
        whole = Window(day(1).start, day(windows).end)
        self.created = e.BackfillCreated(AT, "run_b", "t", "d", 1, whole, windows, 0, cap)
        self._add(windows)
        self.backfill = Backfill(self.created, self.children, frozenset())
        self.events: list[e.Event] = [self.created]
        self.admission = self._scheduler()
        #: told to the machine later, and perhaps twice
        self.news: list[tuple[str, str]] = []

    def _add(self, n: int) -> list[str]:
        new = [(f"c{i:03d}", day(i)) for i in range(len(self.children) + 1, len(self.children) + n + 1)]
        self.children += new
        for child, _ in new:
            self.rows[child] = "queued"
            self.queued[child] = 1
        return [child for child, _ in new]

    def _scheduler(self) -> Admission:
        """As after a restart: from the rows."""
        made = Admission()
        made.configure("d", 16, False)
        backfill = self.backfill
        if backfill.state not in ENDED:
            made.shape("d", "run_b", backfill.max_active_runs, backfill.state is RunState.PAUSED)
        for child, state in self.rows.items():
            if state == "queued":
                made.enqueue(self._wanted(child))
            elif state == "running":
                made.occupy(self._wanted(child))
        return made

    def _wanted(self, child: str) -> Queued:
        return Queued(child, "d", "run_b", 1, None, int(child[1:]))

    def do(self, command: backfills.Command) -> None:
        """Decide and apply; the scheduler hears of what concerns it."""
        self.seconds += 1
        new = backfills.decide(self.backfill, command, AT + timedelta(seconds=self.seconds))
        for event in new:
            backfills.apply(self.backfill, event)
        self.events += new
        if self.backfill.state in ENDED:
            self.admission.unshape("run_b")
        elif any(isinstance(event, e.RunPaused | e.RunResumed | e.BackfillCapped) for event in new):
            paused = self.backfill.state is RunState.PAUSED
            self.admission.shape("d", "run_b", self.backfill.max_active_runs, paused)

    def start(self) -> None:
        """What may start does."""
        running = sum(state == "running" for state in self.rows.values())
        cap = self.backfill.max_active_runs
        for run in self.admission.admit():
            assert self.rows[run.run_id] == "queued", f"{run.run_id} starts while it is {self.rows[run.run_id]}"
            assert self.backfill.state is not RunState.PAUSED, f"I7 {run.run_id} starts in a pause"
            running += 1
            assert running <= min(16, cap or 16), f"I7 {running} windows run, cap {cap}"
            self.started[run.run_id] = self.started.get(run.run_id, 0) + 1
            self._move(run.run_id, "running")

    def end(self, child: str, state: str) -> None:
        """The run of a window ends."""
        if self.rows[child] in ENDED:
            return
        self.admission.finish(child)
        self._move(child, state)

    def _move(self, child: str, state: str) -> None:
        self.rows[child] = state
        self.news.append((child, state))

    def hear(self) -> None:
        """The machine is told, in order, and of the last one twice."""
        if self.news:
            self.do(Observe((*self.news, self.news[-1])))
            self.news.clear()

    def widen(self, n: int) -> None:
        """More windows, in one step with their event; whoever has the backfill in memory reads it again."""
        if self.backfill.state in ENDED or self.backfill.state is RunState.CANCELLING:
            return
        self.hear()
        if self.backfill.state in ENDED:
            return
        new = self._add(n)
        self.events.append(e.BackfillWidened(AT, None, n, len(self.children), 0))
        self.crash()
        for child in new:
            self.admission.enqueue(self._wanted(child))

    def reprocess(self, policy: str) -> None:
        """A terminal backfill is posted again."""
        if self.backfill.state not in ENDED:
            return
        restarted = [
            child
            for child, window in self.children
            if plan_window(window, (child, self.rows[child]), policy).action == "restart"
        ]
        self.events.append(e.RunRestarted(AT, 1))
        backfills.apply(self.backfill, self.events[-1])
        self.admission.shape("d", "run_b", self.backfill.max_active_runs, False)
        for child in restarted:
            self.queued[child] += 1
            self._move(child, "queued")
            self.admission.enqueue(self._wanted(child))
        self.do(Observe(tuple(self.news)))
        self.news.clear()

    def crash(self) -> None:
        """Memory is gone: machine and scheduler are what the journal tells. News of windows are read from rows."""
        self.backfill = Backfill(self.created, self.children, frozenset())
        for event in self.events[1:]:
            backfills.apply(self.backfill, event)
        self.admission = self._scheduler()
        self.news.clear()
        self.do(Observe(tuple(self.rows.items())))

    def check(self) -> None:
        """What must hold whenever the machine has heard everything."""
        assert self.backfill.states == self.rows
        counts = backfills.count(self.backfill.tallies, self.backfill.skipped)
        parts = (counts.queued, counts.running, counts.succeeded, counts.failed, counts.cancelled)
        assert sum(parts) == counts.total == len(self.children)
        speed = pace(self.events[-512:], counts, AT, str(self.backfill.state))
        assert 0 <= speed.progress <= 1
        assert speed.progress < 1 or not counts.queued + counts.running
        for child, times in self.started.items():
            assert times <= self.queued[child], f"{child} started {times} times, queued {self.queued[child]} times"


def _play(stage: Stage, kind: str, n: int) -> None:
    child = stage.children[n % len(stage.children)][0]
    match kind:
        case "end":
            going = [c for c, state in stage.rows.items() if state == "running"]
            if going:
                stage.end(going[n % len(going)], ENDS[n % 2])
        case "pause" | "resume" | "cap" | "cancel":
            command = {"pause": PauseAll(), "resume": ResumeAll(), "cap": Recap(n or None), "cancel": CancelAll()}[kind]
            over = stage.backfill.state in ENDED or stage.backfill.state is RunState.CANCELLING
            if over and not (kind == "cancel" and stage.backfill.state in (RunState.CANCELLING, RunState.CANCELLED)):
                with pytest.raises(Conflict):
                    stage.do(command)
                return
            stage.do(command)
            for effect in backfills.owed(stage.backfill):
                stage.end(effect.child, "cancelled")
        case "widen":
            stage.widen(n % 3 + 1)
        case "failed" | "completed":
            stage.hear()
            stage.reprocess(kind)
        case "crash":
            stage.crash()
        case "late":  # an old piece of news comes again
            stage.do(Observe(((child, stage.backfill.states[child]),)))
            return
    if kind != "end":
        stage.hear()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.sampled_from([None, 1, 2, 3]), _ops)
def test_whatever_is_done_to_a_backfill_its_windows_run_once_within_its_cap(
    windows: int, cap: int | None, ops: list[Op]
) -> None:
    stage = Stage(windows, cap)
    for kind, n in ops:
        _play(stage, kind, n)
        stage.start()
    stage.hear()
    stage.check()
    if stage.backfill.state is RunState.PAUSED:
        stage.do(ResumeAll())
    for _ in range(3 * len(stage.children) + 3):
        stage.start()
        for child in [c for c, state in stage.rows.items() if state == "running"]:
            stage.end(child, "succeeded")
        stage.hear()
    stage.crash()
    stage.check()
    assert stage.backfill.state in ENDED, f"I9 {stage.backfill.state}: {stage.rows}"
    never = [c for c in stage.queued if not stage.started.get(c) and stage.rows[c] != "cancelled"]
    assert not never, f"never started: {never}"
    assert check_backfill(stage.events) == stage.backfill.state
    replayed = Backfill(stage.created, stage.children, frozenset())
    for event in stage.events[1:]:
        backfills.apply(replayed, event)
    check_replayed_backfill(stage.backfill, replayed)
