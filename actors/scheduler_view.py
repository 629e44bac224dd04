"""What the scheduler tells of itself: what a run waits for, how much waits, and what worker slots are at.

    admissions (who waits for a place) ─┐
    slots (whose tasks wait for one)   ─┼─▶ RunWaiting, load, slot states: as they are now
    guard (tasks that wait for permits) ┘

It reads, and changes nothing.
"""

from __future__ import annotations

from actors.clock import Clock
from actors.guard import Guard
from orchestrator.cluster_views import RunWaiting
from orchestrator.dispatch import Admission as Admissions
from orchestrator.slots import Slot, Slots


class SchedulerView:
    """Of one scheduler, whose parts these are."""

    def __init__(self, clock: Clock, admissions: Admissions, slots: Slots, guard: Guard) -> None:
        self._clock = clock
        self._admissions = admissions
        self._slots = slots
        self._guard = guard

    def waiting(self, run_id: str) -> RunWaiting:
        """What the run waits for: a place of its DAG, a slot for its tasks, or nothing that is known here."""
        waits = self._admissions.waiting(run_id)
        if waits is not None:
            run, ahead, active, limit, paused = waits
            return RunWaiting(run_id, "place", run.lane[0], ahead, active, limit, paused)
        leaf = self._admissions.leaf(run_id)
        if leaf is None:
            return RunWaiting(run_id)
        share = round(self._slots.share(leaf), 4)
        return RunWaiting(run_id, "slot" if self._slots.wanted(leaf) else None, leaf[1], share=share)

    def load(self) -> dict[str, int]:
        """How much waits, for gauges: runs, tasks, workers, seconds; `pool_waiting|<pool>` of tasks with needs."""
        in_pools = self._guard.waiting()
        tasks = self._slots.waiting + self._guard.permits.parked
        return {
            "queued_runs": self._admissions.queued,
            "active_runs": self._admissions.active,
            "waiting_tasks": tasks,
            "plain_waiting": tasks - sum(in_pools.values()),
            "workers": len(self._slots.slots),
            "oldest_s": self._oldest_s(),
        } | {f"pool_waiting|{pool}": n for pool, n in in_pools.items()}

    def slot_states(self) -> dict[str, str]:
        """worker -> idle | busy | draining | draining_busy."""
        return {slot.worker: _word(slot) for slot in self._slots.slots.values()}

    def _oldest_s(self) -> int:
        """Seconds since the run was created, or found, that waits for admission longest."""
        since = self._admissions.oldest
        return 0 if since is None else int(self._clock.monotonic() - since)


def _word(slot: Slot) -> str:
    if slot.draining:
        return "draining_busy" if slot.holder else "draining"
    return "busy" if slot.holder else "idle"
