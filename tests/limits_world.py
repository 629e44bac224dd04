"""A world whose tasks need pools, permits and starts; watched all along is that no limit is exceeded.

What counts is what workers do. An attempt has its permits from the moment its user code begins until it has ended,
or its worker has: also one that is aborted, deaf, or was sent by a RunActor that is dead by now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import msgspec

from orchestrator import actor_codec, codec
from orchestrator import events as e
from orchestrator.definition import Definition, LimitUse, TaskSpec
from orchestrator.errors import Refused, Unavailable
from orchestrator.limits import LIMITS, Limit, Rate
from orchestrator.messages import Assignment, RunContext
from orchestrator.needs import dag_key, limit_key, needs_of
from orchestrator.starts import Trigger
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT

LONG_S = 400.0
#: seconds within which something starts while there is room, once nothing goes wrong any more
STARTS_WITHIN_S = 15.0
NAMES = ("one", "two", "api-1", "api-2")


def a_definition(rng: Random, name: str) -> Definition:
    """A DAG of chance, of independent tasks and chains."""
    tasks: list[TaskSpec] = []
    for n in range(rng.randint(2, 10)):
        limits = [
            LimitUse(limit, rng.choice((1, 1, 1, 2)))
            for limit in rng.sample(("one", "two", "api-{{ params.n }}"), rng.choice((0, 1, 1, 2)))
        ]
        needs = (tasks[-1].id,) if tasks and rng.random() < 0.4 else ()
        pool = rng.choice(("default", "default", "default", "own"))
        tasks.append(
            TaskSpec(
                id=f"t{n}",
                type="core.sleep",
                depends_on=needs,
                retries=2,
                retry_delay_s=0.2,
                timeout_s=rng.choice((2.0, 60.0)),
                pool=pool,
                limits=tuple(limits),
            )
        )
    return Definition(name, "team", tasks=tuple(tasks), max_active_tasks=rng.choice((None, 1, 2, 3)))


class LimitsWorld(World):
    """Plays one seed of it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.limits: dict[str, Limit] = {}
        #: when a limit was changed last: what began before may be above it
        self.starts: dict[str, list[float]] = {}
        self.broken: list[str] = []
        self.most: Counter[str] = Counter()
        #: worker process -> need of what it is at
        self.watcher.began = self._began  # type: ignore[method-assign]  # it also checks limits

    def keys_of(self, task: Assignment, context: RunContext) -> tuple[tuple[str, int], ...]:
        """What the attempt has permits of."""
        definition = self.watcher._definition_of(context.dag_id)(context.dag_version)
        position = next(i for i, spec in enumerate(definition.tasks) if spec.id == task.task)
        need = needs_of(definition, TENANT, context.params)[position]
        return need.keys if need is not None else ()

    def _began(self, worker: str, task: Assignment, context: RunContext | None) -> None:
        type(self.watcher).began(self.watcher, worker, task, context)
        assert context is not None
        process = self.wire.processes.get(worker)
        if process is None:
            return  # it is dead already
        keys = self.keys_of(task, context)
        process.object.keys = keys
        definition = self.watcher._definition_of(context.dag_id)(context.dag_version)
        spec = next(spec for spec in definition.tasks if spec.id == task.task)
        if not worker.startswith(f"worker-{spec.pool}-"):
            self.broken.append(f"{task.task} of pool {spec.pool} runs at {worker}")
        used: Counter[str] = Counter()
        for other in self.wire.processes.values():
            if other.alive and getattr(other.object, "busy", None) is not None:
                used.update(dict(getattr(other.object, "keys", ())))
        for key, _ in keys:
            limit = self.limits.get(key)
            self.most[key] = max(self.most[key], used[key])
            if limit is not None and limit.max_running is not None and used[key] > limit.max_running:
                self.broken.append(f"I7 {key}: {used[key]} of {limit.max_running} at {self.loop.time():.3f} s: {task}")

    # ── what goes on ──

    async def course(self, world: World) -> None:
        """Runs, limits that change, deaths."""
        rng, clients = self.rng, self.clients
        self.workers += [f"worker-default-{n}" for n in range(1, rng.randint(1, 4))]
        own = [f"worker-own-{n}" for n in range(rng.randint(0, 2))]
        for name in self.workers[1:]:
            self.start(name)
        self.supervisor.workers += own
        for name in own:
            self.start(name)
        self.character.mischief.takes_s = (0.0, 0.001, 0.02, 0.1, 0.3, 1.0)
        self.character.mischief.deaf = 0.1
        for name in NAMES[:2]:
            await self.change(name)
        await self.change("api-*")
        for dag in ("x", "y"):
            definition = a_definition(rng, dag)
            if definition.max_active_tasks is not None:
                self.limits[dag_key(TENANT, dag)] = Limit(definition.max_active_tasks)
            await clients.insist(partial(clients.define, definition))
        visits = self._some(self._visit, 14, 12.0)
        troubles = self._some(self._trouble, self.character.kills, 12.0)
        raises = self._some(self._raise, 2, 12.0)
        await asyncio.gather(*visits, *troubles, *raises)
        self._clear_up()
        if not own:
            self.supervisor.workers.append("worker-own-0")
            self.start("worker-own-0")
        for name in ("one", "two", "api-*"):
            if self.limits[limit_key(TENANT, name)].max_running == 0:
                await self.change(name, Limit(1))
        async with asyncio.timeout(LONG_S):
            while self.open() and not self.broken:  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(1.0)

    async def _visit(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        rng, gateway = self.rng, self.clients.gateways[0]
        dag = rng.choice(("x", "y"))
        made = await self.clients.insist(
            lambda: gateway.trigger(TENANT, Trigger(dag_id=dag, params={"n": rng.randint(1, 2)}), None)
        )
        if rng.random() < 0.25:
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            try:
                await self.clients.insist(lambda: gateway.cancel_run(TENANT, made.run_id, None))
            except Refused:
                return

    async def _raise(self, after_s: float) -> None:
        """Ceilings only rise while it is checked all along that none is exceeded."""
        await asyncio.sleep(after_s)
        name = self.rng.choice(("one", "two", "api-*"))
        most = self.limits[limit_key(TENANT, name)].max_running
        await self.change(name, Limit(None if most is None else most + 1, self.limits[limit_key(TENANT, name)].rate))

    async def change(self, name: str, limit: Limit | None = None) -> None:
        """Define a limit; by chance unless it is given."""
        rng = self.rng
        if limit is None:
            rate = Rate(rng.randint(1, 4), rng.choice((0.2, 1.0))) if rng.random() < 0.4 else None
            limit = Limit(rng.choice((2, 2, 3, None)), rate)
        keys = [limit_key(TENANT, each) for each in NAMES if each.startswith(name.removesuffix("*"))]
        self.limits |= dict.fromkeys([*keys, limit_key(TENANT, name)], limit)
        while True:
            try:
                await self.wire.ask(
                    "scheduler", "set_limit", actor_codec.encode_limit_change(limit_key(TENANT, name), limit)
                )
                return
            except Unavailable:
                await asyncio.sleep(0.3)

    # ── rates ──

    def check_rates(self) -> None:
        """In no span of `per_s` more than `count` starts, as the events tell them."""
        starts: dict[str, list[float]] = {}
        for key, at in self._starts():
            starts.setdefault(key, []).append(at)
        for key, ats in starts.items():
            rate = self.limits[key].rate if key in self.limits else None
            if rate is None:
                continue
            ats.sort()
            for first, last in zip(ats, ats[rate.count :], strict=False):
                assert last - first >= rate.per_s - 1e-5, f"I7 {key}: {rate.count + 1} starts in {last - first:.4f} s"

    def _starts(self) -> Iterator[tuple[str, float]]:
        for run in self.journal.runs.values():
            if run.run_type != "manual" or run.dag_id not in ("x", "y"):
                continue
            events: list[Any] = [x for batch in run.events for x in codec.decode_events(batch.events, batch.schema)]
            created = events[0]
            definition = self.watcher._definition_of(run.dag_id)(created.dag_version)
            names = (spec.id for spec in definition.tasks)
            needs = dict(zip(names, needs_of(definition, TENANT, created.params), strict=True))
            for event in events:
                if isinstance(event, e.TaskStarted) and (need := needs[event.task]) is not None:
                    for key, _ in need.keys:
                        yield key, event.at.timestamp()


def play(seed: int) -> LimitsWorld:
    """One world, from its seed."""
    world = LimitsWorld(seed)
    kills = world.character.kills
    world.play_with(world.course)
    where = f"seed {seed}, kills {kills}"
    assert not world.broken, f"{where}: {world.broken[0]}"
    assert not world.watcher.failures, f"{where}: {world.watcher.failures[0]}"
    if not world.character.sets:
        world.check_rates()
    assert set(world.journal.documents[LIMITS]) >= {limit_key(TENANT, "one")}
    return world


__all__ = ["RUN_ACTORS", "LimitsWorld", "msgspec", "play"]
