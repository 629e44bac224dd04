"""Who wants slots of one worker pool, and whose turn it is: by the tree of shares of that pool (`shares.py`).

Each pool has a tree of its own, since a slot of one is of no use to who needs another: what a tenant uses of the GPUs
does not count against it elsewhere. (The other design was one tree with the pools as its first level: one object, but
"does anybody compete" would have to be kept per subtree, and every path would be longer.) For the same reason slots
that are kept from backfills (`headroom.py`) have a tree of their own, of those that may have them. Under one tree, a
tenant that has more than its share by its runs on kept slots, of which others can make no use, would wait for open ones
for ever while others have backfills without end.

A bidder is a RunActor, or a claim of one (`permits.py`). Among those that bid for the leaf whose turn it is, who has
the fewest slots goes first, then who was served longest ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.headroom import spares
from orchestrator.shares import Path, Shares


class Bids:
    """Demand for one pool. `kept` is the tree of its kept slots, if there may be some."""

    def __init__(self, shares: Shares, kept: Shares | None = None) -> None:
        self.shares = shares
        self.kept = kept
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
                if self.kept is not None and not spares(leaf):
                    self.kept.arrive(leaf)
        for leaf in former:
            if leaf not in by_leaf:
                self._satisfied(leaf, bidder)

    def tree(self, kept: bool) -> Shares:
        """By which turns go on kept slots, or on the others."""
        return self.kept if kept and self.kept is not None else self.shares

    def next(self, order: Callable[[str], tuple[int, int, str]], kept: bool = False) -> tuple[str, Path] | None:
        """Who is next, and for what; of those that want the same, the least by `order`. None when nobody bids."""
        leaf = self.tree(kept).next()
        return None if leaf is None else (min(self.wanting[leaf], key=order), leaf)

    def least(self, kept: bool) -> Path | None:
        """The leaf that is served least of those that may have such a slot."""
        leaves = [leaf for leaf in self.wanting if not (kept and spares(leaf))]
        return self.tree(kept).least(leaves) if leaves else None

    def are_due(self, bidder: str, least: Path, kept: bool) -> bool:
        """Would the next such slot go to this bidder, or to one alike? It does to who is served `least`, or woke."""
        leaves = [leaf for leaf in self.demand[bidder] if not (kept and spares(leaf))]
        tree = self.tree(kept)
        return any(tree.lead(leaf, least) <= 0 or tree.wakes(leaf) for leaf in leaves)

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
            if self.kept is not None:
                self.kept.leave(leaf)
