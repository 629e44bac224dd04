"""HTTP connections on a user's behalf: every one, also after a redirect, goes to an address that was checked.

A name is resolved here, its addresses are shown to `address_guard.py`, and the connection goes to an address that
passed; TLS still verifies the name. Proxies of the environment are not used: behind one, the check would say nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from actors.address_guard import AddressGuard, AddressRefused

if TYPE_CHECKING:
    import httpx


class GuardedHttp:
    """Connections of one event loop, kept open between requests. httpx is imported when first used."""

    def __init__(self, allow: str) -> None:
        self._allow = allow
        self._transport: httpx.AsyncHTTPTransport | None = None

    def transport(self) -> httpx.AsyncHTTPTransport:
        """For `httpx.AsyncClient(transport=…, trust_env=False)`. Raises Invalid when the allow list cannot be read."""
        if self._transport is None:
            self._transport = _guarded(AddressGuard(self._allow))
        return self._transport


def _guarded(guard: AddressGuard) -> httpx.AsyncHTTPTransport:
    import httpcore
    import httpx

    class Guarded(httpcore.AnyIOBackend):
        """Connects to the first checked address that answers."""

        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore.AsyncNetworkStream:
            failure: Exception = httpcore.ConnectError(f"{host} has no address")
            for address in await _addresses(host, port):
                try:
                    guard.check(host, address)
                    return await super().connect_tcp(address, port, timeout, local_address, socket_options)
                except (AddressRefused, httpcore.ConnectError) as error:
                    failure = error
            raise failure

        async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
            raise AddressRefused("a unix socket", "this machine")

    async def _addresses(host: str, port: int) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    transport = httpx.AsyncHTTPTransport(trust_env=False)
    # httpx has no parameter for it; its pool uses this one for each new connection
    transport._pool._network_backend = Guarded()
    return transport
