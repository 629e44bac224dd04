"""The scheduler's first choice, without a clock or a wire: which queued run may start. The others are whose turn a
worker slot is (`slots.py`), and who may have permits (`permits.py`).

Per DAG, queued runs wait in lanes: one for scheduled runs, one for manual runs, one for each
backfill, in the order in which they are to start. Lanes share the places of their DAG, by starts: classes by
weight, backfills alike (`shares.py`), so that neither a backfill nor a flood of triggers keeps the others out. A run
starts when its DAG is active and both limits hold: `max_active_runs` of the DAG, and of the backfill it belongs to
(I7), which must not be paused. DAGs do not compete here: no limit is common to them. Where runs of the schedule
must not overlap (`fires.py`), one of those is active at a time; others of the DAG pass those that wait for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.shares import Path, Shares

#: kinds of runs that share what their tenant gets, in the order in which equals go
CLASSES = ("scheduled", "manual", "backfill")
#: of those, whose work is next when it arrives after idleness
WAKES = ("scheduled", "manual")


def class_of(run_type: str, parent: str | None) -> str:
    """The class of a run: whatever belongs to a backfill is of that class."""
    return "backfill" if parent else "scheduled" if run_type == "scheduled" else "manual"


@dataclass(slots=True)
class Queued:
    """A run that waits for admission."""

    run_id: str
    dag: str
    parent: str | None
    #: the backfill's own limit, or None
    parent_limit: int | None = None
    #: place in its lane; of equals the older run id comes first
    order: int = 0
    #: a version of the run since it was queued
    since: int = 1
    #: a fire of the DAG's schedule made it
    scheduled: bool = False
    #: when it was queued, seconds of a monotonic clock
    queued_s: float = 0.0

    @property
    def lane(self) -> Path:
        """Class and backfill."""
        return class_of("scheduled" if self.scheduled else "manual", self.parent), self.parent or ""


@dataclass(slots=True)
class _Lane:
    limit: int | None
    heap: list[tuple[int, str]] = field(default_factory=list)
    active: int = 0


@dataclass(slots=True)
class _Dag:
    limit: int = 16
    paused: bool = False
    active: int = 0
    lanes: dict[Path, _Lane] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    #: runs of its schedule must not overlap
    one_by_one: bool = False
    #: active runs of its schedule
    scheduled: set[str] = field(default_factory=set)
    #: runs of its schedule that wait for those
    behind: list[Queued] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a backfill may run its windows now, whatever they were queued with."""

    limit: int | None
    paused: bool


