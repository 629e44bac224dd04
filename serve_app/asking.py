"""A command on a run: to whoever owns it, again when it moved meanwhile, and the answer.

A run that waits for admission belongs to nobody: a command on it may reach one actor in the moment in which the
scheduler gives the run to another one. The first then answers `moved`, and has done nothing. An owner that died may
have done it or not, so only what may be done twice is asked again. A cancel may have ended the owner itself, an actor
of that one run: then the answer that is kept under its key tells that it was done, or else the run.
"""

from __future__ import annotations

import asyncio

import msgspec

from orchestrator import actor_codec
from orchestrator.command import Command, CommandReply
from orchestrator.definition import HIDDEN
from orchestrator.errors import ActorUnreachable, Conflict, Invalid, NotAllowed, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import RunRow

KEY_REUSED = "this request id was used with another body"
#: seconds between two tries
PAUSE_S = 0.02
#: commands that change nothing when they are carried out a second time
_REPEATABLE = frozenset({"cancel", "cap", "pause", "resume", "shut_down", "signal", "skip_task", "vote"})


async def ask(journal: Journal, control: ControlPlane, owner: str, command: Command) -> CommandReply:
    """The effect of `command` is durable. Raises what the owner refused with; the caller keeps the deadline."""
    while True:
        lost = False
        try:
            reply = actor_codec.decode_command_reply(
                await control.command(owner, command.run_id, actor_codec.encode_command(command))
            )
        except ActorUnreachable:
            if command.kind not in _REPEATABLE and command.idem is None:
                raise
            lost = True
        else:
            if reply.refused != "moved":
                return _taken(command, reply)
        await asyncio.sleep(PAUSE_S)
        row = await journal.summary(command.run_id)
        if lost and command.kind == "cancel" and row is not None and row.state == "cancelled":
            kept = await kept_reply(journal, command.idem)  # the same request may be at another replica
            return kept or CommandReply(state=row.state, attempts=row.attempts)
        owner = row.owner if row and row.owner else owner


async def kept_reply(journal: Journal, idem: Idempotency | None) -> CommandReply | None:
    """What was answered under that key before. Raises Conflict when that was another request."""
    if idem is None or (kept := await journal.stored_reply(idem.key)) is None:
        return None
    if kept.fingerprint != idem.fingerprint:
        raise Conflict(KEY_REUSED)
    return msgspec.structs.replace(actor_codec.decode_command_reply(kept.reply), replayed=True)


def _taken(command: Command, reply: CommandReply) -> CommandReply:
    """The reply to a command that was carried out. Raises Conflict, Invalid, NotAllowed, NotFound, Unavailable."""
    if reply.refused == "conflict":
        raise Conflict(reply.message)
    if reply.refused == "not_found":
        raise NotFound("task" if command.task else "run", command.task or command.run_id)
    if reply.refused == "invalid":
        raise Invalid(reply.message)
    if reply.refused == "not_allowed":
        raise NotAllowed(reply.message)
    if reply.refused is not None:
        raise Unavailable(reply.message)
    return reply


def shown(row: RunRow | None, tenant: str, run_id: str) -> RunRow:
    """The row, if the dags surface shows it to that tenant. Raises NotFound."""
    if row is None or row.tenant != tenant or row.dag_id.startswith(HIDDEN):
        raise NotFound("run", run_id)
    return row
