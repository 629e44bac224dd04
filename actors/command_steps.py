"""What a caller's command on a run means for the machine of the run, or of the backfill."""

from __future__ import annotations

from orchestrator import backfill as backfills
from orchestrator import errors, plan_run, run_commands, wait_decisions
from orchestrator.command import Command


def of_run(command: Command) -> plan_run.Command | wait_decisions.Command:
    """Of a run, or of a plan's instance. Raises Invalid."""
    match command.kind:
        case "cancel":
            return run_commands.Cancel()
        case "pause":
            return run_commands.Pause()
        case "resume":
            return run_commands.Resume()
        case "retry_task":
            return run_commands.RetryTask(command.task or "")
        case "skip_task":
            return run_commands.SkipTask(command.task or "", command.reason)
        case "mark_task":
            return plan_run.MarkTask(command.task or "", command.word or "", command.reason)
        case "shut_down":
            return plan_run.ShutDown()
        case "retry_run":
            return run_commands.RetryFailed()
        case "post" if command.checkpoint is not None:
            return run_commands.Post(command.checkpoint.kind, command.checkpoint.data)
        case "signal" if command.signal is not None:
            told = command.signal
            return wait_decisions.Signal(told.name, told.data, told.signal_id)
        case "vote" if command.vote is not None:
            return wait_decisions.Vote(command.task or "", command.vote)
        case _:
            raise errors.Invalid(f"unknown command {command.kind}")


def of_backfill(command: Command) -> backfills.Command:
    """Of a backfill. Raises Conflict."""
    match command.kind:
        case "cancel":
            return backfills.CancelAll()
        case "pause":
            return backfills.PauseAll()
        case "resume":
            return backfills.ResumeAll()
        case "cap":
            return backfills.Recap(command.max_active_runs)
        case _:
            raise errors.Conflict(f"{command.kind} is not possible on backfill {command.run_id}")
