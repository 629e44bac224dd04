"""Random definitions, histories and commands, in one place.

A history is a list of `Move`s that carry plain numbers: which task, which of the possible ways. Whoever plays them
maps the numbers onto what is there, so every list is playable and shrinks well.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import msgspec
from hypothesis import strategies as st

from orchestrator.definition import Definition, TaskSpec, TriggerRule

TASKS_MAX = 7


@st.composite
def definitions(
    draw: st.DrawFn, tasks_min: int = 0, tasks_max: int = TASKS_MAX, ruled: bool | None = None, mapped: bool = False
) -> Definition:
    """A DAG whose tasks depend on some of those before them, by whatever rule; some are branches, teardowns or
    compensations.
    """
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
    if draw(st.booleans()) if ruled is None else ruled:
        tasks = draw(_ruled(tasks))
    if mapped:
        tasks = draw(_mapped(tasks))
    return Definition(dag_id="d", owner="team", tasks=tuple(tasks), run_timeout_s=limit)


@st.composite
def _ruled(draw: st.DrawFn, tasks: list[TaskSpec]) -> list[TaskSpec]:
    """The same with rules, branches, compensations and one or two teardowns of what anything may come between."""
    out = []
    for task in tasks:
        rule, branch = draw(st.sampled_from(get_args(TriggerRule))), draw(st.integers(0, 3)) == 0
        out.append(msgspec.structs.replace(task, trigger_rule=rule, branch=branch))
    for n in range(draw(st.integers(0, 2)) if out else 0):
        setups = draw(st.sets(st.sampled_from(range(len(tasks))), min_size=1, max_size=2))
        for i in setups:
            out[i] = msgspec.structs.replace(out[i], branch=False)
        above = draw(st.sets(st.sampled_from(range(len(tasks))), max_size=3))
        out.append(
            TaskSpec(
                id=f"down{n}",
                depends_on=tuple(f"t{i}" for i in sorted(above)),
                teardown_of=tuple(f"t{i}" for i in sorted(setups)),
                on_failure_fail_run=draw(st.booleans()),
                retries=draw(st.integers(0, 1)),
            )
        )
    for n, i in enumerate(sorted(draw(st.sets(st.sampled_from(range(len(tasks))), max_size=3)) if tasks else ())):
        out.append(TaskSpec(id=f"undo{n}", compensates=f"t{i}", retries=draw(st.integers(0, 1))))
    return out


@st.composite
def _mapped(draw: st.DrawFn, tasks: list[TaskSpec]) -> list[TaskSpec]:
    """The same with some of them mapped, over what one of their dependencies returns or over what is known."""
    out = []
    for task in tasks:
        if task.branch or task.teardown_of or task.compensates or draw(st.integers(0, 2)) == 0:
            out.append(task)
            continue
        known = [["a", {"b": 1}], [], {"$param": "p", "default": [1, 2, 3]}]
        source = draw(st.sampled_from([*task.depends_on, *task.depends_on, *known]))
        out.append(
            msgspec.structs.replace(
                task,
                expand={"item": source},
                max_active=draw(st.sampled_from([None, 1, 2])),
                tolerated_failures=draw(st.sampled_from([0, 0, 1, "50%", "100%"])),
            )
        )
    return out


@st.composite
def timed(draw: st.DrawFn, of: st.SearchStrategy[Definition]) -> Definition:
    """The same with SLAs and limits on waiting for some of the tasks, and perhaps for the run."""
    definition = draw(of)
    tasks = []
    for task in definition.tasks:
        sla_s = draw(st.sampled_from([None, 3, 20, 60]))
        actions = draw(st.sampled_from([("mark",), ("event",), ("mark", "cancel")]))
        wait_s = draw(st.sampled_from([None, None, 3.0, 30.0]))
        if task.expand:
            actions, wait_s = ("mark",), None
        tasks.append(msgspec.structs.replace(task, sla_s=sla_s, on_sla_miss=actions, queue_timeout_s=wait_s))
    limit = draw(st.sampled_from([None, None, 20.0]))
    on_miss = draw(st.sampled_from([("mark",), ("mark", "cancel")]))
    return msgspec.structs.replace(definition, tasks=tuple(tasks), queue_timeout_s=limit, on_sla_miss=on_miss)


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
    "pass": 3,
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
