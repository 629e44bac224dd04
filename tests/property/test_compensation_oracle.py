"""Which compensations run, and in which order, against what a person with pen and paper would say.

The oracle keeps a list: a task that can be undone is written down when it succeeds. When the run does not succeed, the
list is read from its end. It knows nothing of graphs, counts or events of the machine.
"""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import run_commands, run_duties
from orchestrator.definition import Definition, TaskSpec
from orchestrator.run_state import ENDED, going
from orchestrator.task import TERMINAL
from tests.builders import Story, a_value
from tests.invariants import check_history, check_owed, check_replay
from tests.property.test_run_histories import Player
from tests.strategies import Move, definitions

OUTCOMES = ("ok",) * 6 + ("error", "timed_out", "skipped", "lost")
#: what people do to a run with compensations
LIVELY = ("begin",) * 6 + ("ok",) * 6 + ("permanent",) * 2 + ("retry_task", "retry_failed", "skip", "cancel", "wait")


@st.composite
def sagas(draw: st.DrawFn) -> Definition:
    """A DAG with rules, branches and teardowns, in which most tasks can be undone."""
    definition = draw(definitions(tasks_min=2, ruled=draw(st.booleans())))
    tasks = [task for task in definition.tasks if task.compensates is None]
    targets = draw(st.sets(st.sampled_from([task.id for task in tasks if not task.teardown_of]), min_size=1))
    undo = [TaskSpec(id=f"un_{name}", compensates=name, retries=draw(st.integers(0, 1))) for name in sorted(targets)]
    together = draw(st.permutations([*tasks, *undo]))
    return msgspec.structs.replace(definition, tasks=tuple(together))


class Paper:
    """What the oracle writes down while it watches a run."""

    def __init__(self, definition: Definition) -> None:
        self.undo = {task.compensates: task.id for task in definition.tasks if task.compensates is not None}
        self.aside = {task.id for task in definition.tasks if task.teardown_of or task.compensates is not None}
        self.done: list[str] = []
        self.bad = False
        #: compensations in the order in which they were first started
        self.started: list[str] = []

    def watch(self, event: e.Event) -> None:
        match event:
            case e.TaskSucceeded() if event.task in self.undo:
                self.done.append(event.task)
            case e.TaskFailed() if event.task not in self.aside:
                self.bad = True
            case e.TaskCancelled() if event.task not in self.aside:
                self.bad = True
            case e.TaskStarted() if event.task in self.undo.values() and event.task not in self.started:
                self.started.append(event.task)

    @property
    def expected(self) -> list[str]:
        return [self.undo[name] for name in reversed(self.done)] if self.bad else []


def _step(story: Story, rng: Random) -> list[e.Event]:
    """A task starts, or one that runs comes to an end."""
    running = [name for name, state in story.states.items() if state == "running"]
    ready = story.ready if going(story.run) else []
    if ready and (not running or rng.random() < 0.6):
        return story.do(run_commands.Begin((story.run.position(rng.choice(ready)),), "w0", "i1"))
    if not running:
        story.wait(400.0)
        return []
    name, outcome = rng.choice(running), rng.choice(OUTCOMES)
    if outcome == "lost":
        return story.do(run_commands.Lose(name, story.attempt(name)))
    graph = story.run.compiled.graph
    below = [graph.names[i] for i in graph.children[graph.index[name]] if story.run.compiled.advances(i)]
    value = a_value([each for each in below if rng.random() < 0.6])
    return story.do(story.report(name, outcome, value=value, error="Boom", permanent=rng.random() < 0.5))


def _check_replay(story: Story) -> None:
    again = story.replayed()
    run_duties.wake(again, story.now)
    run_duties.wake(story.run, story.now)
    check_replay(story.run, again)


@settings(max_examples=200, deadline=None)
@given(sagas(), st.integers(0, 2**32))
def test_what_is_undone_is_what_was_done_backwards(definition: Definition, seed: int) -> None:
    rng = Random(seed)
    story, paper = Story(*definition.tasks, run_timeout_s=60.0), Paper(definition)
    story.start()
    end_at, end = rng.randrange(40), rng.choice((run_commands.Cancel(), run_commands.TimeOut(), None, None))
    for n in range(400):
        if story.run.state in ENDED:
            break
        new = _step(story, rng)
        open_ = [i for i, task in enumerate(story.run.tasks) if task.state not in TERMINAL]
        if end is not None and n == end_at and any(map(story.run.compiled.advances, open_)):
            new += story.do(end)
        for event in new:
            paper.watch(event)
        _check_replay(story)
        check_owed(story.run)
    assert story.run.state in ENDED, "I10"
    assert paper.started == paper.expected
    history = check_history(story.events, lambda version: story.compiled(version).definition)
    for name in paper.undo.values():
        assert (history.by.get(name) == "rule" or history.tasks[name] == "cancelled") == (name not in paper.expected)


@settings(max_examples=30, deadline=None)
@given(sagas(), st.integers(0, 2**32))
def test_compensations_hold_through_long_lives_in_which_people_interfere(definition: Definition, seed: int) -> None:
    rng = Random(seed)
    for _ in range(6):
        player = Player(definition, definition)
        player.play(Move("start", 0, 0))
        for _ in range(80):
            player.play(Move(rng.choice(LIVELY), rng.randrange(64), rng.randrange(4)))
        check_history(player.story.events, lambda _: definition)
        _check_replay(player.story)
