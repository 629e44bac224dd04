"""What the endpoints about the archive do; see `handlers.py` for what holds of all."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Archive
from serve_app.requests import idempotency, json_body, unhindered
from serve_app.surfaces.dags import parse, words
from serve_app.surfaces.dags.answers import answer, check_operator


class ArchiveHandlers:
    """The endpoints over one port."""

    def __init__(self, archive: Archive, options: ServerOptions) -> None:
        self._archive = archive
        self._most_bytes = options.max_body_bytes

    async def sweep_archive(self, request: Request, principal: Principal) -> Response:
        """Let runs that ended long ago leave for the archive, those of all tenants"""
        body = await json_body(request, self._most_bytes)
        older_than, to = parse.sweep_request(body)
        check_operator(principal, "archive")
        idem = idempotency(request, principal.tenant, body)
        return answer(words.sweep(await unhindered(self._archive.sweep(older_than, to, idem))))

    async def list_sweeps(self, _: Request, principal: Principal) -> Response:
        """List what is under way to the archive, and what went there last"""
        check_operator(principal, "archive")
        return answer({"items": [words.sweep(each) for each in await self._archive.sweeps()]})
