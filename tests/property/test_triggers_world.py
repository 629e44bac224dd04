"""DAGs that follow others, in worlds in which schedulers and RunActors die, answers get lost and DAGs are paused.

Whatever happens: each success and each update is consumed once, by one start of each DAG that follows; nothing that
could start is left, and what is left could not. It is the same where runs leave for the archive as soon as they ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from actors.archive_store import ArchiveStore
from actors.archiver import Archiver
from orchestrator import awaited, codec
from orchestrator import events as e
from orchestrator.archive import Sweep
from orchestrator.awaited import AssetLog, Gathered
from orchestrator.definition import Definition, TaskSpec, Window
from orchestrator.errors import Refused, Unavailable
from orchestrator.messages import Cause
from orchestrator.records import GATHERED, assets_of, gathered_key
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger
from tests.archive_world import LaterClock
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT

SEEDS = 48
TRIGGERED = ("u", "u", "u", "v", "sales", "sales")
FOLLOWERS = ("one", "both", "any", "report", "last")


def _definitions(limit: int) -> list[Definition]:
    work = (TaskSpec(id="a", type="core.sleep", retries=3, retry_delay_s=0.1),)
    eu = TaskSpec(id="eu", type="core.sleep", produces=("s3://eu", "s3://all"), retries=3, retry_delay_s=0.1)
    us = TaskSpec(id="us", type="core.sleep", produces=("s3://us",), retries=3, retry_delay_s=0.1)
    return [
        Definition("u", "team", tasks=work),
        Definition("v", "team", tasks=work),
        Definition("sales", "team", tasks=(eu, us)),
        Definition("one", "team", tasks=work, after=("u",), max_active_runs=limit),
        Definition("both", "team", tasks=work, after=("u", "v"), max_active_runs=limit),
        Definition("any", "team", tasks=work, after=("u", "v"), after_rule="any", max_active_runs=limit),
        Definition("report", "team", tasks=work, consumes=("s3://eu", "s3://us"), max_active_runs=limit),
        Definition("last", "team", tasks=work, after=("both",)),
    ]


async def _course(world: World) -> None:
    rng, clients = world.rng, world.clients
    world.character.mischief.takes_s = (0.1, 0.5, 4.0)
    world.character.mischief.error, world.character.mischief.permanent = 0.1, 0.05
    for definition in _definitions(rng.choice((1, 2, 16))):
        await clients.insist(partial(clients.define, definition))
    gateway = clients.gateways[0]
    for _ in range(25):
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.5, 2.0)))
        event = rng.choice(("run",) * 6 + ("kill", "kill", "pause", "resume", "replace"))
        if event == "run":
            day = f"2025-01-0{rng.randint(1, 2)}" if rng.random() < 0.7 else None
            policy = "completed" if day else "none"
            trigger = Trigger(dag_id=rng.choice(TRIGGERED), start=day, end=day, reprocess=policy)
            with suppress(Refused):
                await clients.insist(partial(gateway.trigger, TENANT, trigger, None))
        elif event == "kill":
            world.kill(rng.choice(("scheduler", "scheduler", *RUN_ACTORS)))
        elif event == "replace":
            world.replace("scheduler")
        else:
            change = gateway.pause_dag if event == "pause" else gateway.resume_dag
            await clients.insist(partial(change, TENANT, rng.choice(FOLLOWERS), None, None))
    world.character.weather.clear_up()
    for dag_id in FOLLOWERS:
        await clients.insist(partial(gateway.resume_dag, TENANT, dag_id, None, None))
    async with asyncio.timeout(600.0):
        calm = 0
        while calm < 3:
            await asyncio.sleep(20.0)
            calm = 0 if world.open() or world.journal.streams["in:triggers"] else calm + 1


def _events(world: World, dag_id: str) -> list[Any]:
    return [
        (run, event)
        for run in world.journal.runs.values()
        if run.dag_id == dag_id
        for batch in run.events
        for event in codec.decode_events(batch.events, batch.schema)
    ]


def _successes(world: World, dag_id: str) -> dict[Cause, tuple[str, Any]]:
    """Each success of the DAG, with its window and instant."""
    found, attempt = {}, 0
    for run, event in _events(world, dag_id):
        if isinstance(event, e.RunStarted | e.RunRevived):
            attempt = event.attempt
        elif isinstance(event, e.RunSucceeded):
            found[Cause("dag", dag_id, run.run_id, attempt=attempt)] = (run.window_key, event.at)
    return found


def _updates(world: World, asset: str) -> list[Cause]:
    definition = {d.dag_id: d for d in _definitions(1)}["sales"]
    made = {task.id for task in definition.tasks if asset in task.produces}
    return [
        Cause("asset", asset, run.run_id, event.task, event.attempt)
        for run, event in _events(world, "sales")
        if isinstance(event, e.TaskSucceeded) and event.task in made
    ]


def _consumed(world: World, dag_id: str) -> list[tuple[Cause, ...]]:
    starts = [
        event.triggered_by for _, event in _events(world, dag_id) if isinstance(event, e.RunCreated | e.RunRestarted)
    ]
    assert all(starts), f"{dag_id}: every run has its causes"
    return starts


def _pending(world: World, dag_id: str) -> Gathered:
    record = world.journal.documents[GATHERED].get(gathered_key(TENANT, dag_id))
    return codec.decode_document(record, Gathered) if record else Gathered()


def _check_once(world: World, dag_id: str, facts: list[Cause]) -> None:
    """Each fact is consumed once, or pending."""
    left = [fact.cause for fact in _pending(world, dag_id).pending]
    known = Counter([cause for start in _consumed(world, dag_id) for cause in start] + left)
    assert known == Counter(facts), f"{dag_id}: {known} of {facts}"


def _check_windows(world: World) -> None:
    """What `one` was told of a window is in a run of that window that began later: its own, or one that waited."""
    consumed = Counter(cause for start in _consumed(world, "one") for cause in start)
    assert not _pending(world, "one").pending
    starts: dict[str, list[Any]] = {}
    for run, event in _events(world, "one"):
        if isinstance(event, e.RunStarted):
            starts.setdefault(run.window_key, []).append(event.at)
    facts = _successes(world, "u")
    assert set(consumed) <= set(facts)
    assert all(n == 1 for n in consumed.values())
    for cause, (window, at) in facts.items():
        assert cause in consumed or window, f"{cause} was lost"
        assert any(began >= at - timedelta(milliseconds=1) for began in starts.get(window, ())), (
            f"{cause}: nothing began"
        )


async def _swept_course(world: World) -> None:
    """The same, while whatever ended is swept into the archive; at the end all of it is back, once."""
    left = 0

    async def sweep() -> None:
        nonlocal left
        later = LaterClock(world.clock)
        while True:
            await asyncio.sleep(world.rng.choice((0.2, 1.0, 5.0)))
            before_ms = round(later.now().timestamp() * 1000)
            with suppress(Unavailable):
                done = await Archiver(world.journal, later, world.settings).sweep(
                    Sweep(id="one", before_ms=before_ms, to="")
                )
                left += done.runs

    sweeping = asyncio.create_task(sweep())
    await _course(world)
    sweeping.cancel()
    assert left, "else nothing is tested"
    page = ArchiveStore(world.settings.home).page(RunFilter(tenant=TENANT), None, 10_000)
    away = [row.run_id for row in page.rows if row.run_id not in world.journal.runs]
    gone = ArchiveStore(world.settings.home).read(away)
    assert len(gone) == len(away)
    back = await world.clients.insist(
        partial(world.journal.restore, [(run.history, run.tasks) for run in gone.values()])
    )
    assert back == len(gone), "else a window had two runs"


@pytest.mark.parametrize(
    ("first", "course"),
    [*((n, _course) for n in range(0, SEEDS, 8)), *((n, _swept_course) for n in range(1000, 1008, 8))],
)
def test_each_success_and_update_is_consumed_once_whatever_dies(
    first: int, course: Callable[[World], Coroutine[Any, Any, None]]
) -> None:
    started = Counter[str]()
    for seed in range(first, first + 8):
        world = World(seed)
        world.play_with(course)
        u, v = list(_successes(world, "u")), list(_successes(world, "v"))
        _check_windows(world)
        _check_once(world, "both", u + v)
        _check_once(world, "any", u + v)
        _check_once(world, "report", _updates(world, "s3://eu") + _updates(world, "s3://us"))
        _check_once(world, "last", list(_successes(world, "both")))
        assert not _pending(world, "any").pending
        assert not _pending(world, "last").pending
        for dag_id in ("both", "report"):
            sources = {fact.source for fact in _pending(world, dag_id).pending}
            definition = {d.dag_id: d for d in _definitions(1)}[dag_id]
            assert sources < set(awaited.sources(definition)), "else a run was due"
            for start in _consumed(world, dag_id):
                assert {cause.name for cause in start} == {*definition.after, *definition.consumes}
        log = codec.decode_document(world.journal.documents[assets_of(TENANT)].get("s3://all", b"{}"), AssetLog)
        assert log.updates == len(_updates(world, "s3://all"))
        started.update(dag_id for dag_id in FOLLOWERS for _ in _consumed(world, dag_id))
    assert all(started[dag_id] > 2 for dag_id in FOLLOWERS), f"else nothing is tested: {started}"


def test_a_run_has_the_window_of_its_one_upstream() -> None:
    async def course(world: World) -> None:
        for definition in _definitions(1):
            await world.clients.define(definition)
        gateway = world.clients.gateways[0]
        trigger = Trigger(dag_id="u", start="2025-01-01", end="2025-01-01")
        upstream = await gateway.trigger(TENANT, trigger, None)
        await asyncio.sleep(5.0)
        [run] = (await gateway.runs(RunFilter(tenant=TENANT, dag_id="one"), None, 9)).items
        assert run.window == Window("2025-01-01", "2025-01-01")
        assert run.triggered_by == (Cause("dag", "u", upstream.run_id, attempt=1),)
        assert run.state == "succeeded"

    World(0).play_with(course)
