"""One POST of a webhook, to an address that was checked: a redirect is an answer like any other, never followed.

The request goes to the transport itself, so that no cookie, proxy or redirect comes between. Nothing of an answer but
its status matters; so much of its body is read that the connection can be used again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.address_guard import AddressRefused
from actors.guarded_http import GuardedHttp
from orchestrator.webhook import ERROR_MAX

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0
ANSWER_MAX = 64 * 1024
#: allow list of a deployment whose webhooks may go anywhere
ANYWHERE = "0.0.0.0/0,::/0"


class PostFailed(Exception):
    """There was no answer; the text says why, and holds nothing of the URL but its host."""


class WebhookPost:
    """Sends to public addresses, or anywhere. For one event loop."""

    def __init__(self, allow_private: bool) -> None:
        self._http = GuardedHttp(ANYWHERE if allow_private else "")

    async def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Status of the answer. Raises PostFailed."""
        import httpx

        try:
            async with asyncio.timeout(TIMEOUT_S):
                request = httpx.Request("POST", url, content=body, headers={"user-agent": "ray-orchestrator"} | headers)
                request.extensions["timeout"] = httpx.Timeout(TIMEOUT_S).as_dict()
                response = await self._http.transport().handle_async_request(request)
                try:
                    await _read(response)
                finally:
                    await response.aclose()
                return response.status_code
        except TimeoutError:
            raise PostFailed(f"no answer within {TIMEOUT_S:g} s") from None
        except AddressRefused as refused:
            raise PostFailed(f"{refused.host} is at {refused.address}, which is not a public address") from refused
        except (httpx.InvalidURL, httpx.HTTPError) as error:
            raise PostFailed(f"{type(error).__name__}: {error}"[:ERROR_MAX]) from error


async def _read(response: httpx.Response) -> None:
    size_bytes = 0
    async for part in response.aiter_raw():
        size_bytes += len(part)
        if size_bytes > ANSWER_MAX:
            return
