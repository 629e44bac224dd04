"""The worker for the task types that exist everywhere: `core.noop`, `core.echo`, `core.sleep`, `core.fail`.

To the gateway it is a worker like any other, and a replica of its own: it registers, polls, listens and reports by the
messages of `orchestrator/remote.py`. It runs beside the gateway, in its event loop, since these tasks do nothing that
could hold it up. After a restart it knows nothing of what its former life was at, and says so in its heartbeats: those
tasks are delivered again. Source: contracts, section 2, "Task types"; jobs contract, section 4.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from actors.clock import Clock
from orchestrator import outside_codec
from orchestrator import remote as r
from orchestrator.errors import ActorUnreachable
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.kinds import CORE, SLEEP_MAX_S

_log = logging.getLogger(__name__)

WORKER = "core"
CAPACITY = 1_000
#: polls kept open
POLLS = 64
POLL_S = 30.0
#: between two heartbeats, while there is something to say
BEAT_S = 5.5
#: heartbeats after the start: two of them, the first 5 s after a delivery, tell that it is lost
FIRST_BEATS = 3
_PAUSE_S = 0.5

Ask = Callable[[r.Request], Awaitable[r.Answer]]


class Refused(Exception):
    """A task that fails; `code` as in a worker's result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class CoreWorker:
    """Works as long as `run` does. `ask` is the gateway, and raises ActorUnreachable at most."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._replica = f"{WORKER}-{clock.token()}"
        self._polls: set[int] = set()
        self._number = 0
        self._running: dict[str, asyncio.Task[None]] = {}
        #: tasks that are to stop
        self._recalled: set[str] = set()
        #: what Listen says
        self._last = self._session = 0

    async def run(self) -> None:
        """Register, then poll, listen and report for ever."""
        body = {"worker_id": WORKER, "worker_type": "ray", "supported_tasks": [*CORE], "max_concurrent_tasks": CAPACITY}
        await self._insist(r.Register(DEFAULT_TENANT, WORKER, {**body, "current_tasks": []}))
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                await self._listen()
        finally:
            for task in (beating, *self._running.values()):
                task.cancel()

    async def _listen(self) -> None:
        await self._open_polls()
        listen = r.Listen(self._replica, r.LISTEN_MAX_S, self._last, self._session)
        pushes = outside_codec.pushes_of(await self._insist(listen))
        if pushes.session != self._session:  # it knows of none of our polls, nor of our socket
            self._polls.clear()
            await self._insist(r.Sockets(DEFAULT_TENANT, self._replica, opened=((1, WORKER),)))
        self._session, self._last = pushes.session, pushes.last
        for push in pushes.pushes:
            self._take(push)

    async def _open_polls(self) -> None:
        wanted = min(POLLS, CAPACITY - len(self._running)) - len(self._polls)
        if wanted <= 0:
            return
        numbers = range(self._number + 1, self._number + 1 + wanted)
        self._number += wanted
        self._polls.update(numbers)
        await self._insist(r.Polls(tuple(r.Poll(DEFAULT_TENANT, self._replica, n, WORKER, POLL_S) for n in numbers)))

    def _take(self, push: r.Push) -> None:
        match push:
            case r.Assigned():
                self._polls.discard(push.poll_id)
                task_id = push.task["task_id"]
                if task_id not in self._running:
                    self._running[task_id] = asyncio.create_task(self._work(push.task))
            case r.Expired():
                self._polls.discard(push.poll_id)
            case r.Say():
                running = self._running.get(push.body.get("task_id", ""))
                if running is not None:
                    self._recalled.add(push.body["task_id"])
                    running.cancel()
            case r.Close():
                _log.warning("another worker calls itself %r", WORKER)

    async def _work(self, task: dict[str, Any]) -> None:
        result = r.Result(DEFAULT_TENANT, WORKER, task["job_id"], task["task_id"], "success")
        try:
            data = await _outcome(task["type"], task["params"], task["attempt"])
        except asyncio.CancelledError:
            if task["task_id"] not in self._recalled:  # this worker ends, not the task
                raise
            result = _with(result, "cancelled")
        except Refused as refused:
            result = _with(result, "failure", error={"code": refused.code, "message": refused.message})
        else:
            result = _with(result, "success", data=data)
        try:
            await self._insist(result)
        finally:
            del self._running[task["task_id"]]
            self._recalled.discard(task["task_id"])

    async def _beat(self) -> None:
        said = 0
        while True:
            await asyncio.sleep(BEAT_S)
            if self._running or said < FIRST_BEATS:
                said += 1
                body = {"current_tasks": sorted(self._running)}
                await self._insist(r.Heartbeat(DEFAULT_TENANT, WORKER, body))

    async def _insist(self, request: r.Request) -> r.Answer:
        while True:
            try:
                return await self._ask(request)
            except ActorUnreachable as unreachable:
                _log.warning("%s", unreachable)
                await asyncio.sleep(_PAUSE_S)


def _with(result: r.Result, status: str, data: Any = None, error: Any = None) -> r.Result:
    return r.Result(result.tenant, result.worker_id, result.job_id, result.task_id, status, data, error)


async def _outcome(kind: str, params: dict[str, Any], attempt: int) -> dict[str, Any]:
    """The task's data. Raises Refused."""
    match kind:
        case "core.noop":
            return {}
        case "core.echo":
            return params
        case "core.sleep":
            seconds = params.get("seconds")
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
                raise Refused("INVALID_INPUT_ERROR", "params.seconds must be a number")
            if not 0 <= seconds <= SLEEP_MAX_S:
                raise Refused("INVALID_INPUT_ERROR", f"params.seconds must be from 0 to {SLEEP_MAX_S}")
            await asyncio.sleep(seconds)
            return {"slept": seconds}
        case _:
            times = params.get("times")
            if times is not None and not isinstance(times, int):
                raise Refused("INVALID_INPUT_ERROR", "params.times must be a whole number")
            if times is not None and attempt > times:
                return {}
            code = "PERMANENT_ERROR" if params.get("permanent") is True else "TRANSIENT_ERROR"
            raise Refused(code, str(params.get("message") or "told to fail"))
