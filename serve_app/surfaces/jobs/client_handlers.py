"""What each endpoint for clients does: parse, call the port, translate.

A handler is called once its caller is known and may ask; whatever it raises is worded by `routes`. Mutations go on to
their end when the caller hangs up. The first line of a handler's docstring is the summary of its operation.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.addresses import is_loopback
from orchestrator.blueprint import Blueprint
from orchestrator.blueprint_graph import to_dot
from orchestrator.errors import Conflict, NotFound
from serve_app.options import ServerOptions
from serve_app.outside_ports import Jobs, JobWanted
from serve_app.requests import raw_body, unhindered
from serve_app.surfaces.jobs import parse, words
from serve_app.surfaces.jobs.callers import ClientCaller

JSON = "application/json; charset=utf-8"
DOT = "text/vnd.graphviz; charset=utf-8"


class ClientHandlers:
    """The endpoints below `/api` over one port."""

    def __init__(self, jobs: Jobs, options: ServerOptions) -> None:
        self._jobs = jobs
        self._max_body_bytes = options.max_body_bytes
        self._history = options.job_history
        self._private_webhooks = is_loopback(options.host) or options.webhook_allow_private

    async def create_job(self, request: Request, caller: ClientCaller, blueprint: Blueprint) -> Response:
        """Create a job of a blueprint"""
        body = await raw_body(request, self._max_body_bytes)
        asked = parse.creation(body, private_webhooks=self._private_webhooks)
        agreed = caller.agreement
        wanted = JobWanted(
            blueprint=blueprint.name,
            initial_data=asked.initial_data,
            webhook_url=asked.webhook_url,
            client=agreed.name,
            plan=agreed.plan,
            monthly_attempts=agreed.monthly_attempts,
        )
        idem = parse.idempotency(request, caller.tenant, asked)
        job_id, replayed = await unhindered(self._jobs.create(caller.tenant, wanted, idem))
        headers = {"Idempotent-Replay": "true"} if replayed else None
        return _answer({"status": "accepted", "job_id": job_id}, 202, headers)

    async def list_jobs(self, request: Request, caller: ClientCaller) -> Response:
        """List jobs, newest first"""
        limit, offset = parse.page(request.query_params)
        status = parse.status(request.query_params.get("status"))
        found = await self._jobs.jobs(caller.tenant, status, limit, offset)
        return _answer([words.job(each) for each in found])

    async def get_job(self, request: Request, caller: ClientCaller) -> Response:
        """Fetch a job"""
        return _answer(words.job(await self._jobs.job(caller.tenant, _job_id(request))))

    async def cancel_job(self, request: Request, caller: ClientCaller) -> Response:
        """Cancel a job"""
        try:
            sent = await unhindered(self._jobs.cancel(caller.tenant, _job_id(request)))
        except Conflict as ended:
            raise Conflict(words.cannot_cancel(ended.message)) from None
        return _answer({"status": sent})

    async def release_job(self, request: Request, caller: ClientCaller) -> Response:
        """Let a quarantined job go on where it stopped"""
        job_id = _job_id(request)
        try:
            await unhindered(self._jobs.release(caller.tenant, job_id))
        except Conflict as other:
            raise Conflict(words.not_quarantined(other.message)) from None
        return _answer({"status": "released", "job_id": job_id})

    async def get_job_history(self, request: Request, caller: ClientCaller) -> Response:
        """List what has happened to a job, oldest first"""
        found = await self._jobs.history(caller.tenant, _job_id(request))
        return _answer([words.history_event(each) for each in found] if self._history else [])

    async def list_blueprints(self, _: Request, __: ClientCaller) -> Response:
        """List loaded blueprints"""
        return _answer([words.blueprint(each, version) for each, version in self._jobs.blueprints()])

    async def get_blueprint_graph(self, request: Request, _: ClientCaller) -> Response:
        """Draw a blueprint in DOT"""
        name = request.path_params["blueprint_name"]
        for blueprint, __ in self._jobs.blueprints():
            if blueprint.name == name:
                return Response(to_dot(blueprint), media_type=DOT)
        raise NotFound("blueprint", repr(name[:100]))

    async def list_workers(self, _: Request, caller: ClientCaller) -> Response:
        """List live workers"""
        return _answer(await self._jobs.workers(caller.tenant))

    async def list_webhooks(self, request: Request, caller: ClientCaller) -> Response:
        """List webhooks and what became of them, newest first"""
        status = parse.delivery_status(request.query_params.get("status"))
        limit = parse.limit(request.query_params)
        return _answer([words.webhook(each) for each in await self._jobs.webhooks(caller.tenant, status, limit)])

    async def retry_webhook(self, request: Request, caller: ClientCaller) -> Response:
        """Try a webhook again that was given up"""
        webhook_id = parse.webhook_id(request.path_params["webhook_id"])
        try:
            tried = await unhindered(self._jobs.retry_webhook(caller.tenant, webhook_id))
        except Conflict as other:
            raise Conflict(words.not_dead(other.message)) from None
        return _answer(words.webhook(tried))

    async def get_dashboard(self, _: Request, caller: ClientCaller) -> Response:
        """Count workers and jobs"""
        workers = await self._jobs.workers(caller.tenant)
        return _answer(words.dashboard(len(workers), await self._jobs.counts(caller.tenant)))

    async def reload_workers(self, _: Request, __: ClientCaller) -> Response:
        """Read the file of workers' tokens again"""
        await unhindered(self._jobs.reload_worker_tokens())
        return _answer({"status": "worker_configs_reloaded"})


def _job_id(request: Request) -> str:
    return parse.job_id(request.path_params["job_id"])


def _answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(words.encode(body), status, headers, JSON)
