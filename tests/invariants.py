"""What must hold whatever happens: named once, used by property, world, chaos and integration tests.

Everything here reads what the system wrote (events, rows) and knows the rules a second time, as plainly as
possible: states in dictionaries, no graph, no heap, none of the machines' code. A violation is an AssertionError
that begins with the invariant's name; `history_rules.py` raises those about one run's history. The list is in the
architecture, section 3:

    I1  nothing follows a terminal event, except an explicit retry or restart
    I2  at most one live attempt per task; attempts never repeat
    I3  a task starts only when its run is running and its trigger rule holds, and a retry not before it is due; it is
        skipped or given up only when its rule cannot hold any more, and then at once; of a cancelled run only teardowns
        and compensations start; compensations start when all else has ended, one after the other, and whose task
        succeeded last goes first; of a plan a task starts only in its batch, one batch after the other, and never
        beside or before who goes before it in a sequence; failed ones again when nothing else is ready
    I4  replay equals live
    I5  versions have no gap and no repeat
    I6  a run is terminal exactly when its tasks are (but people may change tasks of an ended plan by hand)
    I7  limits are never exceeded
    I8  a live state that waits on the world owes an effect
    I9  with idle capacity and ready work something starts within bounded time      (measured by who knows the workers)
    I10 cancel ends in a terminal state
    I11 a subscriber sees each event once, in order
    I12 a result of an old attempt has no effect
    I13 an accepted command survives                                                 (checked by who sent the command)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from orchestrator import codec, run_duties
from orchestrator import events as e
from orchestrator.backfill import Backfill
from orchestrator.conduct import Agenda
from orchestrator.mapped import Table
from orchestrator.rows import TASK_LETTERS, EventBatch, RunRow
from orchestrator.run_state import ENDED, Run, RunState, startable
from orchestrator.task import Task
from orchestrator.views import Frame
from orchestrator.waits import Standby
from tests.history_rules import RUN_TERMINAL, TERMINAL_EVENTS, DefinitionOf, History


def check_history(events: Iterable[e.Event], definition_of: DefinitionOf) -> History:
    """I1, I2, I3, I6, I12 over the whole life of a run."""
    history = History(definition_of)
    for event in events:
        history.feed(event)
    history.rest()
    return history


def check_versions(batches: Sequence[EventBatch]) -> list[e.Event]:
    """I5: the number of each batch is the number of events up to its end. All the events."""
    events: list[e.Event] = []
    for batch in batches:
        events += codec.decode_events(batch.events, batch.schema)
        assert batch.last_version == len(events), f"I5 {events[0]}: {batch.last_version} after {len(events)} events"
    return events


def check_row(row: RunRow, letters: Mapping[str, str], history: History) -> None:
    """What reads show is what the events say."""
    assert row.version == history.version, f"I5 {row.run_id}: row {row.version}, events {history.version}"
    assert row.state == history.state, f"I4 {row.run_id}: row {row.state}, events {history.state}"
    assert row.attempts == history.attempts, f"I4 {row.run_id}: row {row.attempts} attempts, events {history.attempts}"
    assert row.dag_version == history.dag_version, f"I4 {row.run_id}: row of version {row.dag_version}"
    told = {name: letters.get(name, "p") for name in history.tasks}
    counts = {name: letters.get(f"{name}[]", "0") for name in history.maps}
    assert counts == {name: str(n or 0) for name, n in history.maps.items()}, f"I4 {row.run_id}: {counts}"
    assert told == {name: TASK_LETTERS[state] for name, state in history.tasks.items()}, f"I4 {row.run_id}: {told}"
    if row.state in RUN_TERMINAL:
        assert row.owner == "", f"{row.run_id} is {row.state} and still owned by {row.owner}"
        assert row.finished_ms is not None, f"{row.run_id} is {row.state} without an end"


def check_backfill(events: Sequence[e.Event]) -> str:
    """I1 of a backfill; each change of a window begins where the one before ended. Its state at the end."""
    state = "queued"
    windows: dict[str, str] = {}
    for event in events[1:]:
        if state in RUN_TERMINAL:
            assert isinstance(event, e.RunRevived | e.RunRestarted), f"I1 backfill: {event} after {state}"
        match event:
            case e.RunStarted() | e.RunRevived():
                state = "running"
            case e.RunRestarted():
                state = "queued"
            case e.RunCancelling():
                state = "cancelling"
            case e.RunPaused():
                state = "paused"
            case e.RunResumed():
                state = "running"
            case e.WindowChanged():
                known = windows.get(event.child, event.before)
                assert known == event.before, f"I5 window {event.child}: {event.before} after {known}"
                windows[event.child] = event.after
            case _ if type(event) in TERMINAL_EVENTS:
                state = TERMINAL_EVENTS[type(event)]
                still = {child: word for child, word in windows.items() if word not in RUN_TERMINAL}
                assert not still, f"I6 backfill: {state} with {still}"
    return state


#: slots of a run that are compared part by part, or are queues that may hold more than counts
_APART = frozenset(
    (
        *("compiled_by_version", "compiled", "tasks", "ready", "due", "agenda"),
        *("maps", "unfolding", "standby", "lookups", "sla_seen", "in_line", "late", "homes"),
    )
)


def check_replay(live: Run, replayed: Run) -> None:
    """I4: every slot of the run and of each of its tasks."""
    for slot in Run.__slots__:
        if slot in _APART:
            continue
        assert getattr(live, slot) == getattr(replayed, slot), f"I4 {slot}"
    for slot in Agenda.__slots__ if live.agenda is not None else ():
        assert getattr(live.agenda, slot) == getattr(replayed.agenda, slot), f"I4 agenda.{slot}"
    for slot in ("definition", "version", "graph", "specs", "keys", "runnable"):
        assert getattr(live.compiled, slot) == getattr(replayed.compiled, slot), f"I4 compiled.{slot}"
    assert live.maps.keys() == replayed.maps.keys(), "I4 maps"
    for position, table in live.maps.items():
        for slot in set(Table.__slots__) - {"active", "waiting"}:
            assert getattr(table, slot) == getattr(replayed.maps[position], slot), f"I4 map.{slot}"
    assert (live.homes is None) == (replayed.homes is None), "I4 homes"
    if live.standby is not None or replayed.standby is not None:
        _check_standby(live, replayed)
    for name, mine, other in zip(live.compiled.graph.names, live.tasks, replayed.tasks, strict=True):
        for slot in Task.__slots__:
            assert getattr(mine, slot) == getattr(other, slot), f"I4 {name}.{slot}"
    assert _startable(live) == _startable(replayed), "I4 ready"
    assert _due(live) == _due(replayed), "I4 due"
    assert _waiting(live) == _waiting(replayed), "I4 waiting"
    assert run_duties.next_deadline(live) == run_duties.next_deadline(replayed), "I4 next deadline"


def _check_standby(live: Run, replayed: Run) -> None:
    mine, other = live.standby, replayed.standby
    assert mine is not None, "I4 standby"
    assert other is not None, "I4 standby"
    for slot in Standby.__slots__:
        if slot not in ("entering", "timers"):
            assert getattr(mine, slot) == getattr(other, slot), f"I4 standby.{slot}"
    opens = {(open_.wait.until, i, open_.attempt) for i, open_ in mine.open.items()}
    assert opens <= set(mine.timers), "I8 a wait without a timer"
    assert opens == set(other.timers), "I4 timers"
    assert not mine.timers or mine.timers[0] in opens, "a timer of nothing is next"
    assert _entering(live) == _entering(replayed), "I4 entering"


def _entering(run: Run) -> list[int]:
    entering = run.standby.entering if run.standby is not None else []
    return sorted({i for _, i in entering if startable(run, i)})


def _due(run: Run) -> list[tuple[datetime, int, int]]:
    """Without those that wait no longer, which a wake drops."""
    waiting = {
        (position, task.attempt) for position, task in enumerate(run.tasks) if task.state in ("retrying", "suspended")
    }
    return sorted({entry for entry in run.due if entry[1:] in waiting})


def _waiting(run: Run) -> dict[int, datetime]:
    """Without those that cannot start any more, which a look drops."""
    return {position: since for position, since in run.in_line.items() if startable(run, position)}


def _startable(run: Run) -> list[tuple[int, int]]:
    """Without instances of a map with a limit: which of them it offers first is nobody's business."""
    limited = {i for table in run.maps.values() if table.max_active is not None for i in table.positions}
    lookups = run.lookups  # what is looked up first, and whether it has been, is nobody's business either
    asked = (*lookups.wanted, *lookups.asked) if lookups is not None else ()
    ready = {*run.ready, *((-run.compiled.specs[i].priority, i) for i in asked)}
    return sorted({entry for entry in ready if startable(run, entry[1]) and entry[1] not in limited})


