"""Type `http`: one request; its answer is the task's value.

Runs on the thread's event loop, so a cancel ends it at once, over connections that `guarded_http.py` has checked.
A URL's query and user never appear in errors: they may hold secrets.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from typing import TYPE_CHECKING, Any

from actors.address_guard import AddressRefused
from actors.guarded_http import GuardedHttp
from actors.work import TaskFailed, Work
from orchestrator.errors import PermanentFailure
from orchestrator.failures import status_marks

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0
#: text of an answer, bytes; JSON may be larger and travels as an artifact
TEXT_MAX = 64 * 1024
ANSWER_MAX = 16 * 1024 * 1024
#: client errors that may go away
_PASSING = frozenset({408, 425, 429})


class RequestFailed(TaskFailed):
    """No answer, or one that says try again. `marks`: what retry policies go by (`failures.py`)."""

    def __init__(self, message: str, marks: tuple[str, ...] = ()) -> None:
        super().__init__(message, marks)
        self.message, self.marks = message, marks

    def __str__(self) -> str:
        return self.message


class RequestRefused(PermanentFailure):
    """An answer that will not become another one by itself; `marks` as above."""

    def __init__(self, message: str, marks: tuple[str, ...] = ()) -> None:
        super().__init__(message, marks)
        self.message, self.marks = message, marks

    def __str__(self) -> str:
        return self.message


def run_http(work: Work) -> object:
    """The JSON or text of the answer; None for an empty one. Raises RequestFailed, PermanentFailure."""
    return work.wait_for(_request(work.params, work.shop.http, work.traceparent))


async def _request(params: dict[str, Any], http: GuardedHttp, traceparent: str) -> object:
    import httpx

    url = _target(params.get("url"))
    method, headers = str(params.get("method") or "GET").upper(), params.get("headers") or {}
    if not isinstance(headers, dict):
        raise PermanentFailure("params.headers must be an object")
    limit_s = _limit_s(params)
    named = f"{method} {url.copy_with(query=None, userinfo=b'', fragment=None)}"
    client = httpx.AsyncClient(transport=http.transport(), trust_env=False, follow_redirects=True, timeout=limit_s)
    try:
        async with asyncio.timeout(limit_s):
            request = client.build_request(
                method, url, headers={name: str(value) for name, value in headers.items()}, **_body(params)
            )
            if traceparent:
                request.headers.setdefault("traceparent", traceparent)
            response = await client.send(request, stream=True)
            try:
                data = await _read(response)
            finally:
                await response.aclose()
    except TimeoutError:
        raise RequestFailed(f"{named}: no answer within {limit_s:g} s") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, AddressRefused) as error:
        raise PermanentFailure(f"{named}: {error}") from error
    except httpx.HTTPError as error:
        raise RequestFailed(f"{named}: {type(error).__name__} {error}") from error
    return _value(named, response, data)


def _target(url: object) -> httpx.URL:
    import httpx

    try:
        target = httpx.URL(url if isinstance(url, str) else "")
    except httpx.InvalidURL as error:
        raise PermanentFailure(f"params.url is not a URL: {error}") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise PermanentFailure("params.url must be an http or https URL")
    return target


def _limit_s(params: dict[str, Any]) -> float:
    limit_s = params.get("timeout_s", TIMEOUT_S)
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not 0 < limit_s <= 86_400:
        raise PermanentFailure("params.timeout_s must be a number of seconds")
    return float(limit_s)


def _body(params: dict[str, Any]) -> dict[str, Any]:
    body = params.get("body")
    if body is None:
        return {}
    return {"content": body.encode()} if isinstance(body, str) else {"json": body}


async def _read(response: httpx.Response) -> bytes:
    parts, size_bytes = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size_bytes += len(part)
        if size_bytes > ANSWER_MAX:
            raise PermanentFailure(f"the answer is larger than {ANSWER_MAX} bytes")
    return b"".join(parts)


def _value(named: str, response: httpx.Response, data: bytes) -> object:
    text = data[:TEXT_MAX].decode(_charset(response), "replace")
    if not response.is_success:
        what = f"{named}: {response.status_code} {response.reason_phrase} {' '.join(text[:200].split())}".rstrip()
        passing = not response.is_client_error or response.status_code in _PASSING
        marks = status_marks(response.status_code)
        raise RequestFailed(what, marks) if passing else RequestRefused(what, marks)
    if "json" in response.headers.get("content-type", "").lower():
        try:
            return json.loads(data)
        except ValueError:
            pass  # it says JSON, but is not
    return text or None


def _charset(response: httpx.Response) -> str:
    try:
        return codecs.lookup(response.charset_encoding or "utf-8").name
    except LookupError:
        return "utf-8"
