"""Any history of a plan's run keeps its batches, sequences and pauses, is replayable, and ends."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import plan_run, run_commands, run_duties
from orchestrator.conduct import WORDS
from orchestrator.definition import Conduct, Definition, TaskSpec
from orchestrator.errors import Refused
from orchestrator.instance_events import InstanceFold
from orchestrator.messages import Report
from orchestrator.run_state import ENDED, Run, RunState, going
from orchestrator.task import TaskState
from tests.builders import Story, a_plan
from tests.history_rules import History
from tests.invariants import check_owed, check_replay
from tests.strategies import Move

WEIGHTS = {
    "start": 3,
    "begin": 14,
    "ok": 10,
    "error": 6,
    "permanent": 3,
    "timed_out": 1,
    "lose": 3,
    "give_back": 2,
    "wake": 3,
    "pause": 2,
    "resume": 3,
    "cancel": 1,
    "shut_down": 1,
    "retry_task": 5,
    "skip": 3,
    "completed": 1,
    "pending": 1,
}
_moves = st.lists(
    st.builds(
        Move, st.sampled_from([k for k, n in WEIGHTS.items() for _ in range(n)]), st.integers(0, 20), st.integers(0, 3)
    ),
    max_size=80,
)


@st.composite
def plans(draw: st.DrawFn) -> Definition:
    """A plan whose tasks wait for some of those before them, and tolerate some of these."""
    tasks = []
    for n in range(draw(st.integers(1, 7))):
        above = sorted(draw(st.sets(st.integers(0, n - 1), max_size=3))) if n else []
        tolerated = [i for i in above if draw(st.booleans())]
        task = TaskSpec(
            id=f"1.{n + 1}",
            depends_on=tuple(f"1.{i + 1}" for i in above),
            tolerates=tuple(f"1.{i + 1}" for i in tolerated),
            retries=draw(st.integers(0, 2)),
            retry_delay_s=0.0,
        )
        tasks.append(task)
    names = [task.id for task in tasks]
    sequences = draw(st.lists(st.sets(st.sampled_from(names), min_size=min(2, len(names)), max_size=4), max_size=2))
    conduct = Conduct(
        batch_size=draw(st.integers(1, 4)),
        max_iterations=draw(st.sampled_from([0, 0, 2, 5])),
        sequences=tuple(tuple(sorted(each)) for each in sequences),
    )
    return Definition(dag_id="@plan/p", owner="", tasks=tuple(tasks), conduct=conduct)


class Player:
    """Plays moves the way the instance's actor would, one commit each, and checks every step."""

    def __init__(self, definition: Definition, done: set[int]) -> None:
        names = [task.id for task in definition.tasks]
        plan = a_plan(definition, done=tuple(names[i] for i in sorted(done) if i < len(names)))
        self.story = Story(*definition.tasks, conduct=definition.conduct, plan=plan)
        self.history = History(lambda version: self.story.compiled(version).definition)
        self.history.feed(self.story.events[0])
        self.fold = InstanceFold("run_1")
        self.fold.tell(self.story.events)
        self.told: list[tuple[str, object]] = []

    @property
    def run(self) -> Run:
        return self.story.run

    def play(self, move: Move) -> None:
        command = COMMANDS[move.kind](self, move)
        if command is None:
            return
        try:
            new = self.story.do(command)
        except Refused:
            return
        for event in new:
            self.history.feed(event)
        self.history.rest()
        check_owed(self.run)
        self._check_fold(new)

    def _check_fold(self, commit: list[e.Event]) -> None:
        """People are shown what the machine knows."""
        before = self.fold.seq
        told = self.fold.tell(commit)
        assert [each.seq for each in told] == list(range(before + 1, before + 1 + len(told)))
        shown = {view.task_id: view for view in self.fold.status().tasks}
        run = self.run
        assert run.agenda is not None
        if run.state is RunState.QUEUED:
            return
        for name, task, count in zip(run.compiled.graph.names, run.tasks, run.agenda.retry_counts, strict=True):
            lost = task.state is TaskState.RETRYING and run.position(name) not in run.agenda.failed
            word = "pending" if lost else WORDS[task.state]
            assert (shown[name].status, shown[name].retry_count) == (word, count), f"{name} is {task.state}"

    def running(self, move: Move) -> tuple[str, int] | None:
        names = self.run.compiled.graph.names
        live = [(n, t.attempt) for n, t in zip(names, self.run.tasks, strict=True) if t.state is TaskState.RUNNING]
        return live[move.which % len(live)] if live else None

    def begin(self, move: Move) -> plan_run.Command | None:
        if not going(self.run):
            return None
        positions = run_duties.take_ready(self.run, 1 + move.share)
        return run_commands.Begin(tuple(positions), f"w{move.which}", "i1") if positions else None

    def wake(self, _: Move) -> None:
        self.story.wait(1.0)


