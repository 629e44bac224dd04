"""What becomes of a task given how its upstreams ended, as the documentation says it: no tallies, no history."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

TASK_TERMINAL = frozenset({"succeeded", "failed", "timed_out", "cancelled", "skipped", "upstream_failed"})

#: what a dependent sees of an upstream: one that a person skipped is as good as done
GOOD, BAD, PASSED, OPEN = "good", "bad", "passed over", "open"
STARTS, WAITS, SKIPPED, UPSTREAM_FAILED = "starts", "waits", "skipped", "upstream_failed"
#: rules that do not wait for the other upstreams
EAGER = frozenset({"one_success", "one_failed", "always"})


def seen(state: str, by: str = "") -> str:
    """What a dependent sees of a task in `state`, skipped `by`."""
    if state == "skipped":
        return PASSED if by else GOOD
    return GOOD if state == "succeeded" else BAD if state in TASK_TERMINAL else OPEN


def at_the_end(rule: str, ends: Sequence[str]) -> str:
    """What the documentation says becomes of a task whose upstreams have all ended so."""
    good, bad, passed = (ends.count(kind) for kind in (GOOD, BAD, PASSED))
    starts, otherwise = {
        "all_success": (good == len(ends), UPSTREAM_FAILED if bad else SKIPPED),
        "all_failed": (bad == len(ends), SKIPPED),
        "all_done": (True, ""),
        "one_success": (good > 0, SKIPPED if passed == len(ends) else UPSTREAM_FAILED),
        "one_failed": (bad > 0, SKIPPED),
        "none_failed": (bad == 0, UPSTREAM_FAILED),
        "none_failed_min_one_success": (bad == 0 and good > 0, UPSTREAM_FAILED if bad else SKIPPED),
        "always": (True, ""),
    }[rule]
    return STARTS if starts or not ends else otherwise


def becomes(rule: str, ends: Sequence[str]) -> str:
    """The same while some are open: decided once whatever they come to gives the same."""
    open_ = ends.count(OPEN)
    ended = [end for end in ends if end != OPEN]
    if rule in EAGER and (rule == "always" or (ended and at_the_end(rule, ended) == STARTS)):
        return STARTS
    ways = {at_the_end(rule, [*ended, *more]) for more in itertools.product((GOOD, BAD, PASSED), repeat=min(open_, 2))}
    if len(ways) > 1 or (open_ and ways == {STARTS}):
        return WAITS
    return ways.pop()
