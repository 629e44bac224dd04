"""A command on a run, and the answer of the actor that owns it."""

from __future__ import annotations

from orchestrator import codec
from orchestrator.errors import Conflict, NotFound, Unavailable
from orchestrator.ports import Command, CommandReply, ControlPlane


async def ask(control: ControlPlane, owner: str, command: Command) -> CommandReply:
    """The effect of `command` is durable. Raises what the owner refused with, and ActorUnreachable."""
    blob = await control.command(owner, command.run_id, codec.encode_command(command))
    reply = codec.decode_command_reply(blob)
    if reply.refused == "conflict":
        raise Conflict(reply.message)
    if reply.refused == "not_found":
        raise NotFound("task" if command.task else "run", command.task or command.run_id)
    if reply.refused is not None:
        raise Unavailable(reply.message)
    return reply
