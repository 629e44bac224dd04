"""What the endpoints about bundles of code do; see `handlers.py` for what holds of all.

A bundle is code that runs here. So it needs scope `admin`, and for what comes over the network the server's leave
besides (`ORCHESTRATOR_ALLOW_BUNDLES`), which counts for all tenants. Each of them sees and deploys what it sent itself,
whatever others have. The operator's command line on the server's own machine leaves bundles in the data directory and
asks, as the first tenant, only for the deploy, as it does with compiled definitions.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.bundle import PACKED_MAX
from orchestrator.bundle_record import BundleView
from orchestrator.errors import NotAllowed
from orchestrator.ids import DEFAULT_TENANT
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Bundles
from serve_app.requests import idempotency, optional_json_body, raw_body, unhindered
from serve_app.surfaces.dags import parse, words
from serve_app.surfaces.dags.answers import answer, path_id


class BundleHandlers:
    """The endpoints over one port."""

    def __init__(self, bundles: Bundles, options: ServerOptions) -> None:
        self._bundles = bundles
        self._allowed = options.allow_bundles
        self._most_bytes = options.max_body_bytes

    async def put_bundle(self, request: Request, principal: Principal) -> Response:
        """Keep a bundle of code, a zip, under the id of its content; nothing of it runs yet"""
        bundle = path_id(request, "bundle", "bundle")
        self._check_leave()
        packed = await raw_body(request, min(self._most_bytes, PACKED_MAX))
        stored = await unhindered(self._bundles.put(principal.tenant, bundle, packed))
        told = {"bundle": stored.bundle, "size_bytes": stored.size_bytes, "files": stored.files}
        return answer({**told, "created": stored.created})

    async def deploy_bundle(self, request: Request, principal: Principal) -> Response:
        """Check a bundle by importing it, and make its DAGs the current ones"""
        bundle = path_id(request, "bundle", "bundle")
        if principal.tenant != DEFAULT_TENANT:
            self._check_leave()
        body = await optional_json_body(request, self._most_bytes)
        idem = idempotency(request, principal.tenant, body)
        defined = await unhindered(self._bundles.deploy(principal.tenant, bundle, idem))
        replayed = all(each.replayed for each in defined)
        return answer({"bundle": bundle, "items": [words.dag_defined(each) for each in defined]}, replayed=replayed)

    async def list_bundles(self, _: Request, principal: Principal) -> Response:
        """List bundles, those last sent or deployed first"""
        return answer({"items": [_view(each) for each in await self._bundles.bundles(principal.tenant)]})

    async def delete_bundle(self, request: Request, principal: Principal) -> Response:
        """Remove a bundle that no current version and no run needs"""
        bundle = path_id(request, "bundle", "bundle")
        await unhindered(self._bundles.delete(principal.tenant, bundle))
        return answer({"bundle": bundle, "deleted": True})

    async def prune_bundles(self, request: Request, principal: Principal) -> Response:
        """Remove bundles that no current version and no run needs"""
        grace = parse.prune_query(request.query_params)
        return answer({"items": list(await unhindered(self._bundles.prune(principal.tenant, grace)))})

    def _check_leave(self) -> None:
        if not self._allowed:
            raise NotAllowed("bundles over HTTP need ORCHESTRATOR_ALLOW_BUNDLES=1 on the server")


def _view(view: BundleView) -> words.Json:
    told: words.Json = {"bundle": view.bundle, "size_bytes": view.size_bytes, "files": view.files}
    return {**told, "touched_at": words.instant(view.touched_at), "dags": view.dags, "current": view.current}
