"""What each endpoint does: parse, call the port, translate.

A handler is called once the caller is known and has the scope; whatever it raises is worded by `routes`. Commands
go on to their end when the caller hangs up. The first line of a handler's docstring is the summary of its operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound
from orchestrator.instance_views import Acknowledged
from serve_app import sse
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Clock, Instances
from serve_app.request_traces import traceparent_of
from serve_app.requests import unhindered
from serve_app.surfaces.instances import models as m
from serve_app.surfaces.instances import parse, streams, words

Command = Callable[[str, str], Coroutine[Any, Any, Acknowledged]]

JSON = "application/json; charset=utf-8"


class Handlers:
    """The endpoints over one port."""

    def __init__(self, instances: Instances, options: ServerOptions, clock: Clock, draining: asyncio.Event) -> None:
        self._instances = instances
        self._options = options
        self._clock = clock
        self._draining = draining

    # -- orchestrators

    async def list_orchestrators(self, _: Request, principal: Principal) -> Response:
        """List instances that live or ended a short while ago, oldest first"""
        views = await self._instances.instances(principal.tenant)
        now = self._clock.now()
        return _answer([words.instance(each, now) for each in views])

    async def get_orchestrator(self, request: Request, principal: Principal) -> Response:
        """Fetch an instance"""
        view = await self._instances.instance(principal.tenant, _instance_id(request))
        return _answer(words.instance(view, self._clock.now()))

    async def get_orchestrator_status(self, request: Request, principal: Principal) -> Response:
        """Fetch how far an instance is, with all tasks and phases"""
        return _answer(words.status(await self._instances.status(principal.tenant, _instance_id(request))))

    async def start_orchestrator(self, request: Request, principal: Principal) -> Response:
        """Start an instance that works through a plan"""
        body = await self._body(request, m.StartOrchestratorRequest)
        wanted = msgspec.structs.replace(parse.wanted(body), traceparent=traceparent_of(request))
        view = await unhindered(self._instances.start(principal.tenant, wanted))
        return _answer(words.instance(view, self._clock.now()), 201)

    # -- commands

    async def pause_orchestrator(self, request: Request, principal: Principal) -> Response:
        """Let tasks in progress finish and start no more"""
        return await self._command(request, principal, "pause", self._instances.pause)

    async def resume_orchestrator(self, request: Request, principal: Principal) -> Response:
        """Start tasks again"""
        return await self._command(request, principal, "resume", self._instances.resume)

    async def shutdown_orchestrator(self, request: Request, principal: Principal) -> Response:
        """End after the current batch, or with `force` at once"""
        force = parse.flag("force", request.query_params)
        shut_down = self._instances.shut_down
        return await self._command(request, principal, "shutdown", lambda tenant, id: shut_down(tenant, id, force))

    async def skip_task(self, request: Request, principal: Principal) -> Response:
        """Count a task as done; also on an instance that has ended"""
        body = await self._body(request, m.SkipTaskRequest)
        work = self._instances.skip_task(principal.tenant, _instance_id(request), body.task_id, body.reason)
        return _answer(words.acknowledged("skip", body.task_id, await unhindered(work)))

    async def retry_task(self, request: Request, principal: Principal) -> Response:
        """Make a failed or skipped task pending again"""
        body = await self._body(request, m.RetryTaskRequest)
        work = self._instances.retry_task(principal.tenant, _instance_id(request), body.task_id)
        return _answer(words.acknowledged("retry", body.task_id, await unhindered(work)))

    async def _command(self, request: Request, principal: Principal, name: str, command: Command) -> Response:
        instance_id = _instance_id(request)
        answer = await unhindered(command(principal.tenant, instance_id))
        return _answer(words.acknowledged(name, instance_id, answer))

    # -- plans

    async def list_plans(self, _: Request, principal: Principal) -> Response:
        """List plan files by name"""
        return _answer([words.plan(each) for each in await self._instances.plans(principal.tenant)])

    async def get_plan_status(self, request: Request, principal: Principal) -> Response:
        """Fetch how far a plan is"""
        return _answer(words.status(await self._instances.plan_status(principal.tenant, _plan_name(request))))

    async def get_plan_tasks(self, request: Request, principal: Principal) -> Response:
        """List the tasks of a plan in its order"""
        view = await self._instances.plan_status(principal.tenant, _plan_name(request))
        return _answer([words.task(each) for each in view.tasks])

    async def list_plan_findings(self, request: Request, principal: Principal) -> Response:
        """List what the tasks of a plan left behind, by task"""
        views = await self._instances.findings(principal.tenant, _plan_name(request))
        return _answer([words.finding(each) for each in views])

    async def get_finding_content(self, request: Request, principal: Principal) -> Response:
        """Fetch the text of a finding"""
        plan, task_id = _plan_name(request), request.path_params["task_id"]
        if not parse.may_be_name(task_id):
            await self._instances.findings(principal.tenant, plan)
            raise NotFound("finding", task_id)
        content = await self._instances.finding(principal.tenant, plan, task_id)
        return _answer({"task_id": task_id, "content": content})

    # -- events

    async def sse_events(self, request: Request, principal: Principal) -> Response:
        """Follow an instance as server-sent events"""
        since = sse.cursor(request.headers.get("last-event-id"), request.query_params.get("since"))
        opened = await streams.open_stream(self._instances, principal.tenant, _instance_id(request), since)
        life_s = self._options.stream_life_s * (1 + 0.2 * self._clock.jitter())
        frames = streams.event_bytes(opened, self._clock)
        response = sse.EventStream(frames, life_s=life_s, draining=self._draining)
        response.headers["Connection"] = "keep-alive"
        return response

    async def _body(self, request: Request, model: type[parse.M]) -> parse.M:
        return await parse.body_of(request, model, self._options.max_body_bytes)


def _answer(body: words.Json | list[words.Json], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type=JSON)


def _instance_id(request: Request) -> str:
    return parse.instance_id(request.path_params["instance_id"])


def _plan_name(request: Request) -> str:
    return parse.plan_name(request.path_params["plan_name"])
