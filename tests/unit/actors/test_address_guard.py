"""actors.address_guard: who may be reached."""

from __future__ import annotations

import pickle

import pytest

from actors.address_guard import AddressGuard, AddressRefused
from orchestrator.errors import Invalid


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_pass(address: str) -> None:
    AddressGuard("").check("example.com", address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:a00:1::",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not a public address"):
        AddressGuard("").check("example.com", address)


@pytest.mark.parametrize(
    ("allow", "host", "address"),
    [
        ("intranet.local", "intranet.local", "10.0.0.1"),
        ("intranet.local", "Intranet.Local.", "10.0.0.1"),
        ("10.1.0.0/16", "anything", "10.1.2.3"),
        ("127.0.0.1", "localhost", "127.0.0.1"),
        (" a.b , ::1 ", "localhost", "::1"),
    ],
)
def test_what_is_listed_passes(allow: str, host: str, address: str) -> None:
    AddressGuard(allow).check(host, address)


@pytest.mark.parametrize(("host", "address"), [("sub.intranet.local", "10.0.0.1"), ("x", "10.2.0.1")])
def test_a_list_allows_nothing_beside_it(host: str, address: str) -> None:
    with pytest.raises(AddressRefused):
        AddressGuard("intranet.local,10.1.0.0/16").check(host, address)


def test_a_list_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(Invalid, match=r"10\.1\.0\.0/99"):
        AddressGuard("10.1.0.0/99")


def test_the_refusal_survives_pickling() -> None:
    error = AddressRefused("a", "10.0.0.1")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
