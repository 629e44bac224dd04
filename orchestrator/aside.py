"""Ready tasks of one run that need more than a slot of the default pool, by what they need.

They are kept apart from the plain ones, so that a task that waits for a permit is never in the way of one that needs
none (I9). Part of a run's memory: `conduct.offer` puts a task either here or on the run's heap. `changed` tells
whoever counts demand which needs to look at, so that a step costs what it changed.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from orchestrator.messages import Need
from orchestrator.needs import needs_of

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


class Aside:
    """Made with the run; takes over those of its ready tasks that are not plain."""

    __slots__ = ("_heaps", "_priorities", "_waiting", "changed", "needs", "size")

    def __init__(self, run: Run) -> None:
        #: per position: what it needs; None = it is plain
        self.needs = needs_of(run.compiled.definition, run.tenant, run.params)
        self._priorities = [spec.priority for spec in run.compiled.specs]
        self._heaps: dict[Need, list[tuple[int, int]]] = {}
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
            heapq.heappush(self._heaps.setdefault(need, []), (-self._priorities[position], position))
            self.changed[need] = None
        return True

    def peek(self, need: Need) -> int | None:
        """The position that is next of those with that need."""
        heap = self._heaps.get(need)
        return heap[0][1] if heap else None

    def pop(self, need: Need) -> int | None:
        """The same, taken off."""
        heap = self._heaps.get(need)
        if not heap:
            return None
        position = heapq.heappop(heap)[1]
        self._waiting.discard(position)
        self.size -= 1
        self.changed[need] = None
        if not heap:
            del self._heaps[need]
        return position

    def count(self, need: Need) -> int:
        """How many with that need wait."""
        return len(self._heaps.get(need, ()))

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
        self._waiting.clear()
        self.size = 0
