"""Instances and plans in memory: the whole behaviour that the HTTP layer can see, without actors, files or time.

Nothing runs by itself: a test starts an instance, moves its tasks (`move`), and lets it end (`stop`). `broken`
makes every call raise that error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestrator.errors import Conflict, InstanceDead, Invalid, NotFound
from orchestrator.instance_views import (
    Acknowledged,
    FindingView,
    InstanceStatus,
    InstanceView,
    InstanceWanted,
    PlanTaskView,
    PlanView,
)
from orchestrator.views import Frame
from tests.fakes_gateway import EPOCH

replace = msgspec.structs.replace

ROOT = "/srv/app/docs"
KEPT = 1000
EXECUTORS = frozenset({None, "echo", "sleep"})

#: the plan of the contract, section 6
DEMO = (
    PlanTaskView(task_id="1.1", description="Create the folder", status="pending", phase="Phase 1: Setup"),
    PlanTaskView(task_id="1.2", description="Already done", status="completed", phase="Phase 1: Setup"),
    PlanTaskView(
        task_id="1.3", description="Write the file (depends: 1.1, 1.2)", status="pending", phase="Phase 1: Setup"
    ),
    PlanTaskView(task_id="2.1", description="Run the checks (depends: 1.3)", status="pending", phase="Phase 2: Check"),
)


@dataclass
class _Stream:
    """Events of one instance."""

    frames: list[Frame] = field(default_factory=list)
    ended: bool = False
    #: who reads them now
    readers: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def latest(self) -> int:
        """The greatest seq, 0 when there is none."""
        return max((each.seq or 0 for each in self.frames), default=0)


@dataclass
class FakeInstances:
    """`serve_app.ports.Instances`, in memory."""

    broken: Exception | None = None
    #: instances that are alive and do not acknowledge
    deaf: set[str] = field(default_factory=set)
    #: set by a test to hold back every command
    gate: asyncio.Event | None = None
    mutations: int = 0
    #: (tenant, plan) -> its tasks; those of `default` at the start
    plan_tasks: dict[tuple[str, str], tuple[PlanTaskView, ...]] = field(
        default_factory=lambda: {("default", "demo"): DEMO}
    )
    #: (tenant, plan) -> cycle that makes it impossible
    cycles: dict[tuple[str, str], str] = field(default_factory=dict)
    #: (tenant, plan, task) -> text
    texts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _views: dict[tuple[str, str], InstanceView] = field(default_factory=dict)
    _statuses: dict[tuple[str, str], InstanceStatus] = field(default_factory=dict)
    #: (tenant, plan) -> status.json
    _kept: dict[tuple[str, str], InstanceStatus] = field(default_factory=dict)
    _streams: dict[tuple[str, str], _Stream] = field(default_factory=dict)

    # -- what tests do to it

    async def emit(self, instance_id: str, kind: str, tenant: str = "default", **data: Any) -> None:
        """Something happened to the instance."""
        stream = self._streams[tenant, instance_id]
        async with stream.changed:
            stream.frames.append(Frame(stream.latest + 1, kind, {"timestamp": EPOCH, "data": data}))
            stream.changed.notify_all()

    async def silence(self, instance_id: str) -> None:
        """What the port says when nothing happens."""
        stream = self._streams["default", instance_id]
        async with stream.changed:
            stream.frames.append(Frame(None, "keep_alive"))
            stream.changed.notify_all()

    async def move(self, instance_id: str, task_id: str, status: str, **changes: Any) -> None:
        """A task is now like that; the event says so."""
        old = self._task("default", instance_id, task_id)
        self._put_task("default", instance_id, replace(old, status=status, **changes))
        await self.emit(
            instance_id,
            "task_changed",
            task_id=task_id,
            old_status=old.status,
            new_status=status,
            description=old.description,
            phase=old.phase,
        )

    async def stop(self, instance_id: str, reason: str = "complete") -> None:
        """The instance has ended."""
        key = ("default", instance_id)
        self.settle(instance_id, status="stopped", alive=False, exit_reason=reason)
        old = self._statuses[key]
        self._set_status(key, replace(old, status="stopped", exit_reason=reason))
        await self.emit(instance_id, "orchestrator_state", old_state=old.status, new_state="stopped")
        stream = self._streams[key]
        async with stream.changed:
            stream.ended = True
            stream.changed.notify_all()

    def readers(self, instance_id: str) -> int:
        """How many streams of the instance have been begun and not closed."""
        return self._streams["default", instance_id].readers

    def settle(self, instance_id: str, **changes: Any) -> None:
        """The registry now says that."""
        key = ("default", instance_id)
        self._views[key] = replace(self._views[key], **changes)

    # -- instances

    async def start(self, tenant: str, wanted: InstanceWanted) -> InstanceView:
        await self._pass_gate()
        tasks = self._tasks(tenant, wanted.plan)
        if wanted.executor not in EXECUTORS:
            raise Invalid(f"Unknown executor '{wanted.executor}'")
        if cycle := self.cycles.get((tenant, wanted.plan)):
            raise Invalid(f"Dependency cycle detected: {cycle}")
        for view in await self.instances(tenant):
            if view.plan_name == wanted.plan and view.status in ("running", "stopping"):
                raise Conflict(f"Plan '{wanted.plan}' is already being run by '{view.instance_id}'")
        return self._new(tenant, wanted, tasks)

    async def instances(self, tenant: str) -> list[InstanceView]:
        self._check()
        return [view for (owner, _), view in self._views.items() if owner == tenant]

    async def instance(self, tenant: str, instance_id: str) -> InstanceView:
        self._check()
        return self._view(tenant, instance_id)

    async def status(self, tenant: str, instance_id: str) -> InstanceStatus:
        self._check()
        self._view(tenant, instance_id)
        return self._statuses[tenant, instance_id]

    async def pause(self, tenant: str, instance_id: str) -> Acknowledged:
        return await self._switch(tenant, instance_id, "paused")

    async def resume(self, tenant: str, instance_id: str) -> Acknowledged:
        return await self._switch(tenant, instance_id, "running")

    async def shut_down(self, tenant: str, instance_id: str, force: bool) -> Acknowledged:
        answer = await self._switch(tenant, instance_id, "stopping")
        if answer.success:
            self.settle(instance_id, status="stopping")
        if force:
            await self.stop(instance_id, "shutdown")
        return answer

    async def skip_task(self, tenant: str, instance_id: str, task_id: str, reason: str | None) -> Acknowledged:
        await self._pass_gate()
        self._view(tenant, instance_id)
        try:
            task = self._task(tenant, instance_id, task_id)
        except NotFound:
            return Acknowledged(False, "", f"Failed to mark task {task_id} as skipped. Task may not exist.")
        if task.status == "completed":
            return Acknowledged(False, "", "Task status is 'completed'")
        self._put_task(tenant, instance_id, replace(task, status="skipped"))
        return Acknowledged(True, "")

    async def retry_task(self, tenant: str, instance_id: str, task_id: str) -> Acknowledged:
        await self._pass_gate()
        self._view(tenant, instance_id)
        task = self._task(tenant, instance_id, task_id)
        if task.status not in ("failed", "skipped"):
            return Acknowledged(False, "", f"Task status is '{task.status}', must be 'failed' or 'skipped'")
        again = replace(task, status="pending", retry_count=task.retry_count + 1, last_error=None)
        self._put_task(tenant, instance_id, again)
        return Acknowledged(True, "")

    async def open_events(
        self, tenant: str, instance_id: str, since: int | None
    ) -> tuple[InstanceStatus, int, AsyncIterator[Sequence[Frame]]]:
        self._check()
        self._view(tenant, instance_id)
        stream = self._streams[tenant, instance_id]
        latest = stream.latest
        after = since if since is not None and since <= latest else latest
        return self._statuses[tenant, instance_id], latest, _follow(stream, max(after, latest - KEPT))

    # -- plans

    async def plans(self, tenant: str) -> list[PlanView]:
        self._check()
        return [
            PlanView(
                name=name,
                path=f"{ROOT}/plans/{name}.md",
                has_status=(tenant, name) in self._kept,
                last_modified=EPOCH,
                output_dir=f"{ROOT}/plan-outputs/{name}" if (tenant, name) in self._kept else None,
            )
            for owner, name in sorted(self.plan_tasks)
            if owner == tenant
        ]

    async def plan_status(self, tenant: str, name: str) -> InstanceStatus:
        self._check()
        self._tasks(tenant, name)
        if (tenant, name) not in self._kept:
            raise NotFound("status", name)
        kept = self._kept[tenant, name]
        return kept if kept.status != "stopped" else replace(kept, instance_id="")

    async def findings(self, tenant: str, name: str) -> list[FindingView]:
        self._check()
        self._tasks(tenant, name)
        found = [(task, text) for (owner, plan, task), text in self.texts.items() if (owner, plan) == (tenant, name)]
        folder = f"{ROOT}/plan-outputs/{name}/findings"
        return [
            FindingView(task, f"{folder}/{task.replace('.', '-')}.md", len(text), EPOCH) for task, text in sorted(found)
        ]

    async def finding(self, tenant: str, name: str, task_id: str) -> str:
        self._check()
        self._tasks(tenant, name)
        if (tenant, name, task_id) not in self.texts:
            raise NotFound("finding", task_id)
        return self.texts[tenant, name, task_id]

    # -- inside

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def _pass_gate(self) -> None:
        self._check()
        if self.gate is not None:
            await self.gate.wait()
        self.mutations += 1

    async def _switch(self, tenant: str, instance_id: str, status: str) -> Acknowledged:
        await self._pass_gate()
        view = self._view(tenant, instance_id)
        if view.status in ("stopped", "crashed") or not view.alive:
            raise InstanceDead(instance_id)
        if instance_id in self.deaf:
            return Acknowledged(False, "")
        self._set_status((tenant, instance_id), replace(self._statuses[tenant, instance_id], status=status))
        return Acknowledged(True, "")

    def _new(self, tenant: str, wanted: InstanceWanted, tasks: tuple[PlanTaskView, ...]) -> InstanceView:
        instance_id = f"orch-{1767323045678 + len(self._views)}"
        path = f"{ROOT}/plans/{wanted.plan}.md"
        view = InstanceView(
            instance_id=instance_id,
            pid=4711,
            plan_path=path,
            plan_name=wanted.plan,
            started_at=EPOCH,
            last_heartbeat=EPOCH,
            status="running",
            alive=True,
            executor=wanted.executor or "echo",
        )
        status = InstanceStatus(
            instance_id=instance_id,
            plan_path=path,
            plan_name=wanted.plan,
            status="running",
            tasks=tasks,
            started_at=EPOCH,
            max_iterations=wanted.max_iterations,
        )
        self._views[tenant, instance_id] = view
        self._set_status((tenant, instance_id), status)
        self._streams[tenant, instance_id] = _Stream()
        return view

    def _set_status(self, key: tuple[str, str], status: InstanceStatus) -> None:
        self._statuses[key] = self._kept[key[0], status.plan_name] = status

    def _view(self, tenant: str, instance_id: str) -> InstanceView:
        if (tenant, instance_id) not in self._views:
            raise NotFound("instance", instance_id)
        return self._views[tenant, instance_id]

    def _tasks(self, tenant: str, plan: str) -> tuple[PlanTaskView, ...]:
        if (tenant, plan) not in self.plan_tasks:
            raise NotFound("plan", plan)
        return self.plan_tasks[tenant, plan]

    def _task(self, tenant: str, instance_id: str, task_id: str) -> PlanTaskView:
        for task in self._statuses[tenant, instance_id].tasks:
            if task.task_id == task_id:
                return task
        raise NotFound("task", task_id)

    def _put_task(self, tenant: str, instance_id: str, task: PlanTaskView) -> None:
        old = self._statuses[tenant, instance_id]
        tasks = tuple(task if each.task_id == task.task_id else each for each in old.tasks)
        self._set_status((tenant, instance_id), replace(old, tasks=tasks))


async def _follow(stream: _Stream, after: int) -> AsyncIterator[Sequence[Frame]]:
    """Frames with a greater seq, and signs of silence from now on, until the instance has ended."""
    at = next((n for n, each in enumerate(stream.frames) if (each.seq or 0) > after), len(stream.frames))
    stream.readers += 1
    try:
        while True:
            while at < len(stream.frames):
                at += 1
                yield [stream.frames[at - 1]]
            if stream.ended:
                return
            async with stream.changed:
                while at >= len(stream.frames) and not stream.ended:
                    await stream.changed.wait()
    finally:
        stream.readers -= 1
