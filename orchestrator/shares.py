"""Weighted fair shares of one thing, in a tree: tenant -> class -> DAG.

    root ─┬─ acme (2) ─┬─ scheduled (4) ── daily
          │            └─ backfill  (1) ─┬ daily          each node shares what its parent gets
          └─ beta (1) ─── manual    (4) ─┴ …              among its children with work, by weight

**Algorithm.** Hierarchical start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996; for CPU time, where nobody
knows beforehand how long a turn takes, Goyal, Guo and Vin, OSDI 1996; for several servers at once SFQ(D), Jin, Chase
and Kaur, SIGMETRICS 2004). A node has a *tag*: what it was served, divided by its weight. The child with the smallest
tag is next. `clock` of a parent is the largest tag that was next so far. Who begins to have work starts at the clock
at least, so that nobody saves up while idle; who is ahead of it keeps what it owes, until nobody has work. Deficit
round robin was the other candidate: cheaper by a logarithm, but a new arrival waits for a whole round, and a cron run
is just that.

**What is shared** is up to the caller: seconds of slot time for tasks, starts for runs (`dispatch.py`). Seconds,
because tasks differ by orders of magnitude: by tasks started, a tenant with tasks of an hour would take every slot.
A turn is charged by what it is expected to take when it begins, more as it lasts longer, and put right when it ends.

**Waking.** Work of a class in `wakes` that arrives after idleness is next, before its parents' turns, once, as long as
no parent is ahead of its share by more than `borrow`. It is charged like anything else: what it borrows, its tenant
pays back in its following turns. Borrowed virtual time (Duda and Cheriton, SOSP 1999) in its smallest form.

**The bound on waiting.** With D servers that are all busy, at most L charged per turn, and on each level of the tree n
siblings with work whose weights sum up to W, a leaf with work waits for its next turn at most

    L + sum over levels of (W / w + n) · L / r      r = D on the first level, then r · w / W for each level below

(+ borrow / D per sibling that wakes): its siblings catch up with what it had, each with a turn in hand. No weight is
zero, so nobody starves. `tests/property/test_shares_laws.py` holds random trees to it.

One decision costs O(log n) per level, and nothing but a look where a parent has one child with work.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping

#: from the root's child to the leaf
Path = tuple[str, ...]

#: by how much a parent may be ahead of its share while a child that wakes goes first, per server
BORROW = 1.0
#: idle nodes a parent keeps besides those with work
IDLE_KEPT = 64


class _Node:
    __slots__ = ("active", "children", "clock", "heap", "name", "parent", "tag", "weight")

    def __init__(self, name: str, parent: _Node | None, weight: float) -> None:
        self.name = name
        self.parent = parent
        self.weight = weight
        self.clock: float = 0.0
        self.tag: float = parent.clock if parent else 0.0
        self.children: dict[str, _Node] = {}
        #: children with work
        self.active: dict[str, _Node] = {}
        #: (tag, -weight, name) of those: of equals the heavier; an entry whose tag is not the child's any more is void
        self.heap: list[tuple[float, float, str]] = []

    def first(self) -> _Node:
        """The child with work that has the smallest tag; there is one."""
        if len(self.active) == 1:
            return next(iter(self.active.values()))
        while True:
            tag, _, name = self.heap[0]
            child = self.active.get(name)
            if child is not None and child.tag == tag:
                return child
            heapq.heappop(self.heap)

    def line_up(self, child: _Node) -> None:
        """The child's tag is a new one."""
        heapq.heappush(self.heap, (child.tag, -child.weight, child.name))
        if len(self.heap) > 4 * len(self.active) + 16:
            self.heap = [(each.tag, -each.weight, each.name) for each in self.active.values()]
            heapq.heapify(self.heap)


