"""Who is next within one DAG's share: by priority, and by how long one has waited.

A waiter's claim is its priority plus one point for every POINT_S it has waited since it arrived or had its last turn.
The claim of everybody grows alike, so its order is that of `since - priority * POINT_S`, which stands still: one heap,
O(log n) a turn, nothing to sort again as time passes. Of equal priorities the one that was served longest ago is
next: runs of one DAG take turns.

**The bound on waiting.** Priorities are 0 to 100, so after 100 * POINT_S nobody who arrives, or comes back from a turn,
goes first any more; what remains are those that waited already, at most one turn each. A waiter therefore gets its
turn after at most 100 * POINT_S and as many turns as there are others.

Within one run the author's order holds without ageing: highest priority first, then as written. A run is finite, and
nobody else's. Ageing tasks by themselves (a time for each entry of a run's heap) was the other design: it would cost
the hot path of every run, and change the order that authors wrote.
"""

from __future__ import annotations

import heapq

#: seconds of waiting that weigh as much as one point of priority
POINT_S = 0.6


class AgedQueue:
    """Waiters by id. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        #: id -> (order, number) of its entry that holds, since, priority
        self._waiting: dict[str, tuple[float, int, float, int]] = {}
        #: (order, number, id); void when it is not what `_waiting` says
        self._heap: list[tuple[float, int, str]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, who: str) -> bool:
        return who in self._waiting

    def put(self, who: str, priority: int, now_s: float) -> None:
        """It waits from now on; if it does already, only its priority may change."""
        known = self._waiting.get(who)
        if known is not None and known[3] == priority:
            return
        since = known[2] if known is not None else now_s
        self._number += 1
        order = since - priority * POINT_S
        if not self._heap:  # whoever is alone needs no place in a line
            for other, (its_order, number, _, _) in self._waiting.items():
                heapq.heappush(self._heap, (its_order, number, other))
        self._waiting[who] = (order, self._number, since, priority)
        if len(self._waiting) == 1:
            self._heap.clear()
            return
        heapq.heappush(self._heap, (order, self._number, who))
        if len(self._heap) > 4 * len(self._waiting) + 16:
            self._heap = [(order, number, who) for who, (order, number, _, _) in self._waiting.items()]
            heapq.heapify(self._heap)

    def drop(self, who: str) -> None:
        """It does not wait."""
        self._waiting.pop(who, None)

    def first(self) -> str:
        """Who is next. Raises KeyError when nobody waits."""
        if len(self._waiting) == 1:
            return next(iter(self._waiting))
        while self._heap:
            _, number, who = self._heap[0]
            known = self._waiting.get(who)
            if known is not None and known[1] == number:
                return who
            heapq.heappop(self._heap)
        raise KeyError("nobody waits")
