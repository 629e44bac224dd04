"""How much one caller may ask for, as arithmetic on seconds (monotonic) and counts.

    Buckets     dags: a token bucket per tenant; `burst` at once, then `rate_per_s`
    Occupancy   runs: at most `most` streams open at the same time per principal

Both live in one replica; with several replicas each gets its share. A bucket is full again after `burst / rate_per_s`
(2 s by default), sooner than a replica that died is replaced, and streams end with their replica: there is nothing that
would have to outlive it. The window of the runs surface, a minute, does, and is kept in the journal's server
(`Journal.ask_leave`). Contracts: dags section 2, runs sections 4 and 5.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from orchestrator.errors import Invalid


@dataclass(slots=True)
class Bucket:
    """Tokens left at an instant (monotonic seconds)."""

    tokens: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one request found in the bucket."""

    #: most requests at once
    limit: int
    #: requests that may follow at once
    remaining: int
    #: whole seconds to wait; 0 = this request may pass
    retry_after_s: int = 0


class Buckets:
    """One bucket per tenant."""

    def __init__(self, rate_per_s: float, burst: int, replicas: int = 1) -> None:
        if rate_per_s <= 0 or burst < 1:
            raise Invalid(f"rate limit of {rate_per_s:g} requests/s, burst {burst}: both must be above 0")
        self._rate = rate_per_s / replicas
        self._burst = max(1, burst // replicas)
        self._of: dict[str, Bucket] = {}

    @property
    def untouched(self) -> Allowance:
        """What a caller without a tenant is told."""
        return Allowance(self._burst, self._burst)

    def take(self, tenant: str, now_s: float) -> Allowance:
        """One request of `tenant` at `now_s`: passes, or is told how long to wait."""
        bucket = self._of.get(tenant)
        if bucket is None:
            bucket = self._of[tenant] = Bucket(self._burst, now_s)
        bucket.tokens = min(self._burst, bucket.tokens + max(0.0, now_s - bucket.at_s) * self._rate)
        bucket.at_s = now_s
        if bucket.tokens < 1.0:
            return Allowance(self._burst, 0, max(1, math.ceil((1.0 - bucket.tokens) / self._rate)))
        bucket.tokens -= 1.0
        return Allowance(self._burst, int(bucket.tokens))


class Occupancy:
    """How many of something each holder has."""

    def __init__(self, most: int, replicas: int = 1) -> None:
        self.most = max(1, most // replicas)
        self._held: Counter[Hashable] = Counter()

    def enter(self, holder: Hashable) -> bool:
        """One more for `holder`, to be given back by `leave`; False when it has `most`."""
        if self._held[holder] >= self.most:
            return False
        self._held[holder] += 1
        return True

    def leave(self, holder: Hashable) -> None:
        """One less."""
        self._held[holder] -= 1
        if self._held[holder] <= 0:
            del self._held[holder]
