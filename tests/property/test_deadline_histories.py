"""Deadlines of runs and tasks, in any history: told once, in time, of the right ones, and the same when read again.

The oracle is `tests/history_rules.py`, which looks at every task after every event.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import run_commands, run_duties
from orchestrator.definition import Definition
from orchestrator.run_state import ENDED, RunState, winds_up
from tests.invariants import check_history, check_replay
from tests.property.test_run_histories import Player
from tests.strategies import Move, definitions, histories, timed


class Watched(Player):
    """A player who looks at the clock after every move, as a timer would make a RunActor do."""

    def __init__(self, definition: Definition, later: Definition) -> None:
        super().__init__(definition, later)
        limits = {"queue_timeout_s": definition.queue_timeout_s, "on_sla_miss": definition.on_sla_miss}
        self.story = type(self.story)(
            *definition.tasks, later=[later], run_timeout_s=definition.run_timeout_s, **limits
        )
        self.run = self.story.run

    def look(self) -> None:
        """Everything that is due is told, and nothing else."""
        now, run = self.story.now, self.run
        due, at = run_duties.next_deadline(run), self.history
        counts = run.state not in ENDED and not winds_up(run)
        late = at.overdue_slas(now) if counts else set()
        stuck = at.queued_too_long(now) if counts and run.state is RunState.RUNNING else set()
        limit = run.compiled.definition.queue_timeout_s
        refused = run.state is RunState.QUEUED and limit is not None and (now - run.queued_at).total_seconds() >= limit
        assert bool(late or stuck or refused) == (due is not None and due <= now), (late, stuck, refused, due, now)
        specs = run.compiled.graph.index
        wanted = set(filter(at.is_wanted, late))
        cancels = {name for name in wanted if "cancel" in run.compiled.specs[specs[name]].on_sla_miss}
        new = self.story.do(run_commands.CheckDeadlines())
        self._check(run_commands.CheckDeadlines(), new)
        if refused:
            assert isinstance(new[-1], e.RunTimedOut)
            assert new[-1].reason == "queued"
            return
        assert {event.task for event in new if isinstance(event, e.SlaMissed)} == late
        ended = {event.task: event.reason for event in new if isinstance(event, e.TaskFailed)}
        assert ended == dict.fromkeys(stuck, "queued") | dict.fromkeys(cancels, "sla")
        again = run_duties.next_deadline(run)
        assert again is None or again > now, "a deadline that was told is due again"


@settings(max_examples=300, deadline=None)
@given(timed(definitions(tasks_min=1)), timed(definitions()), histories(40))
def test_what_is_late_is_told_once_and_in_time(first: Definition, second: Definition, moves: list[Move]) -> None:
    player = Watched(first, second)
    player.look()
    for move in moves:
        player.play(move)
        player.look()
    again = player.story.replayed()
    run_duties.wake(again, player.story.now)
    run_duties.wake(player.run, player.story.now)
    check_replay(player.run, again)
    check_history(player.story.events, lambda version: player.story.compiled(version).definition)


@settings(max_examples=200, deadline=None)
@given(timed(definitions(tasks_min=1)), histories(30), st.data())
def test_who_reads_the_run_again_at_any_moment_is_late_for_nothing(
    first: Definition, moves: list[Move], data: st.DataObject
) -> None:
    player = Watched(first, first)
    cuts = data.draw(st.sets(st.integers(0, len(moves)), max_size=4))
    for number, move in enumerate(moves):
        if number in cuts:
            player.run = player.story.run = player.story.replayed()
            run_duties.wake(player.run, player.story.now)
        player.play(move)
        player.look()


#: much fails, and people have it tried again
_LIVELY = ("begin", "begin", "permanent", "retry_task", "retry_task", "wait", "ok", "pause", "resume", "lose")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), timed(definitions(tasks_min=2)))
def test_deadlines_hold_through_failures_and_retries_by_hand(seed: int, definition: Definition) -> None:
    rng = Random(seed)
    for _ in range(10):
        player = Watched(definition, definition)
        player.play(Move("start", 0, 0))
        for _ in range(40):
            player.play(Move(rng.choice(_LIVELY), rng.randrange(64), rng.randrange(4)))
            player.look()
