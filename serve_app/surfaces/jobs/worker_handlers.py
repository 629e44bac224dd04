"""What each endpoint for remote workers does: parse, ask the gateway, translate.

A handler is called once the worker is known and within its rate; whatever it raises is worded by `routes`. `body` is
the JSON object that the worker sent, or None when it sent none. The first line of a handler's docstring is the summary
of its operation.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from orchestrator import remote
from orchestrator.errors import Invalid
from serve_app.options import ServerOptions
from serve_app.outside_ports import Jobs
from serve_app.requests import unhindered
from serve_app.surfaces.jobs import parse, words
from serve_app.surfaces.jobs.callers import WorkerCaller
from serve_app.surfaces.jobs.long_poll import JSON, LongPoll


@dataclass(frozen=True, slots=True)
class Said:
    """A worker's request."""

    request: Request
    caller: WorkerCaller
    body: parse.Json | None

    @property
    def tenant(self) -> str:
        """Whose jobs the worker serves."""
        return self.caller.tenant

    @property
    def worker_id(self) -> str:
        """Who it is; "" = unknown."""
        return self.caller.worker_id


class WorkerHandlers:
    """The endpoints below `/_worker` over one port."""

    def __init__(self, jobs: Jobs, options: ServerOptions) -> None:
        self._jobs = jobs
        self._poll_s = options.worker_poll_timeout_s

    async def register_worker(self, said: Said) -> Response:
        """Register a worker, or tell anew what it can do"""
        body = parse.needed(said.body)
        if not body.get("worker_id"):
            raise Invalid("Missing required field: worker_id")
        await self._ask(remote.Register(said.tenant, said.worker_id, body))
        return _answer({"status": "registered"})

    async def update_worker(self, said: Said) -> Response:
        """Say that a worker is alive, and what has changed about it"""
        answer = await self._ask(remote.Heartbeat(said.tenant, said.worker_id, said.body))
        return _answer(answer.body)

    async def next_task(self, said: Said) -> Response:
        """Wait for a task"""
        query = said.request.query_params
        polling = self._jobs.poll(
            said.tenant,
            said.worker_id,
            parse.wait_s(query, self._poll_s),
            parse.skills(query.get("available_skills")),
            parse.skills(query.get("hot_skills")),
        )
        return LongPoll(polling)

    async def submit_result(self, said: Said) -> Response:
        """Tell what came of a task"""
        told = parse.result(said.body)
        asked = remote.Result(
            tenant=said.tenant,
            worker_id=said.worker_id,
            job_id=told.job_id,
            task_id=told.task_id,
            status=told.status,
            data=told.data,
            error=told.error,
            data_metadata=told.data_metadata,
        )
        return _answer((await self._ask(asked)).body)

    async def emit_event(self, said: Said) -> Response:
        """Tell how far a task is; events of other types are dropped"""
        told = parse.progress(parse.needed(said.body))
        if told is not None:
            await self._ask(progress_of(said.caller, told))
        return _answer({"status": "ok"})

    async def _ask(self, request: remote.Request) -> remote.Answer:
        return await unhindered(self._jobs.ask(request))


def progress_of(caller: WorkerCaller, told: parse.Progress) -> remote.Progress:
    """The same, for the gateway."""
    return remote.Progress(caller.tenant, caller.worker_id, told.job_id, told.task_id, told.progress, told.message)


def _answer(body: object) -> Response:
    return Response(words.encode(body), 200, media_type=JSON)
