"""Exchanges that fail although the worker lives: no attempt is lost, none is repeated, and none is begun twice."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.messages import Assignment, RunContext
from tests.world import Character, World

SEEDS = 60
#: more of them with BLIPS_MANY=2000
MANY = int(os.environ.get("BLIPS_MANY", "200"))


class Blips:
    """What is checked of a world in which connections break, and nothing else goes wrong."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun: Counter[tuple[str, str, int]] = Counter()
        self.broken: list[str] = []
        self._then = world.watcher.began
        world.watcher.began = self._began  # type: ignore[method-assign]  # it also looks for what runs twice
        _only_blips(world.character)

    def _began(self, worker: str, task: Assignment, context: RunContext | None) -> None:
        self._then(worker, task, context)
        self.begun[task.run_id, task.task, task.attempt] += 1
        for name, process in self.world.wire.processes.items():
            busy = getattr(process.object, "busy", None)
            if name != worker and busy is not None and busy[:2] == (task.run_id, task.task):
                self.broken.append(f"{task} begins at {worker} while attempt {busy[2]} runs at {name}")

    def check(self) -> None:
        """Nothing was lost or done again."""
        assert not self.broken, self.broken[0]
        assert max(self.begun.values(), default=1) == 1, self.begun.most_common(1)
        for run_id, run in self.world.journal.runs.items():
            if run.run_type != "backfill":
                events = [x for batch in run.events for x in codec.decode_events(batch.events, batch.schema)]
                lost = [x for x in events if isinstance(x, e.TaskRetrying) and x.lost]
                assert not lost, f"{run_id}: {lost[0]}"


def _only_blips(character: Character) -> None:
    character.weather.clear_up()
    character.weather.late, character.weather.cut = 0.1, 0.2
    character.kills = character.outages = character.sets = 0
    character.drains = False
    character.mischief.kill = character.mischief.deaf = 0.0


def play(seed: int) -> Blips:
    """One world."""
    world = World(seed, 10)
    world.settings = dataclasses.replace(world.settings, cancel_grace_s=5.0)  # longer than it takes to hear of a blip
    blips = Blips(world)
    world.watcher.idle_bound_s = 20.0
    world.play()
    blips.check()
    return blips


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_no_attempt_is_lost_or_repeated_because_a_connection_broke(first: int) -> None:
    for seed in range(first, first + 20):
        play(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY, 100))
def test_no_attempt_is_lost_or_repeated_in_many_worlds(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed)
