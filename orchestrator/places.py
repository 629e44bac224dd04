"""Of a run's ready tasks with needs: where they are at home, and which is next on which node.

Beside `aside.py` as `locality.Homes` is beside the run's own heap, with one difference: how many are at home on each
node is counted exactly, since the scheduler is told (`nearness.py`). Made with the first such task of a run that has
large values; a heap may hold more than waits, and drops it once it is on top.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.locality import home_of

if TYPE_CHECKING:
    from orchestrator.messages import Need
    from orchestrator.run_state import Run

#: -priority, position
Entry = tuple[int, int]


class Places:
    """Where tasks with needs are at home."""

    __slots__ = ("_counts", "_heaps", "_home")

    def __init__(self) -> None:
        #: position of a task that waits -> its node
        self._home: dict[int, str] = {}
        self._heaps: dict[tuple[Need, str], list[Entry]] = {}
        #: need -> node -> tasks that wait
        self._counts: dict[Need, dict[str, int]] = {}

    def line_up(self, run: Run, need: Need, entry: Entry) -> None:
        """The task waits; a second time changes nothing."""
        position = entry[1]
        if position in self._home or not (node := home_of(run, position)):
            return
        self._home[position] = node
        heapq.heappush(self._heaps.setdefault((need, node), []), entry)
        counts = self._counts.setdefault(need, {})
        counts[node] = counts.get(node, 0) + 1

    def leave(self, need: Need, position: int) -> None:
        """It waits no more."""
        node = self._home.pop(position, None)
        if node is None:
            return
        counts = self._counts[need]
        counts[node] -= 1
        if not counts[node]:
            del counts[node], self._heaps[need, node]
        if not counts:
            del self._counts[need]

    def of(self, position: int) -> str:
        """The node at which it is at home; "" = at none."""
        return self._home.get(position, "")

    def at(self, need: Need) -> Mapping[str, int]:
        """node -> tasks with that need that are at home there."""
        return self._counts.get(need, {})

    def first(self, need: Need, node: str) -> Entry | None:
        """Which is next of those at home on the node."""
        heap = self._heaps.get((need, node))
        while heap:
            if self._home.get(heap[0][1]) == node:
                return heap[0]
            heapq.heappop(heap)
        return None
