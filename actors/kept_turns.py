"""Whose turn it is on the seats of a RunActor that are kept from backfills (`orchestrator/headroom.py`).

They have a tree of shares of their own, as kept slots have in the scheduler. Nobody keeps it up to date while there are
no such seats: who has ready tasks is looked up when a batch for one is composed.
"""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.headroom import spares
from orchestrator.shares import Path, Shares


class KeptTurns:
    """Turns of leaves that are not of backfills."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        #: those that have ready tasks, as far as `shares` know
        self._known: set[Path] = set()

    def next(self, waiting: Collection[Path]) -> Path | None:
        """The leaf whose turn it is of those that have ready tasks now; None when all are of backfills."""
        leaves = {leaf for leaf in waiting if not spares(leaf)}
        for leaf in self._known - leaves:
            self.shares.leave(leaf)
        for leaf in sorted(leaves - self._known):
            self.shares.arrive(leaf)
        self._known = leaves
        return self.shares.next()
