"""When a failed attempt is tried again: how often, of which failures, and after how long.

Exponential backoff with full jitter: the delay is drawn evenly from 0 up to base * 2^(failures-1), capped,
so that tasks which failed together do not come back together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). Chance is an argument.

Which failures, in this order; a task that says nothing about classes tries again whatever is not permanent:

    no_retry_on names it                                 never
    retry_exit_codes, retry_statuses do not list its     never; a status that is listed is tried again even where it
                                                         would count as permanent
    it is permanent                                      never
    a policy names it                                    as the first of those says
    retry_on does not name it                            never
    else                                                 `retries` times
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from orchestrator.definition import TaskSpec
from orchestrator.failures import TIMEOUT_NAMES, exit_mark
from orchestrator.messages import Report

#: beyond any retry that makes sense, and within what datetime can add
_LONGEST_S = 366 * 86400.0
#: 2.0 ** _STEEPEST is still a float
_STEEPEST = 1000


def may_retry(failures: int, retries: int, permanent: bool) -> bool:
    """Whether a task that failed for the `failures`-th time has an attempt left."""
    return not permanent and failures <= retries


def allowance(spec: TaskSpec, report: Report) -> tuple[int, float]:
    """How often a failure like this is tried again (0 = never), and the base of the delay, in seconds."""
    if not _by_class(spec):
        return (0 if report.permanent else spec.retries), spec.retry_delay_s
    raised = report.raised or (TIMEOUT_NAMES if report.outcome in ("timed_out", "stalled") else ())
    never = 0, spec.retry_delay_s
    if _named(spec.no_retry_on, raised):
        return never
    listed = _listed(spec, raised)
    if listed is False or (report.permanent and not listed):
        return never
    for policy in spec.retry_policies:
        if _named(policy.exceptions, raised):
            retries = spec.retries if policy.retries is None else policy.retries
            return retries, spec.retry_delay_s if policy.retry_delay_s is None else policy.retry_delay_s
    if spec.retry_on and not _named(spec.retry_on, raised):
        return never
    return spec.retries, spec.retry_delay_s


def _by_class(spec: TaskSpec) -> bool:
    return bool(
        spec.retry_on or spec.no_retry_on or spec.retry_policies or spec.retry_exit_codes or spec.retry_statuses
    )


def _named(names: Collection[str], raised: Collection[str]) -> bool:
    return any(name in raised for name in names)


def _listed(spec: TaskSpec, raised: Collection[str]) -> bool | None:
    """Is its exit code or status among those to be tried again? None = it has none, or the task lists none."""
    if spec.retry_exit_codes and any(name.startswith("exit ") for name in raised):
        return _named([exit_mark(code) for code in spec.retry_exit_codes], raised)
    if spec.retry_statuses and any(name.startswith("status ") for name in raised):
        return _named([f"status {status}" for status in spec.retry_statuses], raised)
    return None


def delay(base_s: float, cap_s: float, failures: int, jitter: float) -> timedelta:
    """How long to wait after the `failures`-th failure; `jitter` is drawn from [0, 1)."""
    return timedelta(seconds=ceiling_s(base_s, cap_s, failures) * jitter)


def ceiling_s(base_s: float, cap_s: float, failures: int) -> float:
    """The longest delay there may be after the `failures`-th failure, in seconds."""
    return min(cap_s, _LONGEST_S, base_s * 2.0 ** min(max(failures, 1) - 1, _STEEPEST))
