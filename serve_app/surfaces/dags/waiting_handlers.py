"""What the endpoints about signals, approvals and queries do, as `handlers.py` does for the others.

A voter is the principal: one token, one vote. A caller of scope `admin` may name the person for whom it asks (`by`), as
front ends do that know their people; what counts then is that name.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.command import Ballot
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Waiting
from serve_app.requests import idempotency, json_body, optional_json_body, unhindered
from serve_app.surfaces.dags import parse, words
from serve_app.surfaces.dags.answers import answer, path_id, require


class WaitingHandlers:
    """The endpoints over one port."""

    def __init__(self, waiting: Waiting, options: ServerOptions) -> None:
        self._waiting = waiting
        self._most_bytes = options.max_body_bytes

    async def signal(self, request: Request, principal: Principal) -> Response:
        """Signal a run: it keeps the signal until a task waits for it"""
        body = await optional_json_body(request, self._most_bytes)
        run_id, name = path_id(request, "run", "run_id"), parse.known_form("signal", request.path_params["name"])
        data, signal_id = parse.signal_request(body)
        idem = idempotency(request, principal.tenant, body)
        work = self._waiting.signal(principal.tenant, run_id, name, msgspec.Raw(data), signal_id, idem)
        sent = await unhindered(work)
        return answer(words.signal_sent(sent), replayed=sent.replayed)

    async def decide(self, request: Request, principal: Principal) -> Response:
        """Vote on an approval that a task waits for"""
        body = await json_body(request, self._most_bytes)
        run_id, task = path_id(request, "run", "run_id"), path_id(request, "task", "task")
        told = parse.decision_request(body)
        if told.by not in (None, principal.name):
            require(principal, "admin")
        by = told.by or principal.name or "anonymous"
        roles = tuple(sorted({*principal.scopes, by}))
        ballot = Ballot(told.choice, by, roles, told.comment, told.attempt)
        idem = idempotency(request, principal.tenant, body)
        changed = await unhindered(self._waiting.decide(principal.tenant, run_id, task, ballot, idem))
        return answer(words.task_changed(changed, task), replayed=changed.replayed)

    async def list_approvals(self, request: Request, principal: Principal) -> Response:
        """List open approvals, oldest first"""
        dag_id, run_id = parse.approvals_query(request.query_params)
        found = await self._waiting.approvals(principal.tenant, dag_id=dag_id, run_id=run_id)
        return answer({"items": [words.approval(each) for each in found]})

    async def query(self, request: Request, principal: Principal) -> Response:
        """Ask a run for a value that its tasks published, its progress, or what it waits for"""
        run_id, name = path_id(request, "run", "run_id"), parse.known_form("query", request.path_params["name"])
        return answer(words.published(await self._waiting.query(principal.tenant, run_id, name), run_id))

    async def queries(self, request: Request, principal: Principal) -> Response:
        """List everything that a run answers"""
        run_id = path_id(request, "run", "run_id")
        found = await self._waiting.queries(principal.tenant, run_id)
        return answer({"items": [words.published(each, run_id) for each in found]})
