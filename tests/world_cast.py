"""Who lives in a world besides the real shells.

Workers that really keep their books, and a supervisor that knows who ought to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec

from actors.attempt import LiveAttempt
from actors.batch_book import Batch, BatchBook
from actors.names import pool_of
from actors.roster_order import first_number, numbered
from orchestrator import actor_codec
from orchestrator.control import Roster
from orchestrator.errors import ActorUnreachable
from orchestrator.messages import Assignment, Exchange, Fenced, Holding, Note, Report, RunContext, Settled, Value
from tests.world_wire import Wire

Key = tuple[str, str, int]
#: seconds that a task takes; most are short
DURATIONS_S = (0.0, 0.001, 0.001, 0.001, 0.004, 0.004, 0.02, 0.02, 0.1, 0.3, 1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What user code does this time."""

    takes_s: float
    #: ok | error | permanent | skipped | suspended | kill
    outcome: str = "ok"
    #: does not stop when it is cancelled
    deaf: bool = False
    #: writes a checkpoint half-way
    notes: bool = False


@dataclass
class Shelf:
    """Large values of all workers, some of which vanish."""

    #: chance that one of them is gone when an attempt begins, and how many may be
    vanish: float
    losses: int
    there: set[str] = field(default_factory=set)

    def missing(self, task: Assignment, rng: Random) -> tuple[str, ...]:
        """What the attempt would take, and is not there."""
        if self.losses and self.there and rng.random() < self.vanish:
            self.losses -= 1
            self.there.discard(rng.choice(sorted(self.there)))
        taken = (value.artifact for value in task.inputs.values() if value.artifact is not None)
        return tuple(name for name in taken if name not in self.there)

    def put(self, key: Key, node: str = "") -> Value:
        """What the attempt returns, by its name, on the node on which it ran."""
        name = f"{key[0]}/{key[1]}.{key[2]}"
        self.there.add(name)
        return Value(artifact=name, size_bytes=10**7, node=node or "A")


@dataclass
class Mischief:
    """Chances of what user code does."""

    error: float = 0.06
    permanent: float = 0.02
    skipped: float = 0.03
    suspended: float = 0.04
    kill: float = 0.0
    deaf: float = 0.03
    notes: float = 0.05
    #: seconds it may take
    takes_s: tuple[float, ...] = DURATIONS_S
    #: where large values are; None = all are small
    shelf: Shelf | None = None

    def draw(self, rng: Random) -> Behaviour:
        """One attempt."""
        chance = rng.random()
        bounds = (("error", self.error), ("permanent", self.permanent), ("kill", self.kill), ("skipped", self.skipped))
        bounds += (("suspended", self.suspended),)
        outcome = "ok"
        for name, share in bounds:
            if chance < share:
                outcome = name
                break
            chance -= share
        deaf = rng.random() < self.deaf
        return Behaviour(rng.choice(self.takes_s), outcome, deaf, rng.random() < self.notes)


def value_of(key: Key) -> Value:
    """What the attempt returns: its own name."""
    return Value(msgspec.Raw(msgspec.json.encode(list(key))))


