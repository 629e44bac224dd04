"""Ready tasks of all runs a RunActor hosts, and which of them make the next batch for a worker.

Runs take turns within their rank: windows of backfills come after everything else. A batch is filled until
it is expected to last TARGET_S, or has its share of what is ready, so that every free seat gets some.

Tasks of a run in Kubernetes want no seat: they leave as they become ready, JOBS_MAX a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from actors.bound_work import BoundWork
from actors.crew import BATCH_MAX, TARGET_S, Crew, Seat
from actors.hosted import HostedRun
from actors.names import KUBERNETES
from orchestrator import mapped, waits
from orchestrator import run as runs
from orchestrator.messages import Assignment, RunContext, Value

#: seconds a task of these types takes, known beforehand
_INSTANT = {"core.noop": 1e-5, "core.echo": 1e-5}
#: a task of a kind never seen goes alone
_UNKNOWN_S = 10 * TARGET_S
#: Jobs ordered in one turn, so that a great many at once do not hold up other runs
JOBS_MAX = 256


@dataclass(slots=True)
class Sending:
    """A batch composed in this turn."""

    seat: Seat
    runs: dict[str, HostedRun] = field(default_factory=dict)
    #: run id -> positions of its tasks
    positions: dict[str, list[int]] = field(default_factory=dict)
    expected_s: float = 0.0
    size: int = 0

    @property
    def full(self) -> bool:
        """Is it as long as a batch should be?"""
        return self.size > 0 and self.expected_s >= TARGET_S


class ReadyRuns:
    """Runs with ready tasks, by rank, in the order in which they get a turn."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, HostedRun]] = {0: {}, 1: {}}
        #: runs whose tasks are Kubernetes Jobs
        self._outside: dict[str, HostedRun] = {}
        #: ready tasks with needs
        self.bound = BoundWork()

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def look(self, hosted: HostedRun) -> None:
        """The run changed: it has ready tasks now, or has none."""
        run = hosted.run
        if run.aside is not None:
            self.bound.look(hosted)
        waiting = self._outside if hosted.rank is None else self._waiting[hosted.rank]
        if run.ready and runs.going(run):
            waiting.setdefault(run.run_id, hosted)
        else:
            waiting.pop(run.run_id, None)

    def drop(self, run_id: str) -> None:
        """The run is not here any more."""
        self._outside.pop(run_id, None)
        self.bound.drop(run_id)
        for waiting in self._waiting.values():
            waiting.pop(run_id, None)

    def demand(self) -> dict[int, int]:
        """rank -> ready tasks that want a seat."""
        counts = {rank: sum(len(h.run.ready) for h in waiting.values()) for rank, waiting in self._waiting.items()}
        return {rank: n for rank, n in counts.items() if n}

    def compose(self, crew: Crew, begin: Callable[[HostedRun, runs.Begin], None]) -> list[Sending]:
        """A batch for each seat with room, as long as there are ready tasks; `begin` marks them as started."""
        seats = crew.with_room() if self else []
        share = -(-sum(self.demand().values()) // len(seats)) if seats else 0
        out = []
        for seat in seats:
            sending = self._fill(crew, Sending(seat), min(share, BATCH_MAX), begin)
            if not sending.size:
                break
            out.append(sending)
        return out

    def compose_bound(
        self,
        crew: Crew,
        begin: Callable[[HostedRun, runs.Begin], None],
        begun: Callable[[str, int, int], None],
    ) -> list[Sending]:
        """The same for seats with permits; `begun` hears of leases that came with a number of starts."""
        out = []
        seats = crew.bound_with_room()
        for seat in seats:
            sending = Sending(seat)
            limit = self.bound.share(seat, seats)
            self.bound.fill(seat, limit, partial(_seconds, crew), partial(_add, sending, begin))
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

    def take_jobs(self, begin: Callable[[HostedRun, runs.Begin], None]) -> list[tuple[HostedRun, list[int]]]:
        """Runs and positions of their tasks that become Jobs now; `begin` marks them as started."""
        room, out = JOBS_MAX, []
        for run_id in list(self._outside):
            if not room:
                break
            hosted = self._outside.pop(run_id)
            positions = runs.take_ready(hosted.run, room)
            if positions:
                room -= len(positions)
                out.append((hosted, positions))
                begin(hosted, runs.Begin(tuple(positions), KUBERNETES, KUBERNETES))
            self.look(hosted)
        return out

    def _fill(
        self, crew: Crew, sending: Sending, limit: int, begin: Callable[[HostedRun, runs.Begin], None]
    ) -> Sending:
        for waiting in self._waiting.values():
            for run_id in list(waiting):
                if sending.size >= limit or sending.full:
                    return sending
                hosted = waiting.pop(run_id)
                positions = _take(crew, hosted, sending, limit)
                if positions:
                    sending.runs[run_id], sending.positions[run_id] = hosted, positions
                    begin(hosted, runs.Begin(tuple(positions), sending.seat.worker, sending.seat.incarnation))
                self.look(hosted)
        return sending


def assignments(sending: Sending, owner: str) -> tuple[list[RunContext], list[Assignment]]:
    """What the worker is told about the batch; its attempts have begun."""
    contexts, out = [], []
    for run_id, hosted in sending.runs.items():
        contexts.append(hosted.run.context(owner))
        out += [assignment(hosted.run, position) for position in sending.positions[run_id]]
    return contexts, out


def assignment(run: runs.Run, position: int) -> Assignment:
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
    )


def _take(crew: Crew, hosted: HostedRun, sending: Sending, limit: int) -> list[int]:
    """Positions of one run that fit into the batch, taken off its ready heap."""
    run = hosted.run
    out: list[int] = []
    while run.ready and sending.size < limit:
        position = run.ready[0][1]
        seconds = _seconds(crew, hosted, position)
        if sending.size and sending.expected_s + seconds > TARGET_S:
            sending.expected_s = max(sending.expected_s, TARGET_S)
            break
        taken = runs.take_ready(run, 1)
        if taken == out[-1:]:
            continue  # it was offered twice
        out += taken
        sending.size += len(taken)
        sending.expected_s += seconds * len(taken)
    return out


def _seconds(crew: Crew, hosted: HostedRun, position: int) -> float:
    """How long the task will take, as far as anybody knows."""
    compiled = hosted.run.compiled
    seconds = crew.takes_s(compiled.keys[position])
    return _INSTANT.get(compiled.specs[position].type, _UNKNOWN_S) if seconds is None else seconds


def _add(
    sending: Sending,
    begin: Callable[[HostedRun, runs.Begin], None],
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
    begin(hosted, runs.Begin(tuple(positions), sending.seat.worker, sending.seat.incarnation))
