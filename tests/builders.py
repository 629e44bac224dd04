"""Definitions, runs and backfills for tests; everything that is not under test has a default.

`Story` drives one run through its machine on a clock of its own and remembers every event: what a RunActor does,
without the actor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from orchestrator import backfill as backfills
from orchestrator import events as e
from orchestrator import plan_run, plan_status, run_commands, run_decisions, run_duties, wait_decisions
from orchestrator import run as runs
from orchestrator.backfill import Backfill
from orchestrator.calls import Return
from orchestrator.command import Ballot
from orchestrator.compiled import Compiled
from orchestrator.definition import Definition, TaskSpec, Window
from orchestrator.messages import Note, Report, Value
from orchestrator.plan_entry import Completed, Skipped
from orchestrator.plan_file import parse
from orchestrator.run_state import Run, RunState
from orchestrator.task import TaskState

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_task(name: str, *needs: str, **changes: Any) -> TaskSpec:
    """A task that depends on `needs`."""
    return TaskSpec(id=name, depends_on=needs, **changes)


def a_dag(*tasks: TaskSpec, **changes: Any) -> Definition:
    """A DAG of these tasks."""
    return Definition(**({"dag_id": "d", "owner": "team", "tasks": tasks} | changes))


def versions(*definitions: Definition) -> Callable[[int], Compiled]:
    """A look-up of these definitions, as versions 1, 2, …"""
    compiled = {number: Compiled(definition, number) for number, definition in enumerate(definitions, 1)}
    return compiled.__getitem__


def created(run_id: str = "run_1", **changes: Any) -> e.RunCreated:
    """The first event of a run."""
    values: dict[str, Any] = {"at": AT, "run_id": run_id, "tenant": "t", "dag_id": "d", "dag_version": 1}
    return e.RunCreated(**(values | {"run_type": "manual"} | changes))


def a_plan(definition: Definition, **changes: Any) -> e.Plan:
    """The plan that a definition was made of: all tasks of one phase, nothing done."""
    text = "\n".join(["# A plan", "## Phase 1: All", *(f"- [ ] {task.id} Do {task.id}" for task in definition.tasks)])
    document = parse(text, "p")
    done, skipped = changes.get("done", ()), changes.get("skipped", ())
    status = plan_status.new(document, "docs/plans/p.md", AT)
    marks = [*(Completed(name, AT) for name in done), *(Skipped(name, AT) for name in skipped)]
    raw = msgspec.Raw(msgspec.json.encode(plan_status.apply(status, *marks).raw))
    texts = {task.task_id: task.description for task in document.tasks}
    values: dict[str, Any] = {"name": "p", "path": "/srv/docs/plans/p.md", "executor": "echo", "max_iterations": 50}
    return e.Plan(**(values | {"status": raw, "texts": texts} | changes))


def a_value(content: object) -> Value:
    """A task's return value."""
    return Value(msgspec.Raw(msgspec.json.encode(content)))


