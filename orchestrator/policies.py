"""Keys of a definition that say by when something has to have happened, and how failures are tried again.

What they mean is told where it is decided: `deadlines.py`, `retry.py`. Here is what may be written, beyond the form of
each key (`spec.py`), and how it is written back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.definition import MARK, WAITING_TYPES, Definition, RetryPolicy, SlaAction, TaskSpec
from orchestrator.faults import Fault
from orchestrator.webhook import check_webhook_url

#: keys of a task that are a number of seconds or nothing, and those that are lists
SPANS = ("queue_timeout_s", "heartbeat_timeout_s")
LISTS = ("retry_on", "no_retry_on", "retry_exit_codes", "retry_statuses")


def actions(given: Iterable[SlaAction]) -> tuple[SlaAction, ...]:
    """Each once; the default is always the same object, for another one would be written and change hashes."""
    once = tuple(dict.fromkeys(given))
    return MARK if once == MARK else once


def policy_json(policy: RetryPolicy) -> dict[str, Any]:
    """As it is written."""
    body = {"exceptions": list(policy.exceptions), "retries": policy.retries, "retry_delay_s": policy.retry_delay_s}
    return {key: value for key, value in body.items() if value is not None}


def faults(definition: Definition) -> Iterator[Fault]:
    """What is wrong with these keys."""
    told = definition.callback_url is not None
    if definition.callback_url is not None and not _is_callback(definition.callback_url):
        yield "callback_url", "must be an http or https URL without credentials"
    if definition.on_sla_miss is not MARK:
        yield from _misused_actions("", definition.sla_s, definition.on_sla_miss, told)
    for position, task in enumerate(definition.tasks):
        where = f"tasks/{position}/"
        if task.on_sla_miss is not MARK:
            yield from _misused_actions(where, task.sla_s, task.on_sla_miss, told)
        yield from ((where + key, problem) for key, problem in (*_misplaced(task), *_misused_retries(task)))


def _is_callback(url: str) -> bool:
    from orchestrator.errors import Invalid

    try:
        check_webhook_url(url, allow_private=True)  # addresses are checked when something is sent
    except Invalid:
        return False
    return True


def _misused_actions(where: str, sla_s: int | None, wanted: tuple[SlaAction, ...], told: bool) -> Iterator[Fault]:
    if sla_s is None:
        yield f"{where}on_sla_miss", "needs sla_s"
    if "webhook" in wanted and not told:
        yield f"{where}on_sla_miss", "webhook needs callback_url of the DAG"


def _misplaced(task: TaskSpec) -> Iterator[Fault]:
    """Limits of tasks that no worker runs."""
    if task.type in WAITING_TYPES:
        yield from ((key, "is for tasks that a worker runs") for key in SPANS if getattr(task, key) is not None)
    if task.expand:
        if task.queue_timeout_s is not None:
            yield "queue_timeout_s", "a mapped task waits for no worker, and its instances cannot have such a limit"
        if "cancel" in task.on_sla_miss:
            yield "on_sla_miss", "a mapped task cannot be cancelled by its SLA"


def _misused_retries(task: TaskSpec) -> Iterator[Fault]:
    if task.retry_exit_codes and task.type != "bash":
        yield "retry_exit_codes", "is for tasks of type bash"
    if task.retry_statuses and task.type != "http":
        yield "retry_statuses", "is for tasks of type http"
    if task.retries == 0 and not any(policy.retries for policy in task.retry_policies):
        for key in ("retry_on", "retry_policies", "retry_exit_codes", "retry_statuses"):
            if getattr(task, key):
                yield key, "nothing is tried again without retries"
    for name in sorted({*task.retry_on} & {*task.no_retry_on}):
        yield "no_retry_on", f"{name} is in retry_on too"
