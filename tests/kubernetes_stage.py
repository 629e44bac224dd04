"""A scheduler, a RunActor and the `kubernetes` actor in one thread of real time, beside a stand-in of the cluster.

    Gateway ─▶ journal (in memory) ─▶ scheduler ─▶ run-actor-0 ─▶ kubernetes ── HTTP ──▶ tests/kubernetes_api.py

The shells are the real ones; what is between them is the wire of `tests/world_wire.py`, in fair weather. Any of them
can be ended in the middle and started again, as Ray would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from actors.clock import Clock
from actors.kubernetes_actor import KubernetesActor
from actors.kubernetes_cluster import Cluster
from actors.names import KUBERNETES
from actors.run_actor import RunActor
from actors.scheduler_actor import SchedulerActor
from actors.settings import Settings
from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Definition, TaskSpec
from orchestrator.live_run_views import LiveRunWanted
from serve_app.gateway import Gateway
from tests.fakes_journal import MemoryJournal
from tests.history_rules import RUN_TERMINAL, History
from tests.invariants import check_versions
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_builders import name_of
from tests.worker_builders import FakeLogs
from tests.world_cast import Control, Supervisor
from tests.world_clients import TENANT
from tests.world_wire import JournalRoad, Process, Weather, Wire, start_task

T = TypeVar("T")
RUN_ACTOR = "run-actor-0"


class Stage:
    """`play` runs a course with everybody present; the worker slots are none."""

    def __init__(self, api: KubernetesApi, **changes: Any) -> None:
        self.api = api
        self.settings = Settings(**({"k8s_api_url": api.url} | changes))
        self.logs = FakeLogs()
        self.journal = MemoryJournal()
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(start_task)
        self.wire = Wire(self.loop, Random(0), Weather(latency_s=0.0))  # type: ignore[arg-type] # a loop is a loop
        self.supervisor = Supervisor(self.wire, [RUN_ACTOR], [])
        control: Any = Control(self.wire, [RUN_ACTOR])
        self.gateway = Gateway(self._road(), control, Clock())
        self.crashes: list[BaseException | None] = []

    def play(self, course: Callable[[Stage], Awaitable[T]], within_s: float = 30.0) -> T:
        """The course's answer; nobody may crash."""
        try:
            for name in ("supervisor", "scheduler", RUN_ACTOR, KUBERNETES):
                self.start(name)
            answer = self.loop.run_until_complete(asyncio.wait_for(course(self), within_s))
        finally:
            self._sweep_up()
        assert not self.crashes
        return answer

    def _sweep_up(self) -> None:
        for name in list(self.wire.processes):
            self.end(name)
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()

    # ── the cast ──────────────────────────────────────────────────────────────────────────────────

    def start(self, name: str) -> None:
        """A new incarnation of that name."""
        process = Process(self.loop, name)  # type: ignore[arg-type]  # a loop is a loop
        process.object = self.supervisor if name == "supervisor" else process.context.run(self._shell, name)
        process.object.on_crash = lambda: self.crashes.append(RuntimeError(name))
        begin = self.supervisor.live() if name == "supervisor" else self._begin(process.object)
        process.context.run(self.loop.create_task, begin)
        self.wire.processes[name] = process

    async def _begin(self, shell: Any) -> None:
        shell.start()

    def _shell(self, name: str) -> Any:
        if name == KUBERNETES:
            return KubernetesActor(Cluster(self.settings), self.logs, Clock(), self.settings)
        if name == "scheduler":
            return SchedulerActor(self._road(), self.wire, Clock(), self.settings)
        return RunActor(name, self._road(), self.wire, Clock(), self.settings)

    def _road(self) -> Any:
        return JournalRoad(self.journal, self.wire, lambda: None)

    def end(self, name: str) -> None:
        """The process dies."""
        process = self.wire.processes.pop(name)
        if isinstance(process.object, KubernetesActor):
            process.object.stop()
        process.end()

    # ── what a course does ────────────────────────────────────────────────────────────────────────

    async def triggered(self, *tasks: TaskSpec, **changes: Any) -> str:
        """A run of these tasks, as Jobs."""
        values: dict[str, Any] = {"dag_id": "d", "owner": "team", "tasks": tasks}
        definition = Definition(**(values | changes))
        await self.gateway.define_dag(TENANT, definition, keep_tasks=False, expect=None, idem=None)
        wanted = LiveRunWanted(mode="k8s", dag_id=definition.dag_id)
        return (await self.gateway.live_runs.create(TENANT, wanted, None)).run_id

    async def ended(self, run_id: str) -> str:
        """The state in which the run ends; its history is checked against every rule."""
        await until(lambda: self.journal.runs[run_id].state in RUN_TERMINAL)
        run = self.journal.runs[run_id]
        history = History(lambda version: self._definition(run.dag_id, version))
        for event in self.events(run_id):
            history.feed(event)
        history.rest()
        return run.state

    def _definition(self, dag_id: str, version: int) -> Definition:
        return codec.decode_definition(self.journal.dag_rows[TENANT, dag_id].definitions[version])

    def events(self, run_id: str) -> list[e.Event]:
        """All that happened to the run."""
        return list(check_versions(self.journal.runs[run_id].events))

    def of_task(self, run_id: str, kind: type[T]) -> list[T]:
        """Events of one kind."""
        return [event for event in self.events(run_id) if isinstance(event, kind)]

    async def running(self, run_id: str, task: str, attempt: int = 1) -> str:
        """The Job of that attempt, once it runs."""
        name = name_of(task, attempt, run_id)
        await until(lambda: self.api.jobs.get(name, {}).get("status", {}).get("active"))
        return name


async def until(holds: Callable[[], object]) -> None:
    """Something in another thread has come about."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
