"""Commands on a backfill that are meant for its windows: each window gets one of its own.

The same request may be at two replicas at once, or come again when its answer was lost. So what a window is told has
a key of its own, made of the request's: it has one effect there, whoever asks. The answer to the whole request is the
one that is stored first; a request that finds nothing left to do looks whether that is because of itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass

import msgspec

from orchestrator import actor_codec
from orchestrator.command import Command, CommandReply
from orchestrator.errors import Conflict, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import TERMINAL, ChildRow, RunRow
from orchestrator.steps import StoredReply
from serve_app.asking import ask

#: windows a command reaches at the same time
_AT_ONCE = 64
#: a backfill hears within milliseconds that a window of it was revived; looks at its row meanwhile, and seconds between
_LOOKS, _LOOK_S = 50, 0.02
#: letters of tasks that a command on a task can be meant for
MEANT = {"retry_task": "ftuc", "skip_task": "prefustc", "retry_run": "ftuc"}


@dataclass(frozen=True, slots=True)
class WindowOrders:
    """Carries commands out on every window where they are allowed."""

    journal: Journal
    control: ControlPlane

    async def carry_out(self, row: RunRow, command: Command) -> CommandReply:
        """The answer of the backfill, once every window has its own. Raises Conflict when no window allows it."""
        gate = asyncio.Semaphore(_AT_ONCE)
        children = await self.journal.children(row.run_id)
        replies = await _all(self._tell(gate, child, command) for child in children)
        if not replies and command.idem is not None:
            replies = await _all(self._told(gate, child, command.idem) for child in children)
        if not replies:
            raise Conflict(f"no window of backfill {row.run_id} allows it")
        now = await self._moved(row) if row.state in TERMINAL else row
        reply = CommandReply(state=now.state, attempts=now.attempts, task_state=replies[0].task_state)
        return reply if command.idem is None else await self._first(command.idem, reply)

    async def _tell(self, gate: asyncio.Semaphore, child: ChildRow, command: Command) -> CommandReply | None:
        async with gate:
            letters = await self.journal.tasks(child.run_id)
            meant = letters.values() if command.task is None else [letters.get(command.task, "p")]
            if not any(letter in MEANT[command.kind] for letter in meant):
                return None
            current = await self.journal.summary(child.run_id)
            idem = _of_window(command.idem, child) if command.idem is not None else None
            wanted = Command(kind=command.kind, run_id=child.run_id, task=command.task, idem=idem)
            try:
                return await ask(self.journal, self.control, current.owner if current else "", wanted)
            except (Conflict, NotFound):
                return None

    async def _moved(self, ended: RunRow) -> RunRow:
        """The backfill once it has heard that its windows go on: who waits for it now waits for their end."""
        for _ in range(_LOOKS):
            found = await self.journal.summary(ended.run_id)
            if found is None or found.version > ended.version:
                return found or ended
            await asyncio.sleep(_LOOK_S)
        return ended

    async def _told(self, gate: asyncio.Semaphore, child: ChildRow, idem: Idempotency) -> CommandReply | None:
        """What the window answered to the same request before."""
        async with gate:
            kept = await self.journal.stored_reply(_of_window(idem, child).key)
        return actor_codec.decode_command_reply(kept.reply) if kept is not None else None

    async def _first(self, idem: Idempotency, reply: CommandReply) -> CommandReply:
        """The answer that was stored first; this one, if no other was."""
        await self.journal.store_reply(StoredReply(idem.key, idem.fingerprint, actor_codec.encode_command_reply(reply)))
        kept = await self.journal.stored_reply(idem.key)
        stored = actor_codec.decode_command_reply(kept.reply) if kept is not None else reply
        return stored if stored == reply else msgspec.structs.replace(stored, replayed=True)


def _of_window(idem: Idempotency, child: ChildRow) -> Idempotency:
    return Idempotency(f"{idem.key}/{child.run_id}", idem.fingerprint)


async def _all(asked: Iterable[Awaitable[CommandReply | None]]) -> list[CommandReply]:
    return [reply for reply in await asyncio.gather(*asked) if reply is not None]
