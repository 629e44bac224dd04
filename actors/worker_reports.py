"""What workers say of attempts, and what their silence says: results, checkpoints, batches and workers that are gone.

Nothing of this is believed without a look at the attempt: what a newer one, or the end of the run, has overtaken has no
effect (I12). About a run that is being read it waits; about one that is not here it is late.
"""

from __future__ import annotations

import logging

from actors import json_logs
from actors.claims import Claimant
from actors.clock import Clock
from actors.crew import Crew, Ended, Gone
from actors.hosted import Hosted, HostedRun
from actors.mail import Noted, Redo, answer
from actors.residents import Residents
from actors.run_counts import label_of, moved
from actors.slot_time import SlotTime
from actors.standing import Reporter
from actors.turn import Turn
from orchestrator import errors, run_commands
from orchestrator.messages import Report

_log = logging.getLogger(__name__)


class WorkerReports:
    """Heard by one RunActor; `reporter` and `claims` tell the scheduler what it means for leases."""

    def __init__(
        self,
        clock: Clock,
        residents: Residents,
        crew: Crew,
        slot_time: SlotTime,
        reporter: Reporter,
        claims: Claimant,
    ) -> None:
        self._clock = clock
        self._residents = residents
        self._crew = crew
        self._slot_time = slot_time
        self._reporter = reporter
        self._claims = claims

    def ended(self, turn: Turn, message: Ended) -> None:
        """A batch was answered: some of it was done, some may not even have begun."""
        unreported = self._crew.settle(message)
        if message.batch is not None:
            self._slot_time.ended(message.worker, message.batch, self._clock.monotonic())
        for report in message.settled.reports:
            self._settle(turn, report)
        for run_id, task, attempt in message.settled.untouched:
            self._step_if_current(turn, run_id, run_commands.GiveBack(task, attempt))
        for run_id, task, attempt in unreported:
            self._step_if_current(turn, run_id, run_commands.Lose(task, attempt))

    def gone(self, turn: Turn, message: Gone) -> None:
        """A worker is gone, and with it its lease and what it was doing."""
        self._reporter.lost(message.worker, message.incarnation)
        self._slot_time.gone(message.worker, self._clock.monotonic())
        if message.need is not None:
            self._claims.gone(message)
        elif message.lease:
            self._reporter.released([(message.worker, message.lease)])
        for run_id, task, attempt in message.lost:
            self._step_if_current(turn, run_id, run_commands.Lose(task, attempt))
        for (run_id, task, attempt), outcome in message.overdue:
            self._settle(turn, Report(run_id, task, attempt, outcome, error="TaskTimedOut: did not stop in time"))

    def noted(self, turn: Turn, hosted: Hosted, message: Noted) -> None:
        """An attempt has left a checkpoint, or says how far it is."""
        assert isinstance(hosted, HostedRun)
        try:
            turn.step(hosted, run_commands.Mark(message.note))
        except errors.StaleAttempt as stale:
            _log.info("%s", stale)
            answer(message.answer, False)
            turn.messages[message.note.run_id].remove(message)
            return
        turn.answers.append((message.note.run_id, message.answer, lambda: True))

    def redo(self, turn: Turn, _hosted: Hosted, message: Redo) -> None:
        """What was told of a run that had to be read again."""
        self._step_if_current(turn, message.run_id, message.command)

    def _settle(self, turn: Turn, report: Report) -> None:
        hosted = self._step_if_current(turn, report.run_id, run_commands.Settle(report, self._clock.jitter()))
        if hosted is not None:
            position = hosted.run.position(report.task)
            self._crew.took(hosted.run.compiled.keys[position], report.took_s)
            if report.read_bytes or report.value.artifact is not None:
                label = label_of(hosted.run.dag_id)
                hosted.counts += [(f"{metric}|{label}", n) for metric, n in moved(report)]

    def _step_if_current(self, turn: Turn, run_id: str, command: run_commands.Command) -> HostedRun | None:
        """Apply what a worker told, unless a newer attempt, or the end of the run, has overtaken it (I12)."""
        hosted = self._residents.here.get(run_id)
        if not isinstance(hosted, HostedRun):
            if not self._residents.wait(Redo(run_id, command)):
                _log.info("late: %s of %s, which is not here any more", command, run_id)
            return None
        try:
            turn.step(hosted, command)
        except errors.StaleAttempt as stale:
            if _log.isEnabledFor(logging.INFO):  # a slow batch is asked for, and then told twice
                about = json_logs.about(run_id, stale.task, stale.attempt, hosted.run.traceparent)
                _log.info("%s", stale, extra=about)
            return None
        turn.commands[run_id].append(command)
        return hosted
