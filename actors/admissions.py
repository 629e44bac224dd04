"""Runs that the scheduler has admitted here: which admissions count, and what they do.

An admission may come twice or late. It counts for the life of the run for which it was given (a run that is restarted
queues again), and until the journal refused it: then the scheduler is told, who may give the place to another run.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.due_runs import DueRuns
from actors.hosted import Hosted, HostedBackfill, HostedRun
from actors.mail import Admitted
from actors.turn import Turn
from orchestrator import run_commands
from orchestrator.control import Admission
from orchestrator.run_state import ENDED, Run, RunState

#: admissions remembered because the journal refused them
DECLINED_MAX = 10_000


class Admissions:
    """`catch_up` learns what the windows of a backfill did; `refused` tells the scheduler: a run, and the number."""

    def __init__(
        self, due: DueRuns, catch_up: Callable[[HostedBackfill], None], refused: Callable[[str, int], None]
    ) -> None:
        self._due = due
        self._catch_up = catch_up
        self._refused = refused
        #: numbers of admissions that the journal refused
        self._declined: dict[int, None] = {}

    def admitted(self, turn: Turn, hosted: Hosted, message: Admitted) -> None:
        """Start the run, or have it go on here if it had begun."""
        if isinstance(hosted, HostedBackfill):
            if hosted.ended:  # one of its windows may go on
                self._catch_up(hosted)
            return
        self._due.check_sla(turn, hosted)
        self._due.check_deadlines(turn, hosted)
        if message.admission.only_host:
            _claim(turn, hosted)
        elif hosted.run.state is RunState.QUEUED and self._holds(hosted.run, message.admission):
            hosted.admission_epoch, hosted.admission_lane = message.epoch, message.admission.lane
            turn.step(hosted, run_commands.Start())

    def _holds(self, run: Run, admission: Admission) -> bool:
        """Is it for the present life of the run, and was it not given back?"""
        return admission.since >= run.queued_version and admission.number not in self._declined

    def decline(self, admission: Admission) -> None:
        """The scheduler may give the place to another run now: should this admission come again, it is void."""
        self._declined[admission.number] = None
        if len(self._declined) > DECLINED_MAX:
            del self._declined[next(iter(self._declined))]
        self._refused(admission.run_id, admission.number)


def _claim(turn: Turn, hosted: HostedRun) -> None:
    """Own a run that goes on by itself later: its timer is here, and would be lost with this actor."""
    if hosted.run.state not in (RunState.QUEUED, *ENDED) and not hosted.claimed:
        hosted.claiming = True
        turn.touch(hosted)