class Story:
    """One run and all that happened to it. Tasks are named; `now` moves when told to."""

    def __init__(
        self,
        *tasks: TaskSpec,
        later: Sequence[Definition] = (),
        mode: str = "",
        plan: e.Plan | None = None,
        **changes: Any,
    ) -> None:
        self.compiled = versions(a_dag(*tasks, **changes), *later)
        first = created(origin=e.Origin(mode) if mode else None, plan=plan)
        self.now = AT
        self.run = Run(first, self.compiled)
        self.events: list[e.Event] = [first]
        #: what had to stop
        self.aborts: list[run_duties.Abort] = []

    def do(self, command: plan_run.Command | wait_decisions.Command) -> list[e.Event]:
        """Decide and apply; the new events."""
        if isinstance(command, wait_decisions.Signal | wait_decisions.Vote | Return):
            new = self._take(wait_decisions.decide(self.run, command, self.now))
            new += self._follow()
        elif self.run.agenda is None:
            assert not isinstance(command, plan_run.ShutDown | plan_run.MarkTask), "not of a plan"
            new = self._take(run_decisions.decide(self.run, command, self.now))
            new += self._follow()
        else:
            new = self._take(plan_run.decide(self.run, command, self.now))
            new += self._take(plan_run.proceed(self.run, self.now))
        self.events += new
        return new

    def elapse(self) -> list[e.Event]:
        """Timers that are due now fire; the new events."""
        new = self._follow()
        self.events += new
        return new

    def _follow(self) -> list[e.Event]:
        """What follows by itself."""
        new: list[e.Event] = []
        while more := run_decisions.proceed(self.run, self.now) or wait_decisions.proceed(self.run, self.now):
            new += self._take(more)
        return new

    def _take(self, new: list[e.Event]) -> list[e.Event]:
        for event in new:
            abort = run_duties.aborted(self.run, event)
            self.aborts += [abort] if abort else []
            runs.apply(self.run, event)
        return new

    def kinds(self, command: run_commands.Command) -> list[str]:
        """Wire names of the events that `command` makes."""
        return [str(event.__struct_config__.tag) for event in self.do(command)]

    def wait(self, seconds: float) -> Story:
        """Time passes."""
        self.now += timedelta(seconds=seconds)
        run_duties.wake(self.run, self.now)
        return self

    def start(self) -> Story:
        """Admit the run."""
        self.do(run_commands.Start())
        return self

    def begin(self, *names: str, worker: str = "w0") -> Story:
        """Hand these tasks to a worker."""
        for name in names:
            self.do(run_commands.Begin((self.run.position(name),), worker, "i1"))
            run_duties.put_back(
                self.run, run_duties.take_ready(self.run, len(self.run.tasks))
            )  # what runs is taken off
        return self

    def report(self, name: str, outcome: str, attempt: int | None = None, **changes: Any) -> run_commands.Settle:
        """What the worker says of the running attempt of a task."""
        current = self.run.tasks[self.run.position(name)].attempt if attempt is None else attempt
        return run_commands.Settle(Report("run_1", name, current, outcome, **changes), 0.5)

    def ok(self, *names: str) -> Story:
        """These tasks run and succeed, one after another."""
        for name in names:
            self._running(name)
            self.do(self.report(name, "ok", value=a_value(name)))
        return self

    def fail(self, *names: str, error: str = "Boom", **changes: Any) -> Story:
        """These tasks run and fail."""
        for name in names:
            self._running(name)
            self.do(self.report(name, "error", error=error, **changes))
        return self

    def lose(self, *names: str) -> Story:
        """These tasks run and are lost with their worker."""
        for name in names:
            self._running(name)
            self.do(run_commands.Lose(name, self.attempt(name)))
        return self

    def suspend(self, name: str, seconds: float, call: int = 1) -> Story:
        """The task runs and its code goes to sleep."""
        self._running(name)
        self.do(self.report(name, "suspended", value=a_value([call, self.now + timedelta(seconds=seconds)])))
        return self

    def signal(self, name: str, data: object = None, signal_id: str = "") -> list[e.Event]:
        """Somebody signals the run; the new events."""
        return self.do(wait_decisions.Signal(name, msgspec.Raw(msgspec.json.encode(data)), signal_id))

    def vote(self, task: str, choice: str, by: str = "ada", **changes: Any) -> list[e.Event]:
        """Somebody votes; the new events."""
        values: dict[str, Any] = {"choice": choice, "by": by, "roles": ("client", by)}
        return self.do(wait_decisions.Vote(task, Ballot(**(values | changes))))

    def note(self, name: str, content: object, kind: str = "checkpoint") -> run_commands.Mark:
        """A checkpoint of the running attempt."""
        return run_commands.Mark(
            Note("run_1", name, self.attempt(name), kind, msgspec.Raw(msgspec.json.encode(content)))
        )

    def attempt(self, name: str) -> int:
        """Last attempt of a task."""
        return self.run.tasks[self.run.position(name)].attempt

    def state(self, name: str) -> TaskState:
        """Where a task is."""
        return self.run.tasks[self.run.position(name)].state

    @property
    def states(self) -> dict[str, str]:
        """Where all tasks are."""
        return {n: str(t.state) for n, t in zip(self.run.compiled.graph.names, self.run.tasks, strict=True)}

    @property
    def ready(self) -> list[str]:
        """Tasks that may start now, in the order in which they would."""
        positions = run_duties.take_ready(self.run, len(self.run.tasks))
        run_duties.put_back(self.run, positions)
        return [self.run.compiled.graph.names[i] for i in positions]

    def replayed(self) -> Run:
        """The run as a fold of its events."""
        return runs.fold(self.events, self.compiled)

    def _running(self, name: str) -> None:
        if self.state(name) is not TaskState.RUNNING:
            self.begin(name)
        assert self.state(name) is TaskState.RUNNING, f"{name} could not start: it is {self.state(name)}"


def day(number: int) -> Window:
    """The n-th date window."""
    text = f"2025-10-{number:02d}"
    return Window(text, text)


class Watch:
    """One backfill over children c1, c2, … and all that happened to it."""

    def __init__(self, windows: int, kept: Sequence[str] = ()) -> None:
        self.children = [(f"c{n}", day(n)) for n in range(1, windows + 1)]
        self.kept = frozenset(kept)
        whole = Window(day(1).start, day(windows).end)
        first = e.BackfillCreated(AT, "run_b", "t", "d", 1, whole, windows, len(self.kept))
        self.backfill = Backfill(first, self.children, self.kept)
        self.events: list[e.Event] = [first]

    def do(self, command: backfills.Command) -> list[e.Event]:
        """Decide and apply; the new events."""
        new = backfills.decide(self.backfill, command, AT)
        for event in new:
            backfills.apply(self.backfill, event)
        self.events += new
        return new

    def see(self, **states: str) -> list[str]:
        """Children are seen in these states; wire names of the new events."""
        new = self.do(backfills.Observe(tuple(states.items())))
        return [str(event.__struct_config__.tag) for event in new]

    @property
    def state(self) -> RunState:
        """Where the backfill is."""
        return self.backfill.state

    def replayed(self) -> Backfill:
        """The backfill as a fold of its events."""
        first = self.events[0]
        assert isinstance(first, e.BackfillCreated)
        backfill = Backfill(first, self.children, self.kept)
        for event in self.events[1:]:
            backfills.apply(backfill, event)
        return backfill
