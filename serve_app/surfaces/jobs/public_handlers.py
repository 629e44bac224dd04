"""What each endpoint without a token does. A job's id is the capability of its approval: nobody can guess it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import Conflict, Invalid
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from serve_app.outside_ports import Jobs
from serve_app.problems import Unauthenticated
from serve_app.requests import raw_body, unhindered
from serve_app.surfaces.jobs import parse, words
from serve_app.surfaces.jobs.long_poll import JSON


class PublicHandlers:
    """The endpoints below `/_public` over one port."""

    def __init__(self, jobs: Jobs, tokens: Tokens, options: ServerOptions, page: Callable[[], str]) -> None:
        self._jobs = jobs
        self._tokens = tokens
        self._options = options
        self._page = page

    async def get_status(self, _: Request) -> Response:
        """Is this server running"""
        return _answer({"status": "ok"})

    async def get_docs(self, request: Request) -> Response:
        """Endpoints and blueprints, as a page"""
        token = request.headers.get("authorization")
        if self._options.private_docs and self._tokens.bearer(token) is None:
            raise Unauthenticated(words.BAD_CLIENT_TOKEN)
        return Response(self._page(), media_type="text/html; charset=utf-8")

    async def approve_job(self, request: Request) -> Response:
        """Decide what a job waits for a human to decide"""
        body = parse.json_object(await raw_body(request, self._options.max_body_bytes))
        decision = parse.decision(body)
        job_id = parse.job_id(request.path_params["job_id"])
        try:
            await unhindered(self._jobs.approve(job_id, decision))
        except Invalid:
            raise Invalid(words.invalid_decision(decision)) from None
        except Conflict:
            raise Conflict(words.CANNOT_APPROVE) from None
        return _answer({"status": "approval_received", "job_id": job_id})

    async def flush_db(self, _: Request) -> Response:
        """Erase every job, worker, queue and history of this deployment"""
        await unhindered(self._jobs.flush())
        return _answer({"status": "db_flushed"})


def _answer(body: object) -> Response:
    return Response(words.encode(body), 200, media_type=JSON)
