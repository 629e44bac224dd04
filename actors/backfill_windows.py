"""What a RunActor does by itself for the backfills that it owns.

claimed, or read after a restart ─▶ catch up: every window's state from the journal ─▶ Observed, in the mailbox
cancelling                       ─▶ every window that is still open is cancelled, wherever its run is
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from actors.hosted import HostedBackfill
from actors.mail import Observed
from actors.window_cancel import WindowCanceller
from orchestrator import backfill as backfills
from orchestrator.ports import Journal
from orchestrator.run_state import RunState

T = TypeVar("T")


class Shell(Protocol):
    """Whose backfills these are."""

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The journal's answer, however long it is away."""

    def _spawn(self, work: Any) -> None:
        """Let it go on by itself."""


class BackfillWindows:
    """Of one RunActor."""

    def __init__(
        self, shell: Shell, journal: Journal, canceller: WindowCanceller, post: Callable[[Observed], None]
    ) -> None:
        self._shell = shell
        self._journal = journal
        self._canceller = canceller
        self._post = post

    def look(self, hosted: HostedBackfill) -> None:
        """The backfill is owned here, as it is now: do what is left to do about its windows, once."""
        if not hosted.claimed:
            hosted.claimed = True
            self.catch_up(hosted)
        elif hosted.backfill.state is RunState.CANCELLING and not hosted.cancelling:
            hosted.cancelling = True
            self._shell._spawn(self._canceller.cancel(_open(hosted)))

    def catch_up(self, hosted: HostedBackfill) -> None:
        """Learn what the windows did before news of them came here."""
        self._shell._spawn(self._catch_up(hosted))

    async def _catch_up(self, hosted: HostedBackfill) -> None:
        run_id = hosted.backfill.run_id
        children = await self._shell.insist(lambda: self._journal.children(run_id))
        self._post(Observed(run_id, tuple((c.run_id, c.state, c.version) for c in children if not c.kept), whole=True))
        if hosted.backfill.state is RunState.CANCELLING:
            await self._canceller.cancel(_open(hosted))


def _open(hosted: HostedBackfill) -> list[str]:
    """Windows that have to end before the backfill can."""
    return [effect.child for effect in backfills.owed(hosted.backfill)]
