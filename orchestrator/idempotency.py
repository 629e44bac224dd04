"""A caller's key for one command: sent again with it, the command is answered and not done again."""

from __future__ import annotations

import msgspec


class Idempotency(msgspec.Struct, frozen=True):
    """A caller's key for one command: same key and fingerprint give the stored answer."""

    #: already scoped by tenant, method, path
    key: str
    #: SHA-256 of the canonical body
    fingerprint: str
