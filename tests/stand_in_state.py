"""What the stand-in's runs and orchestrators remember, and how what follows them is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_TASK_S = 0.03


@dataclass
class Live:
    """What streams wait on: something happened, or they are cut."""

    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    cuts: int = 0

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(holds)

    async def more(self, told: Sequence[object], place: int, cuts: int) -> bool:
        """True when `told` goes on beyond `place`; False when the stream was cut."""
        await self.until(lambda: len(told) > place or self.cuts != cuts)
        return self.cuts == cuts


@dataclass
class Run:
    """A run that its caller drives."""

    id: str
    live: Live
    owner: str | None
    metadata: Json | None
    status: str = "running"
    #: (SSE id or None, event, data), everything that was ever told
    told: list[tuple[str | None, str, Json]] = field(default_factory=list)

    @property
    def checkpoints(self) -> list[Json]:
        return [data for _, kind, data in self.told if kind == "checkpoint"]

    def view(self) -> Json:
        more = {"owner": self.owner, "metadata": self.metadata}
        given = {name: value for name, value in more.items() if value is not None}
        return {"id": self.id, "mode": "redis", "createdAt": instant(0), "status": self.status, **given}

    async def checkpoint(self, kind: str, data: Json | None = None) -> str:
        number = len(self.checkpoints) + 1
        found = {"id": f"cp-{number:04}", "runId": self.id, "ts": instant(number), "type": kind}
        self.told.append((instant(number), "checkpoint", found if data is None else {**found, "data": data}))
        await self.live.tell()
        return str(found["id"])

    async def end(self, status: str) -> None:
        self.status = status
        self.told.append((None, "status", {"runId": self.id, "status": status}))
        await self.checkpoint(status)


@dataclass
class Instance:
    """An orchestrator that works through `demo`."""

    id: str
    live: Live
    status: str = "running"
    tasks: list[Json] = field(default_factory=list)
    #: envelopes; the seq of one is its place
    told: list[Json] = field(default_factory=list)

    async def tell(self, kind: str, data: Json) -> None:
        envelope = {"type": kind, "timestamp": instant(len(self.told)), "instance_id": self.id}
        self.told.append({**envelope, "seq": len(self.told) + 1, "data": data})
        await self.live.tell()

    async def change(self, status: str) -> None:
        old, self.status = self.status, status
        await self.tell("orchestrator_state", {"old_state": old, "new_state": status})

    async def work(self) -> None:
        """Each task, one after the other; paused in between when told so."""
        for number, task in enumerate(self.tasks):
            await self.live.until(lambda: self.status != "paused")
            if self.status == "stopping":
                break
            for status in ("in_progress", "completed") if task["status"] == "pending" else ():
                await self._set(task, status)
                tool = {"tool_id": f"t-{number}", "tool_name": "echo"}
                if status == "in_progress":
                    await self.tell("tool_started", {**tool, "input_summary": {"task_id": task["id"]}})
                    await asyncio.sleep(_TASK_S)
                else:
                    await self.tell("tool_completed", {**tool, "duration": 0.03, "duration_ms": 30, "success": True})
        await self.change("stopped")

    async def _set(self, task: Json, status: str) -> None:
        old, task["status"] = task["status"], status
        about = {"description": task["description"], "phase": task["phase"]}
        await self.tell("task_changed", {"task_id": task["id"], "old_status": old, "new_status": status, **about})

    def info(self) -> Json:
        paths = {"worktree_path": None, "socket_path": None, "plan_path": "/srv/demo.md", "plan_name": "demo"}
        times = {"started_at": instant(0), "last_heartbeat": instant(0)}
        registered = "running" if self.status == "paused" else self.status
        alive = self.status != "stopped"
        state = {"status": registered, "is_alive": alive, "is_stale": False, "exit_reason": None, "executor": "echo"}
        return {"id": self.id, "pid": 1, **paths, **times, **state}

    def snapshot(self) -> Json:
        counts = {name: sum(task["status"] == name for task in self.tasks) for name in
                  ("completed", "pending", "in_progress", "failed", "skipped")}  # fmt: skip
        share = 100 * counts["completed"] / len(self.tasks)
        summary = {"total_tasks": len(self.tasks), **counts, "current_phase": None, "progress_percent": share}
        about = {"instance_id": self.id, "plan_path": "/srv/demo.md", "plan_name": "demo", "status": self.status}
        rest = {"started_at": instant(0), "iteration": 1, "max_iterations": 50, "exit_reason": None}
        return {**about, "summary": summary, "tasks": self.tasks, "phases": [], **rest}


def instant(number: int) -> str:
    """So many milliseconds after the beginning."""
    return (START + timedelta(milliseconds=number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
