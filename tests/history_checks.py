"""What must be so at one event of a run, given its history so far: batches of plans, maps, waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import events as e
from tests.rule_oracle import TASK_TERMINAL

if TYPE_CHECKING:
    from tests.history_rules import History


def check_batch(history: History, event: e.BatchFormed) -> None:
    where = f"{history.run_id} batch {event.iteration}"
    assert history.conduct is not None, f"{where}: a run of no plan"
    assert history.state == "running", f"I3 {where}: formed while {history.state}"
    assert not history.batch, f"I3 {where}: formed before {sorted(history.batch)}"
    assert event.iteration == history.iteration + 1, f"{where} after {history.iteration}"
    limit = history.conduct.max_iterations
    assert not limit or event.iteration <= limit, f"I7 {where}: at most {limit}"
    assert 0 < len(event.tasks) <= history.conduct.batch_size, f"I7 {where}: {event.tasks}"
    states = {history.tasks[name] for name in event.tasks}
    assert states <= {"pending", "retrying"}, f"I2 {where}: {event.tasks} are {states}"
    again = {name in history.failed for name in event.tasks}
    assert len(again) == 1, f"{where}: {event.tasks} with and without failures"
    assert all(history.ready(n) and history.its_turn(n) for n in event.tasks), f"I3 {where}: {event.tasks} not ready"
    open_ = [n for n, s in history.tasks.items() if s in ("pending", "retrying") and n not in history.failed]
    waiting = [n for n in open_ if history.ready(n) and history.its_turn(n)]
    if again == {True}:
        assert not waiting, f"{where}: {event.tasks} again before {waiting}"
    else:
        free = min(history.conduct.batch_size, len(waiting))
        assert len(event.tasks) == free, f"I9 {where}: {event.tasks} of {waiting}"


def check_expansion(history: History, event: e.TaskExpanded, where: str) -> None:
    name = event.task
    assert history.specs[name].expand, f"{where}: no map"
    assert history.tasks[name] == "pending", f"I2 {where}: expanded while {history.tasks[name]}"
    assert event.attempt > history.started.get(name, 0), f"I2 {where}: expansion {event.attempt} again"
    assert history.state in ("running", "paused"), f"I3 {where}: expanded while the run is {history.state}"
    assert not history.overdue, f"I3 {where}: expanded after the limit of its run"
    assert history.ready(name), f"I3 {where}: expanded too early"
    assert not (event.error and event.count), f"{where}: {event}"
    if event.kept:
        assert history.maps[name] == event.count, f"{where}: {history.maps[name]} instances kept, now {event.count}"
    running = [one for one in history.instances(name) if history.tasks[one] == "running"]
    assert not running, f"I2 {where}: expanded beside {running}"


def check_end_of_map(history: History, event: e.Event, where: str) -> None:
    """It ends when all instances have, and fails when too many of them did."""
    name: str = event.task  # type: ignore[attr-defined]  # it is about a task
    ends = [history.tasks[one] for one in history.instances(name)]
    assert TASK_TERMINAL.issuperset(ends), f"I6 {where}: {event} with {ends}"
    assert not {"cancelled", "upstream_failed"} & set(ends), f"I6 {where}: {event} with {ends}"
    limit, failed = history.specs[name].tolerated_failures, ends.count("failed") + ends.count("timed_out")
    most = limit if isinstance(limit, int) else len(ends) * int(limit[:-1]) // 100
    fails = history.maps[name] is None or failed > most
    assert isinstance(event, e.TaskFailed if fails else e.TaskSucceeded), f"I6 {where}: {event} with {ends}"


def check_wait_ends(history: History, event: e.TaskSucceeded | e.TaskFailed, where: str) -> None:
    """By what it waited for, or by time, and then not before its time."""
    wait, key = history.waits[event.task], (event.task, event.attempt)
    assert event.attempt == history.started[event.task], f"I12 {where}: {event}"
    taken = history.taken.pop(event.task, None)
    if wait.kind == "signal" and taken is not None:
        return
    votes = list(history.votes.get(key, {}).values())
    if any(votes.count(choice) >= wait.quorum for choice in votes):
        return
    if wait.call is not None and (isinstance(event, e.TaskSucceeded) or not event.timed_out):
        return  # by the run that it called; tests/calls_world.py has that before it
    assert event.at >= wait.until, f"I3 {where}: ends at {event.at}, its time is {wait.until}"
