"""What the endpoints about artifacts do; see `handlers.py` for what holds of all."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Artifacts
from serve_app.requests import Fields, idempotency, json_body, unhindered
from serve_app.surfaces.dags import parse, words
from serve_app.surfaces.dags.answers import answer, check_operator


class ArtifactHandlers:
    """The endpoints over one port."""

    def __init__(self, artifacts: Artifacts, options: ServerOptions) -> None:
        self._artifacts = artifacts
        self._most_bytes = options.max_body_bytes

    async def sweep_artifacts(self, request: Request, principal: Principal) -> Response:
        """Let artifacts of runs that ended long ago go, those of all tenants"""
        body = await json_body(request, self._most_bytes)
        older_than, dry_run = _sweep_request(body)
        check_operator(principal, "artifacts")
        idem = idempotency(request, principal.tenant, body)
        return answer(words.artifact_sweep(await unhindered(self._artifacts.sweep(older_than, dry_run, idem))))

    async def list_artifact_sweeps(self, _: Request, principal: Principal) -> Response:
        """List sweeps of artifacts that are under way, and that ended last"""
        check_operator(principal, "artifacts")
        return answer({"items": [words.artifact_sweep(each) for each in await self._artifacts.sweeps()]})


def _sweep_request(body: object) -> tuple[timedelta, bool]:
    fields = Fields(body)
    older_than_s = fields.whole("older_than_s", 0, parse.LONGEST_SPAN_S, required=True)
    dry_run = fields.flag("dry_run")
    fields.check()
    return timedelta(seconds=older_than_s or 0), dry_run
