"""A run's history against the rules (I1, I2, I3, I5, I6, I7, I12 of `invariants.py`), event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from orchestrator import events as e
from orchestrator.definition import WAITING_TYPES, Conduct, Definition, TaskSpec
from tests.history_checks import check_batch, check_end_of_map, check_expansion, check_wait_ends
from tests.rule_oracle import BAD, GOOD, OPEN, SKIPPED, STARTS, TASK_TERMINAL, UPSTREAM_FAILED, WAITS, becomes, seen

TERMINAL_EVENTS: Mapping[type[e.Event], str] = {
    e.RunSucceeded: "succeeded",
    e.RunFailed: "failed",
    e.RunTimedOut: "timed_out",
    e.RunCancelled: "cancelled",
}
RUN_TERMINAL = frozenset(TERMINAL_EVENTS.values())

DONE = frozenset({"succeeded", "skipped"})
#: not started, or between two attempts
OPEN_TASKS = frozenset({"pending", "retrying", "suspended"})
#: a compensation in one of these has not been tried
KEPT = frozenset({"cancelled", "upstream_failed"})
#: a retry may start this much before it is due: clocks of different processes differ
EARLY = timedelta(milliseconds=50)


def host_of(name: str) -> str:
    """The map of an instance."""
    return name[: name.index("[")]


DefinitionOf = Callable[[int], Definition]


class History:
    """A run's events as they are read, one at a time, against the rules. Feed it in order."""

    def __init__(self, definition_of: DefinitionOf, early: timedelta = EARLY) -> None:
        self._definition_of = definition_of
        self._early = early
        self.run_id = ""
        self.version = 0
        self.state = ""
        self.attempts = 0
        self.tasks: dict[str, str] = {}
        #: who skipped a task, of those that are skipped
        self.by: dict[str, str] = {}
        self.specs: dict[str, TaskSpec] = {}
        self.needs: dict[str, set[str]] = {}
        #: task -> attempt that was started last, over all lives of the run
        self.started: dict[str, int] = {}
        #: (task, attempt) whose result was accepted -> events that did
        self.accepted: dict[tuple[str, int], int] = {}
        self.due: dict[str, e.TaskRetrying | e.TaskSuspended] = {}
        #: task that has succeeded -> version with which it did
        self.done: dict[str, int] = {}
        #: task -> what it waited for last
        self.waits: dict[str, e.Wait] = {}
        #: (task, attempt) -> voter -> choice
        self.votes: dict[tuple[str, int], dict[str, str]] = {}
        #: name -> numbers of signals that nobody has taken
        self.signals: dict[str, list[int]] = {}
        #: task -> signal that it took and has not ended with yet
        self.taken: dict[str, int] = {}
        self.restarts = 0
        #: it took too long: only teardowns go on
        self.overdue = False
        #: was the run admitted, or revived by hand, when it started last?
        self.admitted = False
        self.dag_version = 0
        #: its caller drives it: it does not end with its tasks
        self.driven = False
        #: of a plan: how it is worked through, and the tasks that the present batch still has to do
        self.conduct: Conduct | None = None
        #: mapped task -> how many instances it has now; None = it cannot be mapped over what it was given
        self.maps: dict[str, int | None] = {}
        self.tolerates: dict[str, set[str]] = {}
        self.batch: set[str] = set()
        self.iteration = 0
        #: tasks that failed and are to be tried again
        self.failed: set[str] = set()
        #: tasks that somebody else did
        self.marked: set[str] = set()
        #: when it was queued last; SLAs told since ("" = of the run, over all its lives), and tasks reset after theirs
        self.queued_at = datetime.max
        self.missed: set[str] = set()
        self.forgiven: set[str] = set()
        #: task -> since when it could start and did not
        self.ready_since: dict[str, datetime] = {}

    def feed(self, event: e.Event) -> None:
        """One more event."""
        self._feed(event)
        if any(spec.queue_timeout_s for spec in self.specs.values()):
            self._note_ready(event)

    def _feed(self, event: e.Event) -> None:
        self.version += 1
        if isinstance(event, e.CheckpointPosted):
            return  # by whoever follows the run, whatever state it is in
        if self.state in RUN_TERMINAL:
            again = isinstance(event, e.RunRestarted | e.RunRevived)
            by_hand = self.conduct is not None and isinstance(event, e.TaskSkipped | e.TaskReset | e.TaskMarked)
            assert again or by_hand, f"I1 {self.run_id}: {event} after {self.state}"
        match event:
            case e.RunCreated():
                assert self.version == 1, f"I5 {self.run_id}: created twice"
                self.run_id, self.state = event.run_id, "queued"
                self._fresh(event.dag_version)
                self.queued_at = event.at
            case e.RunStarted():
                assert self.state == "queued", f"I1 {self.run_id}: started while {self.state}"
                self._count_start(event.attempt)
                self.state, self.admitted = "running", True
            case e.RunRevived():
                assert self.state in RUN_TERMINAL, f"I1 {self.run_id}: revived while {self.state}"
                self._count_start(event.attempt)
                self.state, self.admitted = "running", False
            case e.RunRestarted():
                assert self.state in RUN_TERMINAL, f"I1 {self.run_id}: restarted while {self.state}"
                self.state = "queued"
                self.restarts += 1
                self._fresh(event.dag_version)
                self.queued_at = event.at
            case e.RunPaused():
                assert self.state == "running", f"{self.run_id}: paused while {self.state}"
                self.state = "paused"
            case e.RunResumed():
                assert self.state == "paused", f"{self.run_id}: resumed while {self.state}"
                self.state = "running"
            case e.SlaMissed():
                self._check_miss(event)
            case e.SignalReceived():
                assert self.state not in RUN_TERMINAL, f"I1 {self.run_id}: signalled while {self.state}"
                self.signals.setdefault(event.name, []).append(event.number)
            case e.RunOverdue():
                assert self.state in ("running", "paused"), f"{self.run_id}: overdue while {self.state}"
                self.state, self.overdue = "running", True
            case e.RunCancelling():
                assert self.state in ("running", "paused"), f"{self.run_id}: cancelling while {self.state}"
                if self.state == "paused":
                    self.batch = {name for name in self.batch if self.tasks[name] == "running"}
                self.state = "cancelling"
            case e.RunCompensating():
                owed = [name for name in self._undoing() if self.tasks[name] == "pending"]
                assert list(event.tasks) == owed, f"I3 {self.run_id}: {event.tasks} compensate, {owed} is owed"
            case e.BatchFormed():
                check_batch(self, event)
                self.batch, self.iteration = set(event.tasks), event.iteration
                self.failed -= self.batch
            case _ if type(event) in TERMINAL_EVENTS:
                self.state = TERMINAL_EVENTS[type(event)]
                self._check_verdict(event)
            case _:
                self._feed_task(event)

    def _fresh(self, dag_version: int) -> None:
        definition = self._definition_of(dag_version)
        self.dag_version = dag_version
        self.driven = definition.driven_ttl_s is not None
        self.tasks = {task.id: "pending" for task in definition.tasks}
        self.specs = {task.id: task for task in definition.tasks}
        undone = {task.compensates: task.id for task in definition.tasks if task.compensates is not None}
        self.needs = {t.id: {*t.depends_on, *t.inputs.values(), *t.teardown_of} for t in definition.tasks}
        for name, compensation in undone.items():
            self.needs[compensation].add(name)
        scopes = {task.id: self._between(task.id, task.teardown_of) for task in definition.tasks if task.teardown_of}
        for name, between in scopes.items():
            self.needs[name] |= between
            self.needs[name] |= {undone[each] for each in (*between, *self.specs[name].teardown_of) if each in undone}
        self.tolerates = {task.id: set(task.tolerates) for task in definition.tasks}
        self.conduct = definition.conduct
        self.by.clear()
        self.due.clear()
        self.maps.clear()
        self.signals.clear()
        self.missed &= {""}
        self.forgiven.clear()

    def sla_of(self, name: str) -> datetime | None:
        """The deadline of a task."""
        sla_s = self.specs[name].sla_s
        return None if sla_s is None else self.queued_at + timedelta(seconds=sla_s)

    def overdue_slas(self, now: datetime) -> set[str]:
        """Tasks that are late and have not been told of."""
        found = set()
        for name, state in self.tasks.items():
            deadline = self.sla_of(name)
            known = name in self.missed or name in self.forgiven
            if deadline is not None and deadline <= now and state not in TASK_TERMINAL and not known:
                found.add(name)
        return found

    def _check_miss(self, event: e.SlaMissed) -> None:
        where, name = f"SLA {self.run_id}/{event.task}", event.task or ""
        assert self.state not in RUN_TERMINAL, f"{where}: told after the end"
        assert name not in self.missed, f"{where}: told twice"
        assert event.deadline <= event.at, f"{where}: told too early"
        if name:
            assert event.deadline == self.sla_of(name), f"{where}: {event.deadline}, should be {self.sla_of(name)}"
            assert name in self.overdue_slas(event.at), f"{where}: it is {self.tasks[name]}"
        self.missed.add(name)

    def _note_ready(self, event: e.Event) -> None:
        """Who could start now and is not begun; looked at after every event, for all."""
        if isinstance(event, e.RunResumed | e.RunStarted | e.RunRevived):
            self.ready_since.clear()
        for name, state in self.tasks.items():
            since = max(self._due_at(name), event.at) if state in ("retrying", "suspended") else event.at
            if state not in OPEN_TASKS or self.state not in ("running", "paused") or not self.ready(name):
                self.ready_since.pop(name, None)
            elif self.state == "running":
                at = max(since, event.at) if isinstance(event, e.RunResumed | e.RunRevived) else since
                self.ready_since.setdefault(name, at)

    def _due_at(self, name: str) -> datetime:
        parked = self.due[name]
        return parked.until if isinstance(parked, e.TaskSuspended) else parked.due

    def queued_too_long(self, now: datetime) -> set[str]:
        """Tasks that have waited longer for a worker than they may."""
        limits = {name: spec.queue_timeout_s for name, spec in self.specs.items() if spec.queue_timeout_s is not None}
        waits = {name: now - since for name, since in self.ready_since.items() if name in limits}
        return {name for name, waited in waits.items() if waited >= timedelta(seconds=limits[name])}

    def _check_too_late(self, event: e.TaskFailed, where: str) -> None:
        """It ended without a report."""
        before = self.tasks[event.task]
        assert event.timed_out, f"{where}: {event} is no time-out"
        assert before not in TASK_TERMINAL, f"I1 {where}: {event} while {before}"
        if event.reason == "sla":
            assert event.task in self.missed, f"{where}: cancelled before its SLA was missed"
            assert "cancel" in self.specs[event.task].on_sla_miss, f"{where}: cancelled although nobody asked"
        else:
            assert event.task in self.queued_too_long(event.at), f"{where}: {self.ready_since} at {event.at}"

    def _count_start(self, attempt: int) -> None:
        assert attempt == self.attempts + 1, f"{self.run_id}: start {attempt} after {self.attempts}"
        self.attempts = attempt
        self.overdue = False

    def _above(self, name: str) -> set[str]:
        return {above for parent in self.needs[name] for above in (parent, *self._above(parent))}

    def _between(self, name: str, setups: Iterable[str]) -> set[str]:
        """What comes after one of `setups` and before the task."""
        return {above for above in self._above(name) if self._above(above) & set(setups)}

    def _advancing(self) -> list[str]:
        """States of the tasks that are neither teardowns nor compensations; instances of maps do not count."""
        return [state for name, state in self.tasks.items() if not name.endswith("]") and not self._cleans_up(name)]

    def _undone(self, name: str) -> bool:
        """Is there something that this compensation undoes?"""
        return self.tasks[self.specs[name].compensates or ""] == "succeeded"

    def is_wanted(self, name: str) -> bool:
        """Is the task to be done, as far as can be told now? A compensation is once it is owed."""
        return self.specs[name].compensates is None or name in self._undoing()

    def _undoing(self) -> list[str]:
        """Compensations of what has succeeded, the last first; none unless all else has ended, and not well."""
        states = set(self._advancing())
        well = self.state != "cancelling" and not self.overdue and not states & {"failed", "timed_out"}
        if states - TASK_TERMINAL or well:
            return []
        undone = {name: task.compensates for name, task in self.specs.items() if task.compensates is not None}
        return sorted(filter(self._undone, undone), key=lambda name: self.done[undone[name]], reverse=True)

    def _compensates(self, name: str) -> str:
        """What becomes of a compensation."""
        undoing = self._undoing()
        if name in undoing:
            before = {self.tasks[other] for other in undoing[: undoing.index(name)]}
            beside = {self.tasks[other] for other in undoing} & {"running", "retrying"}
            waits = before - TASK_TERMINAL or (beside and self.tasks[name] == "pending")
            return WAITS if waits else STARTS
        return WAITS if set(self._advancing()) - TASK_TERMINAL else SKIPPED

    def _ruling(self, name: str) -> str:
        """What its trigger rule makes of a task of a DAG."""
        if name.endswith("]"):
            host = self.tasks[host_of(name)]
            return {"running": STARTS, "skipped": SKIPPED, "upstream_failed": UPSTREAM_FAILED}.get(host, WAITS)
        if self.specs[name].compensates is not None:
            return self._compensates(name)
        ends = [seen(self.tasks[parent], self.by.get(parent, "")) for parent in sorted(self.needs[name])]
        setups = [seen(self.tasks[setup], self.by.get(setup, "")) for setup in self.specs[name].teardown_of]
        if not setups:
            return becomes(self.specs[name].trigger_rule, ends)
        if OPEN in ends:
            return WAITS
        return STARTS if GOOD in setups else UPSTREAM_FAILED if BAD in setups else SKIPPED

    def decides(self, name: str) -> bool:
        """Does its failure fail the run?"""
        return (not name.endswith("]") and not self.specs[name].teardown_of) or self.specs[name].on_failure_fail_run

    def ready(self, name: str) -> bool:
        """Does its rule hold; of a plan: is every dependency done, or one whose failure does not matter?"""
        if self.conduct is None:
            return self._ruling(name) == STARTS
        given_up = {"failed", "timed_out", "upstream_failed"}
        return all(
            self.tasks[parent] in DONE or (parent in self.tolerates[name] and self.tasks[parent] in given_up)
            for parent in self.needs[name]
        )

    def its_turn(self, name: str) -> bool:
        """Have all members of its sequences before it ended?"""
        assert self.conduct is not None
        before = (s[: s.index(name)] for s in self.conduct.sequences if name in s)
        return all(self.tasks[other] in TASK_TERMINAL for members in before for other in members)

    def _feed_task(self, event: e.Event) -> None:
        self._feed_task_itself(event)
        if self.conduct is None:
            return
        name: str = event.task  # type: ignore[attr-defined]  # every other event is about a task
        again = isinstance(event, e.TaskRetrying) and not event.lost
        self.failed.discard(name)
        if again:
            self.failed.add(name)
        if again or self.tasks[name] in TASK_TERMINAL:
            self.batch.discard(name)
        self.batch = {n for n in self.batch if self.tasks[n] == "running" or (self.ready(n) and self.its_turn(n))}

    def _feed_task_itself(self, event: e.Event) -> None:
        name: str = event.task  # type: ignore[attr-defined]  # every other event is about a task
        where = f"{self.run_id}/{name} at version {self.version}"
        before = self.tasks[name]
        match event:
            case e.TaskExpanded():
                check_expansion(self, event, where)
                self._expand(event)
            case e.TaskStarted():
                assert not self.specs[name].expand, f"{where}: a map was started"
                self._check_start(event, where)
                self.tasks[name] = "running"
                self.started[name] = event.attempt
            case e.TaskFailed(reason="sla" | "queued"):
                self._check_too_late(event, where)
                self.tasks[name] = "timed_out"
            case e.TaskWaiting():
                self._check_start(event, where)
                assert self.specs[name].type in WAITING_TYPES, f"I3 {where}: waits, and is a {self.specs[name].type}"
                self.tasks[name], self.waits[name] = "waiting", event.wait
                self.started[name] = event.attempt
            case e.TaskSuspended():
                assert (before, self.started[name]) == ("running", event.attempt), f"I12 {where}: {event}"
                self.tasks[name], self.due[name] = "suspended", event
            case e.TaskSucceeded(cached=e.CachedFrom()):
                self._check_start(event, where)
                of = self.specs[name.partition("[")[0]]
                assert of.cache_ttl_s is not None, f"I3 {where}: its result is not kept"
                assert (event.attempt, name in self.started) == (1, False), f"I2 {where}: {event}, it is computed"
                self.tasks[name], self.started[name], self.done[name] = "succeeded", 1, self.version
                self.accepted[name, 1] = 1
            case e.TaskSucceeded() | e.TaskFailed() if before == "waiting":
                check_wait_ends(self, event, where)
                self.tasks[name] = _AFTER_RESULT[type(event)]
                self.done[name] = self.version
                self.accepted[name, event.attempt] = 1
                if isinstance(event, e.TaskFailed) and event.timed_out:
                    self.tasks[name] = "timed_out"
            case e.TaskSucceeded() | e.TaskRetrying() | e.TaskFailed() | e.TaskReturned():
                assert before == "running", f"I12 {where}: {event} while {before}"
                assert event.attempt == self.started[name], f"I12 {where}: {event}, current is {self.started[name]}"
                if not isinstance(event, e.TaskReturned):
                    key = (name, event.attempt)
                    self.accepted[key] = self.accepted.get(key, 0) + 1
                    assert self.accepted[key] == 1, f"I2 {where}: two results of attempt {event.attempt}"
                if self.specs[name].expand:
                    check_end_of_map(self, event, where)
                self.tasks[name] = _AFTER_RESULT[type(event)]
                self.done[name] = self.version
                if isinstance(event, e.TaskFailed) and event.timed_out:
                    self.tasks[name] = "timed_out"
                if isinstance(event, e.TaskRetrying):
                    self.due[name] = event
            case e.VoteCast():
                assert (before, self.started[name]) == ("waiting", event.attempt), (
                    f"I12 {where}: {event} while {before}"
                )
                assert event.at < self.waits[name].until, f"I12 {where}: {event} after its expiry"
                self.votes.setdefault((name, event.attempt), {})[event.by] = event.choice
            case e.VoteRefused():
                assert before != "waiting" or event.attempt < self.started[name] or event.at >= self.waits[name].until
            case e.SignalConsumed():
                assert (before, self.started[name]) == ("waiting", event.attempt), f"I12 {where}: {event}"
                first = self.signals.get(event.name, [])[:1]
                assert first == [event.number], f"{where}: takes signal {event.number}, the next is {first}"
                self.signals[event.name].pop(0)
                self.taken[name] = event.number
            case e.TaskCheckpointed() | e.TaskProgressed() | e.ToolStarted() | e.ToolCompleted() | e.ValuePublished():
                assert (before, self.started[name]) == ("running", event.attempt), f"I12 {where}: {event}"
            case e.TaskSkipped():
                done = ("succeeded",) if self.conduct else ("succeeded", "cancelled")
                assert before not in done, f"I1 {where}: skipped while {before}"
                self._check_skip(event, before, where)
                self.tasks[name], self.by[name] = "skipped", event.by
            case e.TaskCancelled():
                assert before not in TASK_TERMINAL, f"I1 {where}: cancelled while {before}"
                self.tasks[name] = "cancelled"
            case e.TaskUpstreamFailed():
                if self.conduct is None:
                    assert before in OPEN_TASKS, f"{where}: upstream failed while {before}"
                    assert self._ruling(name) == UPSTREAM_FAILED, f"I3 {where}: {self._ruling(name)}"
                else:
                    assert before == "pending", f"{where}: upstream failed while {before}"
                    broken = {self.tasks[parent] for parent in self.needs[name] - self.tolerates[name]}
                    assert broken & {"failed", "timed_out", "upstream_failed"}, f"{where}: nothing upstream failed"
                self.tasks[name] = "upstream_failed"
            case e.TaskReset():
                resettable = {*TASK_TERMINAL - DONE, *(("skipped", "retrying") if self.conduct else ())}
                if self.by.get(name) == "rule":
                    resettable.add("skipped")
                if any(name in {task.id, *task.teardown_of} for task in self.specs.values() if task.teardown_of):
                    resettable.add("succeeded")  # set up, or torn down, again
                if self.specs[name].expand:
                    resettable.add("succeeded")  # one of its instances goes on
                if event.lost:
                    resettable = {"succeeded"}  # its value is gone
                if name.endswith("]"):
                    resettable |= {"succeeded", "skipped"} if self._sets_up(host_of(name)) else set()
                    resettable |= {"skipped"} if self.by.get(name) == "map" else set()
                undone = {task.id: task.compensates for task in self.specs.values() if task.compensates is not None}
                if name in undone or name in undone.values():
                    resettable |= {"succeeded", *(("skipped",) if name in undone else ())}  # done again
                assert before in resettable, f"I1 {where}: reset while {before}"
                deadline = self.sla_of(name)
                if deadline is not None and deadline <= event.at:
                    self.forgiven.add(name)
                self.tasks[name] = "pending"
            case e.TaskMarked():
                assert self.conduct is not None, f"{where}: marked, in a run of no plan"
                assert before != "succeeded", f"I1 {where}: marked while {before}"
                self.tasks[name] = "succeeded"
                self.marked.add(name)
            case _:
                raise AssertionError(f"{where}: a run has no {event}")

    def _sets_up(self, name: str) -> bool:
        return any(name in task.teardown_of for task in self.specs.values())

    def instances(self, name: str) -> list[str]:
        """The instances that a map has now."""
        return [f"{name}[{index}]" for index in range(self.maps.get(name) or 0)]

    def has_room(self, name: str) -> bool:
        """Does the limit of its map let an instance start? Of any other task: yes."""
        if not name.endswith("]"):
            return True
        running = [one for one in self.instances(host_of(name)) if self.tasks[one] == "running"]
        limit = self.specs[host_of(name)].max_active
        return limit is None or len(running) < limit

    def _expand(self, event: e.TaskExpanded) -> None:
        name = event.task
        self.tasks[name], self.started[name] = "running", event.attempt
        if not event.kept:
            for one in self.instances(name):
                del self.tasks[one], self.specs[one], self.needs[one]
                self.by.pop(one, None)
            self.maps[name] = None if event.error else event.count
            for one in self.instances(name):
                self.tasks[one], self.needs[one] = "pending", set()
                self.specs[one] = TaskSpec(id=one, retries=self.specs[name].retries)

    def _check_skip(self, event: e.TaskSkipped, before: str, where: str) -> None:
        """Whoever skips it may."""
        match event.by:
            case "task":
                assert before in ("running", "waiting"), f"I12 {where}: skipped itself while {before}"
                if before == "waiting":
                    assert event.at >= self.waits[event.task].until, f"I3 {where}: given up before its time"
            case "branch":
                branches = [name for name in self.needs[event.task] if self.specs[name].branch]
                assert any(self.tasks[name] == "succeeded" for name in branches), f"{where}: no branch has ended"
                assert before in OPEN_TASKS, f"I1 {where}: skipped by a branch while {before}"
            case "map":
                assert self.tasks[host_of(event.task)] == "skipped", f"I3 {where}: skipped with its map, which is not"
            case "rule":
                assert before in (*OPEN_TASKS, "upstream_failed"), f"I1 {where}: ruled out while {before}"
                assert self._ruling(event.task) == SKIPPED, f"I3 {where}: {self._ruling(event.task)}"

    def _check_start(self, event: e.TaskStarted | e.TaskWaiting | e.TaskSucceeded, where: str) -> None:
        before = self.tasks[event.task]
        assert before in OPEN_TASKS, f"I2 {where}: started while {before}"
        assert event.attempt > self.started.get(event.task, 0), f"I2 {where}: attempt {event.attempt} again"
        winds_up = self.conduct is not None or self._cleans_up(event.task)
        last = winds_up and self.state == "cancelling"
        assert self.has_room(event.task), f"I7 {where}: started beside as many instances as its map may have"
        assert winds_up or not self.overdue, f"I3 {where}: started after the limit of its run"
        assert self.state == "running" or last, f"I3 {where}: started while the run is {self.state}"
        waits = {parent for parent in self.needs[event.task] if self.tasks[parent] not in DONE}
        assert self.ready(event.task), f"I3 {where}: started before {sorted(waits)}"
        if self.conduct is not None:
            assert event.task in self.batch, f"I3 {where}: started outside its batch {sorted(self.batch)}"
            sequences = [s for s in self.conduct.sequences if event.task in s]
            overlap = [n for s in sequences for n in s if n != event.task and self.tasks[n] == "running"]
            assert not overlap, f"I3 {where}: started beside {overlap}, which is of its sequence"
            assert self.its_turn(event.task), f"I3 {where}: started out of its sequence"
        if before in ("retrying", "suspended"):
            due = self._due_at(event.task)
            assert event.at >= due - self._early, f"I3 {where}: retried at {event.at}, due at {due}"

    def _cleans_up(self, name: str) -> bool:
        """Is it a teardown or a compensation?"""
        return bool(self.specs[name].teardown_of) or self.specs[name].compensates is not None

    def _check_verdict(self, event: e.Event) -> None:
        open_ = {name: state for name, state in self.tasks.items() if state not in TASK_TERMINAL}
        assert not open_, f"I6 {self.run_id}: {self.state} with {open_}"
        timed_out = isinstance(event, e.RunTimedOut | e.RunCancelled)
        assert timed_out or not self.overdue, f"I6 {self.run_id}: {self.state} after it was overdue"
        if isinstance(event, e.RunSucceeded):
            bad = {name: state for name, state in self.tasks.items() if state not in DONE and self.decides(name)}
            assert not bad, f"I6 {self.run_id}: succeeded with {bad}"
        if set(self._advancing()) & {"failed", "timed_out", "cancelled"}:
            undone = [name for name, task in self.specs.items() if task.compensates is not None and self._undone(name)]
            ways = {name: f"{self.tasks[name]} {self.by.get(name, '')}".strip() for name in undone}
            kept = {name: way for name, way in ways.items() if way == "skipped rule" or self.tasks[name] in KEPT}
            assert not kept, f"I6 {self.run_id}: {self.state} without {kept}"
        gave_up = isinstance(event, e.RunFailed) and event.reason == "max_iterations"
        if gave_up:
            assert self.conduct is not None, f"{self.run_id} counts no batches"
            assert self.iteration == self.conduct.max_iterations, f"{self.run_id} gave up after {self.iteration}"
        if isinstance(event, e.RunFailed) and not self.driven and not gave_up:
            failed = [name for name, state in self.tasks.items() if state in ("failed", "timed_out")]
            assert any(map(self.decides, failed)), f"I6 {self.run_id}: failed without a failed task"

    def rest(self) -> None:
        """At rest, that is between two commits, a started run whose tasks have all ended has ended too (I6)."""
        if self.state in ("running", "paused") and not self.driven:
            assert set(self.tasks.values()) - TASK_TERMINAL, f"I6 {self.run_id}: {self.state}, all tasks ended"
        if self.conduct is None:
            waiting = [name for name, state in self.tasks.items() if state in OPEN_TASKS]
            lost = {name: self._ruling(name) for name in waiting if self._ruling(name) not in (STARTS, WAITS)}
            assert not lost, f"I3 {self.run_id}: waiting for ever: {lost}"
            if self.state in ("running", "paused") and not self.overdue:
                self._maps_rest()
            if self.state == "cancelling" or (self.overdue and self.state in ("running", "paused")):
                left = [name for name, state in self.tasks.items() if state not in TASK_TERMINAL]
                assert left, f"I6 {self.run_id}: {self.state}, all tasks ended"
                assert all(map(self._cleans_up, left)), f"I10 {self.run_id}: {left} still open"
        if self.conduct is not None and self.state in ("running", "cancelling"):
            assert self.batch, f"I9 {self.run_id}: {self.state} without a batch: {self.tasks}"

    def _maps_rest(self) -> None:
        for name in (name for name, spec in self.specs.items() if spec.expand):
            going = [one for one in self.instances(name) if self.tasks[one] not in TASK_TERMINAL]
            where = f"I9 {self.run_id}/{name}"
            assert self.tasks[name] != "running" or going, f"{where}: running with all instances ended"
            assert self.tasks[name] != "pending" or not self.ready(name), f"{where}: it could expand"
            assert self.tasks[name] not in TASK_TERMINAL or not going, f"{where}: ended before {going}"


_AFTER_RESULT = {
    e.TaskSucceeded: "succeeded",
    e.TaskRetrying: "retrying",
    e.TaskFailed: "failed",
    e.TaskReturned: "pending",
}
