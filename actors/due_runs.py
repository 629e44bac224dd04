"""What time does to hosted runs: limits that are exceeded, promises that are missed, waits that are over.

Timers and durable alarms only say when to look; what is due is decided by the clock as it is then, so one that comes
twice or late does no harm, and one that comes too early is set again.
"""

from __future__ import annotations

from actors.hosted import HostedRun, instant, milliseconds
from actors.run_timers import RunTimers
from actors.turn import Turn
from orchestrator import run_commands, run_duties
from orchestrator.run_state import RunState


class DueRuns:
    """Looks at the clock, and at a run."""

    def __init__(self, timers: RunTimers) -> None:
        self._timers = timers

    def look(self, turn: Turn, hosted: HostedRun) -> None:
        """Do whatever is due by now; of several ends the run comes to the first."""
        now = turn.now()
        limit = run_duties.deadline(hosted.run)
        if limit is not None and limit <= now:
            turn.step(hosted, run_commands.TimeOut())
            return
        idle = run_duties.idle_deadline(hosted.run)
        if idle is not None and idle <= now:
            turn.step(hosted, run_commands.GoIdle())
            return
        run_duties.wake(hosted.run, now)
        aborts = hosted.proceed(now)
        if hosted.dirty:
            turn.took(hosted, aborts)
            return
        self.check_deadlines(turn, hosted)
        turn.look(hosted)
        self._timers.set(hosted)  # by this clock it may be too early

    def check_sla(self, turn: Turn, hosted: HostedRun) -> None:
        """Has it missed its SLA?"""
        if hosted.sla_ms is not None and instant(hosted.sla_ms) <= turn.now():
            turn.step(hosted, run_commands.MissSla(instant(hosted.sla_ms)))

    def check_deadlines(self, turn: Turn, hosted: HostedRun) -> None:
        """What is too late by now is so; a queued run that was looked at too early is looked at again."""
        run = hosted.run
        at = run_duties.next_deadline(run)
        if at is None:
            return
        if at <= turn.now():
            turn.step(hosted, run_commands.CheckDeadlines())
        elif run.state is RunState.QUEUED:
            turn.passive[run.run_id] = milliseconds(at)
