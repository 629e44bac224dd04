"""actors.former_attempts: an owner that came back asks a worker that it does not reach for as long as that may be."""

from __future__ import annotations

from typing import Any

from actors.peers import WorkerUnreachable
from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Definition, TaskSpec
from orchestrator.starts import Trigger
from tests.waiting import until
from tests.world import World
from tests.world_cast import Mischief
from tests.world_clients import TENANT

LONG_S = 60.0


def played(fails: int, dead: bool = False) -> tuple[list[e.TaskStarted], list[e.TaskRetrying], int]:
    """Starts and losses of a long task whose owner dies, and how often its worker is asked: `fails` times in vain."""
    asked: list[str] = []

    async def course(world: World) -> list[e.Event]:
        await world.clients.define(Definition(dag_id="d", owner="team", tasks=(TaskSpec(id="a", type="core.sleep"),)))
        made = await world.clients.gateways[0].trigger(TENANT, Trigger(dag_id="d"), None)
        [worker] = world.workers
        await until(lambda: world.wire.processes[worker].object.busy is not None)
        control = world.wire.control

        async def failing(worker: str, method: str, *args: Any) -> Any:
            if method == "holding":
                asked.append(method)
                if len(asked) <= fails:
                    raise WorkerUnreachable(worker, "told to fail")
            return await control(worker, method, *args)

        async def is_dead(_: str) -> bool:
            return dead

        world.wire.control, world.wire.is_dead = failing, is_dead  # type: ignore[method-assign]  # for this world
        world.kill(world.journal.runs[made.run_id].owner)
        await until(lambda: not world.open(), 4 * LONG_S)
        assert not world.watcher.failures
        return [x for b in world.journal.runs[made.run_id].events for x in codec.decode_events(b.events, b.schema)]

    events = World(0).play_with(course, Mischief(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (LONG_S,)))
    starts = [x for x in events if isinstance(x, e.TaskStarted)]
    return starts, [x for x in events if isinstance(x, e.TaskRetrying) and x.lost], len(asked)


def test_what_runs_is_waited_for_although_its_worker_is_not_reached_at_first() -> None:
    starts, losses, asked = played(fails=3)
    assert (len(starts), losses, asked) == (1, [], 4)


def test_it_is_lost_at_once_when_its_worker_is_dead() -> None:
    starts, losses, asked = played(fails=1, dead=True)
    assert (len(losses), asked) == (1, 1)
    assert starts[-1].attempt > 1, "and done again"


def test_it_is_lost_when_its_worker_is_not_reached_within_its_lease() -> None:
    starts, losses, asked = played(fails=10_000)
    assert len(losses) == 1
    assert starts[-1].attempt > 1, "and done again"
    assert 40 < asked < 50, "every 0.2 s for 9 s"
