"""The in-cluster runners `ray-1` … `ray-n`: the common loop, over messages to the gateway instead of HTTP.

Each is a process of its own, so that a job's load is not the gateway's. It claims by the same rules as any runner.
Source: pipelines contract, section 5, "In-cluster runner".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from actors.clock import Clock
from actors.lua_stages import MODULES
from actors.process_backend import ProcessBackend, backend
from actors.runner_loop import RunnerLoop, executor
from orchestrator import outside_codec
from orchestrator import pipeline_messages as pm
from orchestrator.errors import NotFound
from orchestrator.pipeline_views import Claimed, CompletionWanted, LogEntry, PipelineJobView

T = TypeVar("T")

#: a message is cheap: a job starts within this time
POLL_S = 1.0

#: the gateway's answer to an encoded request to its ward for pipelines; raises Unavailable
Ask = Callable[[bytes], Awaitable[bytes]]


def runner_id(number: int) -> str:
    """The id of the n-th in-cluster runner, from 1."""
    return f"ray-{number}"


def capabilities(place: ProcessBackend) -> tuple[str, ...]:
    """Modules that scripts find on a runner with that backend."""
    return (*MODULES, *place.capabilities)


def runner(name: str, ask: Ask, clock: Clock, process_backend: str) -> RunnerLoop:
    """The loop of one in-cluster runner. Raises Invalid for an unknown backend."""
    place = backend(process_backend, lambda: clock.token()[:12])
    port = GatewayPort(name, capabilities(place), ask)
    return RunnerLoop(port, executor(place), clock, poll_s=POLL_S)


class GatewayPort:
    """`RunnerPort` by messages."""

    def __init__(self, name: str, modules: tuple[str, ...], ask: Ask) -> None:
        self._name = name
        self._modules = modules
        self._ask = ask

    async def forget(self) -> None:
        """As RunnerPort."""
        try:
            await self._done(pm.DeleteRunner(tenant=pm.DEFAULT_TENANT, runner_id=self._name))
        except NotFound:
            pass  # it was not known

    async def register(self) -> None:
        """As RunnerPort."""
        await self._done(pm.Register(tenant=pm.DEFAULT_TENANT, runner_id=self._name, capabilities=self._modules))

    async def heartbeat(self) -> None:
        """As RunnerPort."""
        await self._done(pm.Heartbeat(tenant=pm.DEFAULT_TENANT, runner_id=self._name))

    async def scheduled(self) -> Sequence[PipelineJobView]:
        """As RunnerPort."""
        request = pm.Scheduled(tenant=pm.DEFAULT_TENANT, runner_id=self._name)
        return await self._body(request, list[PipelineJobView])

    async def claim(self, job_id: str, key: str) -> Claimed:
        """As RunnerPort."""
        request = pm.Claim(
            tenant=pm.DEFAULT_TENANT, job_id=job_id, runner_id=self._name, key=key, fingerprint=self._name
        )
        return await self._body(request, Claimed)

    async def add_logs(self, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """As RunnerPort."""
        request = pm.AddLogs(tenant=pm.DEFAULT_TENANT, job_id=job_id, entries=tuple(entries))
        answer = await self._done(request)
        return msgspec.json.decode(answer.body, type=str | None)

    async def complete(self, job_id: str, wanted: CompletionWanted) -> None:
        """As RunnerPort."""
        await self._done(
            pm.Complete(tenant=pm.DEFAULT_TENANT, job_id=job_id, result=wanted.result, status=wanted.status)
        )

    async def _body(self, request: pm.Request, kind: type[T]) -> T:
        return msgspec.json.decode((await self._done(request)).body, type=kind)

    async def _done(self, request: pm.Request) -> pm.Answer:
        """Raises what it was refused with."""
        answer = outside_codec.decode_pipeline_answer(await self._ask(outside_codec.encode_pipeline_request(request)))
        pm.check(answer)
        return answer
