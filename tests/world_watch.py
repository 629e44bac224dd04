"""Who watches a world: reads the journal after every step that wrote, the workers all along, and everything at the end.

A violation is noted in `failures`; the world goes on, so that the first one can be told with its moment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from actors.names import WEBHOOKS
from orchestrator import codec, outside_codec
from orchestrator import events as e
from orchestrator.definition import WAITING_TYPES, Definition
from orchestrator.messages import Assignment, RunContext, Value
from orchestrator.streams import Letter, inbox
from tests.fakes_journal import MemoryJournal
from tests.history_rules import EARLY, TERMINAL_EVENTS, History
from tests.invariants import check_backfill, check_row, check_versions
from tests.virtual_time import START, WorldClock
from tests.world_cast import Supervisor, value_of
from tests.world_clients import TENANT
from tests.world_wire import Wire

#: virtual seconds a slot may be idle while a task or a run is ready, in fair and in foul weather
IDLE_CALM_S, IDLE_FOUL_S = 1.5, 20.0
LOOK_S = 0.25
#: states of a run that takes up room
ACTIVE = frozenset({"running", "paused", "cancelling"})
#: what ends the first wait of a run
_STARTS = (e.RunStarted, e.RunRestarted, e.RunRevived)


#: seconds until whoever admits windows has heard of another limit, whatever happens to the news
RECAP_S = 30.0


class Watcher:
    """Knows what must hold."""

    def __init__(
        self,
        journal: MemoryJournal,
        wire: Wire,
        clock: WorldClock,
        supervisor: Supervisor,
    ) -> None:
        self.journal = journal
        self.wire = wire
        self.clock = clock
        self.supervisor = supervisor
        self.failures: list[str] = []
        self.histories: dict[str, History] = {}
        #: run -> seconds when its first attempt began
        self.began_s: dict[str, float] = {}
        #: when something went wrong last: from then on time is counted
        self.troubled_s = 0.0
        self.idle_bound_s = IDLE_FOUL_S
        #: by how much a retry may come too early
        self.early = EARLY
        self._seen: dict[str, int] = {}
        #: backfills that were paused when last something was written
        self._paused: set[str] = set()
        #: backfill -> seconds since when at most so many of its windows run at a time, and how many
        self._capped: dict[str, tuple[float, int | None]] = {}
        self._idle_since: dict[str, float] = {}

    def written(self) -> None:
        """After every step that may have changed something: read what is new, against the rules."""
        for run_id, run in self.journal.runs.items():
            if self._seen.get(run_id, 0) == run.version:
                continue
            try:
                self._read_on(run_id)
            except AssertionError as broken:
                self.failures.append(str(broken))
        self._paused = {
            i for i, run in self.journal.runs.items() if (run.run_type, run.state) == ("backfill", "paused")
        }

    def _read_on(self, run_id: str) -> None:
        run = self.journal.runs[run_id]
        seen, self._seen[run_id] = self._seen.get(run_id, 0), run.version
        if run.run_type == "backfill":
            self._cap_of(run_id)
            return
        history = self.histories.get(run_id)
        if history is None:
            history = self.histories[run_id] = History(self._definition_of(run.dag_id), self.early)
        for batch in run.events:
            if batch.last_version <= seen:
                continue
            for event in codec.decode_events(batch.events, batch.schema):
                history.feed(event)
                if isinstance(event, e.RunStarted):
                    self._check_limits(run_id)
        assert history.version == run.version, f"I5 {run_id}: {history.version} events, version {run.version}"
        history.rest()

    def _definition_of(self, dag_id: str) -> Callable[[int], Definition]:
        dag = self.journal.dag_rows[TENANT, dag_id]
        return lambda version: codec.decode_definition(dag.definitions[version])

    def _check_limits(self, run_id: str) -> None:
        """I7: this run was admitted just now."""
        run = self.journal.runs[run_id]
        dag = self.journal.dag_rows[TENANT, run.dag_id]
        assert not dag.paused, f"I7 {run_id} started while {run.dag_id} is paused"
        active = [other for other, h in self.histories.items() if h.admitted and h.state in ACTIVE]
        mine = [other for other in active if self.journal.runs[other].dag_id == run.dag_id]
        limit = self._definition_of(run.dag_id)(dag.version).max_active_runs
        assert len(mine) <= limit, f"I7 {run.dag_id}: {len(mine)} runs active, limit {limit}: {mine}"
        if not run.parent or self.histories[run_id].restarts:  # it may have waited in another one's lane
            return
        held = run.parent in self._paused and self.journal.runs[run.parent].state == "paused"
        assert not held, f"I7 {run_id} started while backfill {run.parent} is paused"
        since_s, cap = self._cap_of(run.parent)
        if cap and self.wire.loop.time() - since_s > RECAP_S:
            born = [other for other in mine if self.journal.runs[other].parent == run.parent]
            siblings = [o for o in born if not self.histories[o].restarts]
            assert len(siblings) <= cap, f"I7 backfill {run.parent}: {len(siblings)} windows active, limit {cap}"

    def _cap_of(self, backfill: str) -> tuple[float, int | None]:
        """Since when, and how many; since ever when it was never changed."""
        cap = self.journal.runs[backfill].max_active_runs
        known = self._capped.get(backfill)
        if known is None:
            known = self._capped[backfill] = (-RECAP_S - 1, cap)
        elif known[1] != cap:
            known = self._capped[backfill] = (self.wire.loop.time(), cap)
        return known

    def began(self, worker: str, task: Assignment, context: RunContext | None) -> None:
        """A worker starts an attempt: it is durable as started, and its inputs are what was accepted."""
        history = self.histories.get(task.run_id)
        where = f"{task.run_id}/{task.task} attempt {task.attempt} at {worker}"
        self.began_s.setdefault(task.run_id, self.wire.loop.time())
        if context is None or history is None or history.started.get(task.task, 0) < task.attempt:
            self.failures.append(f"I13 {where} runs before it is durable")
            return
        since_s = max(self.supervisor.draining.get(worker, self.wire.loop.time()), self.troubled_s)
        if self.wire.loop.time() - since_s > IDLE_FOUL_S:
            self.failures.append(f"{where}, which is to get no more work since {since_s:.3f} s")
        specs = {spec.id: spec for spec in self._definition_of(context.dag_id)(context.dag_version).tasks}
        spec = specs.get(task.task)
        waited = (
            spec is not None and spec.trigger_rule == "all_success"
        )  # others may start before their inputs are there
        for name, producer in spec.inputs.items() if spec and waited else ():
            if specs[producer].branch or specs[producer].type in WAITING_TYPES:
                continue  # its value is what it chose, or what it waited for
            if specs[producer].expand:
                self._check_list(where, task, name, producer, history)
                continue
            accepted = [n for (t, n) in history.accepted if t == producer]
            allowed = [value_of((task.run_id, producer, n)) for n in accepted]
            if history.tasks.get(producer) == "succeeded" and task.inputs[name] not in allowed:
                self.failures.append(f"{where}: {name} is {task.inputs[name]}")

    def _check_list(self, where: str, task: Assignment, name: str, producer: str, history: History) -> None:
        """What a mapped task returned is what its instances did, in order; null where they did not."""
        given = task.mapped.lists[name] if task.mapped else ()
        names = history.instances(producer)
        if len(given) != len(names):
            self.failures.append(f"{where}: {name} has {len(given)} values of {len(names)} instances")
        for instance, value in zip(names, given, strict=False):
            accepted = [n for (t, n) in history.accepted if t == instance]
            allowed = [value_of((task.run_id, instance, n)) for n in accepted]
            done = history.tasks[instance] == "succeeded"
            if (value not in allowed) if done else (value != Value()):
                self.failures.append(f"{where}: {name} has {value} of {instance}")

    async def look_forever(self) -> None:
        """I9: work that could go on, and nobody who does it."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._look_at("slots", self._idle_worker() and (self._ready_task() or self._waiting_behind()))
            self._look_at("queue", self._startable_run())

    def _look_at(self, what: str, blocked: str) -> None:
        now_s = self.wire.loop.time()
        if not blocked:
            self._idle_since.pop(what, None)
            return
        since_s = max(self._idle_since.setdefault(what, now_s), self.troubled_s)
        if now_s - since_s > self.idle_bound_s:
            self.failures.append(f"I9 for {now_s - since_s:.2f} s: {blocked}")
            self._idle_since[what] = now_s

    def _idle_worker(self) -> str:
        for name in self.supervisor.workers:
            process = self.wire.processes.get(name)
            if process is not None and process.object.busy is None:
                return name
        return ""

    def _waiting_behind(self) -> str:
        for name in self.supervisor.workers:
            process = self.wire.processes.get(name)
            if process is not None and process.object.waiting:
                return f"{process.object.waiting} attempts wait at {name} while {self._idle_worker()} is idle"
        return ""

    def _ready_task(self) -> str:
        for run_id, history in self.histories.items():
            if history.state in ("running", "cancelling"):
                for name, state in history.tasks.items():
                    if history.conduct is not None and name not in history.batch:
                        continue
                    if state == "pending" and history.ready(name) and history.has_room(name):
                        return f"{run_id}/{name} is ready and {self._idle_worker()} is idle"
        return ""

    def _startable_run(self) -> str:
        for run_id, history in self.histories.items():
            run = self.journal.runs[run_id]
            if history.state != "queued" or self.journal.dag_rows[TENANT, run.dag_id].paused:
                continue
            active = [
                o for o, h in self.histories.items() if h.state in ACTIVE and self.journal.runs[o].dag_id == run.dag_id
            ]
            dag = self.journal.dag_rows[TENANT, run.dag_id]
            free = len(active) < self._definition_of(run.dag_id)(dag.version).max_active_runs
            lanes = [self.journal.runs[backfill] for backfill in (run.parent, *run.watchers) if backfill]
            limited = any((lane.max_active_runs or 99) <= len(active) or lane.state == "paused" for lane in lanes)
            if free and not limited:
                return f"{run_id} of {run.dag_id} could start: {len(active)} are active"
        return ""

    # ── the end ───────────────────────────────────────────────────────────────────────────────────

    def check_end(self) -> None:
        """Nothing goes on any more."""
        for run_id, run in self.journal.runs.items():
            events = check_versions(run.events)
            if run.run_type == "backfill":
                assert check_backfill(events) == run.state, f"I4 {run_id}"
                self.check_windows(run_id)
                continue
            history = self.histories[run_id]
            check_row(run.row(), run.tasks, history)
            for name, state in history.tasks.items():
                results = [n for (task, n) in history.accepted if task == name and n == history.started.get(name)]
                by_others = name in history.marked
                assert state != "succeeded" or len(results) == 1 or by_others, f"I2 {run_id}/{name}: {results}"
        self._check_fires()
        self._check_notices()

    def _check_notices(self) -> None:
        """Who wants to be told of ends and missed SLAs is told of each, once."""
        entries = [codec.decode_inbox(item) for _, item in self.journal.streams[inbox(WEBHOOKS)]]
        letters = [item for items in entries for item in items if isinstance(item, Letter)]
        told = Counter(outside_codec.decode_notice(bytes(letter.data)).id for letter in letters)
        owed: dict[str, int] = {}
        for run_id, run in self.journal.runs.items():
            if run.dag_id not in ("a", "b"):
                continue
            definition_of, version = self._definition_of(run.dag_id), run.dag_version
            for number, event in enumerate(check_versions(run.events), 1):
                version = getattr(event, "dag_version", version)
                specs = {task.id: task for task in definition_of(version).tasks}
                asked = isinstance(event, e.SlaMissed) and event.task and "webhook" in specs[event.task].on_sla_miss
                if type(event) in TERMINAL_EVENTS or asked:
                    owed[f"msg_{run_id}_{number}"] = 1
        assert told == owed, f"I13 notices: {dict(told)} for {owed}"

    def check_windows(self, run_id: str) -> None:
        """A backfill is what its windows are."""
        run = self.journal.runs[run_id]
        states = [self.journal.runs[child].state for child in run.children if child not in run.kept]
        if run.state != "cancelled":
            good = all(state == "succeeded" for state in states)
            assert run.state == ("succeeded" if good else "failed"), f"{run_id} is {run.state} with {states}"
        assert sum(run.counts.values()) == len(states), f"{run_id} counts {run.counts} for {states}"
        self._check_order(run_id)

    def _check_order(self, run_id: str) -> None:
        """One window at a time: they start by date, or backwards."""
        backfill = self.journal.runs[run_id]
        changes = (e.RunRestarted, e.BackfillWidened, e.BackfillCapped)
        if any(isinstance(event, changes) for event in check_versions(backfill.events)):
            return  # with another limit or order, perhaps
        starts = []
        for child in backfill.children:
            first = [x for x in check_versions(self.journal.runs[child].events) if isinstance(x, _STARTS)][:1]
            if self.journal.runs[child].parent == run_id and first and isinstance(first[0], e.RunStarted):
                starts.append(first[0].at)
        if backfill.max_active_runs == 1 and not self.clock.skew:
            assert starts == sorted(starts, reverse=backfill.backwards), f"{run_id} out of order: {starts}"

    def _check_fires(self) -> None:
        """Every minute has its run, and one only."""
        runs = [run for run in self.journal.runs.values() if run.run_type == "scheduled"]
        keys = [run.window_key for run in runs]
        assert len(keys) == len(set(keys)), f"a window fired twice: {keys}"
        dag = self.journal.dag_rows[TENANT, "cron"]
        fires = (dag.fired_ms or 0) // 60_000 - START.timestamp() // 60
        assert len(keys) >= fires, f"{len(keys)} runs for {fires} fires"
