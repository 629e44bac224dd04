"""What a remote worker says to the server: JSON over HTTP, and a socket on which the server says "cancel".

Answers become values or errors: Refused for what will be refused again, Unavailable for everything else, a wrong token
among it, since tokens are put right while workers run. Source: jobs contract, section 4.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from orchestrator.errors import Invalid, Unavailable

Json = dict[str, Any]

TIMEOUT_S = 10.0
#: a poll is answered after 33 s at the latest
POLL_TIMEOUT_S = 40.0
#: nobody else can put these right
_FOR_GOOD = frozenset({400, 404, 409, 413, 422})
TOO_LARGE = 413


class ServerRefused(Invalid):
    """The server will refuse the same again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.args = (message, status)
        self.status = status


class WorkerWire:
    """The server as one worker sees it."""

    def __init__(
        self, url: str, token: str | None, worker_id: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._headers = {"X-Worker-ID": worker_id} | ({} if token is None else {"X-Worker-Token": token})
        self._worker_id = quote(worker_id, safe="")
        self._url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=None),
            transport=transport,
        )

    async def close(self) -> None:
        """No connection is left."""
        await self._client.aclose()

    async def register(self, about: Json) -> None:
        """The server knows the worker and what it can do."""
        await self._ask("POST", "/_worker/workers/register", about)

    async def heartbeat(self, about: Json) -> Json:
        """What the server answers: maybe `cancel_task_ids`, `require_full_sync`."""
        return _object(await self._ask("PATCH", f"/_worker/workers/{self._worker_id}", about))

    async def next_task(self, skills: Sequence[str]) -> Json | None:
        """A task that is this worker's now; None when none came in time."""
        path = f"/_worker/workers/{self._worker_id}/tasks/next?available_skills={quote(','.join(skills))}"
        answer = await self._ask("GET", path, timeout_s=POLL_TIMEOUT_S)
        if answer.status_code == 204:
            return None
        task = _object(answer)
        if not all(isinstance(task.get(name), str) for name in ("job_id", "task_id", "type")):
            raise Unavailable(f"{answer.url.path}: the task is not understood")
        return task

    async def result(self, result: Json) -> Json:
        """What the server made of it."""
        return _object(await self._ask("POST", "/_worker/tasks/result", result))

    async def progress(self, job_id: str, task_id: str, fraction: float, message: str) -> None:
        """The server knows how far the task is."""
        payload = {"progress": fraction, "message": message}
        event = {"event_type": "progress", "payload": payload, "target_job_id": job_id, "target_task_id": task_id}
        await self._ask("POST", "/_worker/events", event)

    async def commands(self) -> AsyncIterator[Json]:
        """What the server says on the socket, until it is lost. Raises Unavailable when it cannot be opened."""
        scheme, *rest = urlsplit(self._url)
        url = urlunsplit(("wss" if scheme == "https" else "ws", *rest)) + f"/_worker/ws/{self._worker_id}"
        try:
            async with connect(url, additional_headers=self._headers) as socket:
                async for message in socket:
                    if isinstance(command := _parsed(message), dict):
                        yield command
        except (OSError, WebSocketException, TimeoutError) as error:
            raise Unavailable(f"socket: {error}") from error

    async def _ask(self, method: str, path: str, body: Any = None, timeout_s: float = TIMEOUT_S) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            answer = await self._client.request(method, path, content=content, headers=headers, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._url}: {type(error).__name__} {error}".rstrip()) from error
        if answer.is_success:
            return answer
        told = f"{method} {path.partition('?')[0]}: {answer.status_code} {answer.text[:200]}"
        if answer.status_code in _FOR_GOOD:
            raise ServerRefused(told, answer.status_code)
        raise Unavailable(told)


def _object(answer: httpx.Response) -> Json:
    value = _parsed(answer.content)
    if not isinstance(value, dict):
        raise Unavailable(f"{answer.url.path}: the answer is not understood")
    return value


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
