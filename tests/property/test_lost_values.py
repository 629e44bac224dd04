"""Whatever values vanish whenever: a run ends well, and only who made what was missed has run again."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator.lost_values import LOST_MAX
from orchestrator.messages import Value
from orchestrator.run import RunState
from orchestrator.task import TaskState
from tests.builders import Story, a_task
from tests.invariants import check_history, check_replay


class World:
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
    world = World(edges, losses)
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
