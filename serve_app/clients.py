"""What is agreed with each client of the jobs surface: its name, plan and quota. Plain values, for replicas.

The tokens themselves count on every surface (`auth.py`); here a token is only a key. Clients that are in no file have
no quota, and go by the name of their tenant. Source: jobs contract, sections 3, 8, 9a.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from actors.token_files import Client


@dataclass(frozen=True, slots=True)
class Agreement:
    """One client."""

    #: SHA-256 of its token, lower-case hex
    sha256: str
    name: str
    plan: str | None = None
    #: jobs it may create in a month; None = any number
    monthly_attempts: int | None = None


class Clients:
    """Agreements by token."""

    def __init__(self, agreements: Iterable[Agreement] = ()) -> None:
        self._by_digest = {each.sha256: each for each in agreements}

    def of(self, token: str, tenant: str) -> Agreement:
        """What is agreed with whoever holds `token`, of which the tenant is known."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return self._by_digest.get(digest) or Agreement(digest, tenant)


def agreements_of(clients: Iterable[Client]) -> list[Agreement]:
    """What the operator's file says, without secrets."""
    return [Agreement(each.sha256, each.name, each.plan, each.monthly_attempts) for each in clients]