def check_replayed_backfill(live: Backfill, replayed: Backfill) -> None:
    """I4 for a backfill."""
    for slot in Backfill.__slots__:
        mine, other = getattr(live, slot), getattr(replayed, slot)
        if slot == "tallies":
            mine, other = ({k: n for k, n in each.items() if n} for each in (mine, other))
        assert mine == other, f"I4 {slot}"


def check_owed(run: Run) -> None:
    """I8: a run that has not ended waits for its admission or a resume, or the world owes it something."""
    effects = run_duties.owed(run)
    if run.state in ENDED:
        assert not effects, f"I8 {run.run_id} is {run.state} and is owed {effects}"
    elif run.state is RunState.RUNNING:
        waits = run.compiled.definition.driven_ttl_s == 0  # for its caller, for ever
        assert effects or waits, f"I8 nothing is owed to {run.run_id}: {[str(task.state) for task in run.tasks]}"


def check_sequence(seen: Sequence[int], first: int = 1) -> None:
    """I11: what a subscriber got, over all its reconnects."""
    assert list(seen) == list(range(first, first + len(seen))), f"I11 {seen}"


def check_instance_frames(frames: Sequence[Frame]) -> None:
    """What a follower of an instance is told is one story: each change begins where the one before ended."""
    words: dict[str, str] = {}
    state, phase, calls = "running", None, set()
    for frame in frames:
        told = (frame.data or {})["data"]
        match frame.kind:
            case "task_changed":
                name = told["task_id"]
                assert words.get(name, told["old_status"]) == told["old_status"], f"I11 {frame.seq}: {told}"
                words[name] = told["new_status"]
            case "phase_changed":
                assert phase in (None, told["old_phase"]), f"I11 {frame.seq}: {told} after {phase}"
                phase = told["new_phase"]
            case "orchestrator_state":
                assert told["old_state"] == state, f"I11 {frame.seq}: {told} after {state}"
                state = told["new_state"]
            case "tool_started":
                assert told["tool_id"] not in calls, f"I11 {frame.seq}: {told} again"
                calls.add(told["tool_id"])
            case "tool_completed":
                assert told["tool_id"] in calls, f"I11 {frame.seq}: {told} never started"
            case "status_updated":
                shown = {entry["id"]: entry["status"] for entry in told["tasks"]}
                wrong = {name: word for name, word in words.items() if shown[name] != word}
                assert not wrong, f"I11 {frame.seq}: {shown} where {wrong}"
