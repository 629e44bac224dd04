"""Any history of a run is legal, replayable, stops at a terminal state and never forgets what it owes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import mapped, run_commands, run_duties
from orchestrator.definition import Definition
from orchestrator.errors import Refused, StaleAttempt
from orchestrator.messages import Note, Report, Value
from orchestrator.run_state import ENDED, RunState, going, startable
from orchestrator.task import TERMINAL, TaskState
from tests.builders import Story, a_value
from tests.history_rules import History
from tests.invariants import check_history, check_owed, check_replay
from tests.strategies import Move, definitions, histories

SECONDS = (0.0, 0.5, 3.0, 20.0)


class Player:
    """Plays moves on a run the way a RunActor would, and checks every step."""

    def __init__(self, definition: Definition, later: Definition) -> None:
        self.story = Story(*definition.tasks, later=[later], run_timeout_s=definition.run_timeout_s)
        self.history = History(lambda version: self.story.compiled(version).definition)
        self.history.feed(self.story.events[0])
        self.run = self.story.run
        #: every attempt that was ever started
        self.attempts: list[tuple[str, int]] = []

    def play(self, move: Move) -> None:
        before = (self.run.version, self.run.state)
        command = self._command(move)
        if command is None:
            return
        try:
            new = self.story.do(command)
        except Refused:
            assert (self.run.version, self.run.state) == before
            if isinstance(command, run_commands.Begin):
                raise
            return
        self._check(command, new)

    def _check(self, command: run_commands.Command, new: list[e.Event]) -> None:
        for event in new:
            self.history.feed(event)
            if isinstance(event, e.TaskStarted):
                self.attempts.append((event.task, event.attempt))
        self.history.rest()
        check_owed(self.run)
        self._check_counters()
        if isinstance(command, run_commands.Cancel):
            assert self.run.state in (RunState.CANCELLED, RunState.CANCELLING), "I10"
            left = [i for i, task in enumerate(self.run.tasks) if task.state not in TERMINAL]
            assert bool(left) == (self.run.state is RunState.CANCELLING), "I10"
            assert not any(map(self.run.compiled.advances, left)), "I10"

    def _check_counters(self) -> None:
        states = [task.state for task in self.run.tasks]
        assert self.run.open == sum(state not in TERMINAL for state in states)
        maps = [states[i] for i in self.run.compiled.maps]
        assert self.run.running == states.count(TaskState.RUNNING) - maps.count(TaskState.RUNNING)
        failed = [i for i, state in enumerate(states) if state in (TaskState.FAILED, TaskState.TIMED_OUT)]
        assert self.run.failed == sum(self.history.decides(self.run.compiled.graph.names[i]) for i in failed)
        assert (self.run.finished_at is not None) == (self.run.state in ENDED)

    def _command(self, move: Move) -> run_commands.Command | None:
        build = COMMANDS[move.kind]
        return build(self, move)

    def running(self, move: Move) -> tuple[str, int] | None:
        live = [
            (name, task.attempt)
            for name, task in zip(self.run.compiled.graph.names, self.run.tasks, strict=True)
            if task.state is TaskState.RUNNING and task.worker
        ]
        return live[move.which % len(live)] if live else None

    def named(self, move: Move) -> str | None:
        names = self.run.compiled.graph.names
        return names[move.which % len(names)] if names else None

    def choice(self, name: str, move: Move) -> Value:
        """What a task returns; a branch some of its dependents, or something that is none."""
        graph = self.run.compiled.graph
        below = [graph.names[i] for i in graph.children[graph.index[mapped.map_of(name)]]]
        wrong = ["nobody"] if move.which % 7 == 6 else []
        return a_value([each for n, each in enumerate(below) if move.which >> n & 1] + wrong)

    def begin(self, move: Move) -> run_commands.Command | None:
        if not going(self.run):
            return None
        positions = run_duties.take_ready(self.run, 1 + move.share)
        return run_commands.Begin(tuple(positions), f"w{move.which}", "i1") if positions else None

    def wait(self, move: Move) -> run_commands.Command | None:
        self.story.wait(SECONDS[move.share])
        limit = run_duties.deadline(self.run)
        return run_commands.TimeOut() if limit is not None and limit <= self.story.now else None


def _settle(outcome: str, permanent: bool = False) -> Callable[[Player, Move], run_commands.Command | None]:
    def build(player: Player, move: Move) -> run_commands.Command | None:
        live = player.running(move)
        value = player.choice(live[0], move) if live else Value()
        report = live and Report("run_1", *live, outcome, value, error=outcome, permanent=permanent)
        return run_commands.Settle(report, move.share / 4) if report else None

    return build


def _on_running(
    command: Callable[[str, int], run_commands.Command],
) -> Callable[[Player, Move], run_commands.Command | None]:
    def build(player: Player, move: Move) -> run_commands.Command | None:
        live = player.running(move)
        return command(*live) if live else None

    return build


def _on_named(command: Callable[[str], run_commands.Command]) -> Callable[[Player, Move], run_commands.Command | None]:
    def build(player: Player, move: Move) -> run_commands.Command | None:
        name = player.named(move)
        return command(name) if name else None

    return build


def _stale(player: Player, move: Move) -> run_commands.Command | None:
    """Something about an attempt that is over: it must be refused (I12)."""
    live = {
        (n, t.attempt)
        for n, t in zip(player.run.compiled.graph.names, player.run.tasks, strict=True)
        if t.state is TaskState.RUNNING
    }
    old = [each for each in player.attempts if each not in live]
    if not old:
        return None
    task, attempt = old[move.which % len(old)]
    late: run_commands.Command = [
        run_commands.Settle(Report("run_1", task, attempt, "ok"), 0.0),
        run_commands.Settle(Report("run_1", task, attempt, "error"), 0.0),
        run_commands.Lose(task, attempt),
        run_commands.GiveBack(task, attempt),
    ][move.share]
    before = player.run.version
    try:
        player.story.do(late)
    except StaleAttempt:
        assert player.run.version == before
        return None
    raise AssertionError(f"I12 {late} was accepted")


COMMANDS: dict[str, Callable[[Player, Move], run_commands.Command | None]] = {
    "start": lambda _, __: run_commands.Start(),
    "begin": Player.begin,
    "ok": _settle("ok"),
    "error": _settle("error"),
    "permanent": _settle("error", permanent=True),
    "timed_out": _settle("timed_out"),
    "pass": _settle("skipped"),
    "lose": _on_running(run_commands.Lose),
    "give_back": _on_running(run_commands.GiveBack),
    "stale": _stale,
    "note": _on_running(lambda task, attempt: run_commands.Mark(Note("run_1", task, attempt, "checkpoint"))),
    "wait": Player.wait,
    "pause": lambda _, __: run_commands.Pause(),
    "resume": lambda _, __: run_commands.Resume(),
    "cancel": lambda _, __: run_commands.Cancel(),
    "time_out": lambda player, _: run_commands.TimeOut() if player.run.state is not RunState.QUEUED else None,
    "miss_sla": lambda player, _: run_commands.MissSla(player.story.now),
    "retry_task": _on_named(run_commands.RetryTask),
    "retry_failed": lambda _, __: run_commands.RetryFailed(),
    "skip": _on_named(run_commands.SkipTask),
    "restart": lambda _, move: run_commands.Restart(1 + move.share % 2),
}


@settings(max_examples=200, deadline=None)
@given(definitions(), definitions(), histories())
def test_any_history_is_legal_and_a_fold_of_it_is_the_run(
    first: Definition, second: Definition, moves: list[Move]
) -> None:
    player = Player(first, second)
    for move in moves:
        player.play(move)
    _check_as_read_again(player)
    check_history(player.story.events, lambda version: player.story.compiled(version).definition)


#: what happens to a run whose tasks have rules: much of it ends, and people interfere
_LIVELY = ("begin",) * 6 + ("ok",) * 5 + ("permanent",) * 3 + ("pass", "pass", "retry_task", "retry_task", "skip")
_RARE = ("error", "lose", "wait", "retry_failed", "cancel", "restart", "start", "pause", "resume")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_rules_branches_and_teardowns_hold_through_long_lives(seed: int, data: st.DataObject) -> None:
    definition = data.draw(definitions(tasks_min=3, ruled=True))
    rng = Random(seed)
    for _ in range(10):
        player = Player(definition, definition)
        player.play(Move("start", 0, 0))
        for _ in range(60):
            player.play(Move(rng.choice(rng.choice((_LIVELY, _LIVELY, _LIVELY, _RARE))), rng.randrange(64), 1))
        _check_as_read_again(player)


def _check_as_read_again(player: Player) -> None:
    again = player.story.replayed()
    run_duties.wake(again, player.story.now)
    run_duties.wake(player.run, player.story.now)
    check_replay(player.run, again)
    assert len(again.ready) == len([i for _, i in again.ready if startable(again, i)]), "I4 stale entries in ready"


@settings(max_examples=150, deadline=None)
@given(definitions(tasks_min=1), histories(30), st.data())
def test_reading_a_run_again_at_any_moment_makes_no_difference(
    first: Definition, moves: list[Move], data: st.DataObject
) -> None:
    player = Player(first, first)
    player.story.start()
    player.history.feed(player.story.events[-1])
    cut = data.draw(st.integers(0, len(moves)))
    for move in moves[:cut]:
        player.play(move)
    player.run = player.story.run = player.story.replayed()
    run_duties.wake(player.run, player.story.now)
    for move in moves[cut:]:
        player.play(move)
    _check_as_read_again(player)


@settings(max_examples=150, deadline=None)
@given(definitions(tasks_min=1), histories(25))
def test_a_run_that_is_left_to_its_workers_ends(first: Definition, moves: list[Move]) -> None:
    player = Player(first, first)
    for move in moves:
        player.play(move)
    for _ in range(200):
        if player.run.state in ENDED:
            break
        one_quiet_step(player)
    assert player.run.state in ENDED, "I10: it never ends"
    assert all(task.state in TERMINAL for task in player.run.tasks), "I6"


def one_quiet_step(player: Player) -> None:
    """Workers do one more round of what is ready."""
    for kind in ("start", "resume", "begin", "ok"):
        player.play(Move(kind, 0, 3))
    at = run_duties.next_wake(player.run)
    if at is not None and not player.run.running:
        player.story.wait(max(0.0, (at - player.story.now).total_seconds()))