class Admission:
    """Queued and active runs of every DAG. `dag` keys are `tenant/dag_id`; `weights` are of classes."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = {(0, name): weight for name, weight in (weights or {}).items()}
        self._dags: dict[str, _Dag] = {}
        self._queued: dict[str, Queued] = {}
        #: run id -> (dag, lane) of runs that count against the limits
        self._active: dict[str, tuple[str, Path]] = {}
        #: of backfills that go on
        self._shapes: dict[str, _Shape] = {}
        #: DAGs to look at again, in the order in which that became so
        self._dirty: dict[str, None] = {}

    @property
    def queued(self) -> int:
        """Runs that wait."""
        return len(self._queued)

    @property
    def oldest(self) -> float | None:
        """Since when the run waits that does so longest, as `queued_s` says; None when nobody waits."""
        return min((run.queued_s for run in self._queued.values()), default=None)

    @property
    def active(self) -> int:
        """Runs that count against limits."""
        return len(self._active)

    def knows(self, dag: str) -> bool:
        """Has `configure` been called for this DAG?"""
        return dag in self._dags

    def configure(self, dag: str, limit: int, paused: bool, one_by_one: bool = False) -> None:
        """Set what the DAG's current version says."""
        entry = self._dag(dag)
        entry.limit, entry.paused, entry.one_by_one = limit, paused, one_by_one
        self._dirty[dag] = None

    def shape(self, dag: str, backfill: str, limit: int | None, paused: bool) -> None:
        """The backfill runs at most `limit` windows at a time, and starts none while it is paused."""
        self._shapes[backfill] = _Shape(limit, paused)
        self._dirty[dag] = None

    def unshape(self, backfill: str) -> None:
        """The backfill has ended; windows of it that go on by themselves are runs like any other."""
        self._shapes.pop(backfill, None)

    def enqueue(self, run: Queued) -> None:
        """Add a waiting run; a second time changes nothing."""
        if run.run_id in self._queued:
            return
        self._leave(run.run_id)
        self._queued[run.run_id] = run
        lane = self._line_up(run)
        if run.parent_limit is not None:  # else a run of the lane was restarted by itself
            lane.limit = run.parent_limit
        self._dirty[run.dag] = None

    def occupy(self, run: Queued) -> None:
        """The run is active already: it was found so in the journal, or was revived by hand."""
        self._queued.pop(run.run_id, None)
        if run.run_id not in self._active:
            self._enter(run)

    def finish(self, run_id: str) -> None:
        """The run ended, or was cancelled while it waited."""
        self._queued.pop(run_id, None)
        self._leave(run_id)

    def requeue(self, run_id: str, run: Queued) -> None:
        """An admission was refused or lost: the run waits again."""
        self._leave(run_id)
        self.enqueue(run)

    def waiting(self, run_id: str) -> tuple[Queued, int, int, int, bool] | None:
        """A run that waits: it, how many of its lane go first, places its DAG has taken and has, is the DAG paused."""
        run = self._queued.get(run_id)
        if run is None:
            return None
        entry = self._dag(run.dag)
        lane = entry.lanes.get(run.lane)
        mine = (run.order, run.run_id)
        ahead = sum(each < mine and each[1] in self._queued for each in lane.heap) if lane else 0
        return run, ahead, entry.active, entry.limit, entry.paused

    def leaf(self, run_id: str) -> Path | None:
        """Tenant, class and DAG of an active run; None for any other."""
        where = self._active.get(run_id)
        if where is None:
            return None
        tenant, _, dag_id = where[0].partition("/")
        return tenant, where[1][0], dag_id

    def admit(self) -> list[Queued]:
        """The runs that start now; they count as active from here on."""
        out: list[Queued] = []
        for dag in self._dirty:
            out.extend(self._admit_from(dag))
        self._dirty.clear()
        return out

    def _admit_from(self, dag: str) -> Iterable[Queued]:
        entry = self._dags.get(dag)
        if entry is None or entry.paused:
            return
        if entry.behind and not (entry.one_by_one and entry.scheduled):
            behind, entry.behind = entry.behind, []
            for run in behind:
                self._line_up(run)
        for name in list(entry.lanes):
            self._look(entry, name)
        while entry.active < entry.limit and (turn := entry.shares.next()) is not None:
            while entry.active < entry.limit and self._may_start(entry, turn):
                waiting = self._queued.get(heapq.heappop(entry.lanes[turn].heap)[1])
                if waiting is not None and waiting.scheduled and entry.one_by_one and entry.scheduled:
                    entry.behind.append(waiting)
                elif waiting is not None:
                    del self._queued[waiting.run_id]
                    self._enter(waiting)
                    yield waiting
                    if entry.shares.contended:  # what one lane has to itself is nobody's debt
                        entry.shares.charge(turn, 1.0)
                        break
            self._look(entry, turn)

    def _may_start(self, entry: _Dag, name: Path) -> bool:
        """Has the lane a run, and a place of its own limit?"""
        lane, shape = entry.lanes[name], self._shapes.get(name[1])
        limit = lane.limit if shape is None else 0 if shape.paused else shape.limit
        return bool(lane.heap) and (limit is None or lane.active < limit)

    def _look(self, entry: _Dag, name: Path) -> None:
        """Does the lane compete for a place? One that nobody uses is forgotten."""
        if self._may_start(entry, name):
            entry.shares.arrive(name)
            return
        entry.shares.leave(name)
        lane = entry.lanes[name]
        if not lane.heap and not lane.active:
            del entry.lanes[name]

    def _line_up(self, run: Queued) -> _Lane:
        lane = self._lane(run)
        heapq.heappush(lane.heap, (run.order, run.run_id))
        return lane

    def _lane(self, run: Queued) -> _Lane:
        return self._dag(run.dag).lanes.setdefault(run.lane, _Lane(run.parent_limit))

    def _dag(self, dag: str) -> _Dag:
        entry = self._dags.get(dag)
        if entry is None:
            entry = self._dags[dag] = _Dag(shares=Shares(self._weights))
        return entry

    def _enter(self, run: Queued) -> None:
        lane = self._lane(run)
        self._active[run.run_id] = (run.dag, run.lane)
        self._dags[run.dag].active += 1
        lane.active += 1
        if run.scheduled:
            self._dags[run.dag].scheduled.add(run.run_id)

    def _leave(self, run_id: str) -> None:
        where = self._active.pop(run_id, None)
        if where is None:
            return
        dag, lane = where
        self._dags[dag].active -= 1
        self._dags[dag].scheduled.discard(run_id)
        if lane in self._dags[dag].lanes:
            self._dags[dag].lanes[lane].active -= 1
        self._dirty[dag] = None
