"""Who wants slots of one worker pool, and whose turn it is: by the tree of shares of that pool (`shares.py`).

Each pool has a tree of its own, since a slot of one is of no use to who needs another: what a tenant uses of the GPUs
does not count against it elsewhere. (The other design was one tree with the pools as its first level: one object, but
"does anybody compete" would have to be kept per subtree, and every path would be longer.)

A bidder is a RunActor, or a claim of one (`permits.py`). Among those that bid for the leaf whose turn it is, who has
the fewest slots goes first, then who was served longest ago.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from orchestrator.shares import Path, Shares


class Bids:
    """Demand for one pool."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        #: bidder -> leaf -> ready tasks that wait for a slot
        self.demand: dict[str, dict[Path, int]] = {}
        #: leaf -> bidders that have such tasks
        self.wanting: dict[Path, set[str]] = {}

    def set(self, bidder: str, by_leaf: Mapping[Path, int]) -> None:
        """The bidder has so many ready tasks; none: it bids no more."""
        former = self.demand.pop(bidder, {})
        if by_leaf:
            self.demand[bidder] = dict(by_leaf)
        for leaf in by_leaf:
            if leaf not in former:
                self.wanting.setdefault(leaf, set()).add(bidder)
                self.shares.arrive(leaf)
        for leaf in former:
            if leaf not in by_leaf:
                self._satisfied(leaf, bidder)

    def next(self, order: Callable[[str], tuple[int, int, str]], without: str | None = None) -> tuple[str, Path] | None:
        """Who is next, and for what; of those that want the same, the least by `order`. None when nobody bids.

        With `without`, a name on the paths of leaves, the others only.
        """
        leaf = self.shares.next() if without is None else self.shares.next_without(without)
        return None if leaf is None else (min(self.wanting[leaf], key=order), leaf)

    def is_due(self, leaf: Path, least: Collection[Path]) -> bool:
        """Would the next slot go to that leaf? To one of `least`, those that are served least, or one that woke."""
        return any(self.shares.lead(leaf, other) <= 0 for other in least) or self.shares.wakes(leaf)

    def take_one(self, bidder: str, leaf: Path) -> None:
        """One of its tasks has a slot."""
        leaves = self.demand[bidder]
        leaves[leaf] -= 1
        if leaves[leaf] <= 0:
            del leaves[leaf]
            self._satisfied(leaf, bidder)
        if not leaves:
            del self.demand[bidder]

    def _satisfied(self, leaf: Path, bidder: str) -> None:
        wanting = self.wanting[leaf]
        wanting.discard(bidder)
        if not wanting:
            del self.wanting[leaf]
            self.shares.leave(leaf)
