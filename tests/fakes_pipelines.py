"""CI pipelines, jobs and runners in memory: the behaviour that the HTTP layer can see, without Lua, actors or time.

Nothing runs by itself: runners are the test. A script is not looked at, but for an empty one; its pipeline is called
"Example" unless the body says otherwise. `broken` makes every call raise that error, `gate` holds back mutations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.pipeline import MASK, PARAMETERS_MAX, UNIVERSAL
from orchestrator.pipeline_views import (
    Claimed,
    CompletionWanted,
    LogEntry,
    PipelineJobView,
    PipelineView,
    PipelineWanted,
    RunnerView,
)
from orchestrator.views import Frame
from tests.fakes_gateway import EPOCH

replace = msgspec.structs.replace

TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled", "TimedOut"})
Key = tuple[str, str]


@dataclass
class Log:
    """Lines of one job, as they came."""

    lines: list[LogEntry] = field(default_factory=list)
    #: a test wants the port to say that nothing happens
    silences: int = 0
    readers: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def tell(self) -> None:
        """Who follows looks again."""
        async with self.changed:
            self.changed.notify_all()


@dataclass
class FakePipelines:
    """`serve_app.outside_ports.Pipelines`, in memory. Keys are (tenant, id)."""

    broken: Exception | None = None
    gate: asyncio.Event | None = None
    #: streams end where the log does, so that they can be read to the end
    streams_end: bool = False
    mutations: int = 0
    #: inputs that a launch must give
    required: tuple[str, ...] = ()
    _pipelines: dict[Key, PipelineView] = field(default_factory=dict)
    _jobs: dict[Key, PipelineJobView] = field(default_factory=dict)
    _logs: dict[Key, Log] = field(default_factory=dict)
    #: of each pipeline, for who claims a job
    _env_vars: dict[Key, dict[str, str]] = field(default_factory=dict)
    _runners: dict[Key, RunnerView] = field(default_factory=dict)
    #: runners that told what they can
    _told: set[Key] = field(default_factory=set)
    _answers: dict[str, tuple[str, Any]] = field(default_factory=dict)
    _completions: dict[Key, CompletionWanted] = field(default_factory=dict)

    # -- what tests do to it

    async def settle(self, job_id: str, **changes: Any) -> None:
        """The job is now like that."""
        await self._put("default", replace(self._jobs["default", job_id], **changes))

    async def silence(self, job_id: str) -> None:
        """What the port says when nothing happens."""
        log = self._logs["default", job_id]
        log.silences += 1
        await log.tell()

    def readers(self, job_id: str) -> int:
        """How many streams of the job's log have been begun and not closed."""
        return self._logs["default", job_id].readers

    # -- pipelines

    async def create(self, tenant: str, wanted: PipelineWanted, idem: Idempotency | None) -> PipelineView:
        await self._pass_gate()
        if (stored := self._stored(idem)) is not None:
            return self._pipelines[tenant, stored]
        if not wanted.script:
            raise Invalid("Pipeline script cannot be empty")
        name = "Example" if wanted.name is None else wanted.name
        if not name:
            raise Invalid("Pipeline name cannot be empty")
        view = PipelineView(
            id=f"0ccbc0eb-3a56-4f5d-8d86-{len(self._pipelines):012x}",
            name=name,
            description=wanted.description or "d",
            script=wanted.script,
            required_modules=wanted.required_modules,
            created_at=EPOCH,
            updated_at=EPOCH,
            tags=wanted.tags or (),
            config=replace(wanted.config, secret_env_vars=dict.fromkeys(wanted.config.secret_env_vars, MASK)),
        )
        self._env_vars[tenant, view.id] = wanted.config.env_vars | wanted.config.secret_env_vars
        self._pipelines[tenant, view.id] = view
        self._store(idem, view.id)
        return view

    async def pipelines(self, tenant: str) -> list[PipelineView]:
        self._check()
        return [view for (owner, _), view in reversed(self._pipelines.items()) if owner == tenant]

    async def pipeline(self, tenant: str, pipeline_id: str) -> PipelineView:
        self._check()
        if (tenant, pipeline_id) not in self._pipelines:
            raise NotFound("pipeline", pipeline_id)
        return self._pipelines[tenant, pipeline_id]

    async def delete(self, tenant: str, pipeline_id: str) -> None:
        await self._pass_gate()
        await self.pipeline(tenant, pipeline_id)
        del self._pipelines[tenant, pipeline_id]
        for job in await self.jobs(tenant, pipeline_id, None, None):
            del self._jobs[tenant, job.id]
            del self._logs[tenant, job.id]

    async def launch(
        self, tenant: str, pipeline_id: str, parameters: dict[str, Any], idem: Idempotency | None
    ) -> PipelineJobView:
        await self._pass_gate()
        if (stored := self._stored(idem)) is not None:
            return self._jobs[tenant, stored]
        pipeline = await self.pipeline(tenant, pipeline_id)
        if len(msgspec.json.encode(parameters)) > PARAMETERS_MAX:
            raise Invalid(f"Parameters are too large (max {PARAMETERS_MAX} bytes)")
        for name in self.required:
            if name not in parameters:
                raise Invalid(f"Missing required input '{name}' (type: string)")
        job = PipelineJobView(
            id=f"a01111c1-2a09-42b9-baf1-{len(self._jobs):012x}",
            pipeline_id=pipeline_id,
            status="Queued",
            requested_at=EPOCH,
            started_at=None,
            completed_at=None,
            runner_id=None,
            parameters=parameters,
            result=None,
            retry_count=0,
            timeout_seconds=pipeline.config.timeout_seconds,
        )
        self._logs[tenant, job.id] = Log()
        self._store(idem, job.id)
        await self._put(tenant, job)
        return job

    # -- jobs

    async def job(self, tenant: str, job_id: str) -> PipelineJobView:
        self._check()
        if (tenant, job_id) not in self._jobs:
            raise NotFound("job", job_id)
        return self._jobs[tenant, job_id]

    async def jobs(
        self, tenant: str, pipeline_id: str | None, status: str | None, limit: int | None
    ) -> list[PipelineJobView]:
        self._check()
        found = [
            job
            for (owner, _), job in reversed(self._jobs.items())
            if owner == tenant and pipeline_id in (None, job.pipeline_id) and status in (None, job.status)
        ]
        return found[:limit]

    async def scheduled(self, tenant: str, runner_id: str | None) -> list[PipelineJobView]:
        self._check()
        if runner_id is not None and (tenant, runner_id) not in self._runners:
            return []
        queued = reversed(await self.jobs(tenant, None, "Queued", None))
        return [job for job in queued if not self._missing(tenant, job, runner_id)]

    async def claim(self, tenant: str, job_id: str, runner_id: str, idem: Idempotency | None) -> Claimed:
        await self._pass_gate()
        if (stored := self._stored(idem)) is None:
            job = await self.job(tenant, job_id)
            if job.status != "Queued":
                raise Invalid(f"Job {job_id} is not in Queued state (current: {job.status})")
            if (tenant, runner_id) not in self._runners:
                await self.register(tenant, runner_id, None)
            if missing := self._missing(tenant, job, runner_id):
                raise Invalid(f"Runner {runner_id} lacks required modules: {', '.join(missing)}")
            await self._put(tenant, replace(job, status="Running", started_at=EPOCH, runner_id=runner_id))
            self._store(idem, job_id)
        job = self._jobs[tenant, stored or job_id]
        source, env_vars = self._pipelines[tenant, job.pipeline_id].script, self._env_vars[tenant, job.pipeline_id]
        return Claimed(job.id, job.pipeline_id, source, job.parameters, env_vars)

    async def set_status(self, tenant: str, job_id: str, status: str) -> None:
        await self._pass_gate()
        job = await self.job(tenant, job_id)
        if job.status in TERMINAL or status == "Queued":
            raise Invalid(f"Invalid status transition: {job.status} -> {status}")
        await self._put(tenant, replace(job, status=status, completed_at=EPOCH if status in TERMINAL else None))

    async def complete(self, tenant: str, job_id: str, wanted: CompletionWanted) -> None:
        await self._pass_gate()
        job = await self.job(tenant, job_id)
        if wanted.status is not None and wanted.status not in TERMINAL:
            raise Invalid(f"Invalid completion status: {wanted.status}")
        if self._completions.get((tenant, job_id)) == wanted:
            return
        if job.status in TERMINAL:
            raise Invalid(f"Job {job_id} is already completed (current: {job.status})")
        if job.status == "Queued":
            raise Invalid(f"Job {job_id} is not running (current: Queued)")
        self._completions[tenant, job_id] = wanted
        status = wanted.status or ("Succeeded" if wanted.result.success else "Failed")
        await self._put(tenant, replace(job, status=status, completed_at=EPOCH, result=wanted.result))

    async def cancel(self, tenant: str, job_id: str) -> PipelineJobView:
        await self._pass_gate()
        job = await self.job(tenant, job_id)
        if job.status in TERMINAL:
            raise Invalid(f"Job {job_id} is already completed (current: {job.status})")
        await self._put(tenant, replace(job, status="Cancelled", completed_at=EPOCH))
        return self._jobs[tenant, job_id]

    # -- logs

    async def add_logs(self, tenant: str, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        await self._pass_gate()
        job = await self.job(tenant, job_id)
        log = self._logs[tenant, job_id]
        log.lines.extend(entries)
        await log.tell()
        return job.status if job.status in ("Cancelled", "TimedOut") else None

    async def logs(self, tenant: str, job_id: str) -> list[LogEntry]:
        await self.job(tenant, job_id)
        return sorted(self._logs[tenant, job_id].lines, key=lambda entry: entry.timestamp)

    async def open_logs(self, tenant: str, job_id: str, after: int) -> AsyncIterator[Sequence[Frame]] | None:
        job = await self.job(tenant, job_id)
        log = self._logs[tenant, job_id]
        if job.status in TERMINAL and after >= len(log.lines) > 0:
            return None
        return self._follow(tenant, job_id, log, after)

    async def _follow(self, tenant: str, job_id: str, log: Log, after: int) -> AsyncIterator[Sequence[Frame]]:
        silences, log.readers = log.silences, log.readers + 1
        try:
            while True:
                if lines := log.lines[after:]:
                    yield [Frame(after + n, "log", msgspec.structs.asdict(each)) for n, each in enumerate(lines, 1)]
                    after += len(lines)
                elif log.silences > silences:
                    silences += 1
                    yield [Frame(None, "keep_alive")]
                elif (job := self._jobs[tenant, job_id]).status in TERMINAL or self.streams_end:
                    yield [Frame(None, "end", {"status": job.status})]
                    return
                else:
                    async with log.changed:
                        await log.changed.wait()
        finally:
            log.readers -= 1

    # -- runners

    async def register(self, tenant: str, runner_id: str, capabilities: Sequence[str] | None) -> RunnerView:
        await self._pass_gate()
        self._told.discard((tenant, runner_id))
        if capabilities is not None:
            self._told.add((tenant, runner_id))
        view = RunnerView(runner_id, tuple(capabilities or ()), EPOCH, EPOCH, "Online")
        self._runners[tenant, runner_id] = view
        return view

    async def heartbeat(self, tenant: str, runner_id: str) -> RunnerView:
        await self._pass_gate()
        return await self.runner(tenant, runner_id)

    async def runners(self, tenant: str) -> list[RunnerView]:
        self._check()
        return [view for (owner, _), view in sorted(self._runners.items()) if owner == tenant]

    async def runner(self, tenant: str, runner_id: str) -> RunnerView:
        self._check()
        if (tenant, runner_id) not in self._runners:
            raise NotFound("runner", runner_id)
        return self._runners[tenant, runner_id]

    async def delete_runner(self, tenant: str, runner_id: str) -> None:
        await self._pass_gate()
        await self.runner(tenant, runner_id)
        del self._runners[tenant, runner_id]

    # -- inside

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def _pass_gate(self) -> None:
        self._check()
        if self.gate is not None:
            await self.gate.wait()
        self.mutations += 1

    def _missing(self, tenant: str, job: PipelineJobView, runner_id: str | None) -> list[str]:
        if runner_id is None or (tenant, runner_id) not in self._told:
            return []
        needed = set(self._pipelines[tenant, job.pipeline_id].required_modules) - UNIVERSAL
        return sorted(needed - set(self._runners[tenant, runner_id].capabilities))

    def _stored(self, idem: Idempotency | None) -> str | None:
        if idem is None or idem.key not in self._answers:
            return None
        fingerprint, answer = self._answers[idem.key]
        if fingerprint != idem.fingerprint:
            raise Conflict("reused")
        return str(answer)

    def _store(self, idem: Idempotency | None, answer: str) -> None:
        if idem is not None:
            self._answers[idem.key] = (idem.fingerprint, answer)

    async def _put(self, tenant: str, job: PipelineJobView) -> None:
        self._jobs[tenant, job.id] = job
        await self._logs[tenant, job.id].tell()
