"""Any history of a run with mapped tasks is legal, replayable and ends; what a reduce gets is what the oracle says.

The rules are in `tests/history_rules.py`, written from docs/mapping.md without a look at the code: when a map expands,
how many of its instances run at a time, what it comes to, and that none is forgotten.
"""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator import mapped, run_duties
from orchestrator.definition import Definition
from orchestrator.run_state import ENDED, Run, going, startable
from orchestrator.task import TERMINAL, TaskState
from tests.invariants import check_history, check_replay
from tests.property.test_run_histories import Player, one_quiet_step
from tests.strategies import Move, definitions, histories

_LIVELY = ("begin",) * 6 + ("ok",) * 6 + ("permanent",) * 3 + ("pass", "retry_task", "retry_task", "skip")
_RARE = ("error", "lose", "wait", "retry_failed", "cancel", "restart", "start", "pause", "resume", "give_back")


@settings(max_examples=200, deadline=None)
@given(definitions(tasks_min=1, mapped=True), definitions(mapped=True), histories())
def test_any_history_with_maps_is_legal_and_a_fold_of_it_is_the_run(
    first: Definition, second: Definition, moves: list[Move]
) -> None:
    player = Player(first, second)
    for move in moves:
        _play(player, move)
    _check_whole(player)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_maps_rules_and_teardowns_hold_through_long_lives(seed: int, data: st.DataObject) -> None:
    definition = data.draw(definitions(tasks_min=3, ruled=data.draw(st.booleans()), mapped=True))
    rng = Random(seed)
    for _ in range(10):
        player = Player(definition, definition)
        _play(player, Move("start", 0, 0))
        for _ in range(80):
            kind = rng.choice(rng.choice((_LIVELY, _LIVELY, _LIVELY, _RARE)))
            _play(player, Move(kind, rng.randrange(64), rng.randrange(4)))
        _check_whole(player)


@settings(max_examples=100, deadline=None)
@given(definitions(tasks_min=1, mapped=True), histories(40), st.data())
def test_reading_a_run_with_maps_again_at_any_moment_makes_no_difference(
    first: Definition, moves: list[Move], data: st.DataObject
) -> None:
    player = Player(first, first)
    _play(player, Move("start", 0, 0))
    cut = data.draw(st.integers(0, len(moves)))
    for move in moves[:cut]:
        _play(player, move)
    player.run = player.story.run = player.story.replayed()
    run_duties.wake(player.run, player.story.now)
    for move in moves[cut:]:
        _play(player, move)
    _check_whole(player)


@settings(max_examples=100, deadline=None)
@given(definitions(tasks_min=1, mapped=True), histories(25))
def test_a_run_with_maps_that_is_left_to_its_workers_ends(first: Definition, moves: list[Move]) -> None:
    player = Player(first, first)
    for move in moves:
        _play(player, move)
    for _ in range(300):
        if player.run.state in ENDED:
            break
        one_quiet_step(player)
    assert player.run.state in ENDED, "I10: it never ends"
    assert all(task.state in TERMINAL for task in player.run.tasks), "I6"


def _play(player: Player, move: Move) -> None:
    player.play(move)
    _check_offers(player.run)
    _check_values(player)


def _check_whole(player: Player) -> None:
    again = player.story.replayed()
    run_duties.wake(again, player.story.now)
    run_duties.wake(player.run, player.story.now)
    check_replay(player.run, again)
    _check_offers(again)
    check_history(player.story.events, lambda version: player.story.compiled(version).definition)


def _check_offers(run: Run) -> None:
    """Every instance that may start is offered, as far as `max_active` allows (I9)."""
    if not going(run):
        return
    offered = {i for _, i in run.ready if startable(run, i)}
    due = {i for _, i, attempt in run.due if run.tasks[i].attempt == attempt}
    for host, table in run.maps.items():
        if run.tasks[host].state is not TaskState.RUNNING:
            continue
        states = {i: run.tasks[i].state for i in table.live}
        free = {i for i, s in states.items() if s in (TaskState.PENDING, TaskState.RETRYING) and i not in due}
        busy = sum(state is TaskState.RUNNING for state in states.values())
        room = len(free) if table.max_active is None else min(len(free), table.max_active - busy)
        assert len(offered & states.keys()) == room, f"I9 {run.compiled.graph.names[host]}: {states}"


def _check_values(player: Player) -> None:
    """The value of a map is the list of what its instances returned last, null where they did not (brute force)."""
    values: dict[str, object] = {}
    for event in player.story.events:
        match event:
            case e.RunRestarted():
                values.clear()
            case e.TaskSucceeded(value=value) if value is not None:
                values[event.task] = msgspec.json.decode(value.inline)
    run = player.run
    for position in run.compiled.maps:
        if not run.compiled.graph.children[position]:
            continue
        name = run.compiled.graph.names[position]
        expected = [
            values[one] if player.history.tasks[one] == "succeeded" else None for one in player.history.instances(name)
        ]
        assert [msgspec.json.decode(value.inline) for value in mapped.gathered(run, position)] == expected
