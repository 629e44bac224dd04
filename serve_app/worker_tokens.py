"""Individual tokens of remote workers, as digests: who may speak as which worker.

A worker id that is in here needs its own token; any other worker presents a token with scope `worker`. Source: jobs
contract, section 4 (Auth). Comparison takes the same time for every token.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import msgspec


class KeptTokens(msgspec.Struct, frozen=True):
    """What the operator's file said when it was read."""

    #: epoch milliseconds
    read_ms: int = 0
    #: worker id -> SHA-256 of its token, lower-case hex
    digests: dict[str, str] = {}


class WorkerTokens:
    """Worker id -> SHA-256 of its token, lower-case hex."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        self._digests = {worker_id: bytes.fromhex(each) for worker_id, each in digests.items()}

    def has(self, worker_id: str) -> bool:
        """Does this worker need a token of its own?"""
        return worker_id in self._digests

    def fits(self, worker_id: str, token: str) -> bool:
        """Is it the token of this worker?"""
        known = self._digests.get(worker_id)
        return known is not None and hmac.compare_digest(known, _digest(token))

    def owner(self, token: str) -> str | None:
        """The worker whose token it is."""
        digest, found = _digest(token), None
        for worker_id, known in self._digests.items():
            if hmac.compare_digest(known, digest):
                found = worker_id
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