class Worker:
    """A WorkerActor with the real bookkeeping; its user code sleeps and draws lots."""

    def __init__(
        self,
        name: str,
        incarnation: str,
        wire: Wire,
        rng: Random,
        mischief: Mischief,
        began: Callable[[str, Assignment, RunContext | None], None],
        now: Callable[[], datetime],
    ) -> None:
        self._now = now
        self.name = name
        self.incarnation = incarnation
        #: Ray's id of the node that it is on
        self.node = ""
        self._wire = wire
        self._rng = rng
        self._mischief = mischief
        self._began = began
        self._book = BatchBook(wire.loop.time)
        self._turn = asyncio.Lock()
        #: the attempt that runs now
        self.busy: Key | None = None
        self._batch: Batch | None = None

    @property
    def waiting(self) -> int:
        """Attempts that wait here behind the one that runs."""
        return self._batch.end - self._batch.next if self._batch is not None else 0

    def holds(self) -> list[Key]:
        """Attempts whose reports are kept here, for any owner."""
        kept = [self._book.holding(name, None)[1] for name in ("run-actor-0", "run-actor-1")]
        return [(report.run_id, report.task, report.attempt) for reports in kept for report in reports]

    async def exchange(self, blob: bytes) -> bytes:
        """See actors/worker_actor.py."""
        exchange = actor_codec.decode_exchange(blob)
        async with self._turn:
            batch = self._book.open(exchange)
            if batch is not None:
                await self._run(batch, exchange)
            reports, untouched = self._book.answer(exchange)
        answer = (tuple(reports), tuple(untouched), self.node)
        settled = Settled(self.name, self.incarnation, exchange.batch, *answer)
        return actor_codec.encode_settled(settled)

    async def give_back(self, owner: str, up_to_batch: int, epoch: int | None = None) -> bytes:
        """See actors/worker_actor.py."""
        newest, reports, untouched = self._book.give_back(owner, up_to_batch, epoch)
        answer = (tuple(reports), tuple(untouched), self.node)
        return actor_codec.encode_settled(Settled(self.name, self.incarnation, newest, *answer))

    async def cancel(self, run_id: str, task: str, attempt: int, reason: str) -> bool:
        """See actors/worker_actor.py."""
        return self._book.cancel((run_id, task, attempt), reason)

    async def holding(self, owner: str, epoch: int | None = None) -> bytes:
        """See actors/worker_actor.py."""
        live, reports = self._book.holding(owner, epoch)
        return actor_codec.encode_holding(Holding(self.name, self.incarnation, tuple(live), tuple(reports)))

    async def fence(self, epochs: dict[str, int]) -> bytes:
        """See actors/worker_actor.py."""
        return actor_codec.encode_fenced(Fenced(self.incarnation, *self._book.fence(epochs)))

    async def ping(self) -> str:
        """See actors/worker_actor.py."""
        return self.incarnation

    async def where(self) -> tuple[str, int, str]:
        """See actors/worker_actor.py."""
        return "host", 1, self.node

    async def _run(self, batch: Batch, exchange: Exchange) -> None:
        runs = {run.run_id: run for run in exchange.runs}
        self._batch = batch
        try:
            while (started := self._book.start(batch)) is not None:
                task, live = started
                self.busy = (task.run_id, task.task, task.attempt)
                self._began(self.name, task, runs.get(task.run_id))
                self._book.settle(batch, await self._attempt(task, live, runs.get(task.run_id)))
                self.busy = None
        finally:
            self._book.close(batch)
            self._batch = None

    async def _attempt(self, task: Assignment, live: LiveAttempt, run: RunContext | None) -> Report:
        does, shelf = self._mischief.draw(self._rng), self._mischief.shelf
        stop = asyncio.Event()
        live.on_cancel(stop.set)
        key = (task.run_id, task.task, task.attempt)
        if shelf is not None and (missing := shelf.missing(task, self._rng)):
            return Report(*key, live.end() or "missing", error="MissingArtifact: gone", missing=missing)
        if does.notes and run is not None:
            await self._note(run.owner, key)
        if does.outcome == "kill":
            await asyncio.sleep(does.takes_s)
            self._wire.killer(self.name)
            await asyncio.sleep(60.0)
        elif does.deaf:
            await asyncio.sleep(does.takes_s)
        elif does.takes_s:
            try:
                await asyncio.wait_for(stop.wait(), does.takes_s)
            except TimeoutError:
                pass
        reason = live.end()
        if reason is not None:
            return Report(*key, reason, error=f"TaskCancelled: {reason}")
        if does.outcome == "ok" and shelf is not None:
            return Report(*key, "ok", shelf.put(key, self.node), took_s=does.takes_s)
        if does.outcome == "ok":
            return Report(*key, "ok", self._value(key, task), took_s=does.takes_s)
        if does.outcome == "suspended":
            until = self._now() + timedelta(seconds=self._rng.choice((0.0, 0.5, 5.0)))
            rest = Value(msgspec.Raw(msgspec.json.encode((len(task.sleeps) + 1, until))))
            return Report(*key, "suspended", rest, error="sleeps", took_s=does.takes_s)
        if does.outcome == "skipped":
            return Report(*key, "skipped", error="nothing to do", took_s=does.takes_s)
        return Report(*key, "error", error="Boom", permanent=does.outcome == "permanent", took_s=does.takes_s)

    def _value(self, key: Key, task: Assignment) -> Value:
        """Its own name; of a branch some of its ways, or one that is none."""
        ways: list[str] = msgspec.json.decode(task.params).get("ways", []) if task.params else []
        if not ways:
            return value_of(key)
        return Value(
            msgspec.Raw(msgspec.json.encode(self._rng.sample([*ways, "nowhere"], self._rng.randint(0, len(ways)))))
        )

    async def _note(self, owner: str, key: Key) -> None:
        try:
            await self._wire.ask(owner, "note", actor_codec.encode_note(Note(*key, "checkpoint", msgspec.Raw(b"1"))))
        except ActorUnreachable:
            return