class Shares:
    """Who is next, and what everybody was served. Leaves are paths of equal length; weights are 1 unless told."""

    def __init__(self, by_name: Mapping[tuple[int, str], float] | None = None, wakes: Collection[str] = ()) -> None:
        self._root = _Node("", None, 1.0)
        #: (level, name) -> weight of every node of that name on that level
        self._by_name = dict(by_name or {})
        self._by_path: dict[Path, float] = {}
        #: names on a path whose work is next when it arrives after idleness
        self._wakes = frozenset(wakes)
        #: leaves that woke and had no turn since
        self._woken: dict[Path, None] = {}
        self._leaves = 0
        #: see above; whoever has several servers sets it
        self.borrow = BORROW

    # ── weights ──

    def weigh(self, path: Path, weight: float) -> None:
        """Set the weight of the node at `path`."""
        if self._weight(path) == weight:
            return
        self._by_path[path] = weight
        node = self._find(path)
        if node is not None:
            node.weight = weight

    def _weight(self, path: Path) -> float:
        given = self._by_path.get(path)
        return given if given is not None else self._by_name.get((len(path) - 1, path[-1]), 1.0)

    # ── who has work ──

    @property
    def contended(self) -> bool:
        """Does more than one leaf have work?"""
        return self._leaves > 1

    def __contains__(self, path: Path) -> bool:
        node = self._find(path)
        return node is not None and node.parent is not None and node.name in node.parent.active

    def arrive(self, path: Path) -> None:
        """The leaf has work; a second time changes nothing."""
        node, leaf = self._root, len(path) - 1
        for level in range(len(path)):
            child = self._child(node, path, level)
            if child.name not in node.active:
                owes = child.tag > node.clock
                child.tag = max(child.tag, node.clock)
                node.active[child.name] = child
                node.line_up(child)
                if level == leaf:
                    self._leaves += 1
                    if not owes and self._leaves > 1 and not self._wakes.isdisjoint(path):
                        self._woken[path] = None
            node = child

    def leave(self, path: Path) -> None:
        """The leaf has no work any more."""
        node = self._find(path)
        if node is None or path not in self:
            return
        self._leaves -= 1
        while (parent := node.parent) is not None and not node.active:
            del parent.active[node.name]
            if not parent.active:
                parent.heap.clear()
                parent.clock = max(parent.clock, node.tag)
            self._prune(parent)
            node = parent

    # ── turns ──

    def next(self) -> Path | None:
        """The leaf whose turn it is; None when nobody has work. Charge it for the turn, or it stays next."""
        if not self._leaves:
            return None
        while self._woken:
            woken = next(iter(self._woken))
            if woken in self and self._may_borrow(woken):
                return woken
            del self._woken[woken]
        node, names = self._root, list[str]()
        while node.active:
            child = node.first()
            node.clock = max(node.clock, child.tag)
            names.append(child.name)
            node = child
        return tuple(names)

    def wakes(self, path: Path) -> bool:
        """Is the leaf next, since its work arrived after idleness?"""
        return path in self._woken and path in self and self._may_borrow(path)

    def charge(self, path: Path, amount: float) -> None:
        """The leaf was served that much; less than nothing gives back what it was charged too much."""
        self._woken.pop(path, None)
        node = self._root
        for level in range(len(path)):
            child = self._child(node, path, level)
            self._retag(child, child.tag + amount / child.weight)
            node = child

    def _may_borrow(self, path: Path) -> bool:
        node = self._root
        for name in path:
            child = node.children[name]
            if (child.tag - node.clock) * child.weight > self.borrow:
                return False
            node = child
        return True

    # ── how they stand ──

    def leads(self) -> dict[Path, float]:
        """node -> by how much its tag is ahead of the sibling with work that is served least; with work, or ahead."""
        out: dict[Path, float] = {}
        self._collect(self._root, (), out)
        return out

    def _collect(self, parent: _Node, path: Path, out: dict[Path, float]) -> None:
        if parent.active:
            parent.clock = max(parent.clock, parent.first().tag)
        for child in parent.children.values():
            lead = child.tag - parent.clock
            if lead > 0 or child.name in parent.active:
                out[*path, child.name] = max(0.0, lead)
                self._collect(child, (*path, child.name), out)

    def take_leads(self, leads: Mapping[Path, float]) -> None:
        """What somebody found who knows of servers besides this one; nodes it does not name stay as they are."""
        for path in sorted(leads, key=len):
            node = self._root
            for level in range(len(path)):
                parent, node = node, self._child(node, path, level)
            self._retag(node, parent.clock + leads[path])

    def share(self, path: Path) -> float:
        """What the leaf gets of everything while all who have work now go on to; as if it had some, too."""
        node, out = self._root, 1.0
        for level in range(len(path)):
            child = self._child(node, path, level)
            others = sum(each.weight for each in node.active.values() if each is not child)
            out *= child.weight / (child.weight + others)
            node = child
        return out

    def least(self, leaves: Iterable[Path]) -> Path:
        """Of some leaves, there is one, the one that is served least; the first of equals."""
        rest = iter(leaves)
        out = next(rest)
        for leaf in rest:
            if self.lead(leaf, out) < 0:
                out = leaf
        return out

    def lead(self, path: Path, other: Path) -> float:
        """By how much `path` is ahead of `other` where they part; 0 for the same leaf."""
        node = self._root
        for mine, theirs in zip(path, other, strict=False):
            left, right = node.children.get(mine), node.children.get(theirs)
            if mine != theirs or left is None:
                return (left.tag if left else node.clock) - (right.tag if right else node.clock)
            node = left
        return 0.0

    # ── nodes ──

    def _find(self, path: Path) -> _Node | None:
        node: _Node | None = self._root
        for name in path:
            node = node.children.get(name) if node is not None else None
        return node

    def _child(self, parent: _Node, path: Path, level: int) -> _Node:
        name = path[level]
        child = parent.children.get(name)
        if child is None:
            child = parent.children[name] = _Node(name, parent, self._weight(path[: level + 1]))
        return child

    @staticmethod
    def _retag(node: _Node, tag: float) -> None:
        node.tag = tag
        parent = node.parent
        if parent is None:
            return
        if node.name in parent.active:
            parent.line_up(node)
        elif not parent.active:
            parent.clock = max(parent.clock, tag)

    @staticmethod
    def _prune(parent: _Node) -> None:
        """Forget children that owe nothing: one that comes back starts like a new one."""
        if len(parent.children) > 2 * len(parent.active) + IDLE_KEPT:
            for child in [c for c in parent.children.values() if c.name not in parent.active]:
                if child.tag <= parent.clock:
                    del parent.children[child.name]
