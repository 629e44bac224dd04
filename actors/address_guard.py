"""Which addresses an HTTP request on a user's behalf may reach: public ones, and what the operator lists.

Names can resolve to anything, at any time, so the check belongs at connect time, on the address that is connected
to: `guarded_http.py` resolves, asks here, and connects to what was checked. That covers redirects and re-bound names.

The allow list is a comma list of host names, addresses and networks, for instance
`ORCHESTRATOR_HTTP_ALLOW=intranet.local,10.1.0.0/16`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from orchestrator.addresses import is_public
from orchestrator.errors import Invalid, Refused


class AddressRefused(Refused):
    """The target of a request is not public and not allowed."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(host, address)
        self.host = host
        self.address = address

    def __str__(self) -> str:
        return f"{self.host} is at {self.address}, which is not a public address (see ORCHESTRATOR_HTTP_ALLOW)"


class AddressGuard:
    """Decides by host name and resolved address. Raises Invalid for an allow list that cannot be read."""

    def __init__(self, allow: str) -> None:
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in filter(None, (part.strip() for part in allow.split(","))):
            network = _network(entry)
            if network is not None:
                self._networks.append(network)
            else:
                self._hosts.add(entry.lower().rstrip("."))

    def check(self, host: str, address: str) -> None:
        """Returns when `address`, to which `host` resolved, may be connected to. Raises AddressRefused."""
        if host.lower().rstrip(".") in self._hosts:
            return
        target = ip_address(address.partition("%")[0])
        if any(target in network for network in self._networks):
            return
        if not is_public(target):
            raise AddressRefused(host, address)


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        if "/" in entry:
            raise Invalid(f"ORCHESTRATOR_HTTP_ALLOW: {entry!r} is not a network") from None
        return None
