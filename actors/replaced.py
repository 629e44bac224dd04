"""Ends runs that nobody wants any more: a later fire of their schedule replaced them (overlap `cancel_previous`), or
the task that called them waits no longer (`orchestrator/calls.py`).

The step that made it so noted in the journal which runs those are; a note goes when its run ends. So what is
owed is read, not remembered: a scheduler that starts goes on where the last one was. A run that has no owner yet is
cancelled by some RunActor, as for any other caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actors.peers import Peers
from orchestrator import actor_codec, errors
from orchestrator.command import Command
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL

_log = logging.getLogger(__name__)

#: runs that are cancelled at the same time
AT_ONCE = 16
#: seconds after which it looks without news
LOOK_S = 30.0
#: seconds between two tries, doubling
FIRST_PAUSE_S = 0.05
PAUSE_MAX_S = 2.0


class ReplacedRuns:
    """Cancels them. `run` never returns."""

    def __init__(self, journal: Journal, peers: Peers, some_run_actor: Callable[[], str | None]) -> None:
        self._journal = journal
        self._peers = peers
        self._some_run_actor = some_run_actor
        self._news = asyncio.Event()
        self._news.set()  # there may be some from before

    def look(self) -> None:
        """Some have become so."""
        self._news.set()

    async def run(self) -> None:
        """Wait for news, then cancel until every replaced run has ended."""
        while True:
            await self._wait()
            pause_s = FIRST_PAUSE_S
            while await self._some_left():
                await asyncio.sleep(pause_s)
                pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), LOOK_S)
        except TimeoutError:
            _log.debug("a step whose answer got lost may have replaced runs later than that")
        self._news.clear()

    async def _some_left(self) -> bool:
        """Asks every one of them to end; False = there was none."""
        gate = asyncio.Semaphore(AT_ONCE)
        try:
            left = await self._journal.replaced()
        except errors.Unavailable as unavailable:
            _log.warning("replaced runs: %s", unavailable)
            return True
        await asyncio.gather(*(self._cancel(gate, run_id) for run_id in left))
        return bool(left)

    async def _cancel(self, gate: asyncio.Semaphore, run_id: str) -> None:
        command = actor_codec.encode_command(Command(kind="cancel", run_id=run_id))
        async with gate:
            try:
                row = await self._journal.summary(run_id)
                if row is None or row.state in TERMINAL or row.state == "cancelling":
                    return
                actor = row.owner or self._some_run_actor()
                if actor is not None:
                    await self._peers.ask(actor, "command", command)
            except errors.Unavailable as unavailable:
                _log.warning("cancelling %s: %s", run_id, unavailable)
