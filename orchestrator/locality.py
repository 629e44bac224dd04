"""Where large values are, and which ready task a worker on some node takes: those whose values are there already.

    TaskSucceeded(value on node A) ──▶ its dependents are at home on A ──▶ a seat on A takes one of them first
                                                                          a seat elsewhere takes whoever is next

The scheduler is told where the tasks of a RunActor are at home that wait for a slot (`nearness.py`).

A task is at home where most bytes of its large inputs are. It is a preference among what can start anyway: priorities
come first, and no seat and no task ever waits for it. A run without large values has no `Homes`, and pays nothing; with
them a task costs its number of inputs when it is lined up, and two heaps instead of one.

A task that is at home somewhere waits in the run's heap and in that of its node. Whoever takes it from one leaves it in
the other, where it is dropped once it is on top and cannot start: a heap may hold more than waits, but holds up nobody.

Part of a run's memory, and a cache of it. Of tasks with needs `places.py` keeps the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.messages import Value
    from orchestrator.run_state import Run

#: a value that is worth a preference
LARGE_BYTES = 1024 * 1024


class Homes:
    """Made with the first large value of a run."""

    __slots__ = ("_home", "_ready")

    def __init__(self) -> None:
        #: position of a ready task -> its node
        self._home: dict[int, str] = {}
        #: node -> heap of (-priority, position)
        self._ready: dict[str, list[tuple[int, int]]] = {}

    def line_up(self, run: Run, position: int) -> None:
        """The task may start."""
        node = self._home[position] = home_of(run, position)
        if node:
            heapq.heappush(self._ready.setdefault(node, []), (-run.compiled.specs[position].priority, position))

    def of(self, position: int) -> str:
        """The node at which a ready task is at home; "" = at none."""
        return self._home.get(position, "")

    def first(self, run: Run, node: str, taken: Container[int]) -> tuple[int, int] | None:
        """The entry of the task that is next of those at home on `node`."""
        heap = self._ready.get(node)
        while heap:
            if self._home[heap[0][1]] == node and heap[0][1] not in taken and run.could_start(heap[0][1]):
                return heap[0]
            heapq.heappop(heap)
        self._ready.pop(node, None)
        return None

    def at(self, run: Run, most: int) -> dict[str, int]:
        """node -> ready tasks that are at home there, of the first `most` that were lined up for it."""
        counts = {
            node: len({i for _, i in islice(heap, most) if self._home[i] == node and run.could_start(i)})
            for node, heap in self._ready.items()
        }
        return {node: tasks for node, tasks in counts.items() if tasks}

    def drop_first(self, node: str) -> None:
        """It does not wait any more."""
        heapq.heappop(self._ready[node])


def is_large(value: Value) -> bool:
    """Does it matter where it is?"""
    return bool(value.node) and value.size_bytes >= LARGE_BYTES


def home_of(run: Run, position: int) -> str:
    """The node that has most bytes of the task's large inputs; "" = none has any."""
    bytes_at: dict[str, int] = {}
    for value in _inputs(run, position):
        if is_large(value):
            bytes_at[value.node] = bytes_at.get(value.node, 0) + value.size_bytes
    return max(bytes_at, key=lambda node: (bytes_at[node], node)) if bytes_at else ""


def next_for(run: Run, node: str, taken: Container[int]) -> int | None:
    """The ready task that a seat on `node` takes: of the highest priority, one that is at home there if there is one.

    None = there is none besides those that are `taken`. `take` takes it.
    """
    if not drop_stale(run, taken):
        return None
    own = run.homes.first(run, node, taken) if run.homes is not None and node else None
    return own[1] if own is not None and own[0] <= run.ready[0][0] else run.ready[0][1]


def drop_stale(run: Run, taken: Container[int] = ()) -> bool:
    """Is there a ready task? It is on top of the run's heap then: who was taken elsewhere is dropped."""
    while run.ready and (run.ready[0][1] in taken or not run.could_start(run.ready[0][1])):
        heapq.heappop(run.ready)
    return bool(run.ready)


def take(run: Run, position: int, node: str) -> None:
    """What `next_for` found does not wait any more."""
    if run.ready[0][1] == position:
        heapq.heappop(run.ready)
    elif run.homes is not None:
        run.homes.drop_first(node)


def _inputs(run: Run, position: int) -> Iterator[Value]:
    compiled = run.compiled
    for producer in compiled.specs[position].inputs.values():
        at = compiled.graph.index[producer]
        for source in run.maps[at].live if at in run.maps else (at,):
            if source in run.values:
                yield run.values[source]
    if position >= compiled.size:
        items = run.maps[run.hosts[position - compiled.size]].items
        if items.whole is not None:
            yield items.whole
