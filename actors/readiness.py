"""Ready tasks of all runs a RunActor hosts, and which of them make the next batch for a worker.

Whose turn it is says the tree of shares (tenant, class, DAG; `orchestrator/shares.py`), by seconds of slot time; within
a DAG runs take turns by the priority of their first ready task, with ageing (`orchestrator/ageing.py`). A turn is what
one batch takes of one DAG. A batch is filled until it is expected to last TARGET_S, or has its share of what is ready,
so that every free seat gets some. A seat that is kept from backfills (`orchestrator/headroom.py`) gets turns of other
leaves only.

Tasks of a run in Kubernetes want no seat: they leave as they become ready, JOBS_MAX a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from actors.bound_work import BoundWork, cost_s
from actors.crew import BATCH_MAX, TARGET_S, Crew, Seat
from actors.hosted import HostedRun
from actors.kept_turns import KeptTurns
from actors.names import KUBERNETES
from orchestrator import locality, mapped, run_commands, run_duties, waits
from orchestrator.ageing import AgedQueue
from orchestrator.headroom import spares
from orchestrator.messages import Assignment, RunContext, Value
from orchestrator.nearness import LEAVES_MAX, Near, hint, summed
from orchestrator.run_state import Run, going
from orchestrator.shares import BORROW, Path, Shares

#: seconds a task of these types takes, known beforehand
_INSTANT = {"core.noop": 1e-5, "core.echo": 1e-5}
#: a task of a kind never seen goes alone
_UNKNOWN_S = 10 * TARGET_S
#: runs of one leaf of which the scheduler is told where tasks are at home, and tasks of one run on one node
RUNS_TOLD, TASKS_TOLD = 8, 16
#: Jobs ordered in one turn, so that a great many at once do not hold up other runs
JOBS_MAX = 256


@dataclass(slots=True)
class Sending:
    """A batch composed in this turn."""

    seat: Seat
    runs: dict[str, HostedRun] = field(default_factory=dict)
    #: run id -> positions of its tasks
    positions: dict[str, list[int]] = field(default_factory=dict)
    #: leaf of the tree of shares -> seconds it is expected to take, and whether it was charged for them
    costs: dict[Path, float] = field(default_factory=dict)
    charged: bool = True
    expected_s: float = 0.0
    size: int = 0
    #: nodes of other seats that get a batch in this turn, where a run has large values
    rivals: frozenset[str] = frozenset()

    @property
    def full(self) -> bool:
        """Is it as long as a batch should be?"""
        return self.size > 0 and self.expected_s >= TARGET_S


class ReadyRuns:
    """Runs with ready tasks, and who gets the next turn.

    `shares` are for plain tasks, and `new_shares` makes some for one need. `monotonic` tells seconds. Nobody is charged
    while one DAG has everything to itself here, and does not compete with what other RunActors host (`competing`): what
    is used then is nobody's debt.
    """

    def __init__(
        self,
        shares: Shares,
        monotonic: Callable[[], float],
        competing: Callable[[], bool],
        new_shares: Callable[[], Shares] = Shares,
    ) -> None:
        self._shares = shares
        self._competing = competing
        self._monotonic = monotonic
        #: runs that want seats, and per leaf in which order
        self._waiting: dict[str, HostedRun] = {}
        #: of those, the priority of the first ready task as they were lined up (less than nothing is high)
        self._heads: dict[str, int] = {}
        self._queues: dict[Path, AgedQueue] = {}
        #: the only leaf that has such runs, which `shares` are not told of, and what it weighs; None = there are more
        self._alone: Path | None = None
        self._weight = 1
        #: an empty queue for the next leaf
        self._spare: AgedQueue | None = None
        #: of those that want seats, runs with large values, whose tasks rather run where these are
        self._placed: set[str] = set()
        #: runs whose tasks are Kubernetes Jobs
        self._outside: dict[str, HostedRun] = {}
        #: turns on seats that are kept from backfills
        self.kept = KeptTurns(new_shares())
        #: ready tasks with needs
        self.bound = BoundWork(new_shares)
        #: runs with tasks whose results may be known
        self.curious: dict[str, HostedRun] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def look(self, hosted: HostedRun) -> None:
        """The run changed: it has ready tasks now, or has none."""
        run = hosted.run
        if run.aside is not None:
            self.bound.look(hosted)
        if run.lookups is not None and run.lookups.wanted and going(run):
            self.curious[run.run_id] = hosted
        wants = bool(run.ready) and going(run) and (run.homes is None or locality.drop_stale(run))
        if run.kubernetes:
            if wants:
                self._outside.setdefault(run.run_id, hosted)
            else:
                self._outside.pop(run.run_id, None)
        elif wants:
            if run.homes is not None:
                self._placed.add(run.run_id)
            if self._waiting.get(run.run_id) is not hosted or self._heads[run.run_id] != run.ready[0][0]:
                self._put(hosted, hosted.leaf)
        elif run.run_id in self._waiting:
            self._take_off(run.run_id, hosted.leaf)

    def drop(self, run_id: str) -> None:
        """The run is not here any more."""
        self._outside.pop(run_id, None)
        self.curious.pop(run_id, None)
        self.bound.drop(run_id)
        hosted = self._waiting.get(run_id)
        if hosted is not None:
            self._take_off(run_id, hosted.leaf)

    def _put(self, hosted: HostedRun, leaf: Path) -> None:
        queue = self._queues.get(leaf)
        if queue is None:
            queue = self._open(leaf, hosted.run.compiled.definition.weight)
        head = self._heads[hosted.run.run_id] = hosted.run.ready[0][0]
        queue.put(hosted.run.run_id, -head, self._monotonic())
        self._waiting[hosted.run.run_id] = hosted

    def _take_off(self, run_id: str, leaf: Path) -> None:
        del self._waiting[run_id], self._heads[run_id]
        if self._placed:
            self._placed.discard(run_id)
        queue = self._queues[leaf]
        queue.drop(run_id)
        if not queue:
            self._close(leaf)

    def _open(self, leaf: Path, weight: int) -> AgedQueue:
        """A leaf has runs. One that is alone, like that of a chain from step to step, is nobody's rival."""
        queue = AgedQueue() if self._spare is None else self._spare
        self._spare = None
        if not self._queues:
            self._alone, self._weight = leaf, weight
        else:
            if self._alone is not None:
                self._shares.weigh(self._alone, self._weight)
                self._shares.arrive(self._alone)
                self._alone = None
            self._shares.weigh(leaf, weight)
            self._shares.arrive(leaf)
        self._queues[leaf] = queue
        return queue

    def _close(self, leaf: Path) -> None:
        self._spare = self._queues.pop(leaf)
        if leaf == self._alone:
            self._alone = None
        else:
            self._shares.leave(leaf)

    @property
    def only_backfills(self) -> bool:
        """Is there nothing for a seat that is kept from backfills?"""
        return all(map(spares, self._queues))

    def demand(self) -> dict[Path, int]:
        """leaf -> ready tasks that want a seat."""
        counts: dict[Path, int] = {}
        for hosted in self._waiting.values():
            counts[hosted.leaf] = counts.get(hosted.leaf, 0) + len(hosted.run.ready)
        return counts

    def near(self) -> tuple[tuple[Path, Near], ...]:
        """Where the tasks that want a seat are at home, as far as one message tells it."""
        if not self._placed:
            return ()
        by_leaf: dict[Path, list[dict[str, int]]] = {}
        for run_id, hosted in self._waiting.items():
            if run_id in self._placed and hosted.run.homes is not None:
                found = by_leaf.setdefault(hosted.leaf, [])
                if len(found) < RUNS_TOLD and (at := hosted.run.homes.at(hosted.run, TASKS_TOLD)):
                    found.append(at)
        told = ((leaf, hint(summed(found))) for leaf, found in by_leaf.items() if found)
        return tuple(islice(told, LEAVES_MAX))

    def compose(self, crew: Crew, begin: Callable[[HostedRun, run_commands.Begin], None]) -> list[Sending]:
        """A batch for each seat with room, as long as there are ready tasks; `begin` marks them as started."""
        seats = crew.with_room() if self else []
        if not seats:
            return []
        self._shares.borrow = BORROW * len(crew.seats)
        charged = self._shares.contended or self._competing()
        share = -(-sum(len(hosted.run.ready) for hosted in self._waiting.values()) // len(seats))
        out = []
        while seats:
            seat = seats.pop(self._nearest(seats) if self._placed else 0)
            rivals = frozenset(other.node for other in seats) if self._placed else frozenset[str]()
            sending = self._fill(crew, Sending(seat, charged=charged, rivals=rivals), min(share, BATCH_MAX), begin)
            if sending.size:
                out.append(sending)
            elif not seat.kept:
                break
        return out

    def _nearest(self, seats: Sequence[Seat]) -> int:
        """Which seat gets the next batch: the first, unless the task whose turn it is has its values elsewhere."""
        leaf = self._alone or self._shares.next()
        run = self._waiting[self._queues[leaf].first()].run if leaf else None
        if run is None or run.homes is None or (position := locality.next_for(run, seats[0].node, ())) is None:
            return 0
        home = run.homes.of(position)
        return next((i for i, seat in enumerate(seats) if home and seat.node == home), 0)

    def compose_bound(
        self,
        crew: Crew,
        begin: Callable[[HostedRun, run_commands.Begin], None],
        begun: Callable[[str, int, int], None],
    ) -> list[Sending]:
        """The same for seats with permits; `begun` hears of leases that came with a number of starts."""
        out = []
        charged = self._shares.contended or self._competing()
        seats = self.bound.nearest_first(crew.bound_with_room())
        for n, seat in enumerate(seats):
            sending = Sending(seat, charged=charged)
            limit = self.bound.share(seat, seats)
            rivals = self.bound.rivals(seat, seats[n + 1 :])
            self.bound.fill(seat, limit, partial(_seconds, crew), partial(_add, sending, begin), rivals)
            if sending.size:
                out.append(sending)
            if seat.starts is not None:
                seat.starts = 0
                begun(seat.worker, seat.lease, sending.size)
        crew.seen()
        return out

    @property
    def has_jobs(self) -> bool:
        """Are there Jobs to order?"""
        return bool(self._outside)

    def take_jobs(self, begin: Callable[[HostedRun, run_commands.Begin], None]) -> list[tuple[HostedRun, list[int]]]:
        """Runs and positions of their tasks that become Jobs now; `begin` marks them as started."""
        room, out = JOBS_MAX, []
        for run_id in list(self._outside):
            if not room:
                break
            hosted = self._outside.pop(run_id)
            positions = run_duties.take_ready(hosted.run, room)
            if positions:
                room -= len(positions)
                out.append((hosted, positions))
                begin(hosted, run_commands.Begin(tuple(positions), KUBERNETES, KUBERNETES))
            self.look(hosted)
        return out

    def _fill(
        self, crew: Crew, sending: Sending, limit: int, begin: Callable[[HostedRun, run_commands.Begin], None]
    ) -> Sending:
        kept = self.kept if sending.seat.kept else None
        shares = self._shares if kept is None else kept.shares
        while sending.size < limit and not sending.full:
            leaf = (self._alone or shares.next()) if kept is None else kept.next(self._queues)
            if leaf is None:
                break
            before = sending.size, sending.expected_s
            self._fill_from(leaf, crew, sending, limit, begin)
            if sending.size == before[0]:
                if leaf in self._queues:  # its next task would make the batch too long
                    break
                continue
            cost = cost_s(sending.expected_s - before[1], sending.size - before[0])
            sending.costs[leaf] = sending.costs.get(leaf, 0.0) + cost
            if sending.charged:
                shares.charge(leaf, cost)
        return sending

    def _fill_from(
        self,
        leaf: Path,
        crew: Crew,
        sending: Sending,
        limit: int,
        begin: Callable[[HostedRun, run_commands.Begin], None],
    ) -> None:
        """Let the runs of one DAG have their turns, as long as there is room: each at most once."""
        for _ in range(len(self._queues[leaf])):
            if sending.size >= limit or sending.full or leaf not in self._queues:
                return
            run_id = self._queues[leaf].first()
            hosted = self._waiting[run_id]
            positions = _take(crew, hosted, sending, limit)
            if not positions:
                if hosted.run.ready:
                    return
                self.look(hosted)  # what was ready there is not any more
                continue
            sending.runs[run_id] = hosted
            sending.positions.setdefault(run_id, []).extend(positions)
            self._heads[run_id] = 1  # no priority: `look` lines it up anew
            self._queues[leaf].drop(run_id)  # it has had its turn: if it still waits, it does from now on
            begin(hosted, run_commands.Begin(tuple(positions), sending.seat.worker, sending.seat.incarnation))
            self.look(hosted)


def assignments(sending: Sending, owner: str, traced: bool) -> tuple[list[RunContext], list[Assignment]]:
    """What the worker is told about the batch; its attempts have begun."""
    contexts, out = [], []
    for run_id, hosted in sending.runs.items():
        contexts.append(hosted.run.context(owner, traced))
        out += [assignment(hosted.run, position) for position in sending.positions[run_id]]
    return contexts, out


def assignment(run: Run, position: int) -> Assignment:
    """What is told about one task; its attempt has begun."""
    spec, task = run.compiled.specs[position], run.tasks[position]
    inputs = {}
    for parameter, producer in spec.inputs.items():
        inputs[parameter] = run.values.get(run.compiled.graph.index[producer], Value())
    part = mapped.part_of(run, position, inputs) if run.compiled.maps else None
    return Assignment(
        run.run_id,
        spec.id,
        task.attempt,
        spec.type,
        spec.entrypoint,
        run.compiled.params[position],
        inputs,
        spec.timeout_s,
        task.checkpoint,
        part,
        waits.sleeps(run, position),
        spec.heartbeat_timeout_s,
        spec.durability == "memory",
    )


def _take(crew: Crew, hosted: HostedRun, sending: Sending, limit: int) -> list[int]:
    """Positions of one run that fit into the batch, taken off its ready heap."""
    run = hosted.run
    if run.homes is not None:
        return _take_near(crew, hosted, sending, limit)
    out: list[int] = []
    while run.ready and sending.size < limit:
        position = run.ready[0][1]
        seconds = _seconds(crew, hosted, position)
        if sending.size and sending.expected_s + seconds > TARGET_S:
            sending.expected_s = max(sending.expected_s, TARGET_S)
            break
        taken = run_duties.take_ready(run, 1)
        if taken == out[-1:]:
            continue  # it was offered twice
        out += taken
        sending.size += len(taken)
        sending.expected_s += seconds * len(taken)
    return out


def _take_near(crew: Crew, hosted: HostedRun, sending: Sending, limit: int) -> list[int]:
    """The same of a run with large values: rather tasks that have theirs on the node of the seat."""
    run, node = hosted.run, sending.seat.node
    out: dict[int, None] = {}
    while sending.size < limit and (position := locality.next_for(run, node, out)) is not None:
        seconds = _seconds(crew, hosted, position)
        home = run.homes.of(position) if run.homes is not None else ""
        if sending.size and (sending.expected_s + seconds > TARGET_S or (home != node and home in sending.rivals)):
            sending.expected_s = max(sending.expected_s, TARGET_S)
            break
        locality.take(run, position, node)
        out[position] = None
        sending.size += 1
        sending.expected_s += seconds
    return list(out)


def _seconds(crew: Crew, hosted: HostedRun, position: int) -> float:
    """How long the task will take, as far as anybody knows."""
    compiled = hosted.run.compiled
    seconds = crew.takes_s(compiled.keys[position])
    return _INSTANT.get(compiled.specs[position].type, _UNKNOWN_S) if seconds is None else seconds


def _add(
    sending: Sending,
    begin: Callable[[HostedRun, run_commands.Begin], None],
    hosted: HostedRun,
    positions: list[int],
    seconds: float,
) -> None:
    """These tasks of a run go along."""
    run_id = hosted.run.run_id
    sending.runs[run_id] = hosted
    sending.positions.setdefault(run_id, []).extend(positions)
    sending.size += len(positions)
    sending.expected_s += seconds
    sending.costs[hosted.leaf] = sending.costs.get(hosted.leaf, 0.0) + cost_s(seconds, len(positions))
    begin(hosted, run_commands.Begin(tuple(positions), sending.seat.worker, sending.seat.incarnation))
