"""When a failed attempt is tried again.

Exponential backoff with full jitter: the delay is drawn evenly from 0 up to base * 2^(failures-1), capped,
so that tasks which failed together do not come back together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). Chance is an argument.
"""

from __future__ import annotations

from datetime import timedelta

#: beyond any retry that makes sense, and within what datetime can add
_LONGEST_S = 366 * 86400.0
#: 2.0 ** _STEEPEST is still a float
_STEEPEST = 1000


def may_retry(failures: int, retries: int, permanent: bool) -> bool:
    """Whether a task that failed for the `failures`-th time has an attempt left."""
    return not permanent and failures <= retries


def delay(base_s: float, cap_s: float, failures: int, jitter: float) -> timedelta:
    """How long to wait after the `failures`-th failure; `jitter` is drawn from [0, 1)."""
    return timedelta(seconds=ceiling_s(base_s, cap_s, failures) * jitter)


def ceiling_s(base_s: float, cap_s: float, failures: int) -> float:
    """The longest delay there may be after the `failures`-th failure, in seconds."""
    return min(cap_s, _LONGEST_S, base_s * 2.0 ** min(max(failures, 1) - 1, _STEEPEST))
