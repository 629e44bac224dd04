"""Which of the free slots somebody gets whose turn it is: rather one on a node that has what its tasks take.

    bidder ── leaf -> node -> tasks that are at home there (its hint) ──▶ Hints
    turns of this round, in order, and free slots of their pool ──▶ choose ──▶ a slot for each turn

Whose turn it is has been decided by then (`slots.py`), without a look at any node: hints say *which* slot, never who
gets one or when. Turns with a hint choose first, in their order, the node with most of their tasks that has a free
slot; the others take what is left, as it comes. So as many turns as possible have their data where they go while each
has it on one node, and at least half as many as could when some have it on several; nobody waits, and no slot stays
free.

A hint is old as soon as it is told: what a turn has used of it is taken off, and the bidder tells it anew with its
demand. Without hints nothing here is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.shares import Path

#: nodes in the hint for one leaf: those with most tasks
NODES_MAX = 8
#: leaves, over all needs, for which one message has hints
LEAVES_MAX = 64

#: node -> tasks that are at home there, as it travels
Near = tuple[tuple[str, int], ...]


class Hints:
    """What bidders said last."""

    __slots__ = ("_near",)

    def __init__(self) -> None:
        self._near: dict[str, dict[Path, dict[str, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._near)

    def set(self, bidder: str, near: Mapping[Path, Near]) -> None:
        """Where the bidder's tasks are at home; nothing: at no place in particular."""
        if near:
            self._near[bidder] = {leaf: dict(tasks) for leaf, tasks in near.items()}
        else:
            self._near.pop(bidder, None)

    def choose(self, turns: Sequence[tuple[str, Path]], nodes: Sequence[str]) -> list[int]:
        """Per turn (bidder, leaf), in order, which of the free slots it gets; `nodes` are those of the slots.

        There are at least as many slots as turns, and all are of one pool.
        """
        free: dict[str, deque[int]] = {}
        for slot, node in enumerate(nodes):
            free.setdefault(node, deque()).append(slot)
        chosen = [self._nearest(*turn, free) for turn in turns]
        taken = {slot for slot in chosen if slot is not None}
        rest = iter([slot for slot in range(len(nodes)) if slot not in taken])
        return [next(rest) if slot is None else slot for slot in chosen]

    def _nearest(self, bidder: str, leaf: Path, free: Mapping[str, deque[int]]) -> int | None:
        near = self._near.get(bidder, {}).get(leaf)
        node = max((n for n in near or () if free.get(n)), key=lambda n: ((near or {})[n], n), default=None)
        if near is None or node is None:
            return None
        near[node] -= 1
        if not near[node]:
            del near[node]
        return free[node].popleft()


def hint(tasks_at: Mapping[str, int]) -> Near:
    """What is told of so many tasks per node."""
    return tuple(sorted(tasks_at.items(), key=lambda at: (-at[1], at[0]))[:NODES_MAX])


def summed(tasks_at: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The same over several runs."""
    out: dict[str, int] = {}
    for each in tasks_at:
        for node, tasks in each.items():
            out[node] = out.get(node, 0) + tasks
    return out
