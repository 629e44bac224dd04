"""What clients ask of a run or a backfill: carried out in the turn, answered when it is durable, or refused at once.

A refused command has changed nothing and is forgotten. One that was carried out is answered with what became of it, and
under its idempotency key the journal keeps that answer, in the same step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from actors.command_steps import of_backfill, of_run
from actors.hosted import Hosted, HostedBackfill, HostedRun
from actors.mail import Asked, answer, refused, reply_to
from actors.turn import Turn
from orchestrator import actor_codec, errors, wait_decisions
from orchestrator.command import Command
from orchestrator.steps import StoredReply

_log = logging.getLogger(__name__)


class RunDesk:
    """`post` puts a command into the next turn."""

    def __init__(self, post: Callable[[Asked], None]) -> None:
        self._post = post

    def asked(self, turn: Turn, hosted: Hosted, message: Asked) -> None:
        """Carry the command out."""
        command = message.command
        if hosted.idem is not None and command.idem is not None:
            turn.messages[command.run_id].remove(message)
            self._post(message)  # one idempotency record a commit: this one goes into the next
            return
        before, version = str(hosted.machine.state), hosted.machine.version
        try:
            _obey(turn, hosted, command)
        except wait_decisions.LateVote as late:
            _refuse_late(turn, hosted, message, late)
            return
        except errors.OrchestratorError as why:
            answer(message.answer, refused(why))
            turn.messages[command.run_id].remove(message)
            return
        reply = msgspec.structs.replace(reply_to(hosted, command), before=before, version=version + 1)
        if command.idem is not None:
            stored = actor_codec.encode_command_reply(reply)
            hosted.idem = StoredReply(command.idem.key, command.idem.fingerprint, stored)
        turn.answers.append((command.run_id, message.answer, lambda: reply))


def _obey(turn: Turn, hosted: Hosted, command: Command) -> None:
    if isinstance(hosted, HostedBackfill):
        hosted.step(of_backfill(command), turn.now())
        turn.touch(hosted)
    else:
        turn.step(hosted, of_run(command))


def _refuse_late(turn: Turn, hosted: Hosted, message: Asked, late: wait_decisions.LateVote) -> None:
    """It has no effect, but is told."""
    if late.told is not None and isinstance(hosted, HostedRun):
        hosted.record(late.told)
        turn.touch(hosted)
    else:
        _log.info("%s", late)
    turn.answers.append((message.command.run_id, message.answer, lambda: refused(late)))
