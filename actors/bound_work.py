"""Ready tasks with needs of all runs a RunActor hosts, and which of them make the next batch for a seat with that need.

A run keeps its own (`aside.py`); here is who has some, per need, in the order in which runs get a turn: by shares of
tenant, class and DAG (`orchestrator/shares.py`), then one after another. A seat runs tasks of its need only, since its
permits are for those. A need has a tree of its own, which is made when a second DAG comes along: the scheduler, which
sees all that is served in a pool, decides who gets seats, and this is only about one seat's next task.

Runs with large values know where their tasks are at home (`orchestrator/places.py`): the scheduler is told (`near`),
and a seat rather takes those of its node, of whichever run has the turn, and of the highest priority there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from actors.crew import BATCH_MAX, TARGET_S, Seat
from actors.hosted import HostedRun
from orchestrator import run_duties
from orchestrator.headroom import spares
from orchestrator.messages import Need
from orchestrator.nearness import LEAVES_MAX, Near, hint, summed
from orchestrator.run_state import going
from orchestrator.shares import Path, Shares

#: seconds that a task counts for at least: what it costs to hand it over
TASK_S = 1e-4
#: runs of one leaf whose tasks are looked at for a hint
RUNS_MAX = 64

#: hears which tasks of a run go, and how long they are expected to take
Take = Callable[[HostedRun, list[int], float], None]


def cost_s(expected_s: float, tasks: int) -> float:
    """What tasks are charged when they are handed over."""
    return max(expected_s, tasks * TASK_S)


class _Queue:
    """Runs that have ready tasks with one need."""

    __slots__ = ("_new_shares", "counts", "placed", "runs", "shares", "sizes")

    def __init__(self, new_shares: Callable[[], Shares]) -> None:
        self._new_shares = new_shares
        #: there is one as soon as there was more than one leaf
        self.shares: Shares | None = None
        #: leaf of the tree of shares -> runs in their order
        self.runs: dict[Path, dict[str, HostedRun]] = {}
        #: leaf -> tasks
        self.counts: dict[Path, int] = {}
        #: run -> its tasks
        self.sizes: dict[str, int] = {}
        #: leaf -> runs of which tasks are at home somewhere
        self.placed: dict[Path, dict[str, HostedRun]] = {}

    def set(self, hosted: HostedRun, size: int) -> None:
        """The run has so many."""
        run_id, leaf = hosted.run.run_id, hosted.leaf
        count = self.counts.get(leaf, 0) + size - self.sizes.pop(run_id, 0)
        if count:
            self.counts[leaf] = count
        else:
            self.counts.pop(leaf, None)
        if size:
            self.sizes[run_id] = size
            if leaf not in self.runs:
                self._arrive(hosted, leaf)
            self.runs.setdefault(leaf, {}).setdefault(run_id, hosted)
        elif leaf in self.runs and self.runs[leaf].pop(run_id, None) is not None and not self.runs[leaf]:
            del self.runs[leaf]
            if self.shares is not None:
                self.shares.leave(leaf)

    def place(self, hosted: HostedRun, placed: bool) -> None:
        """Are tasks of the run at home somewhere?"""
        leaf, run_id = hosted.leaf, hosted.run.run_id
        if placed:
            self.placed.setdefault(leaf, {})[run_id] = hosted
        elif leaf in self.placed and self.placed[leaf].pop(run_id, None) is not None and not self.placed[leaf]:
            del self.placed[leaf]

    def _arrive(self, hosted: HostedRun, leaf: Path) -> None:
        if self.shares is None:
            if not self.runs:
                return
            self.shares = self._new_shares()
            for other, waiting in self.runs.items():
                self.shares.weigh(other, next(iter(waiting.values())).run.compiled.definition.weight)
                self.shares.arrive(other)
        self.shares.weigh(leaf, hosted.run.compiled.definition.weight)
        self.shares.arrive(leaf)

    def first(self, kept: bool) -> HostedRun | None:
        """Whose turn it is; on a seat that is kept from backfills, of the others."""
        if not self.runs or (kept and all(map(spares, self.runs))):
            return None
        leaf = next(iter(self.runs))
        if self.shares is not None:
            leaf = self.shares.next() or leaf
        if kept:
            rest = [leaf for leaf in self.runs if not spares(leaf)]
            leaf = rest[0] if self.shares is None else self.shares.least(rest)
        return next(iter(self.runs[leaf].values()))

    def to_the_end(self, hosted: HostedRun) -> None:
        """It had its turn."""
        waiting = self.runs.get(hosted.leaf, {})
        if waiting.pop(hosted.run.run_id, None) is not None:
            waiting[hosted.run.run_id] = hosted


class BoundWork:
    """Who has ready tasks with which need."""

    def __init__(self, new_shares: Callable[[], Shares] = Shares) -> None:
        self._new_shares = new_shares
        self._queues: dict[Need, _Queue] = {}
        #: run -> needs it is queued for
        self._where: dict[str, set[Need]] = {}
        #: needs of which the demand may have changed since somebody last cleared this
        self.changed: dict[Need, None] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def look(self, hosted: HostedRun) -> None:
        """The run changed."""
        run = hosted.run
        aside = run.aside
        if aside is None:
            return
        if not going(run):
            self.drop(run.run_id)
            return
        where = self._where.get(run.run_id)
        for need in aside.changed if where is not None else aside.waited_for():
            self._set(need, hosted, aside.count(need))
        aside.changed.clear()

    def drop(self, run_id: str) -> None:
        """The run is not here any more, or does not go on for now."""
        for need in self._where.pop(run_id, ()):
            queue = self._queues[need]
            for waiting in list(queue.runs.values()):
                if run_id in waiting:
                    queue.place(waiting[run_id], placed=False)
                    queue.set(waiting[run_id], 0)
            self._noticed(need, queue)

    def demand(self, need: Need) -> dict[Path, int]:
        """leaf of the tree of shares -> ready tasks with that need."""
        queue = self._queues.get(need)
        return dict(queue.counts) if queue is not None else {}

    def near(self, needs: Iterable[Need]) -> tuple[tuple[Need, Path, Near], ...]:
        """Where tasks with these needs are at home, as far as one message tells it."""
        placed = ((need, leaf) for need in needs if need in self._queues for leaf in self._queues[need].placed)
        return tuple((need, leaf, hint(summed(self._at_home(need, leaf)))) for need, leaf in islice(placed, LEAVES_MAX))

    def _at_home(self, need: Need, leaf: Path) -> Iterator[Mapping[str, int]]:
        """node -> tasks, of each of the runs that were first."""
        asides = (hosted.run.aside for hosted in islice(self._queues[need].placed[leaf].values(), RUNS_MAX))
        return (aside.at_home(need) for aside in asides if aside is not None)

    def nearest_first(self, seats: list[Seat]) -> list[Seat]:
        """Of seats that are as empty, first those for which there is something on their node."""
        if not any(queue.placed for queue in self._queues.values()):
            return seats
        return sorted(seats, key=lambda seat: (len(seat.batches), not self._is_near(seat)))

    def _is_near(self, seat: Seat) -> bool:
        queue = self._queues.get(seat.need) if seat.need is not None else None
        if queue is None or seat.need is None:
            return False
        return any(seat.node in at for leaf in queue.placed for at in self._at_home(seat.need, leaf))

    def rivals(self, seat: Seat, later: Sequence[Seat]) -> frozenset[str]:
        """Nodes of those of the seats that get tasks with the same need after it, if it matters where they are.

        A seat with a number of starts has none: those that it leaves are given back, and have to be asked for again.
        """
        queue = self._queues.get(seat.need) if seat.need is not None else None
        if queue is None or not queue.placed or seat.starts is not None:
            return frozenset()
        return frozenset(other.node for other in later if other.need == seat.need)

    def shares(self, need: Need) -> Shares | None:
        """Who shares the seats of that need; None while one DAG has them to itself."""
        queue = self._queues.get(need)
        return queue.shares if queue is not None else None

    def trees(self) -> Iterator[tuple[str, Shares]]:
        """Pool and tree of every need that has one."""
        return ((need.pool, queue.shares) for need, queue in self._queues.items() if queue.shares is not None)

    def needs(self) -> list[Need]:
        """Needs with which tasks wait."""
        return list(self._queues)

    def share(self, seat: Seat, seats: list[Seat]) -> int:
        """How many tasks the seat gets at most, so that each of its kind gets some."""
        queue = self._queues.get(seat.need) if seat.need is not None else None
        if queue is None:
            return 0
        alike = sum(other.need == seat.need for other in seats)
        share = min(BATCH_MAX, -(-sum(queue.counts.values()) // alike))
        return share if seat.starts is None else min(share, seat.starts)

    def fill(
        self,
        seat: Seat,
        limit: int,
        takes_s: Callable[[HostedRun, int], float],
        take: Take,
        rivals: frozenset[str] = frozenset(),
    ) -> None:
        """Hand tasks with the seat's need to it, up to `limit`, and as many as last TARGET_S.

        After its first one none that is at home on the node of a rival, which gets some in this turn.
        """
        need = seat.need
        assert need is not None, "a seat for plain tasks"
        size, expected_s = 0, 0.0
        while size < limit and (queue := self._queues.get(need)) is not None and (hosted := queue.first(seat.kept)):
            aside = hosted.run.aside
            assert aside is not None, "queued without anything aside"
            positions: list[int] = []
            took_s = 0.0
            full = False
            while size < limit and (position := aside.peek(need, seat.node)) is not None:
                seconds, home = takes_s(hosted, position), aside.home_of(position)
                elsewhere = home != seat.node and home in rivals
                if full := bool(size) and (elsewhere or expected_s + seconds > TARGET_S):
                    break
                taken = run_duties.take_bound(hosted.run, need, 1, seat.node)
                positions += taken
                size += len(taken)
                expected_s += seconds * len(taken)
                took_s += seconds * len(taken)
            self.look(hosted)
            if positions:
                take(hosted, positions, took_s)
                if queue.shares is not None:
                    queue.shares.charge(hosted.leaf, cost_s(took_s, len(positions)))
                if (queue := self._queues.get(need)) is not None:
                    queue.to_the_end(hosted)
            if full:
                return

    def _set(self, need: Need, hosted: HostedRun, size: int) -> None:
        queue = self._queues.get(need)
        if queue is None:
            if not size:
                return
            queue = self._queues[need] = _Queue(self._new_shares)
        queue.set(hosted, size)
        if hosted.run.homes is not None and hosted.run.aside is not None:
            queue.place(hosted, bool(hosted.run.aside.at_home(need)))
        where = self._where.setdefault(hosted.run.run_id, set())
        (where.add if size else where.discard)(need)
        if not where:
            del self._where[hosted.run.run_id]
        self._noticed(need, queue)

    def _noticed(self, need: Need, queue: _Queue) -> None:
        self.changed[need] = None
        if not queue.counts:
            del self._queues[need]
