"""Whatever values vanish whenever: a run ends well, and only who made what was missed has run again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator.definition import TaskSpec
from orchestrator.lost_values import LOST_MAX
from orchestrator.messages import Value
from orchestrator.run_state import RunState
from orchestrator.task import TaskState
from tests.builders import Story, a_dag, a_task
from tests.invariants import check_history, check_replay, check_versions
from tests.unit.actors.test_small_worlds import defined, ends, triggered
from tests.world import RUN_ACTORS, World
from tests.world_cast import Mischief, Shelf


class Bench:
    """A run, the artifacts that are there, and a worker for each ready task."""

    def __init__(self, edges: dict[int, list[int]], losses: int) -> None:
        names = {n: f"t{n}" for n in edges}
        tasks = [
            a_task(names[n], *(names[p] for p in ps), inputs={names[p]: names[p] for p in ps})
            for n, ps in edges.items()
        ]
        self.story = Story(*tasks).start()
        self.there: set[str] = set()
        self.losses = losses
        #: artifact -> it was found missing; task -> attempts whose code ran
        self.missed: set[str] = set()
        self.ran: Counter[str] = Counter()

    def start(self, name: str) -> None:
        self.story.begin(name)

    def end(self, name: str) -> None:
        """The attempt reads its inputs, which are those of its start, and returns something large."""
        run = self.story.run
        spec = run.compiled.specs[run.position(name)]
        values = [run.values.get(run.position(producer)) for producer in spec.inputs.values()]
        missing = tuple(v.artifact for v in values if v is not None and v.artifact and v.artifact not in self.there)
        if missing:
            self.missed.update(missing)
            self.story.do(self.story.report(name, "missing", missing=missing))
            return
        self.ran[name] += 1
        made = f"run_1/{name}.{self.story.attempt(name)}"
        self.there.add(made)
        self.story.do(self.story.report(name, "ok", value=Value(artifact=made, size_bytes=10**7, node="A")))

    def lose(self, number: int) -> None:
        if self.there and self.losses:
            self.losses -= 1
            self.there.discard(sorted(self.there)[number % len(self.there)])

    @property
    def running(self) -> list[str]:
        return [n for n, state in self.story.states.items() if state == TaskState.RUNNING]


@st.composite
def graphs(draw: st.DrawFn) -> dict[int, list[int]]:
    size = draw(st.integers(2, 8))
    return {n: draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3)) if n else [] for n in range(size)}


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, LOST_MAX), st.lists(st.tuples(st.sampled_from("sseel"), st.integers(0, 50))))
def test_lost_values_are_computed_again_and_nothing_else(
    edges: dict[int, list[int]], losses: int, moves: list[tuple[str, int]]
) -> None:
    world = Bench(edges, losses)
    for kind, number in [*moves, *[("s", 0), ("e", 0)] * 100]:
        if world.story.run.state is not RunState.RUNNING:
            break
        if kind == "s" and (ready := world.story.ready):
            world.start(ready[number % len(ready)])
        elif kind == "e" and (running := world.running):
            world.end(running[number % len(running)])
        elif kind == "l":
            world.lose(number)
    story = world.story
    assert story.run.state is RunState.SUCCEEDED, story.states
    for name in story.states:
        lost = sum(artifact.startswith(f"run_1/{name}.") for artifact in world.missed)
        assert world.ran[name] == 1 + lost, f"{name} ran {world.ran[name]} times, {lost} values of it were missed"
    resets = [event.lost for event in story.events if isinstance(event, e.TaskReset)]
    assert sorted(resets) == sorted(world.missed), "each loss is told once"
    check_history(story.events, lambda version: story.compiled(version).definition)
    check_replay(story.run, story.replayed())
    assert story.replayed().lost == story.run.lost


def a_fan(width: int) -> tuple[TaskSpec, ...]:
    """A chain of three, `width` tasks that take its end, and one that takes theirs."""
    wide = [a_task(f"w{n}", "c", type="core.sleep", inputs={"x": "c"}) for n in range(width)]
    end = a_task("end", *(w.id for w in wide), type="core.sleep", inputs={w.id: w.id for w in wide})
    chain = [
        a_task("a", type="core.sleep"),
        a_task("b", "a", type="core.sleep", inputs={"x": "a"}),
        a_task("c", "b", type="core.sleep", inputs={"x": "b"}),
    ]
    return (*chain, *wide, end)


@pytest.mark.parametrize("seed", range(12))
def test_runs_end_well_whatever_vanishes_and_whoever_dies(seed: int) -> None:
    shelf = Shelf(vanish=0.3, losses=LOST_MAX * (1 + seed % 3))
    mischief = Mischief(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.001, 0.02, 0.1), shelf)

    async def course(world: World) -> None:
        gateway = await world.clients.insist(lambda: defined(world, *a_fan(4)))
        run_ids = [await world.clients.insist(lambda: triggered(gateway)) for _ in range(4)]
        for _ in range(seed % 4):
            await asyncio.sleep(world.rng.uniform(0.05, 0.5))
            world.kill(world.rng.choice([*RUN_ACTORS, "scheduler", *world.workers]))
        lost = Counter[str]()
        for run_id in run_ids:
            state = await ends(world, run_id, 120.0)
            events = check_versions(world.journal.runs[run_id].events)
            definition = a_dag(*a_fan(4))
            history = check_history(events, lambda _, of=definition: of)
            resets = [event for event in events if isinstance(event, e.TaskReset)]
            lost.update(event.lost for event in resets)
            assert state == "succeeded", (history.tasks, resets)
            started = Counter(event.task for event in events if isinstance(event, e.TaskStarted))
            again = Counter(type(event) for event in events if isinstance(event, e.TaskReturned | e.TaskRetrying))
            assert started.total() == len(definition.tasks) + len(resets) + again.total()
        assert all(lost), "nobody is reset for another reason"
        assert set(lost.values()) <= {1}, "each loss is told once"
        assert world.journal.counters.get("orchestrator_values_lost_total|d", 0) >= lost.total()

    World(seed).play_with(course, mischief)
    assert shelf.losses < LOST_MAX * (1 + seed % 3), "something vanished"
