"""What each endpoint does: parse, call the port, translate.

A handler is called once the caller is known and has the scope; whatever it raises is worded by `routes`. Mutations go
on to their end when the caller hangs up. The first line of a handler's docstring is the summary of its operation.
"""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.views import Frame
from serve_app import sse
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.outside_ports import Pipelines
from serve_app.ports import Clock
from serve_app.problems import WrongMethod
from serve_app.requests import unhindered
from serve_app.surfaces.pipelines import editor, parse, words
from serve_app.surfaces.pipelines import models as m

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

#: below `/api/pipeline/` -> its method
_COMMANDS = MappingProxyType({"create": "POST", "launch": "POST", "list": "GET"})


class Handlers:
    """The endpoints over one port."""

    def __init__(self, pipelines: Pipelines, options: ServerOptions, clock: Clock, draining: asyncio.Event) -> None:
        self._pipelines = pipelines
        self._options = options
        self._clock = clock
        self._draining = draining

    # -- runners

    async def register_runner(self, request: Request, principal: Principal) -> Response:
        """Register a runner, or register it anew"""
        runner_id, capabilities = parse.registration(await self._body(request, m.PipelinesRegisterRequest))
        view = await unhindered(self._pipelines.register(principal.tenant, runner_id, capabilities))
        return _answer(words.runner(view))

    async def heartbeat(self, request: Request, principal: Principal) -> Response:
        """Say that a runner is there"""
        return _answer(words.runner(await unhindered(self._pipelines.heartbeat(principal.tenant, _runner_id(request)))))

    async def list_runners(self, _: Request, principal: Principal) -> Response:
        """List runners by id"""
        return _answer([words.runner(each) for each in await self._pipelines.runners(principal.tenant)])

    async def get_runner(self, request: Request, principal: Principal) -> Response:
        """Fetch a runner"""
        return _answer(words.runner(await self._pipelines.runner(principal.tenant, _runner_id(request))))

    async def delete_runner(self, request: Request, principal: Principal) -> Response:
        """Forget a runner; its jobs are treated as lost"""
        await unhindered(self._pipelines.delete_runner(principal.tenant, _runner_id(request)))
        return _done()

    # -- jobs, as runners see them

    async def list_scheduled_jobs(self, request: Request, principal: Principal) -> Response:
        """List queued jobs that fit a runner, oldest first"""
        runner_id = request.query_params.get("runner_id") or None
        # not only a question: it also says that the runner is there
        found = await unhindered(self._pipelines.scheduled(principal.tenant, runner_id))
        return _answer([words.job(each) for each in found])

    async def claim_job(self, request: Request, principal: Principal) -> Response:
        """Claim a queued job: one caller gets it"""
        return await self._claim(request, principal)

    async def execute_job(self, request: Request, principal: Principal) -> Response:
        """Claim a queued job: the same under a younger name"""
        return await self._claim(request, principal)

    async def set_job_status(self, request: Request, principal: Principal) -> Response:
        """Say that a job runs, or that it has ended"""
        job_id = _job_id(request)
        body = await self._body(request, m.PipelinesUpdateStatusRequest)
        await unhindered(self._pipelines.set_status(principal.tenant, job_id, body.status))
        return _done()

    async def complete_job(self, request: Request, principal: Principal) -> Response:
        """Say how a job has ended"""
        job_id = _job_id(request)
        wanted = parse.completion(await self._body(request, m.PipelinesCompleteJobRequest))
        await unhindered(self._pipelines.complete(principal.tenant, job_id, wanted))
        return _done()

    async def send_logs(self, request: Request, principal: Principal) -> Response:
        """Append a batch of lines to the log of a job: all of it or nothing"""
        job_id = _job_id(request)
        batch = await parse.entries(request, self._options.max_body_bytes)
        hint = await unhindered(self._pipelines.add_logs(principal.tenant, job_id, batch))
        return Response(status_code=201, headers=None if hint is None else {"X-Job-Status": hint})

    async def _claim(self, request: Request, principal: Principal) -> Response:
        job_id = _job_id(request)
        body = await self._body(request, m.PipelinesClaimJobRequest)
        runner_id = parse.claimant(body)
        idem = parse.idempotency(request, principal.tenant, f"claim {job_id}", body)
        claimed = await unhindered(self._pipelines.claim(principal.tenant, job_id, runner_id, idem))
        return _answer(words.execution(claimed))

    # -- jobs, as those see them who wait for them

    async def get_job(self, request: Request, principal: Principal) -> Response:
        """Fetch a job"""
        return _answer(words.job(await self._pipelines.job(principal.tenant, _job_id(request))))

    async def list_jobs(self, request: Request, principal: Principal) -> Response:
        """List jobs, newest first"""
        status, limit = parse.listed(request.query_params)
        found = await self._pipelines.jobs(principal.tenant, None, status, limit)
        return _answer([words.job(each) for each in found])

    async def list_pipeline_jobs(self, request: Request, principal: Principal) -> Response:
        """List the jobs of a pipeline, newest first; none of one that there is not"""
        found = await self._pipelines.jobs(principal.tenant, _pipeline_id(request), None, None)
        return _answer([words.job(each) for each in found])

    async def cancel_job(self, request: Request, principal: Principal) -> Response:
        """Cancel a job, at once; its runner is not told"""
        return _answer(words.job(await unhindered(self._pipelines.cancel(principal.tenant, _job_id(request)))))

    async def get_logs(self, request: Request, principal: Principal) -> Response:
        """Fetch the log of a job, by time"""
        found = await self._pipelines.logs(principal.tenant, _job_id(request))
        return _answer([words.log_entry(each) for each in found])

    async def follow_logs(self, request: Request, principal: Principal) -> Response:
        """Follow the log of a job as server-sent events, in the order in which lines come"""
        after = sse.cursor(request.headers.get("last-event-id"), None) or 0
        frames = await self._pipelines.open_logs(principal.tenant, _job_id(request), after)
        if frames is None:
            return _done()
        life_s = self._options.stream_life_s * (1 + 0.2 * self._clock.jitter())
        written = sse.written(frames, _wire, self._clock)
        return sse.EventStream(written, life_s=life_s, draining=self._draining)

    # -- pipelines

    async def create_pipeline(self, request: Request, principal: Principal) -> Response:
        """Create a pipeline from its source, once that is found to be good"""
        body = await self._body(request, m.PipelinesCreatePipelineRequest)
        idem = parse.idempotency(request, principal.tenant, "create", body)
        view = await unhindered(self._pipelines.create(principal.tenant, parse.wanted(body), idem))
        return _answer(words.pipeline(view))

    async def launch_pipeline(self, request: Request, principal: Principal) -> Response:
        """Launch a pipeline: a job is queued"""
        body = await self._body(request, m.PipelinesCreateJobRequest)
        pipeline_id, parameters = parse.launched(body)
        idem = parse.idempotency(request, principal.tenant, "launch", body)
        view = await unhindered(self._pipelines.launch(principal.tenant, pipeline_id, parameters, idem))
        return _answer(words.job(view))

    async def list_pipelines(self, _: Request, principal: Principal) -> Response:
        """List pipelines, newest first"""
        return _answer([words.pipeline(each) for each in await self._pipelines.pipelines(principal.tenant)])

    async def get_pipeline(self, request: Request, principal: Principal) -> Response:
        """Fetch a pipeline"""
        return _answer(words.pipeline(await self._pipelines.pipeline(principal.tenant, _this_pipeline(request))))

    async def delete_pipeline(self, request: Request, principal: Principal) -> Response:
        """Delete a pipeline with its jobs and their logs; open ones are cancelled"""
        await unhindered(self._pipelines.delete(principal.tenant, _this_pipeline(request)))
        return _done()

    # -- for editors

    async def list_stubs(self, _: Request, __: Principal) -> Response:
        """List the modules that there are stubs of"""
        return _answer(list(editor.NAMES))

    async def get_stub(self, request: Request, _: Principal) -> Response:
        """Fetch the stub of a module, for Lua editors"""
        name, content = editor.stub(request.path_params["name"])
        return _answer({"name": name, "content": content})

    async def _body(self, request: Request, model: type[parse.M]) -> parse.M:
        return await parse.body_of(request, model, self._options.max_body_bytes)


async def health(_: Request) -> Response:
    """Is the server there?"""
    return Response("OK", media_type=TEXT)


def _wire(frame: Frame) -> bytes:
    return sse.frame(frame.seq, frame.kind, words.told(frame))


def _answer(body: words.Json | list[words.Json] | list[str]) -> Response:
    return Response(orjson.dumps(body), media_type=JSON)


def _done() -> Response:
    return Response(status_code=204)


def _job_id(request: Request) -> str:
    return parse.job_id(request.path_params["job_id"])


def _pipeline_id(request: Request) -> str:
    return parse.pipeline_id(request.path_params["pipeline_id"])


def _this_pipeline(request: Request) -> str:
    """The id after `/api/pipeline/`, where other words stand for commands."""
    if (method := _COMMANDS.get(request.path_params["pipeline_id"])) is not None:
        raise WrongMethod(request.method, (method,))
    return _pipeline_id(request)


def _runner_id(request: Request) -> str:
    runner_id: str = request.path_params["runner_id"]
    return runner_id
