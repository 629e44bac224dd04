"""Runs that a task starts: `core.dag` calls another DAG and waits, without a worker, for how that run ends.

    parent: pending ──waiting(call)──▶ waiting ──returned──▶ succeeded | failed       child: a run like any other
                           │                  ▲
                           └─ child starts ───┘ ends               (cancelled, timed out or skipped: so is the child)

The id of the child is in the parent's event, made there from parent, task and attempt, so a call that is carried out
twice starts one run. The journal knows whom each task of a run calls at present (`Append.calls`): it creates a child
only while that is so, cancels one that nobody waits for any more, and tells the parent of the child's end, each in the
step that makes it so. A retry of the task is another attempt, and calls anew.

A waiting parent keeps its place among the active runs of its DAG. So no DAG is called from below itself: its runs could
take all places, and each wait for one that gets none. What is written so is refused when it is deployed
(`serve_app/call_cycles.py`), what params make so when it is called; there DEPTH_MAX holds as well.

Two designs were open for who tells the parent. The child's owner could send mail, but whoever owns the parent may have
let go of it by then, and is not the child's to know. The journal, which moves the rows, already tells backfills of
their windows to whoever owns them, or wakes them; it tells callers the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from orchestrator import events as e
from orchestrator import ids, windows
from orchestrator.definition import Definition, Window
from orchestrator.errors import Invalid, PermanentFailure
from orchestrator.graph import compile_graph
from orchestrator.messages import Value
from orchestrator.run_state import Run
from orchestrator.wait_params import YEAR_S, problems

CALL = "core.dag"
#: runs that wait for each other, one called by the other
DEPTH_MAX = 8
#: bytes of a result that is made of several
RESULT_MAX = 65_536

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Return:
    """The run that a task called has ended, or cannot be started."""

    task: str
    attempt: int
    #: what it came to; None = it did not succeed
    value: Value | None = None
    error: str = ""


def wait_of(run: Run, position: int, params: Mapping[str, Any], now: datetime) -> e.Wait:
    """What the task at `position`, with these params, calls and waits for. Raises PermanentFailure."""
    for name, problem in problems(CALL, params):
        raise PermanentFailure(f"params.{name} {problem}")
    by = run.called_by
    chain = (*(by.chain if by is not None else ()), run.dag_id)
    if (endless := _endless(chain, params["dag_id"])) is not None:
        raise PermanentFailure(endless)
    name, attempt = run.compiled.specs[position].id, run.tasks[position].attempt + 1
    child = child_id(run.run_id, name, attempt, now)
    call = e.Call(child, params["dag_id"], params.get("params", {}), _window(run, params), chain, backfill_of(run))
    return e.Wait("run", now + timedelta(seconds=params.get("timeout_s", YEAR_S)), call=call)


def _endless(chain: tuple[str, ...], dag_id: str) -> str | None:
    """Why a call at the end of that chain is not made."""
    if dag_id in chain:
        path = " -> ".join((*chain[chain.index(dag_id) :], dag_id))
        return f"{path}: a run would wait for a run of its own DAG, which may wait for its place"
    if len(chain) > DEPTH_MAX:
        return f"{' -> '.join((*chain, dag_id))}: more than {DEPTH_MAX} calls deep"
    return None


def backfill_of(run: Run) -> str:
    """The backfill for which it runs, as a window of it or called by one; "" = none."""
    return run.parent or (run.called_by.backfill if run.called_by is not None else "")


def child_id(run_id: str, task: str, attempt: int, now: datetime) -> ids.RunId:
    """The id of the run that this attempt calls at `now`; it stands in lists where that says."""
    drawn = int.from_bytes(hashlib.sha256(f"{run_id}/{task}/{attempt}".encode()).digest()[:10], "big")
    return ids.run_id(int(now.timestamp() * 1000), drawn >> 64, drawn)


def _window(run: Run, params: Mapping[str, Any]) -> Window | None:
    """That of the caller, unless it gives another one, or none."""
    if "window" not in params:
        return run.window
    told = params["window"]
    try:
        return None if told is None else windows.manual_window(told["from"], told["to"])
    except Invalid as wrong:
        raise PermanentFailure(f"params.window: {wrong}") from None


def result_of(definition: Definition, history: Iterable[e.Event]) -> Value:
    """What a run that succeeded came to: the value of its only last task, else those of its last tasks by id.

    Of tasks that did not succeed there is none; a value that does not fit in makes all of it null.
    """
    told: dict[str, Value] = {}
    counts: dict[str, int] = {}
    for event in history:
        match event:
            case e.TaskSucceeded():
                told[event.task] = event.value or Value()
            case e.TaskExpanded():
                counts[event.task] = event.count
            case e.TaskReset() | e.TaskSkipped():
                told.pop(event.task, None)
            case e.RunRestarted():
                told.clear()
    last = last_tasks(definition)
    found = {name: _of_map(told, name, counts[name]) if name in counts else told[name] for name in last if name in told}
    if len(last) == 1:
        return found.get(last[0]) or Value()
    return _joined(found)


def last_tasks(definition: Definition) -> tuple[str, ...]:
    """Tasks that nothing comes after, but what cleans up."""
    tasks, graph = definition.tasks, compile_graph(definition.tasks)
    cleans = {i for i, task in enumerate(tasks) if task.teardown_of or task.compensates is not None}
    return tuple(task.id for i, task in enumerate(tasks) if i not in cleans and cleans.issuperset(graph.children[i]))


def _of_map(told: Mapping[str, Value], name: str, count: int) -> Value:
    """What its instances returned, in the order of the list."""
    each = [told.get(f"{name}[{index}]", Value()) for index in range(count)]
    return _fitting(each, msgspec.Raw(_encode([value.inline for value in each])))


def _joined(values: Mapping[str, Value]) -> Value:
    return _fitting(values.values(), msgspec.Raw(_encode({name: value.inline for name, value in values.items()})))


def _fitting(parts: Iterable[Value], whole: msgspec.Raw) -> Value:
    fits = len(bytes(whole)) <= RESULT_MAX and all(part.artifact is None for part in parts)
    return Value(whole, None, len(bytes(whole))) if fits else Value()


def called_in(history: Iterable[e.Event]) -> dict[str, e.Call]:
    """What each task called last, since the run was begun anew."""
    found: dict[str, e.Call] = {}
    for event in history:
        if isinstance(event, e.RunRestarted):
            found.clear()
        elif isinstance(event, e.TaskWaiting) and event.wait.call is not None:
            found[event.task] = event.wait.call
    return found


def callees_of(definition: Definition) -> tuple[str, ...]:
    """The DAGs that the definition says it calls."""
    named = (task.params.get("dag_id") for task in definition.tasks if task.type == CALL)
    return tuple(dict.fromkeys(name for name in named if isinstance(name, str)))
