"""One job and all that happened to it: what unit and property tests of jobs tell their stories with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator import job as jobs
from orchestrator import job_events as e
from orchestrator import job_fold
from orchestrator.blueprint import Action, Blueprint, Dispatch, Outcome, State, Transition
from orchestrator.job import Job, Rules, Settle, Status
from orchestrator.job_state import Slot
from orchestrator.job_views import HistoryEvent, JobView

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ON = {"success": "finished"}


def a_blueprint(*states: str, ends: tuple[str, ...] = (), handled_ends: tuple[str, ...] = ()) -> Blueprint:
    """States of code, of which the first one is the start; `handled_ends` are visited before the job ends there."""
    made = [State(name, start=n == 0, code=True) for n, name in enumerate(states or ("start", "review"))]
    made += [State(name, end=True) for name in ends]
    made += [State(name, end=True, code=True) for name in handled_ends]
    return Blueprint("flow", {state.name: state for state in made})


class Chances:
    """Task ids t1, t2, …; a jitter that never changes."""

    def __init__(self, jitter: float = 0.5) -> None:
        self.minted = 0
        self._jitter = jitter

    def task_id(self) -> str:
        """The next one."""
        self.minted += 1
        return f"t{self.minted}"

    def jitter(self) -> float:
        """The same as ever."""
        return self._jitter


class JobStory:
    """A job of `blueprint` under `rules`; `now` moves when told to."""

    def __init__(self, blueprint: Blueprint | None = None, depth: int = 0, **rules: Any) -> None:
        self.blueprint = blueprint or a_blueprint()
        self.rules = Rules(**({"retry_backoff_s": 0.0} | rules))
        self.chance = Chances()
        self.now = AT
        first = e.JobCreated(
            AT, "job", "t", "flow", 1, {"clip": "a"}, client={"name": "c", "plan": None}, depth=depth, state="start"
        )
        self.events: list[e.AnyJobEvent] = [first]
        self.job: Job = jobs.revive(self.events, self.blueprint)

    # ── what happens ──────────────────────────────────────────────────────────────────────────────

    def do(self, command: jobs.Command) -> list[e.AnyJobEvent]:
        """Decide and apply; the new events."""
        return self._take(jobs.decide(self.job, command, self.now, self.chance, self.rules))

    def _take(self, new: list[e.AnyJobEvent]) -> list[e.AnyJobEvent]:
        for event in new:
            jobs.apply(self.job, event)
        self.events += new
        return new

    def wait(self, seconds: float, *takers: str) -> JobStory:
        """Time passes, and whatever is due happens."""
        self.now += timedelta(seconds=seconds)
        self.do(jobs.Tick(frozenset(takers)))
        return self

    def visit(self, action: Action | None, **history: Any) -> JobStory:
        """The handler of the present state makes that action."""
        self.do(jobs.Visited(self.job.serial, Outcome(action, self.job.state_history | history)))
        return self

    def begin(self, action: Action | None = None) -> JobStory:
        """The job begins, and its start state makes that action."""
        self.do(jobs.Begin())
        return self if action is None else self.visit(action)

    def fail_visit(self, error: str = "ValueError: boom", again: bool = True) -> JobStory:
        """The handler of the present state raises."""
        self.do(jobs.Visited(self.job.serial, Outcome(error=error, again=again)))
        return self

    def dispatch(self, **changes: Any) -> JobStory:
        """The job begins and dispatches a task."""
        return self.begin(Dispatch(**({"type": "video", "transitions": ON} | changes)))

    def deliver(self, worker: str = "w1", branch: int = 0) -> str:
        """The task is leased; its id."""
        task_id = self.slot(branch).task_id
        self.do(jobs.Deliver(task_id, worker))
        return task_id

    def settle(
        self, status: str = "success", worker: str = "w1", task: str | None = None, branch: int = 0, **result: Any
    ) -> str:
        """A worker's result, of the current task unless told otherwise; the status or the reason it is answered."""
        task_id = self.slot(branch).task_id if task is None else task
        command = Settle(task_id, worker, status, **result)
        events, body = jobs.settle(self.job, command, self.now, self.chance, self.rules)
        self._take(events)
        return body["reason"] if body["status"] == "ignored" else body["status"]

    def work(self, status: str = "success", worker: str = "w1", branch: int = 0, **result: Any) -> str:
        """Deliver, then settle."""
        self.deliver(worker, branch)
        return self.settle(status, worker, branch=branch, **result)

    def to(self, state: str) -> JobStory:
        """The present state goes on to another."""
        return self.visit(Transition(state))

    # ── what is seen ──────────────────────────────────────────────────────────────────────────────

    def slot(self, branch: int = 0) -> Slot:
        """A task that the present state wants."""
        return self.job.slots[branch]

    @property
    def task(self) -> str:
        """Id of the task that it waits for."""
        return self.slot().task_id

    @property
    def status(self) -> Status:
        """Where the job is."""
        return self.job.status

    @property
    def end(self) -> tuple[str, str, str | None]:
        """Status, state and error."""
        return str(self.job.status), self.job.state, self.job.error

    @property
    def due_s(self) -> float | None:
        """Seconds until the next Tick."""
        at = jobs.next_wake(self.job, self.rules)
        return None if at is None else (at - self.now).total_seconds()

    def owes(self, kind: type[Any]) -> list[Any]:
        """Effects of that class."""
        return [effect for effect in jobs.owed(self.job) if isinstance(effect, kind)]

    @property
    def view(self) -> JobView:
        """As a reader sees it."""
        return job_fold.view(self.events)

    @property
    def lines(self) -> list[HistoryEvent]:
        """Its history."""
        return job_fold.history(self.events)

    @property
    def told(self) -> list[str]:
        """Types of the lines of its history."""
        return [line.event_type for line in self.lines]
