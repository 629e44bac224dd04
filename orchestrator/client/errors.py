"""What can go wrong between a client and a server.

    OrchestratorError
    ├─ Refused      ApiRefused         the server said no (4xx); NotAllowed 401 403, NotThere 404, Conflicting 409
    ├─ Unavailable  ServerUnreachable  nobody answered, or only "try again", for as long as we were patient
    │               NotRunning         what the command is for has ended, or does not answer (503)
    └─ Broken       ServerBroken       an answer that no server of ours should give (500, or not understood)

The five surfaces word their errors differently (contracts: README, section 5); `refusal_of` reads them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import Broken, Refused, Unavailable


class ApiRefused(Refused):
    """The server answered 4xx: the same request will be refused again."""

    def __init__(self, status: int, code: str, message: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(status, code, message, details)
        #: HTTP status
        self.status = status
        #: the surface's word for it, for instance `version_conflict`; "" where it has none
        self.code = code
        self.message = message
        #: one line for each field at fault
        self.details = details

    def __str__(self) -> str:
        return "\n".join((self.message, *(each for each in self.details if each.strip() != self.message)))


class NotAllowed(ApiRefused):
    """The token is missing or unknown (401), or lacks the scope (403)."""


class NotThere(ApiRefused):
    """No such object for this tenant (404)."""


class Conflicting(ApiRefused):
    """The present state does not allow it, or a precondition does not hold (409)."""


class ServerUnreachable(Unavailable):
    """Nobody answers at the server's address, or it cannot serve now."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        return f"no answer from {self.url}: {self.why}"


class NotRunning(Unavailable):
    """What the command is for has ended, or does not answer (503 without a time to try again)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class ServerBroken(Broken):
    """The server failed (500), or what answered is no server of ours."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(status, what)
        self.status = status
        self.what = what

    def __str__(self) -> str:
        return f"the server answered {self.status}: {self.what}"


_KINDS: Mapping[int, type[ApiRefused]] = {401: NotAllowed, 403: NotAllowed, 404: NotThere, 409: Conflicting}


def refusal_of(status: int, content: bytes, asked: str) -> ApiRefused:
    """The error that an answer 4xx stands for; `asked` says what was asked, for answers that say nothing."""
    body = _object(content)
    message = _message(body) or f"{asked}: {status}"
    return _KINDS.get(status, ApiRefused)(status, str(body.get("error", "")), message, tuple(_details(body)))


def said(content: bytes) -> str:
    """The message in an error's body; "" when there is none."""
    return _message(_object(content))


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _message(body: Mapping[str, Any]) -> str:
    detail = body.get("detail")
    if isinstance(detail, list):
        return "the request is malformed"
    return str(body.get("message") or detail or body.get("error") or "")


def _details(body: Mapping[str, Any]) -> list[str]:
    """One line for each field at fault: dags lists objects, runs text, instances what FastAPI lists."""
    listed = body.get("details") or body.get("detail")
    return [_detail(each) for each in listed] if isinstance(listed, list) else []


def _detail(each: object) -> str:
    match each:
        case {"field": field, "message": message}:
            return f"  {field}: {message}"
        case {"loc": [*path], "msg": message}:
            return f"  {'/'.join(map(str, path))}: {message}"
    return f"  {each}"
