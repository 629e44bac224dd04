"""Which network addresses are public, reachable by anybody, so that a request to them reveals nothing of ours."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
Address = IPv4Address | IPv6Address


def read(address: str) -> Address | None:
    """The address that this text is, with or without a zone; None when it is a name."""
    try:
        return ip_address(address.partition("%")[0])
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Is it, and every IPv4 address that a gateway or the kernel makes of it, public?"""
    return all(each.is_global and not each.is_multicast for each in _meant(address))


def is_loopback(host: str) -> bool:
    """True for `localhost`, 127.0.0.0/8 and ::1."""
    name = host.strip().removeprefix("[").removesuffix("]").lower()
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback and (address.version == 4 or address == IPv6Address(1))


def _meant(address: Address) -> list[Address]:
    meant: list[Address] = [address]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address.sixtofour is not None:
            meant.append(address.sixtofour)
        if address.teredo is not None:
            meant += address.teredo
        if address in _NAT64:
            meant.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return meant
