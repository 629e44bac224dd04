"""Runs that wait for a place of their DAG, as the journal has them and the sched stream tells of them.

    rows, when the scheduler begins ─┐
    RunsCreated                     ─┼─▶ Queued: its lane, and its place there ─▶ admissions ─▶ admitted
    RunMoved                        ─┘       └── is known until the run ends: refused, it waits again ◀──┘

A run waits in the lane of the backfill that is at it: a window's run belongs to the one that made it, or to the last
that took it up. What was queued later stands behind; rows come in the order of their creation.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors.clock import Clock
from orchestrator.dispatch import Admission as Admissions
from orchestrator.dispatch import Queued
from orchestrator.rows import RunRow
from orchestrator.streams import RunMoved, RunsCreated


def key_of(tenant: str, dag_id: str) -> str:
    """A DAG, as admissions know it."""
    return f"{tenant}/{dag_id}"


class RunQueue:
    """For one scheduler, whose `admissions` these are. Of backfills themselves it is not told: they never wait."""

    def __init__(self, clock: Clock, admissions: Admissions) -> None:
        self._clock = clock
        self._admissions = admissions
        #: what is known of a run that waits, to queue it again; until the run ends
        self._known: dict[str, Queued] = {}
        #: place of the run that was queued last
        self._order = 0

    def find(self, row: RunRow, backfills: Mapping[str, RunRow]) -> None:
        """A run of the journal waits, or is active; `backfills` are those that go on."""
        queued = self._found(row, backfills)
        if row.state == "queued":
            self._enqueue(queued)
        else:
            self._admissions.occupy(queued)

    def create(self, item: RunsCreated) -> None:
        """These runs wait, behind what does already."""
        dag, limit = key_of(item.tenant, item.dag_id), item.max_active_runs if item.parent else None
        scheduled, now_s = item.run_type == "scheduled" and not item.parent, self._clock.monotonic()
        for run_id, since in zip(item.run_ids, item.versions or (1,) * len(item.run_ids), strict=True):
            order = self._next_place()
            self._enqueue(Queued(run_id, dag, item.parent or None, limit, order, since, scheduled, now_s))

    def occupy(self, item: RunMoved) -> None:
        """The run is active without having been admitted."""
        dag, scheduled = key_of(item.tenant, item.dag_id), item.run_type == "scheduled"
        self._admissions.occupy(Queued(item.run_id, dag, item.parent or None, scheduled=scheduled))

    def end(self, run_id: str) -> None:
        """The run has ended."""
        self._known.pop(run_id, None)
        self._admissions.finish(run_id)

    def known(self, run_id: str) -> Queued | None:
        """A run that was queued and has not ended."""
        return self._known.get(run_id)

    def since(self, admitted: Queued) -> int:
        """A version of the run since it was queued last: it may have been queued again while it waited."""
        return self._known.get(admitted.run_id, admitted).since

    def again(self, queued: Queued) -> None:
        """Its admission was refused: it waits at its place."""
        self._admissions.requeue(queued.run_id, queued)

    def _enqueue(self, queued: Queued) -> None:
        self._known[queued.run_id] = queued
        self._admissions.enqueue(queued)

    def _found(self, row: RunRow, backfills: Mapping[str, RunRow]) -> Queued:
        """A run as it waits, or waited, in the lane of the backfill that is at it."""
        at_it = (backfills[b] for b in (row.parent, *reversed(row.watchers)) if b in backfills) if row.parent else ()
        backfill = next(iter(at_it), None)
        parent = backfill.run_id if backfill else row.parent or None
        cap = backfill.max_active_runs if backfill else None
        dag, scheduled = key_of(row.tenant, row.dag_id), row.run_type == "scheduled" and not row.watchers
        return Queued(row.run_id, dag, parent, cap, self._next_place(), row.version, scheduled, self._clock.monotonic())

    def _next_place(self) -> int:
        self._order += 1
        return self._order
