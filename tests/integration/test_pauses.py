"""Fifty pauses of instances at random moments on real Ray: nothing starts between the answer and the next resume.

The thousand interleavings with deaths and other callers are in tests/property/test_pauses.py. The seed is printed.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.instances_api import Board, Json, answered
from tests.live import Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAUSES, INSTANCES = 50, 10
PLAN = "\n".join(["# Many", "## Phase 1: All", *(f"- [ ] 1.{n} Step {n}" for n in range(1, 301))])


def test_no_task_starts_between_the_answer_to_a_pause_and_the_next_resume(live: Server) -> None:
    board, seed = live.board(), random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(INSTANCES):
        instance_id = board.start(board.fresh_plan(PLAN), executor="brief", batch_size=rng.choice((1, 2, 5)))
        for _ in range(PAUSES // INSTANCES):
            time.sleep(rng.uniform(0.0, 0.2))
            assert answered(board.command(instance_id, "pause"))["success"]
            begun = started(board, instance_id)
            time.sleep(0.3)
            assert started(board, instance_id) == begun
            assert answered(board.command(instance_id, "resume"))["success"]
        assert answered(board.command(instance_id, "shutdown?force=true"))["success"]
        assert board.ended(instance_id)["exit_reason"] == "shutdown"
        assert told(board, instance_id) == PAUSES // INSTANCES


def started(board: Board, instance_id: str) -> list[str]:
    """Tasks of a paused instance that were begun."""
    status = board.status(instance_id)
    assert status["status"] == "paused"
    return [each["id"] for each in status["tasks"] if each["started_at"] is not None]


def told(board: Board, instance_id: str) -> int:
    """How often its events say that it was paused; none of them says that a task began meanwhile."""
    pauses, state = 0, "running"
    with board.stream(instance_id, 0) as events:
        for event in events:
            if event.name == "orchestrator_state":
                state = event.data["data"]["new_state"]
                pauses += state == "paused"
            assert not (event.name == "task_changed" and state == "paused" and begins(event.data)), event
    return pauses


def begins(envelope: Json) -> bool:
    return bool(envelope["data"]["new_status"] == "in_progress")
