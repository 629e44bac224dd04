"""A CI runner: asks for scheduled jobs, claims one, executes it, tells how it ended; beside that it says that it lives.

    forget, register ─▶ heartbeat every HEARTBEAT_S   (again registered when the server has forgotten it)
                     ─▶ scheduled? ─▶ claim ─▶ execute ─▶ logs ─▶ complete ─▶ scheduled? …   else after `poll_s`

One job at a time. In the cluster the port is messages to the gateway (`runner_actor.py`), elsewhere HTTP
(`serve_app/runner_agent.py`); nothing else differs. A claim that somebody else won is no error. A runner that was
stopped for a while goes on with a job that may be another's meanwhile: its completion is refused then, and that is all.
Since the messages of a job do not name their sender, a new incarnation first gives up what an earlier one of its id had
claimed (`forget`): nobody else would, as it looks alive. Source: pipelines contract, sections 2, 3, 6 and 7.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

from actors.clock import Clock
from actors.job_log import JobLog
from actors.lua_stages import run_stages
from actors.process_backend import ProcessBackend
from orchestrator.errors import NotFound, Refused, Unavailable
from orchestrator.pipeline_views import Claimed, CompletionWanted, JobResult, LogEntry, PipelineJobView

_log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 5.0
HEARTBEAT_S = 30.0
#: between tries to reach the server; doubling
PAUSE_S, PAUSE_MAX_S = 0.5, 30.0
TIMED_OUT = 124


class RunnerPort(Protocol):
    """The server as one runner sees it. Everything raises Unavailable when it cannot be reached, and Refused."""

    async def forget(self) -> None:
        """The server knows no such runner any more; what it had claimed counts as lost."""

    async def register(self) -> None:
        """It does, with its capabilities."""

    async def heartbeat(self) -> None:
        """Raises NotFound when the server has forgotten it."""

    async def scheduled(self) -> Sequence[PipelineJobView]:
        """Jobs that it may claim, oldest first."""

    async def claim(self, job_id: str, key: str) -> Claimed:
        """The job is this runner's; the same key gets the same answer again. Raises Refused when it is another's."""

    async def add_logs(self, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """The status of a job that somebody else has ended."""

    async def complete(self, job_id: str, wanted: CompletionWanted) -> None:
        """Raises Refused when the job is not this runner's any more."""


#: how a job is executed: what was claimed, and where its log goes
Execute = Callable[[Claimed, Callable[[str, str], None]], Awaitable[JobResult]]


class Tell(Protocol):
    """Whoever watches a runner."""

    def __call__(self, event: str, **facts: object) -> None:
        """registered | claimed | completed | dropped, and facts about it."""


def executor(backend: ProcessBackend) -> Execute:
    """Jobs are executed by running their stages, with commands where `backend` says."""
    return lambda claimed, write: run_stages(claimed, backend, write)


