"""`orchestrator worker`: does the tasks of blueprints on any machine, with the functions of a Python module.

    slot 1 … n   poll ─▶ execute ─▶ outbox ─▶ poll …          heartbeat every HEARTBEAT_S: what runs ─▶ what to cancel
    outbox       result, again until the server has answered   socket: "cancel this task"

A result is kept until the server has acknowledged or refused it, however long it is away, and `current_tasks` names it
until then, so that the server does not take the task for lost. A task that is delivered twice is executed once: while
it runs the second delivery is dropped, afterwards its result is sent again. Source: jobs contract, section 4.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from orchestrator.errors import Refused, Unavailable
from orchestrator.remote_tasks import RemoteTask
from serve_app.remote_execution import Execution, Json, failure
from serve_app.worker_wire import TOO_LARGE, ServerRefused

_log = logging.getLogger(__name__)
T = TypeVar("T")

HEARTBEAT_S = 15.0
#: registration is tried so often at first
REGISTER_TRIES = 10
#: between tries to reach the server; doubling
PAUSE_S, PAUSE_MAX_S = 0.5, 30.0
#: progress of one task is told at most so often
PROGRESS_S = 0.2
#: results remembered after they were acknowledged
REMEMBERED = 1000


class Wire(Protocol):
    """The server as one worker sees it (`worker_wire.py`). Everything raises Unavailable, or Refused for good."""

    async def register(self, about: Json) -> None: ...
    async def heartbeat(self, about: Json) -> Json: ...
    async def next_task(self, skills: Sequence[str]) -> Json | None: ...
    async def result(self, result: Json) -> Json: ...
    async def progress(self, job_id: str, task_id: str, fraction: float, message: str) -> None: ...
    def commands(self) -> AsyncIterator[Json]: ...


class Tell(Protocol):
    """Whoever watches a worker."""

    def __call__(self, event: str, **facts: object) -> None:
        """registered | started | ended | acknowledged | refused, and facts about it."""


class WorkerAgent:
    """One worker. `run` until `stop`; cancelling `run` leaves what runs to other workers."""

    def __init__(self, wire: Wire, worker_id: str, tasks: Sequence[RemoteTask], slots: int, tell: Tell) -> None:
        self._wire = wire
        self._worker_id = worker_id
        self._tasks = {task.name: task for task in tasks}
        self._slots = slots
        self._tell = tell
        self._threads = ThreadPoolExecutor(slots, "task")
        self._stopping = asyncio.Event()
        #: slots, and results on their way
        self._work = asyncio.TaskGroup()
        self._running: dict[str, Execution] = {}
        #: results that the server has not answered yet, by task
        self._unsent: dict[str, Json] = {}
        self._sent: OrderedDict[str, Json] = OrderedDict()
        #: latest progress by task, to be told
        self._progress: dict[str, tuple[Execution, float, str]] = {}
        self._progressed = asyncio.Event()

    def stop(self) -> None:
        """Take nothing more: `run` returns when what runs has ended and its results are acknowledged."""
        self._stopping.set()

    async def run(self) -> None:
        """Works. Raises Refused, or after REGISTER_TRIES Unavailable, when the server does not take this worker."""
        await self._register()
        try:
            async with asyncio.TaskGroup() as beside:
                lasting = [beside.create_task(each) for each in (self._beat(), self._listen(), self._tell_progress())]
                async with self._work:  # it ends when all results are delivered
                    for _ in range(self._slots):
                        self._work.create_task(self._slot())
                for each in lasting:
                    each.cancel()
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # ── who it is ─────────────────────────────────────────────────────────────────────────────────

    def _about(self) -> Json:
        busy = len(self._running)
        return {
            "worker_id": self._worker_id,
            "worker_type": "python",
            "supported_tasks": sorted(self._tasks),
            "max_concurrent_tasks": self._slots,
            "status": "busy" if busy == self._slots else "idle",
            "load": busy / self._slots,
            "current_tasks": [*self._running, *self._unsent],
        }

    async def _register(self) -> None:
        for number in range(1, REGISTER_TRIES + 1):
            try:
                await self._wire.register(self._about())
                break
            except Unavailable as unavailable:
                if number == REGISTER_TRIES:
                    raise
                _log.warning("%s; trying again", unavailable)
            await asyncio.sleep(_pause_s(number))
        self._tell("registered", tasks=sorted(self._tasks))

    async def _beat(self) -> None:
        while True:
            try:
                answer = await self._wire.heartbeat(self._about())
                for task_id in answer.get("cancel_task_ids") or ():
                    self._cancel(task_id)
                if answer.get("require_full_sync"):
                    await self._wire.register(self._about())
            except (Refused, Unavailable) as error:
                _log.warning("heartbeat: %s", error)
            await asyncio.sleep(HEARTBEAT_S)

    async def _listen(self) -> None:
        number = 0
        while True:
            try:
                async for command in self._wire.commands():
                    number = 0
                    if "cancel_task" in (command.get("command"), command.get("type")):
                        self._cancel(command.get("task_id"))
            except Unavailable as lost:
                _log.debug("%s", lost)
            number += 1
            await asyncio.sleep(_pause_s(number))

    def _cancel(self, task_id: object) -> None:
        execution = self._running.get(task_id) if isinstance(task_id, str) else None
        if execution is not None and not execution.cancelled:
            self._tell("cancelling", task=execution.task_id)
            execution.cancel()

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────────

    async def _slot(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                task = await self._poll()
                failures = 0
            except (Refused, Unavailable) as error:
                failures += 1
                _log.warning("poll: %s", error)
                await self._unless_stopped(asyncio.sleep(_pause_s(failures)))
                continue
            if task is not None:
                await self._take(task)

    async def _poll(self) -> Json | None:
        """A task; None when there is none, or when it is time to stop."""
        return await self._unless_stopped(self._wire.next_task(sorted(self._tasks)))

    async def _take(self, task: Mapping[str, Any]) -> None:
        task_id, job_id, kind = task["task_id"], task["job_id"], task["type"]
        if task_id in self._running or task_id in self._unsent:
            return  # its result is on its way
        if (known := self._sent.get(task_id)) is not None:
            self._send(known)
            return
        execution = self._running[task_id] = Execution(dict(task), self._note_progress)
        self._tell("started", task=task_id, job=job_id, type=kind)
        try:
            result = await self._execute(kind, execution)
        finally:
            del self._running[task_id]
        self._tell("ended", task=task_id, job=job_id, status=result["status"])
        self._send({"job_id": job_id, "task_id": task_id, "worker_id": self._worker_id, **result})

    async def _execute(self, kind: str, execution: Execution) -> Json:
        wanted = self._tasks.get(kind)
        if wanted is None:
            return failure("TRANSIENT_ERROR", LookupError(f"this worker does no tasks of type {kind}"))
        return await execution.run(wanted, self._threads)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` returns, or None as soon as it is time to stop."""
        doing, stopping = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            await _end([doing, stopping])

    # ── results ───────────────────────────────────────────────────────────────────────────────────

    def _send(self, result: Json) -> None:
        self._unsent[result["task_id"]] = result
        self._work.create_task(self._insist(result))

    async def _insist(self, result: Json) -> None:
        """The server has answered; until then the result is kept."""
        task_id = result["task_id"]
        number = 0
        while True:
            try:
                answer = await self._wire.result(result)
                self._tell("acknowledged", task=task_id, answer=answer.get("status"))
                break
            except ServerRefused as refused:
                _log.warning("result of task %s: %s", task_id, refused)
                if refused.status == TOO_LARGE and result["status"] != "failure":
                    result = {**result, **failure("PERMANENT_ERROR", ValueError("the result is too large"))}
                    continue
                self._tell("refused", task=task_id, why=str(refused))
                break
            except Unavailable as unavailable:
                number += 1
                _log.warning("result of task %s waits: %s", task_id, unavailable)
            await asyncio.sleep(_pause_s(number))
        del self._unsent[task_id]
        self._sent[task_id] = result
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    # ── progress ──────────────────────────────────────────────────────────────────────────────────

    def _note_progress(self, execution: Execution, fraction: float, message: str) -> None:
        self._progress[execution.task_id] = (execution, fraction, message)
        self._progressed.set()

    async def _tell_progress(self) -> None:
        while True:
            await self._progressed.wait()
            self._progressed.clear()
            latest, self._progress = self._progress, {}
            for execution, fraction, message in latest.values():
                try:
                    await self._wire.progress(execution.job_id, execution.task_id, fraction, message)
                except (Refused, Unavailable) as error:
                    _log.info("progress of task %s: %s", execution.task_id, error)
            await asyncio.sleep(PROGRESS_S)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _pause_s(number: int) -> float:
    """Before try number `number` + 1."""
    return min(PAUSE_MAX_S, PAUSE_S * 2 ** min(number - 1, 10)) if number > 0 else 0.0
