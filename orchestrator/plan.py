"""What a trigger would do, window by window, before anything is done.

    run of the window    reprocess none   failed            completed
    none                 create           create            create
    active               adopt            adopt             adopt
    succeeded            skip             skip              restart
    failed, timed_out,   skip             restart           restart
    cancelled

`adopt` keeps a run as it is, like `skip`, but the backfill waits for it. The difference passes by itself when
that run ends, so the counts of a dry run and the plan hash know only create, restart and skip: create +
restart + skip = total, and a plan stays valid while what it would do stays the same.
Source: contracts/dags.md, "reprocess", "Dry run", example 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.definition import Definition, Window
from orchestrator.graph import generations
from orchestrator.run_state import ENDED, RunState
from orchestrator.starts import Plan, PlannedWindow, Trigger

#: reprocess -> core states of runs that it restarts
RESTARTS: Mapping[str, frozenset[RunState]] = {
    "none": frozenset(),
    "failed": frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED}),
    "completed": ENDED,
}
_canonical = msgspec.json.Encoder(order="sorted").encode


def plan(
    definition: Definition,
    version: int,
    trigger: Trigger,
    windows: Sequence[Window],
    existing: Mapping[str, tuple[str, str]],
    widens: str = "",
) -> Plan:
    """The plan of a backfill over `windows` (by date), of the windows that make `widens` wider, or of a manual run
    with one window or none.

    `existing` maps window keys to (run id, core state) of the runs that stand for them. The plan lists windows
    by date; `start_order` says in which order they start.
    """
    planned = tuple(plan_window(window, existing.get(window.key()), trigger.reprocess) for window in windows)
    return Plan(
        dag_id=definition.dag_id,
        run_type=trigger.run_type,
        plan_hash=plan_hash(definition.dag_id, version, trigger, planned, widens),
        windows=planned,
        counts=_counts(planned) if windows or widens else {"total": 1, "create": 1, "restart": 0, "skip": 0},
        task_groups=generations(definition.tasks),
    )


def plan_window(window: Window, existing: tuple[str, str] | None, reprocess: str) -> PlannedWindow:
    """What to do about one window, given the (run id, core state) that stands for it, if any."""
    if existing is None:
        return PlannedWindow(window, "create")
    run_id, state = existing
    if state not in ENDED:
        return PlannedWindow(window, "adopt", run_id)
    return PlannedWindow(window, "restart" if state in RESTARTS[reprocess] else "skip", run_id)


def plan_hash(dag_id: str, version: int, trigger: Trigger, planned: Iterable[PlannedWindow], widens: str = "") -> str:
    """`sha256:<hex>` over everything that makes one plan differ from another; `widens` is the backfill made wider."""
    content: dict[str, Any] = {
        "dag_id": dag_id,
        "version": version,
        "from": trigger.start,
        "to": trigger.end,
        "reprocess": trigger.reprocess,
        "run_backwards": trigger.run_backwards,
        "windows": [_hashed(w) for w in planned],
    }
    if widens:
        content["widens"] = widens
    return "sha256:" + hashlib.sha256(_canonical(content)).hexdigest()


def start_order(planned: Sequence[PlannedWindow], run_backwards: bool) -> tuple[PlannedWindow, ...]:
    """Windows given by date, in the order in which they are to start."""
    return tuple(reversed(planned)) if run_backwards else tuple(planned)


def _counts(planned: Sequence[PlannedWindow]) -> dict[str, int]:
    done = [_done(window) for window in planned]
    return {"total": len(done), **{action: done.count(action) for action in ("create", "restart", "skip")}}


def _hashed(planned: PlannedWindow) -> tuple[str, ...]:
    window = planned.window
    of = (window.partition,) if window.partition else (window.start, window.end)
    return (*of, _done(planned))


def _done(window: PlannedWindow) -> str:
    return "skip" if window.action == "adopt" else window.action