def _settle(outcome: str, permanent: bool = False) -> Callable[[Player, Move], plan_run.Command | None]:
    def build(player: Player, move: Move) -> plan_run.Command | None:
        live = player.running(move)
        return (
            run_commands.Settle(Report("run_1", *live, outcome, error=outcome, permanent=permanent), 0.5)
            if live
            else None
        )

    return build


def _on_running(
    command: Callable[[str, int], run_commands.Command],
) -> Callable[[Player, Move], plan_run.Command | None]:
    return lambda player, move: command(*live) if (live := player.running(move)) else None


def _named(player: Player, move: Move) -> str:
    names = player.run.compiled.graph.names
    return names[move.which % len(names)]


COMMANDS: dict[str, Callable[[Player, Move], plan_run.Command | None]] = {
    "start": lambda _, __: run_commands.Start(),
    "begin": Player.begin,
    "ok": _settle("ok"),
    "error": _settle("error"),
    "permanent": _settle("error", permanent=True),
    "timed_out": _settle("timed_out"),
    "lose": _on_running(run_commands.Lose),
    "give_back": _on_running(run_commands.GiveBack),
    "wake": Player.wake,
    "pause": lambda _, __: run_commands.Pause(),
    "resume": lambda _, __: run_commands.Resume(),
    "cancel": lambda _, __: run_commands.Cancel(),
    "shut_down": lambda _, __: plan_run.ShutDown(),
    "retry_task": lambda player, move: run_commands.RetryTask(_named(player, move)),
    "skip": lambda player, move: run_commands.SkipTask(_named(player, move), "later"),
    "completed": lambda player, move: plan_run.MarkTask(_named(player, move), "completed"),
    "pending": lambda player, move: plan_run.MarkTask(_named(player, move), "pending"),
}


def _one_after_the_other(*moves: str) -> tuple[Definition, set[int], list[Move], int]:
    """1.1 and 1.3 are a sequence; each of these moves concerns the first task that it can."""
    tasks = (TaskSpec(id="1.1"), TaskSpec(id="1.2", depends_on=("1.1",)), TaskSpec(id="1.3"))
    conduct = Conduct(batch_size=1, sequences=(("1.1", "1.3"),))
    definition = Definition(dag_id="@plan/p", owner="", tasks=tasks, conduct=conduct)
    return definition, set(), [Move(kind, 0, 0) for kind in moves], 0


@settings(max_examples=400, deadline=None)
@given(plans(), st.sets(st.integers(0, 6), max_size=2), _moves, st.integers(0, 80))
@example(*_one_after_the_other("start", "begin", "error", "retry_task", "begin"))
@example(*_one_after_the_other("start", "begin", "error", "begin", "retry_task", "lose", "wake", "begin"))
@example(*_one_after_the_other("start", "begin", "error", "begin", "retry_task", "give_back", "begin"))
def test_any_history_of_a_plan_keeps_its_rules_also_when_it_is_read_again(
    definition: Definition, done: set[int], moves: list[Move], cut: int
) -> None:
    player = Player(definition, done)
    for move in moves[:cut]:
        player.play(move)
    player.story.run = _read_again(player)
    for move in moves[cut:]:
        player.play(move)
    _read_again(player)


def _read_again(player: Player) -> Run:
    again = player.story.replayed()
    run_duties.wake(again, player.story.now)
    run_duties.wake(player.run, player.story.now)
    check_replay(player.run, again)
    return again


@settings(max_examples=200, deadline=None)
@given(plans(), st.sets(st.integers(0, 6), max_size=2), _moves)
def test_a_plan_that_is_left_to_its_workers_ends(definition: Definition, done: set[int], moves: list[Move]) -> None:
    player = Player(definition, done)
    for move in moves:
        player.play(move)
    for _ in range(200):
        if player.run.state in ENDED:
            break
        for kind in ("start", "resume", "wake", "begin", "ok"):
            player.play(Move(kind, 0, 3))
    assert player.run.state in ENDED, "I10: it never ends"
    assert player.fold.word == "stopped"
    assert player.fold.exit_reason in ("complete", "blocked", "max_iterations", "shutdown")
    assert (player.fold.exit_reason == "shutdown") == (player.run.state is RunState.CANCELLED)


@settings(max_examples=100, deadline=None)
@given(plans(), _moves)
def test_the_document_that_is_told_is_the_one_that_is_kept(definition: Definition, moves: list[Move]) -> None:
    player = Player(definition, set())
    for move in moves:
        player.play(move)
    document = player.fold.document().raw
    summary = document["summary"]
    statuses = [entry["status"] for entry in document["tasks"]]
    assert sum(summary[w] for w in ("completed", "pending", "in_progress", "failed", "skipped")) == len(statuses)
    assert all(summary[word] == statuses.count(word) for word in set(statuses))
    assert msgspec.json.decode(msgspec.json.encode(document)) == document
