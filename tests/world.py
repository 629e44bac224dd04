"""The whole system in one thread on virtual time: one seed, one world, the same every time.

    clients ─▶ Gateway ─▶ journal (in memory, with a bad road to it)
                  └─▶ RunActors ◀─▶ scheduler, timekeeper       the real shells
                          └─▶ workers with real books            messages late, lost, twice; processes killed, or
                                                                 replaced while they still live (zombies)

Every few moments of the world something goes wrong; then the weather clears up, and within minutes (virtual ones) every
accepted run has to be terminal. What the journal holds is checked after every step that wrote (I1 to I7, I12), what
clients were told is checked when they are told it (I13), idle slots are watched all along (I9).

    WORLD_SEED=17 pytest tests/property/test_world.py -k one_seed     plays one world again, with its log
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from os import getpid
from pathlib import Path
from random import Random
from tempfile import gettempdir
from typing import Any, TypeVar

import msgspec

from actors.names import ORCHESTRATOR, instance_of
from actors.orchestrator_actor import OrchestratorActor
from actors.run_actor import RunActor
from actors.scheduler_actor import SchedulerActor
from actors.settings import Settings
from orchestrator.definition import Definition
from orchestrator.errors import Fenced, InstanceDead, Refused
from orchestrator.ids import INSTANCE_PREFIX
from serve_app.gateway import Gateway
from tests.fakes_journal import MemoryJournal
from tests.history_rules import RUN_TERMINAL
from tests.virtual_time import VirtualLoop, WorldClock
from tests.world_cast import Control, Mischief, Supervisor, Worker
from tests.world_clients import TENANT, Clients
from tests.world_watch import IDLE_CALM_S, Watcher
from tests.world_wire import JournalRoad, Process, Weather, Wire, start_task

T = TypeVar("T")
RUN_ACTORS = ["run-actor-0", "run-actor-1"]
#: virtual seconds after which a run fails that its caller has forgotten
DRIVEN_TTL_S = 60.0
#: virtual seconds in which everything must have ended once nothing goes wrong any more
ENDS_WITHIN_S = 240.0
#: seconds after the last start of a process within which it has read its news
SETTLES_S = 2.0


class WorldFailed(AssertionError):
    """What went wrong, with the seed that makes it go wrong again."""


@dataclass
class Character:
    """What kind of world a seed makes."""

    seed: int
    steps: int
    rng: Random = field(init=False)
    weather: Weather = field(default_factory=Weather)
    mischief: Mischief = field(default_factory=Mischief)
    kills: int = 0
    zombies: bool = False
    outages: int = 0
    #: wall time is set, forth or back
    sets: int = 0
    drains: bool = False

    def __post_init__(self) -> None:
        self.rng = rng = Random(self.seed)
        kind = self.seed % 4
        self.calm = kind == 0
        if kind in (1, 3):
            self.weather.slow = rng.choice((0.0, 0.01, 0.03))
            self.weather.lost = rng.choice((0.0, 0.01, 0.05))
            self.weather.mute = rng.choice((0.0, 0.01, 0.05))
            self.weather.late = rng.choice((0.0, 0.01, 0.05))
            self.weather.cut = rng.choice((0.0, 0.01, 0.05))
            self.weather.twice = rng.choice((0.0, 0.1))
            self.weather.journal = rng.choice((0.0, 0.01, 0.05))
            self.weather.journal_slow = rng.choice((0.0, 0.05))
            self.outages = rng.choice((0, 1))
            self.sets = rng.choice((0, 0, 1, 3))
        if kind in (2, 3):
            self.kills = rng.choice((2, 4, 6, 12))
            self.zombies = rng.random() < 0.4
            self.drains = rng.random() < 0.3
            self.mischief.kill = rng.choice((0.0, 0.02))


class World:
    """Plays one seed. `play` raises WorldFailed."""

    def __init__(self, seed: int, steps: int = 12) -> None:
        self.character = Character(seed, steps)
        self.rng = self.character.rng
        self.loop = VirtualLoop()
        self.loop.set_task_factory(start_task)
        self.clock = WorldClock(self.loop, self.rng)
        self.journal = MemoryJournal()
        self.wire = Wire(self.loop, self.rng, self.character.weather, killer=self.kill)
        #: the plans root
        self.folder = Path(gettempdir(), f"plans-{getpid()}-{seed}")  # a seed makes the same world every time
        self.settings = Settings(
            home=str(self.folder),
            plans_root=str(self.folder),
            instance_retention_s=3600.0,
            passivate_after_s=self.rng.choice((0.5, 3.0, 300.0)),
            cancel_grace_s=self.rng.choice((0.5, 5.0)),
        )
        self.workers = [f"worker-default-{n}" for n in range(self.rng.randint(1, 3))]
        #: seconds that a process which was killed may be away
        self.away_s: tuple[float, ...] = (0.05, 0.05, 0.5, 0.5, 3.0, 15.0)
        #: worker -> Ray's id of its node, of those that know
        self.nodes: dict[str, str] = {}
        self.supervisor = Supervisor(self.wire, RUN_ACTORS, self.workers)
        self.supervisor.start = self.start
        definitions: dict[str, Definition] = {}
        self.watcher = Watcher(self.journal, self.wire, self.clock, self.supervisor)
        if self.character.calm:
            self.watcher.idle_bound_s = IDLE_CALM_S
        if self.character.sets:
            self.watcher.early = timedelta(seconds=5 * self.character.sets)
        gateways = [self._gateway() for _ in range(2)]
        self.clients = Clients(self.rng, self.journal, gateways, definitions, self.folder)
        self._forecast = f"{self.character.weather}; {self.character.mischief}"
        self._incarnations = 0

    # ── the course of a world ─────────────────────────────────────────────────────────────────────

    def play(self) -> World:
        """From the first definition to the last check."""
        asyncio.set_event_loop(self.loop)
        try:
            with self._crashes_noticed():
                self.loop.run_until_complete(self._course())
        except Exception as error:
            failures = self.watcher.failures
            what = failures[0] if failures else f"{type(error).__name__}: {error}"
            raise WorldFailed(self._story(what)) from error
        finally:
            self._sweep_up()
        if self.watcher.failures:
            raise WorldFailed(self._story(self.watcher.failures[0]))
        return self

    def play_with(self, course: Callable[[World], Awaitable[T]], mischief: Mischief | None = None) -> T:
        """Another course with the same cast, one worker, fair weather, and tasks that take 0.1 s unless told."""
        asyncio.set_event_loop(self.loop)
        del self.workers[1:]
        self.character.mischief = mischief or Mischief(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.1,))
        try:
            return self.loop.run_until_complete(self._staged(course))
        finally:
            self._sweep_up()

    async def _staged(self, course: Callable[[World], Awaitable[T]]) -> T:
        self._raise_curtain()
        await asyncio.sleep(1.0)
        return await course(self)

    def _raise_curtain(self) -> None:
        for name in ("supervisor", "scheduler", *RUN_ACTORS, *self.workers):
            self.start(name)

    def _sweep_up(self) -> None:
        self.loop.rounds = 0
        left = sorted(asyncio.all_tasks(self.loop), key=lambda task: task.get_name())
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _story(self, what: str) -> str:
        c = self.character
        return (
            f"{what}\n  WORLD_SEED={c.seed} WORLD_STEPS={c.steps} pytest tests/property/test_world.py -k one_seed\n"
            f"  at {self.loop.time():.3f} s; {self._forecast}; kills {c.kills}, zombies {c.zombies}, "
            f"passivate {self.settings.passivate_after_s}, workers {len(self.workers)}, "
            f"runs {len(self.watcher.histories)}"
        )

    async def _course(self) -> None:
        self._raise_curtain()
        await self.clients.define_dags()
        watching = self.loop.create_task(self.watcher.look_forever())
        lasts_s = self.rng.uniform(5.0, 15.0)
        visits = self._some(self.clients.visit, self.character.steps, lasts_s)
        readers = self._some(self.clients.read_along, 2, lasts_s)
        troubles = self._some(self._trouble, self.character.kills, lasts_s)
        troubles += self._some(self._outage, self.character.outages, lasts_s)
        troubles += self._some(self._set_clock, self.character.sets, lasts_s)
        leaving = self._some(self._drain, self.character.drains and len(self.workers) > 1, 2.0)
        await asyncio.sleep(lasts_s)
        await asyncio.gather(*troubles)
        self._clear_up()
        await asyncio.gather(*visits)
        await self._let_end()
        await asyncio.gather(*leaving)
        if self.watcher.failures:
            return
        self.clients.over = True
        await asyncio.gather(*readers)
        watching.cancel()
        self.watcher.check_end()

    def _some(
        self, what: Callable[[float], Coroutine[Any, Any, None]], number: int, within_s: float
    ) -> list[asyncio.Task[None]]:
        """It happens `number` times, each after a while."""
        return [self.loop.create_task(what(self.rng.uniform(0.0, within_s))) for _ in range(number)]

    def _clear_up(self) -> None:
        self.watcher.troubled_s = self.loop.time()
        self.character.weather.clear_up()
        self.character.mischief.kill = 0.0

    async def _let_end(self) -> None:
        deadline = self.loop.time() + ENDS_WITHIN_S
        clients, gateway = self.clients, self.clients.gateways[0]
        unscheduled = msgspec.structs.replace(clients.definitions["cron"], schedule=None)
        await clients.insist(partial(clients.define, unscheduled))
        for dag_id in clients.definitions:
            await clients.insist(partial(gateway.resume_dag, TENANT, dag_id, None, None))
        while ((open_ := self.open()) or self._somebody_is_away()) and not self.watcher.failures:
            if self.loop.time() > deadline:
                raise AssertionError(f"I10 still open after {ENDS_WITHIN_S:.0f} s: {self._described(open_)}")
            for run_id in open_:
                if self.journal.runs[run_id].state == "paused":
                    with suppress(Refused, InstanceDead):
                        if run_id.startswith(INSTANCE_PREFIX):
                            await gateway.instances.resume(TENANT, run_id)
                            continue
                        await clients.insist(partial(gateway.resume_run, TENANT, run_id, None))
            await asyncio.sleep(1.0)

    def _somebody_is_away(self) -> bool:
        """News of a run's end may wait for a process that is not back, or has just come."""
        away = {"scheduler", *RUN_ACTORS} - self.wire.processes.keys()
        return bool(away) or self.loop.time() - self.watcher.troubled_s < SETTLES_S

    def open(self) -> list[str]:
        """Runs that have not ended."""
        return [run_id for run_id, run in self.journal.runs.items() if run.state not in RUN_TERMINAL]

    def _described(self, run_ids: list[str]) -> str:
        lines = []
        for run_id in run_ids[:3]:
            run = self.journal.runs[run_id]
            history = self.watcher.histories.get(run_id)
            tasks = history.tasks if history else ""
            lines.append(f"{run_id} {run.run_type} {run.state} owner={run.owner!r} v{run.version} {tasks}")
        return "; ".join(lines)

    # ── the cast ──────────────────────────────────────────────────────────────────────────────────

    def start(self, name: str) -> None:
        """A new incarnation of that name."""
        process = Process(self.loop, name)
        self._incarnations += 1
        self.watcher.troubled_s = self.loop.time()
        if name == "supervisor":
            process.object = self.supervisor
            process.context.run(self.loop.create_task, self.supervisor.live())
        elif name.startswith("worker"):
            incarnation = f"i{self._incarnations}"
            args = (self.wire, Random(self.rng.random()), self.character.mischief, self.watcher.began, self.clock.now)
            process.object = process.context.run(Worker, name, incarnation, *args)
            process.object.node = self.nodes.get(name, "")
        else:
            process.object = process.context.run(self._shell, name)
            process.object.on_crash = lambda: self.crashed(process)
            process.context.run(process.object.start)
        self.wire.processes[name] = process

    def _shell(self, name: str) -> RunActor | SchedulerActor:
        road: Any = JournalRoad(self.journal, self.wire, self.watcher.written)
        if name == "scheduler":
            return SchedulerActor(road, self.wire, self.clock, self.settings)
        if instance_of(name):
            return OrchestratorActor(name, road, self.wire, self.clock, self.settings)
        return RunActor(name, road, self.wire, self.clock, self.settings)

    def kill(self, name: str) -> None:
        """The process ends now and comes back later."""
        process = self.wire.processes.pop(name, None)
        if process is not None:
            self.watcher.troubled_s = self.loop.time()
            process.end()
            self._return_later(name)

    def replace(self, name: str) -> None:
        """The process counts as dead, but lives: a zombie."""
        if self.wire.processes.pop(name, None) is not None:
            self.watcher.troubled_s = self.loop.time()
            self._return_later(name)

    def crashed(self, process: Process) -> None:
        """An actor met an error that it did not foresee."""
        if self.wire.processes.get(process.name) is process:
            self.kill(process.name)
        else:
            process.end()

    def _return_later(self, name: str) -> None:
        self.supervisor.away.add(name)
        self.loop.call_later(self.rng.choice(self.away_s), self._return, name)

    def _return(self, name: str) -> None:
        self.supervisor.away.discard(name)
        if name in self.workers or name in self.supervisor.extra or not name.startswith(("worker", ORCHESTRATOR)):
            self.start(name)

    def _gateway(self) -> Gateway:
        road: Any = JournalRoad(self.journal, self.wire, self.watcher.written)
        control: Any = Control(self.wire, RUN_ACTORS)
        return Gateway(road, control, self.clock, driven_ttl_s=DRIVEN_TTL_S, settings=self.settings)

    @contextmanager
    def _crashes_noticed(self) -> Any:
        class Crash(logging.Handler):
            def emit(_, record: logging.LogRecord) -> None:
                error = record.exc_info[1] if record.exc_info else None
                if record.levelno >= logging.CRITICAL and not isinstance(error, Fenced):
                    self.watcher.failures.append(f"a shell crashed: {type(error).__name__}: {error}")
                    self.errors.append(error)

        self.errors: list[BaseException | None] = []
        handler, logger = Crash(logging.CRITICAL), logging.getLogger("actors")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    # ── what goes wrong ───────────────────────────────────────────────────────────────────────────

    async def _trouble(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        own = sorted(self.supervisor.extra)
        name = self.rng.choice(("scheduler", "scheduler", *RUN_ACTORS, *RUN_ACTORS, *self.workers, "supervisor", *own))
        shell = name in ("scheduler", *RUN_ACTORS, *own)
        if shell and self.character.zombies and self.rng.random() < 0.5:
            self.replace(name)
        else:
            self.kill(name)

    async def _outage(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.character.weather.outage_until_s = self.loop.time() + self.rng.choice((0.3, 1.0, 6.0))
        self.watcher.troubled_s = self.character.weather.outage_until_s

    async def _drain(self, after_s: float) -> None:
        """One worker leaves for good."""
        await asyncio.sleep(after_s)
        worker = self.workers[-1]
        await self.supervisor.drain(worker)
        self.loop.call_later(2.0, self._retire, worker)

    def _retire(self, worker: str) -> None:
        process = self.wire.processes.pop(worker, None)
        if process is not None:
            process.end()

    async def _set_clock(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.clock.skew += timedelta(seconds=self.rng.uniform(-2.0, 2.0))


def digest(world: World) -> str:
    """Everything the journal holds, in one line: two worlds of one seed are alike."""
    told = hashlib.sha256()
    for run_id, run in world.journal.runs.items():
        told.update(run_id.encode())
        for batch in run.events:
            told.update(batch.events)
    return told.hexdigest()


def play(seed: int, steps: int = 12) -> World:
    """One world, from its seed. Raises WorldFailed."""
    return World(seed, steps).play()
