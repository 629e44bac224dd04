"""What a turn wants of workers and of the Kubernetes cluster, handed on once it is durable.

A batch of tasks goes to its seat, without the tasks of runs that the journal did not take; tasks that are Jobs are
ordered; attempts that do not count any more are told to stop.
"""

from __future__ import annotations

from collections.abc import Collection

from actors.clock import Clock
from actors.crew import Crew
from actors.kubernetes_seat import KubernetesSeat
from actors.names import KUBERNETES
from actors.readiness import Sending, assignments
from actors.result_cache import ResultCache
from actors.slot_time import SlotTime
from actors.turn import Turn


class WorkOrders:
    """Of one RunActor, by its name."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        crew: Crew,
        jobs: KubernetesSeat,
        slot_time: SlotTime,
        cache: ResultCache,
        traced: bool,
    ) -> None:
        self._name = name
        self._clock = clock
        self._crew = crew
        self._jobs = jobs
        self._slot_time = slot_time
        self._cache = cache
        self._traced = traced

    def give(self, turn: Turn, failed: Collection[str]) -> None:
        """All that the turn decided is durable, but for these runs."""
        for sending in turn.sendings:
            for run_id in failed:
                sending.runs.pop(run_id, None)
            self._send(sending)
        for hosted, positions in turn.jobs:
            if hosted.run.run_id not in failed:
                self._jobs.order(hosted.run, positions)
        for run_id, worker, abort in turn.aborts:
            if run_id not in failed:
                way = self._jobs if worker == KUBERNETES else self._crew
                way.abort(worker, (run_id, abort.task, abort.attempt))

    def _send(self, sending: Sending) -> None:
        if not sending.runs:
            self._slot_time.kept(sending)
            return
        for run_id, hosted in sending.runs.items():
            if hosted.run.compiled.cached:
                self._cache.begin(hosted, sending.positions[run_id])
        told = assignments(sending, self._name, self._traced)
        number = self._crew.send(sending.seat, *told, sending.expected_s)
        self._slot_time.sent(sending, number, self._clock.monotonic())
