"""Processes, and everything between them that can go wrong: the world's Ray and its road to the journal.

A `Process` is whatever its object started while the process was current; ending it cancels all of that at once,
wherever it
was. A message that is under way does not belong to its sender any more: it arrives although the sender has died
meanwhile,
also at a process that took the sender's or the receiver's place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from random import Random
from typing import Any

from actors.peers import WorkerGone, WorkerUnreachable
from orchestrator.errors import ActorUnreachable, JournalUnavailable, OrchestratorError
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import VirtualLoop

CONTROL_S = 3.0
TELL_S = 5.0
_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Died(Exception):
    """The process that was to answer has ended."""


class Process:
    """One incarnation of an actor or worker."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.object: Any = None
        self._loop = loop
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self.context: Context = copy_context()
        self.context.run(_CURRENT.set, self)

    def call(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Let the process do this; the outcome, or Died."""
        outcome = self._loop.create_future()
        self._waiting[outcome] = None
        task = self._loop.create_task(work, context=self.context.copy())

        def done(task: asyncio.Task[Any]) -> None:
            self._waiting.pop(outcome, None)
            _pass_on(task, outcome)

        task.add_done_callback(done)
        return outcome

    def end(self) -> None:
        """Everything it does stops here."""
        self.alive = False
        for outcome in self._waiting:
            if not outcome.done():
                outcome.set_exception(Died(self.name))
                outcome.exception()  # whoever waited may be gone, too
        for task in list(self._tasks):
            task.cancel()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task that was started by it."""
        if not self.alive:
            task.cancel()
            return
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))


