"""What the change of some tasks means for those that wait for them: who will not run after all, and who may again.

    changes ──▶ dependents, in the order of the graph ──trigger rule──▶ skipped | upstream_failed | pending again

Each task is looked at once, when all it waits for is as it will be, so what follows is the same however the changes
came about. Tasks that have started keep what they came to; so do those that a person, a branch or their own code
skipped.
One step costs what changes, plus the dependents of that. Nothing here changes the run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from orchestrator import compensation
from orchestrator import events as e
from orchestrator.run_state import Run
from orchestrator.task import FAILURES, STARTABLE, TERMINAL, TaskState
from orchestrator.trigger import Verdict, judge, judge_teardown, worth


class Standing(NamedTuple):
    """Where a task is, and if it is skipped who did that (as in TaskSkipped)."""

    state: TaskState
    by: str = ""


PENDING = Standing(TaskState.PENDING)
_RULED_OUT = {
    Verdict.SKIP: Standing(TaskState.SKIPPED, "rule"),
    Verdict.GIVE_UP: Standing(TaskState.UPSTREAM_FAILED),
}
_CARRIED = frozenset({TaskState.PENDING, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED})
_OPEN = STARTABLE
#: what the rule of a task made of it, and may unmake
_DERIVED = frozenset(_RULED_OUT.values())


class Prospect:
    """A run as it will be after some changes and all that follows from them."""

    __slots__ = ("_given", "_run", "_tallies", "changes", "following", "undoing")

    def __init__(self, run: Run, changes: Mapping[int, Standing]) -> None:
        self._run = run
        #: position -> where it will be
        self.changes = dict(changes)
        #: those of them that follow, in the order of the graph
        self.following: list[int] = []
        #: compensations that now run, one after the other (`compensation.py`)
        self.undoing: tuple[int, ...] = ()
        self._given = frozenset(changes)
        self._tallies: dict[int, int] = {}
        self._follow(self._told())
        if run.compiled.undoes:
            self._follow(self._compensate())

    def _told(self) -> list[int]:
        """Who is concerned by the changes themselves."""
        out: list[int] = []
        for position, after in list(self.changes.items()) if self._run.maps else ():
            self._carry(position, after)
        for position, after in self.changes.items():
            out += self._tell(position, self._now(position), after)
        return out + [position for position, after in self.changes.items() if after.state in _OPEN]

    def _compensate(self) -> list[int]:
        """Who is concerned by what becomes of compensations."""
        ruled, self.undoing = compensation.ruled(self._run, self.changes, self.at)
        out: list[int] = []
        for position, ruled_out in ruled.items():
            before = self.at(position)
            after = self.changes[position] = _RULED_OUT[Verdict.SKIP] if ruled_out else PENDING
            self.following.append(position)
            out += self._tell(position, before, after)
        return out

    def _follow(self, concerned: Iterable[int]) -> None:
        ranks = self._run.compiled.ranks
        met = set(concerned)
        queue = [(ranks[position], position) for position in met]
        heapq.heapify(queue)
        while queue:
            _, position = heapq.heappop(queue)
            before = self.at(position)
            after = self._ruled(position, before)
            if after != before:
                self.changes[position] = after
                self.following.append(position)
                if self._run.maps:
                    self._carry(position, after)
                for child in self._tell(position, before, after):
                    if child not in met:
                        met.add(child)
                        heapq.heappush(queue, (ranks[child], child))

    def _carry(self, position: int, after: Standing) -> None:
        """Instances that have not ended go with their map when that will not run; and come back with it."""
        table = self._run.maps.get(position)
        if table is None or after.state not in _CARRIED:
            return
        with_it = Standing(after.state, "map" if after.state is TaskState.SKIPPED else "")
        for i in table.live:
            before = self.at(i)
            back = after == PENDING and (before.state is TaskState.UPSTREAM_FAILED or before.by == "map")
            if back or (after != PENDING and before.state not in TERMINAL):
                self.changes[i] = with_it
                self.following.append(i)

    def _now(self, position: int) -> Standing:
        task = self._run.tasks[position]
        return Standing(task.state, task.skipped_by if task.state is TaskState.SKIPPED else "")

    def at(self, position: int) -> Standing:
        """Where a task will be."""
        return self.changes.get(position) or self._now(position)

    def _tell(self, position: int, before: Standing, after: Standing) -> tuple[int, ...]:
        """Dependents whose tally is another one now."""
        change = worth(*after) - worth(*before)
        if not change:
            return ()
        children = self._run.compiled.graph.children[position]
        for child in children:
            self._tallies[child] = self._tallies.get(child, self._run.waits[child]) + change
        return children

    def _ruled(self, position: int, before: Standing) -> Standing:
        if (before.state not in _OPEN and before not in _DERIVED) or position in self._run.compiled.undoes:
            return before
        if position >= self._run.compiled.size:
            return before
        verdict = self._verdict(position)
        if verdict in _RULED_OUT:
            return _RULED_OUT[verdict]
        return PENDING if before in _DERIVED else before

    def _verdict(self, position: int) -> Verdict:
        compiled = self._run.compiled
        tally = self._tallies.get(position, self._run.waits[position])
        setups = compiled.setups.get(position)
        if setups is None:
            return judge(compiled.specs[position].trigger_rule, len(compiled.graph.parents[position]), tally)
        return judge_teardown(tally, [worth(*self.at(setup)) for setup in setups])

    # ── what to make of it ──

    @property
    def open(self) -> int:
        """Tasks that will not be terminal."""
        states = [(self._run.tasks[i].state, after.state) for i, after in self.changes.items()]
        return self._run.open + sum((before in TERMINAL) - (after in TERMINAL) for before, after in states)

    @property
    def failed(self) -> int:
        """Tasks that will have failed, and whose failure fails the run."""
        out = self._run.failed
        for position, after in self.changes.items():
            change = (after.state in FAILURES) - (self._run.tasks[position].state in FAILURES)
            out += change if change and self._run.compiled.decides(position) else 0
        return out

    def events(self, at: datetime) -> list[e.Event]:
        """What follows, as events."""
        out: list[e.Event] = []
        for position in dict.fromkeys(self.following):
            if position not in self._given and self.changes[position] == self._now(position):
                continue  # changed, and changed back
            name = self._run.compiled.graph.names[position]
            match self.changes[position].state:
                case TaskState.PENDING:
                    out.append(e.TaskReset(at=at, task=name))
                case TaskState.SKIPPED:
                    out.append(e.TaskSkipped(at=at, task=name, by=self.changes[position].by))
                case _:
                    if self._run.tasks[position].state is TaskState.SKIPPED:
                        out.append(e.TaskReset(at=at, task=name))
                    out.append(e.TaskUpstreamFailed(at=at, task=name))
        return out + compensation.announced(self._run, self.undoing, at)