class Supervisor:
    """Knows who ought to exist, and tells the scheduler until it has understood."""

    def __init__(self, wire: Wire, run_actors: list[str], workers: list[str]) -> None:
        self._wire = wire
        self.run_actors = run_actors
        self.workers = workers
        #: worker -> seconds since when it is to get no more work
        self.draining: dict[str, float] = {}
        #: actors for one instance each, and those of them that died and are being started again
        self.extra: set[str] = set()
        self.away: set[str] = set()
        #: of the newest scheduler that was heard of
        self._epoch = 0
        self._orders: dict[str, int] = {}
        #: starts the actor of that name
        self.start: Callable[[str], None] = lambda _: None
        self._made = Roster((), (), number=first_number(1.0))
        self._told: Roster | None = None

    async def tell_roster(self, blob: bytes) -> bytes:
        """For a new scheduler."""
        self._is_current(*actor_codec.decode_supervision(blob))
        return actor_codec.encode_control(self._roster())

    async def ensure(self, actor: bytes) -> None:
        """An actor for one instance exists."""
        order, name = actor_codec.decode_supervision(actor)
        if not self._is_current(order, name):
            return
        self.extra.add(name)
        if name not in self._wire.processes and name not in self.away:
            self.start(name)

    async def release(self, actor: bytes) -> None:
        """It is not needed any more."""
        order, name = actor_codec.decode_supervision(actor)
        if name in self.run_actors or not self._is_current(order, name):
            return
        self.extra.discard(name)
        process = self._wire.processes.pop(name, None)
        if process is not None:
            process.end()

    async def demand(self, blob: bytes) -> None:
        """Tasks wait in pools without workers: some may come later."""
        actor_codec.decode_pool_loads(blob)

    def _is_current(self, order: int, name: str) -> bool:
        self._epoch = max(self._epoch, order >> 32)
        if order >> 32 < self._epoch or order < self._orders.get(name, 0):
            return False
        self._orders[name] = order
        return True

    async def live(self) -> None:
        """As the real one: told when it changed, and again after a failure."""
        while True:
            roster = self._roster()
            if roster != self._told:
                try:
                    await self._wire.tell("scheduler", "roster", actor_codec.encode_control(roster))
                    self._told = roster
                except ActorUnreachable:
                    pass
            await asyncio.sleep(2.0)

    def _roster(self) -> Roster:
        workers = tuple((name, pool_of(name)) for name in self.workers)
        self._made = numbered(Roster(tuple(self.run_actors), workers, tuple(self.draining)), self._made)
        return self._made

    async def drain(self, worker: str) -> None:
        """The worker gets no more work and ends once it has none."""
        self.draining[worker] = self._wire.loop.time()
        while True:
            await asyncio.sleep(1.0)
            try:
                states = actor_codec.decode_states(await self._wire.ask("scheduler", "slot_states", b""))
            except ActorUnreachable:
                continue
            if states.get(worker) == "draining":
                break
        self.workers.remove(worker)
        del self.draining[worker]


class Control:
    """`ports.ControlPlane` over the wire, for gateways."""

    def __init__(self, wire: Wire, run_actors: list[str]) -> None:
        self._wire = wire
        self._run_actors = run_actors

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        """At the owner; a run that nobody owns goes to any."""
        chosen = owner or self._wire.rng.choice(self._run_actors)
        return await self._wire.ask(chosen, "command", command)

    async def answers(self, actor: str) -> bool:
        """Whether it does within a second."""
        try:
            async with asyncio.timeout(1.0):
                await self._wire.ask(actor, "whether_alive", b"")
        except (ActorUnreachable, TimeoutError):
            return False
        return True

    async def wake_archiver(self) -> None:
        """There is none in a world, but for those that a test makes and wakes itself."""

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)