class RunnerLoop:
    """One runner. `run` until `stop`; cancelling `run` ends the job that runs at once."""

    def __init__(
        self,
        port: RunnerPort,
        execute: Execute,
        clock: Clock,
        *,
        poll_s: float = POLL_S,
        tries: int | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._port = port
        self._execute = execute
        self._clock = clock
        self._poll_s = poll_s
        #: to register at first; None = for ever
        self._tries = tries
        self._tell = tell or _quiet
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more: `run` returns when the job that runs has ended."""
        self._stopping.set()

    async def run(self) -> None:
        """Works. Raises Refused, or after `tries` Unavailable, when the server does not take this runner at all."""
        await self._insist(self._port.forget, self._tries)
        await self._insist(self._port.register, self._tries)
        self._tell("registered")
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(self._beat())
                await self._work()
                beating.cancel()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        """What this runner still holds goes to others at once, if the server can be reached."""
        try:
            await asyncio.shield(self._port.forget())
        except (Refused, Unavailable) as error:
            _log.warning("the server keeps this runner until its silence is noticed: %s", error)

    # ── alive ─────────────────────────────────────────────────────────────────────────────────────

    async def _beat(self) -> None:
        while True:
            try:
                await self._port.heartbeat()
            except NotFound:
                await self._register_again()
            except (Refused, Unavailable) as error:
                _log.warning("heartbeat: %s", error)
            await asyncio.sleep(HEARTBEAT_S)

    async def _register_again(self) -> None:
        try:
            await self._port.register()
            self._tell("registered")
        except (Refused, Unavailable) as error:
            _log.warning("register: %s", error)

    # ── work ──────────────────────────────────────────────────────────────────────────────────────

    async def _work(self) -> None:
        while not self._stopping.is_set():
            if not await self._take_one():
                await self._wait(self._poll_s)

    async def _take_one(self) -> bool:
        """Was there a job for us?"""
        try:
            offered = await self._port.scheduled()
        except (Refused, Unavailable) as error:
            _log.warning("scheduled jobs: %s", error)
            return False
        for job in offered:
            if self._stopping.is_set():
                return False
            key = self._clock.token()
            try:
                # Until it is answered: a claim whose answer was lost may have been granted.
                claimed = await self._insist(partial(self._port.claim, job.id, key))
            except Refused as refused:
                _log.info("job %s: %s", job.id, refused)
                continue
            await self._do(claimed, job.timeout_seconds)
            return True
        return False

    async def _do(self, claimed: Claimed, timeout_s: float | None) -> None:
        self._tell("claimed", job=claimed.job_id, pipeline=claimed.pipeline_id)
        log = JobLog(self._port, claimed.job_id, self._clock)
        shipping = asyncio.create_task(log.ship())
        try:
            ended = await self._outcome(claimed, timeout_s, log)
            log.close()
            await shipping
        finally:
            shipping.cancel()
            await asyncio.wait({shipping})
        if ended is None:
            self._tell("dropped", job=claimed.job_id, why=log.over.result())
        else:
            await self._complete(claimed.job_id, ended)

    async def _outcome(self, claimed: Claimed, timeout_s: float | None, log: JobLog) -> CompletionWanted | None:
        """How the job ended; None when it is not wanted any more."""
        execution = asyncio.ensure_future(self._execute(claimed, log.write))
        try:
            ends: set[asyncio.Future[Any]] = {execution, log.over}
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if execution.done():
                return CompletionWanted(_result(execution))
            if log.over.done():
                return None
            why = f"Timed out after {timeout_s:g} s"
            return CompletionWanted(JobResult(False, TIMED_OUT, error_message=why), "TimedOut")
        finally:
            execution.cancel()
            await asyncio.wait({execution})

    async def _complete(self, job_id: str, ended: CompletionWanted) -> None:
        try:
            await self._insist(partial(self._port.complete, job_id, ended))
        except Refused as refused:
            _log.warning("job %s: the completion is not wanted: %s", job_id, refused)
            self._tell("dropped", job=job_id, why=str(refused))
            return
        result = ended.result
        self._tell("completed", job=job_id, success=result.success, exit_code=result.exit_code)

    # ── small things ──────────────────────────────────────────────────────────────────────────────

    async def _insist(self, attempt: Callable[[], Awaitable[T]], tries: int | None = None) -> T:
        """The server's answer, however long it is away. Raises Refused; after `tries` Unavailable."""
        for number in count(1):
            try:
                return await attempt()
            except Unavailable as unavailable:
                if number == tries:
                    raise
                pause_s = min(PAUSE_MAX_S, PAUSE_S * 2 ** min(number - 1, 10))
                _log.warning("%s; trying again in %.1f s", unavailable, pause_s)
            await asyncio.sleep(pause_s)
        raise AssertionError("it counts for ever")

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            pass


def _result(execution: asyncio.Future[JobResult]) -> JobResult:
    try:
        return execution.result()
    except OSError as error:  # no room for a workspace, no more processes
        return JobResult(False, 1, error_message=f"The runner could not execute the job: {error}")


def _quiet(_event: str, **_facts: object) -> None:
    """Nobody watches."""
