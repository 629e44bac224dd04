"""Random definitions, histories and commands, in one place.

A history is a list of `Move`s that carry plain numbers: which task, which of the possible ways. Whoever plays them
maps the numbers onto what is there, so every list is playable and shrinks well.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from orchestrator.definition import Definition, TaskSpec

TASKS_MAX = 7


@st.composite
def definitions(draw: st.DrawFn, tasks_min: int = 0, tasks_max: int = TASKS_MAX) -> Definition:
    """A DAG whose tasks depend on some of those before them."""
    size = draw(st.integers(tasks_min, tasks_max))
    tasks = []
    for n in range(size):
        above = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        retries = draw(st.integers(0, 2))
        priority = draw(st.sampled_from([0, 0, 0, 5, 9]))
        task = TaskSpec(
            id=f"t{n}",
            depends_on=tuple(f"t{i}" for i in sorted(above)),
            retries=retries,
            retry_delay_s=draw(st.sampled_from([0.0, 1.0, 5.0])),
            priority=priority,
        )
        tasks.append(task)
    limit = draw(st.sampled_from([None, None, 60.0]))
    return Definition(dag_id="d", owner="team", tasks=tuple(tasks), run_timeout_s=limit)


class Move(NamedTuple):
    """One thing that happens: its kind, which task (modulo what is there), and a share in 0..3."""

    kind: str
    which: int
    share: int


#: how often each kind of move is tried
WEIGHTS = {
    "start": 3,
    "begin": 12,
    "ok": 10,
    "error": 5,
    "permanent": 2,
    "timed_out": 2,
    "lose": 4,
    "give_back": 2,
    "stale": 3,
    "note": 2,
    "wait": 5,
    "pause": 1,
    "resume": 2,
    "cancel": 1,
    "time_out": 1,
    "miss_sla": 1,
    "retry_task": 4,
    "retry_failed": 1,
    "skip": 3,
    "restart": 1,
}
_kinds = st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)])


def histories(size_max: int = 60) -> st.SearchStrategy[list[Move]]:
    """Moves in the order in which they are tried."""
    return st.lists(st.builds(Move, _kinds, st.integers(0, 20), st.integers(0, 3)), max_size=size_max)


RUN_WORDS = ("queued", "running", "paused", "succeeded", "failed", "timed_out", "cancelled")


def observations(windows: int) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    """What is seen of a backfill's windows: in any order, twice, late, with steps left out; "" = cancel."""
    one = st.tuples(st.integers(1, windows).map(lambda n: f"c{n}"), st.sampled_from(RUN_WORDS))
    return st.lists(st.one_of(st.lists(one, min_size=1, max_size=4), st.just([("", "")])), max_size=25)
