"""Ending the open windows of a cancelled backfill, wherever their runs are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from actors.peers import Peers
from orchestrator import actor_codec, errors
from orchestrator.command import Command, CommandReply
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL

_log = logging.getLogger(__name__)

#: windows that are cancelled at the same time
AT_ONCE = 64
#: longest pause between two tries, seconds
PAUSE_MAX_S = 2.0


class Mailbox(Protocol):
    """The RunActor that owns the backfill, and may own some of the windows."""

    name: str

    async def obey(self, command: Command) -> CommandReply:
        """Carry the command out here."""


class WindowCanceller:
    """Sends `cancel` to the owner of each window; runs that nobody owns are cancelled here."""

    def __init__(self, here: Mailbox, journal: Journal, peers: Peers) -> None:
        self._here = here
        self._journal = journal
        self._peers = peers

    async def cancel(self, children: Iterable[str]) -> None:
        """Every child has ended, or its next owner has been told to end it."""
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._cancel(gate, child) for child in children))

    async def _cancel(self, gate: asyncio.Semaphore, child: str) -> None:
        pause_s = 0.1
        while True:
            try:
                async with gate:
                    if await self._try(child):
                        return
            except errors.Unavailable as unavailable:
                _log.warning("cancelling %s: %s", child, unavailable)
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    async def _try(self, child: str) -> bool:
        row = await self._journal.summary(child)
        if row is None or row.state in TERMINAL:
            return True
        command = Command(kind="cancel", run_id=child)
        if row.owner in ("", self._here.name):
            reply = await self._here.obey(command)
        else:
            reply = actor_codec.decode_command_reply(
                await self._peers.ask(row.owner, "command", actor_codec.encode_command(command))
            )
        return reply.refused in (None, "conflict")
