"""`orchestrator runner`: a CI runner on any machine, the common loop (`actors/runner_loop.py`) over HTTP.

Answers become errors: 404 NotFound, other 4xx Invalid with the server's own words, anything else Unavailable. The token
is presented as `X-Runner-Token`. Deleting a runner needs another scope than a runner's: where `forget` is not allowed
it does nothing, and the server notices the silence instead. Source: pipelines contract, sections 1, 2, 4 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from orchestrator.errors import Invalid, NotFound, Refused, Unavailable
from orchestrator.pipeline_views import Claimed, CompletionWanted, LogEntry, PipelineJobView

T = TypeVar("T")

TIMEOUT_S = 10.0
#: registration is tried so often
REGISTER_TRIES = 10
#: client errors that may go away
_PASSING = frozenset({408, 425, 429})


class HttpRunnerPort:
    """`RunnerPort` over HTTP."""

    def __init__(self, client: httpx.AsyncClient, runner_id: str, capabilities: Sequence[str]) -> None:
        self._client = client
        self._runner_id = runner_id
        self._capabilities = list(capabilities)

    async def forget(self) -> None:
        """As RunnerPort."""
        try:
            await self._ask("DELETE", f"/api/runners/{quote(self._runner_id, safe='')}")
        except Refused:
            pass  # unknown, or not for a runner to say

    async def register(self) -> None:
        """As RunnerPort."""
        body = {"runner_id": self._runner_id, "capabilities": self._capabilities}
        await self._ask("POST", "/api/runners/register", body)

    async def heartbeat(self) -> None:
        """As RunnerPort."""
        await self._ask("POST", f"/api/runners/{quote(self._runner_id, safe='')}/heartbeat")

    async def scheduled(self) -> Sequence[PipelineJobView]:
        """As RunnerPort."""
        answer = await self._ask("GET", f"/api/jobs/scheduled?runner_id={quote(self._runner_id, safe='')}")
        return _read(answer, list[PipelineJobView])

    async def claim(self, job_id: str, key: str) -> Claimed:
        """As RunnerPort."""
        answer = await self._ask("POST", f"/api/jobs/{job_id}/claim", {"runner_id": self._runner_id}, key)
        return _read(answer, Claimed)

    async def add_logs(self, job_id: str, entries: Sequence[LogEntry]) -> str | None:
        """As RunnerPort."""
        answer = await self._ask("POST", f"/api/jobs/{job_id}/logs", {"entries": entries})
        hint: str | None = answer.headers.get("X-Job-Status")
        return hint

    async def complete(self, job_id: str, wanted: CompletionWanted) -> None:
        """As RunnerPort."""
        body = {"result": wanted.result} | ({} if wanted.status is None else {"status": wanted.status})
        await self._ask("POST", f"/api/jobs/{job_id}/complete", body)

    async def _ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = None if body is None else msgspec.json.encode(body)
        try:
            answer = await self._client.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._client.base_url}: {type(error).__name__} {error}".rstrip()) from error
        if answer.is_success:
            return answer
        if not answer.is_client_error or answer.status_code in _PASSING:
            raise Unavailable(f"{method} {path}: {answer.status_code}")
        if answer.status_code == 404:
            raise NotFound("path", path)
        raise Invalid(_words(answer))


def open_client(url: str, token: str | None, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client of the server at `url`, as a runner with that token."""
    headers = {} if token is None else {"X-Runner-Token": token}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, transport=transport)


def _read(answer: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{answer.url.path}: the answer is not understood: {error}") from error


def _words(answer: httpx.Response) -> str:
    try:
        told = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        told = answer.reason_phrase
    return f"{told} ({answer.status_code})"
