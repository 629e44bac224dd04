"""Any history of a run whose tasks may have known results is legal, replayable and ends.

What a look-up comes to is drawn by lot: a result, none, or an answer that comes late, while other things happen.
"""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import aside, mapped, run_commands, run_duties
from orchestrator import events as e
from orchestrator.definition import Definition
from orchestrator.errors import Conflict
from orchestrator.run_state import ENDED, going, startable
from orchestrator.task import TERMINAL
from tests.builders import AT
from tests.invariants import check_history, check_replay
from tests.property.test_run_histories import Player, one_quiet_step
from tests.strategies import Move, definitions, histories

SOURCE = e.CachedFrom("run_0", "t0", 1, AT)
_LIVELY = ("begin",) * 8 + ("ok",) * 6 + ("permanent", "pass", "retry_task", "skip")
_RARE = ("lose", "wait", "retry_failed", "cancel", "restart", "start", "pause", "resume", "give_back")


@st.composite
def cached(draw: st.DrawFn, of: st.SearchStrategy[Definition]) -> Definition:
    """The same, with results kept of some of the tasks that may."""
    definition = draw(of)
    undone = {name for task in definition.tasks for name in (*task.teardown_of, task.compensates)}
    tasks = []
    mapped_too = any(task.expand for task in definition.tasks)
    for task in definition.tasks:
        if mapped_too and task.compensates is not None:
            continue  # `definitions` maps compensations too, which nobody can write
        has_to_run = task.id in undone or task.teardown_of or task.compensates
        ttl_s = None if has_to_run else draw(st.sampled_from([None, 60.0, 60.0]))
        tasks.append(msgspec.structs.replace(task, cache_ttl_s=ttl_s))
    return msgspec.structs.replace(definition, tasks=tuple(tasks))


class CachingPlayer(Player):
    """Looks up what the run wants to know before it begins what is ready."""

    def play(self, move: Move) -> None:
        if move.kind == "begin" and self.run.lookups is not None and going(self.run):
            self._look_up(move)
        super().play(move)

    def _look_up(self, move: Move) -> None:
        lookups = self.run.lookups
        assert lookups is not None
        lookups.take(self.run)
        lots = Random(f"{move.which} {self.run.version}")
        for position in sorted(lookups.asked):
            lot = lots.random()
            if lot < 0.2 or not lookups.answered(position) or not startable(self.run, position):
                continue  # the answer is on its way, or comes too late
            if lot < 0.6:
                name = self.run.compiled.graph.names[position]
                recall = run_commands.Recall(name, self.choice(mapped.map_of(name), move), None, SOURCE)
                try:
                    self._check(recall, self.story.do(recall))
                    continue
                except Conflict:
                    assert self.run.compiled.specs[position].branch
            lookups.known.add(position)
            aside.line_up(self.run, position)

    def check_whole(self) -> None:
        again = self.story.replayed()
        run_duties.wake(again, self.story.now)
        run_duties.wake(self.run, self.story.now)
        check_replay(self.run, again)
        check_history(self.story.events, lambda version: self.story.compiled(version).definition)


@settings(max_examples=150, deadline=None)
@given(cached(definitions(tasks_min=1)), cached(definitions()), histories())
def test_any_history_with_known_results_is_legal_and_a_fold_of_it_is_the_run(
    first: Definition, second: Definition, moves: list[Move]
) -> None:
    player = CachingPlayer(first, second)
    for move in moves:
        player.play(move)
    player.check_whole()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_known_results_hold_through_long_lives_with_rules_and_maps(seed: int, data: st.DataObject) -> None:
    definition = data.draw(cached(definitions(tasks_min=3, ruled=data.draw(st.booleans()), mapped=True)))
    rng = Random(seed)
    for _ in range(5):
        player = CachingPlayer(definition, definition)
        player.play(Move("start", 0, 0))
        for _ in range(60):
            kind = rng.choice(rng.choice((_LIVELY, _LIVELY, _LIVELY, _RARE)))
            player.play(Move(kind, rng.randrange(64), rng.randrange(4)))
        player.check_whole()


@settings(max_examples=100, deadline=None)
@given(cached(definitions(tasks_min=1)), histories(40), st.data())
def test_a_run_that_is_read_again_at_any_moment_looks_up_again_what_has_not_started(
    first: Definition, moves: list[Move], data: st.DataObject
) -> None:
    player = CachingPlayer(first, first)
    player.play(Move("start", 0, 0))
    cut = data.draw(st.integers(0, len(moves)))
    for move in moves[:cut]:
        player.play(move)
    player.run = player.story.run = player.story.replayed()
    run_duties.wake(player.run, player.story.now)
    for move in moves[cut:]:
        player.play(move)
    player.check_whole()


@settings(max_examples=100, deadline=None)
@given(cached(definitions(tasks_min=1, mapped=True)), histories(25))
def test_a_run_with_known_results_ends(first: Definition, moves: list[Move]) -> None:
    player = CachingPlayer(first, first)
    for move in moves:
        player.play(move)
    for round_ in range(300):
        if player.run.state in ENDED:
            break
        player.play(Move("begin", round_, 3))
        one_quiet_step(player)
    assert player.run.state in ENDED, "I10: it never ends"
    assert all(task.state in TERMINAL for task in player.run.tasks), "I6"
