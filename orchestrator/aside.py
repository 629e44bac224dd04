"""Ready tasks of one run that need more than a slot of the default pool, by what they need.

They are kept apart from the plain ones, so that a task that waits for a permit is never in the way of one that needs
none (I9). Part of a run's memory: `conduct.offer` puts a task either here or on the run's heap. `changed` tells
whoever counts demand which needs to look at, so that a step costs what it changed. In a run with large values a seat
rather takes, of those of the highest priority, one that is at home on its node (`places.py`); whoever is taken so is
left in the heap, where it is dropped once it is on top.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.messages import Need
from orchestrator.needs import needs_of
from orchestrator.places import Places

if TYPE_CHECKING:
    from orchestrator.run_state import Run


def line_up(run: Run, position: int) -> None:
    """The task may start: it waits for a slot, here or among the plain ones, unless it is to be looked up first."""
    if run.lookups is not None and run.lookups.offer(run, position):
        return
    if run.aside is None or not run.aside.offer(position):
        heapq.heappush(run.ready, (-run.compiled.specs[position].priority, position))
        if run.homes is not None:
            run.homes.line_up(run, position)
    elif run.homes is not None:
        run.aside.settle(run, position)


class Aside:
    """Made with the run; takes over those of its ready tasks that are not plain."""

    __slots__ = ("_counts", "_heaps", "_priorities", "_waiting", "changed", "needs", "places", "size")

    def __init__(self, run: Run) -> None:
        #: per position: what it needs; None = it is plain
        self.needs = needs_of(run.compiled.definition, run.tenant, run.params)
        self._priorities = [spec.priority for spec in run.compiled.specs]
        self._heaps: dict[Need, list[tuple[int, int]]] = {}
        #: of what is in a heap, how many wait
        self._counts: dict[Need, int] = {}
        #: where those that wait are at home; None = at no place in particular
        self.places: Places | None = None
        #: positions that wait here
        self._waiting: set[int] = set()
        #: needs of which the number that waits has changed since somebody last cleared this
        self.changed: dict[Need, None] = {}
        #: tasks that wait here; some may not be startable any more
        self.size = 0
        for _, position in run.ready:
            self.offer(position)
        run.ready = [entry for entry in run.ready if entry[1] not in self._waiting]
        heapq.heapify(run.ready)

    def extend(self, like: int, count: int) -> None:
        """There are more tasks behind those that are known, with the needs of that one: instances of a map."""
        self.needs += [self.needs[like]] * count
        self._priorities += [self._priorities[like]] * count

    def offer(self, position: int) -> bool:
        """Is it one of those? Then it waits here now, once."""
        need = self.needs[position]
        if need is None:
            return False
        if position not in self._waiting:
            self._waiting.add(position)
            self.size += 1
            self._counts[need] = self._counts.get(need, 0) + 1
            heapq.heappush(self._heaps.setdefault(need, []), (-self._priorities[position], position))
            self.changed[need] = None
        return True

    def settle(self, run: Run, position: int) -> None:
        """One that waits here, of a run with large values: it may be at home somewhere."""
        need = self.needs[position]
        if need is None:
            return
        if self.places is None:
            self.places = Places()
        self.places.line_up(run, need, (-self._priorities[position], position))

    def peek(self, need: Need, node: str = "") -> int | None:
        """The position that a seat on `node` takes next of those with that need; "" = nobody knows where it is."""
        heap = self._heaps.get(need)
        if heap is None:
            return None
        while heap[0][1] not in self._waiting:
            heapq.heappop(heap)
        own = self.places.first(need, node) if self.places is not None and node else None
        return own[1] if own is not None and own[0] <= heap[0][0] else heap[0][1]

    def pop(self, need: Need, node: str = "") -> int | None:
        """The same, taken off."""
        position = self.peek(need, node)
        if position is None:
            return None
        self._waiting.discard(position)
        self.size -= 1
        self._counts[need] -= 1
        self.changed[need] = None
        if self.places is not None:
            self.places.leave(need, position)
        if not self._counts[need]:
            del self._heaps[need], self._counts[need]
        elif self._heaps[need][0][1] == position:
            heapq.heappop(self._heaps[need])
        return position

    def count(self, need: Need) -> int:
        """How many with that need wait."""
        return self._counts.get(need, 0)

    def home_of(self, position: int) -> str:
        """The node at which one that waits is at home; "" = at none."""
        return "" if self.places is None else self.places.of(position)

    def at_home(self, need: Need) -> Mapping[str, int]:
        """node -> tasks with that need that are at home there."""
        return {} if self.places is None else self.places.at(need)

    def waited_for(self) -> list[Need]:
        """Needs with which a task waits."""
        return list(self._heaps)

    def positions(self) -> list[int]:
        """All that wait here."""
        return list(self._waiting)

    def clear(self) -> None:
        """Nothing waits any more."""
        self.changed |= dict.fromkeys(self._heaps)
        self._heaps.clear()
        self._counts.clear()
        self._waiting.clear()
        self.places = None
        self.size = 0
