"""A limit as people define it: how many permits there are, and how many tasks may start in a span.

Both may be given, one, or none (then tasks are only counted). A name that ends with `*` is a *pattern*: every key that
begins so and has no definition of its own is limited so, each by itself.
"""

from __future__ import annotations

import msgspec

from orchestrator.errors import Invalid

#: kind of the journal's records: key -> Limit
LIMITS = "limit"
#: permits of a limit, and starts in a span
COUNT_MAX = 10_000
PER_S_MIN, PER_S_MAX = 0.001, 86_400.0


class Rate(msgspec.Struct, frozen=True):
    """So many starts in any span of so many seconds."""

    count: int
    per_s: float = 1.0


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is allowed under one name."""

    #: permits that are in use at a time; None = any number
    max_running: int | None = None
    rate: Rate | None = None


NO_LIMIT = Limit()


def check(limit: Limit) -> None:
    """Raises Invalid when a number is out of bounds."""
    faults: list[tuple[str, str]] = []
    if limit.max_running is not None and not 0 <= limit.max_running <= COUNT_MAX:
        faults.append(("max_running", f"0 to {COUNT_MAX}"))
    if limit.rate is not None:
        if not 1 <= limit.rate.count <= COUNT_MAX:
            faults.append(("rate/count", f"1 to {COUNT_MAX}"))
        if not PER_S_MIN <= limit.rate.per_s <= PER_S_MAX:
            faults.append(("rate/per_s", f"{PER_S_MIN:g} to {PER_S_MAX:g}"))
    if faults:
        raise Invalid("a number of the limit is out of bounds", tuple(faults))
