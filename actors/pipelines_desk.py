"""Asking the gateway about CI jobs and runners: one method for each request, over whatever carries bytes.

API replicas and the runners inside the cluster ask alike. Every method raises what the gateway refused with, and
Unavailable when it does not answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from orchestrator import outside_codec
from orchestrator import pipeline_messages as pm
from orchestrator.pipeline_views import Claimed, CompletionWanted, LogEntry, PipelineJobView, RunnerView

T = TypeVar("T")


class PipelinesDesk:
    """Speaks to `PipelinesHolder.ask` by `send`."""

    def __init__(self, send: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._send = send

    async def scheduled(self, tenant: str, runner_id: str | None) -> list[PipelineJobView]:
        """Queued jobs that fit, oldest first."""
        return await self._ask(pm.Scheduled(tenant, runner_id), list[PipelineJobView])

    async def claim(self, tenant: str, job_id: str, runner_id: str, key: str = "", fingerprint: str = "") -> Claimed:
        """The job is the runner's. Raises NotFound, Invalid, Conflict (reused key)."""
        return await self._ask(pm.Claim(tenant, job_id, runner_id, key, fingerprint), Claimed)

    async def set_status(self, tenant: str, job_id: str, status: str) -> None:
        """Raises NotFound, Invalid."""
        await self._tell(pm.SetStatus(tenant, job_id, status))

    async def complete(self, tenant: str, job_id: str, wanted: CompletionWanted) -> None:
        """Raises NotFound, Invalid."""
        await self._tell(pm.Complete(tenant, job_id, wanted.result, wanted.status))

    async def add_logs(self, tenant: str, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """The status of a job that somebody else has ended. Raises NotFound."""
        return await self._ask(pm.AddLogs(tenant, job_id, tuple(entries)), str | None)  # type: ignore[arg-type] # union

    async def cancel(self, tenant: str, job_id: str) -> PipelineJobView:
        """Raises NotFound, Invalid."""
        return await self._ask(pm.Cancel(tenant, job_id), PipelineJobView)

    async def delete_pipeline(self, tenant: str, pipeline_id: str) -> None:
        """Raises NotFound."""
        await self._tell(pm.DeletePipeline(tenant, pipeline_id))

    async def register(self, tenant: str, runner_id: str, capabilities: Sequence[str] | None) -> RunnerView:
        """None = unknown."""
        given = None if capabilities is None else tuple(capabilities)
        return await self._ask(pm.Register(tenant, runner_id, given), RunnerView)

    async def heartbeat(self, tenant: str, runner_id: str) -> RunnerView:
        """Raises NotFound."""
        return await self._ask(pm.Heartbeat(tenant, runner_id), RunnerView)

    async def runners(self, tenant: str) -> list[RunnerView]:
        """By id."""
        return await self._ask(pm.Runners(tenant), list[RunnerView])

    async def delete_runner(self, tenant: str, runner_id: str) -> None:
        """Raises NotFound."""
        await self._tell(pm.DeleteRunner(tenant, runner_id))

    async def _ask(self, request: pm.Request, kind: type[T]) -> T:
        answer = outside_codec.decode_pipeline_answer(await self._send(outside_codec.encode_pipeline_request(request)))
        pm.check(answer)
        return msgspec.json.decode(answer.body, type=kind)

    async def _tell(self, request: pm.Request) -> None:
        pm.check(outside_codec.decode_pipeline_answer(await self._send(outside_codec.encode_pipeline_request(request))))
