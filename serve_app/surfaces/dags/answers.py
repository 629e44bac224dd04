"""What all handlers of this surface do alike: ids out of paths, scopes, JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound
from orchestrator.ids import DEFAULT_TENANT
from serve_app.auth import Principal
from serve_app.problems import Forbidden
from serve_app.surfaces.dags import parse

JSON = "application/json; charset=utf-8"


def require(principal: Principal, scope: str) -> None:
    """Raise Forbidden unless the caller has the scope."""
    if scope not in principal.scopes:
        raise Forbidden(scope)


def check_operator(principal: Principal, what: str) -> None:
    """Raise NotFound for other tenants than the first: to them `what`, which is the operator's, does not exist."""
    if principal.tenant != DEFAULT_TENANT:
        raise NotFound(f"{what} of tenant", principal.tenant)


def answer(body: Mapping[str, Any], *, replayed: bool = False) -> Response:
    """The JSON answer 200."""
    headers = {"Idempotent-Replay": "true"} if replayed else None
    return Response(orjson.dumps(body), media_type=JSON, headers=headers)


def path_id(request: Request, kind: str, name: str) -> str:
    """The id in the path. Raises NotFound when nothing of that kind can have it."""
    return parse.known_form(kind, request.path_params[name])