def _pass_on(task: asyncio.Task[Any], outcome: asyncio.Future[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if outcome.done():
        return
    if task.cancelled():
        outcome.set_exception(Died("cancelled"))
        outcome.exception()
    elif error is not None:
        outcome.set_exception(error)
        outcome.exception()
    else:
        outcome.set_result(task.result())


def start_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None
) -> asyncio.Task[Any]:
    """Task factory: a task belongs to the process that starts it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    owner = context.get(_CURRENT) if context is not None else _CURRENT.get()
    if owner is not None:
        owner.adopt(task)
    return task


@dataclass
class Weather:
    """How bad it is: chances per message or step, spans in seconds."""

    #: a message takes up to this long, usually
    latency_s: float = 0.002
    #: a message takes up to 3 s
    slow: float = 0.0
    #: a request is lost
    lost: float = 0.0
    #: the answer is lost
    mute: float = 0.0
    #: a batch counts as lost on its way, and arrives up to 5 s later
    late: float = 0.0
    #: a batch has arrived, and within 2 s its connection breaks; the worker goes on
    cut: float = 0.0
    #: a tell arrives twice
    twice: float = 0.0
    #: a journal step is refused, or its answer lost
    journal: float = 0.0
    #: a journal step takes up to 0.3 s
    journal_slow: float = 0.0
    #: until when the journal does not answer at all
    outage_until_s: float = -1.0

    def clear_up(self) -> None:
        """From now on nothing goes wrong."""
        self.slow = self.lost = self.mute = self.late = self.cut = self.twice = self.journal = self.journal_slow = 0.0
        self.outage_until_s = -1.0


@dataclass
class Wire:
    """`Peers` between the processes of a world; also carries what clients and workers say."""

    loop: VirtualLoop
    rng: Random
    weather: Weather
    processes: dict[str, Process] = field(default_factory=dict)
    #: ends the process of that name
    killer: Callable[[str], None] = lambda _: None
    messages: int = 0

    def __post_init__(self) -> None:
        self._context = copy_context()

    def meet(self, worker: str, incarnation: str) -> None:
        """`Peers.meet`: names are looked up with every call."""

    async def look_up(self, worker: str, incarnation: str) -> None:
        """`Peers.look_up`: likewise."""

    async def exchange(self, worker: str, blob: bytes) -> bytes:
        """`Peers.exchange`. Ray tells of a death, or that it does not know."""
        answer: bytes = await self._send(self._worker_call(worker, "exchange", (blob,), None))
        return answer

    async def is_dead(self, worker: str) -> bool:
        """`Peers.is_dead`: it may be, and nobody knows."""
        return worker not in self.processes and self.rng.random() < 0.5

    async def control(self, worker: str, method: str, *args: Any) -> Any:
        """`Peers.control`."""
        return await self._send(self._worker_call(worker, method, args, CONTROL_S))

    async def kill(self, worker: str) -> None:
        """`Peers.kill`."""
        await asyncio.sleep(self._delay_s())
        if worker not in self.processes:
            raise WorkerGone(worker, "it is dead already")
        self.killer(worker)

    async def tell(self, actor: str, method: str, blob: bytes) -> None:
        """`Peers.tell`."""
        if self._chance(self.weather.twice):
            again = self._send(self._actor_call(actor, method, blob))
            again.add_done_callback(lambda done: done.cancelled() or done.exception())
        await self._send(self._actor_call(actor, method, blob))

    async def ask(self, actor: str, method: str, blob: bytes) -> bytes:
        """`Peers.ask`."""
        answer: bytes = await self._send(self._actor_call(actor, method, blob))
        return answer

    async def _worker_call(self, worker: str, method: str, args: tuple[Any, ...], limit_s: float | None) -> Any:
        try:
            async with asyncio.timeout(limit_s):
                return await self._call(worker, method, args, 60.0 if limit_s else 1.0)
        except (Died, TimeoutError) as gone:
            certain = await self.is_dead(worker)
            raise (WorkerGone if certain else WorkerUnreachable)(worker, f"{method}: {gone!r}") from gone

    async def _actor_call(self, actor: str, method: str, blob: bytes) -> Any:
        try:
            async with asyncio.timeout(TELL_S):
                return await self._call(actor, method, (blob,), 60.0)
        except (Died, TimeoutError) as gone:
            raise ActorUnreachable(actor, f"{method}: {gone!r}") from gone

    async def _call(self, name: str, method: str, args: tuple[Any, ...], silence_s: float) -> Any:
        self.messages += 1
        await asyncio.sleep(self._delay_s())
        if self._chance(self.weather.lost):
            await asyncio.sleep(self.rng.choice((0.0, silence_s)))
            raise Died(f"{name}: the message got lost")
        if method == "exchange" and self._chance(self.weather.late):
            self._send(self._deliver(self.processes.get(name), args[0], self.rng.uniform(0.0, 5.0)))
            raise Died(f"{name}: the connection broke before the message was there")
        process = self.processes.get(name)
        if process is None:
            raise Died(f"{name} is not there")
        called = process.call(getattr(process.object, method)(*args))
        if method == "exchange" and self._chance(self.weather.cut):
            await asyncio.wait((called,), timeout=self.rng.uniform(0.0, 2.0))
            raise Died(f"{name}: the connection broke")
        answer = await called
        await asyncio.sleep(self._delay_s())
        if self._chance(self.weather.mute):
            await asyncio.sleep(self.rng.choice((0.0, silence_s)))
            raise Died(f"{name}: the answer got lost")
        return answer

    async def _deliver(self, process: Process | None, blob: bytes, after_s: float) -> None:
        """Nobody waits for the answer any more. Ray names the process that is meant; another one does not take it."""
        await asyncio.sleep(after_s)
        if process is not None and process.alive:
            process.call(process.object.exchange(blob))

    def _send(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """What is under way belongs to nobody."""
        outcome = self.loop.create_future()
        task = self.loop.create_task(work, context=self._context.copy())
        task.add_done_callback(lambda task: _pass_on(task, outcome))
        return outcome

    def _delay_s(self) -> float:
        if self._chance(self.weather.slow):
            return self.rng.uniform(0.0, 3.0)
        return self.rng.uniform(0.0, self.weather.latency_s)

    def _chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share


#: steps that change something
WRITES = frozenset(
    {"take_epoch", "commit", "create_runs", "create_backfill", "fire", "gather", "put_dag", "set_paused", "pop_timers"}
)


class JournalRoad:
    """A process's way to the journal.

    A step takes time, may be refused, and may be done although nobody hears of it.
    """

    def __init__(self, journal: MemoryJournal, wire: Wire, written: Callable[[], None]) -> None:
        self._journal = journal
        self._wire = wire
        self._written = written

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def step(*args: Any, **kwargs: Any) -> Any:
            return await self._wire._send(self._step(name, args, kwargs))

        setattr(self, name, step)
        return step

    async def tail(self, stream: str, cursor: str, block_ms: int, limit: int = 1000) -> Any:
        """Waits at the journal, so it ends with the process."""
        await self._road()
        return await self._journal.tail(stream, cursor, block_ms, limit)

    async def _step(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        await self._road()
        try:
            answer = await getattr(self._journal, name)(*args, **kwargs)
        except OrchestratorError:
            await asyncio.sleep(0)
            raise
        if name in WRITES:
            self._written()
        await self._road(f"the answer to {name} got lost")
        return answer

    async def _road(self, why: str = "no way there") -> None:
        weather, rng = self._wire.weather, self._wire.rng
        slow = weather.journal_slow > 0 and rng.random() < weather.journal_slow
        await asyncio.sleep(rng.uniform(0.0, 0.3 if slow else 0.0005))
        if self._wire.loop.time() < weather.outage_until_s or (weather.journal and rng.random() < weather.journal):
            raise JournalUnavailable(why)
