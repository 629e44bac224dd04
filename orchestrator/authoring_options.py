"""Options of tasks and DAGs as their decorators take them, and as they stand in JSON.

Section 1 of the dags contract gives bounds and defaults; `spec.py` checks them. Type checkers know the options by
their `TypedDict`s; `check_known` tells everyone else.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import PurePath
from typing import Any, TypedDict

from orchestrator.binding import CONTEXT, signature
from orchestrator.definition import AfterRule, Catchup, Durability, Isolation, Overlap, SlaAction, TriggerRule
from orchestrator.errors import Invalid
from orchestrator.failures import name_of

Function = Callable[..., Any]


class RetryPolicyOption(TypedDict, total=False):
    """How failures of some classes are tried again; the first that fits counts."""

    exceptions: Iterable[type[BaseException] | str]
    retries: int
    retry_delay_s: float


class ResourcesOption(TypedDict, total=False):
    """What a task asks of the cluster (docs/workers.md)."""

    num_cpus: float
    num_gpus: float
    memory_bytes: int
    #: custom resources of the cluster
    custom: dict[str, float]
    #: that its node must have
    labels: dict[str, str]


class TaskOptions(TypedDict, total=False):
    """Options of one task; section 1 of the dags contract gives bounds and defaults."""

    retries: int
    retry_delay_s: float
    retry_cap_s: float
    #: classes, or their names as in `failures.py`
    retry_on: Iterable[type[BaseException] | str]
    no_retry_on: Iterable[type[BaseException] | str]
    retry_policies: Iterable[RetryPolicyOption]
    #: of `task.bash`, and of `task.http`: `503`, `"5xx"`
    retry_exit_codes: Iterable[int]
    retry_statuses: Iterable[int | str]
    timeout_s: float
    queue_timeout_s: float
    heartbeat_timeout_s: float
    sla_s: int
    on_sla_miss: Iterable[SlaAction]
    priority: int
    #: workers that it runs on
    pool: str
    #: what it asks of the cluster, instead of a pool: {"num_gpus": 1}, …
    resources: ResourcesOption
    #: names of limits, which may have {{ params.NAME }} in them, or {"name": …, "slots": n}
    limits: Sequence[str | dict[str, Any]]
    #: assets that are updated when it succeeds
    produces: Sequence[str]
    #: when it starts, given how the tasks it depends on have ended
    trigger_rule: TriggerRule
    #: its value names the dependents that go on (`@task.branch`)
    branch: bool
    #: of a teardown: its failure fails the run
    on_failure_fail_run: bool
    #: of a mapped task: how many of its instances run at a time
    max_active: int
    #: of a mapped task: how many of its instances may fail, as a number or as `"5%"`
    tolerated_failures: int | str
    #: its result stands for that of an equal task for so long (docs/caching.md)
    cache_ttl_s: float
    #: with whom it is shared, which may have templates; runs of the DAG unless given
    cache_key: str
    #: of what it does; of a function its source unless given
    cache_version: str
    #: tasks of other windows, partitions and instances are not equal; of a function so if it takes the context
    cache_window: bool
    #: what becomes of a large value that it returns (docs/data.md)
    durability: Durability


class WaitOptions(TypedDict, total=False):
    """Options of a task that waits: it is not tried again by itself, and its limit is among its own arguments."""

    priority: int
    trigger_rule: TriggerRule
    branch: bool


class NamedTaskOptions(TaskOptions, total=False):
    """Options of a task function."""

    #: id of the task in its DAGs; the function's name unless given
    name: str


class CalendarOption(TypedDict, total=False):
    """On which dates a schedule fires, beside its cron expression."""

    exclude: Iterable[date | str]
    include: Iterable[date | str]
    #: `mon` … `sun`
    weekdays: Iterable[str]


class DagOptions(TypedDict, total=False):
    """Options of a DAG; section 1 of the dags contract gives bounds and defaults."""

    #: the function's name unless given
    dag_id: str
    owner: str
    schedule: str | None
    timezone: str
    catchup: Catchup
    overlap: Overlap
    calendar: CalendarOption
    #: aware, or text as in JSON
    start_at: datetime | str | None
    end_at: datetime | str | None
    jitter_s: float
    #: what a backfill without dates is over: values, or lists of them by name whose product it is
    partitions: list[str] | dict[str, list[str]]
    max_active_runs: int
    weight: int
    max_active_tasks: int | None
    #: DAGs whose success starts a run of this one: of all of them since the last such run, or of any
    after: Sequence[str]
    after_rule: AfterRule
    #: assets that start a run once all of them were updated since the last such run
    consumes: Sequence[str]
    #: name of events that start a run each
    on_event: str | None
    sla_s: int | None
    on_sla_miss: Iterable[SlaAction]
    run_timeout_s: float | None
    queue_timeout_s: float | None
    callback_url: str | None
    isolation: Isolation
    #: the first line of the function's docstring unless given
    description: str
    tags: Iterable[str]


def importable(module: str) -> str:
    """The name others import a module by that runs as a script here."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):
        return str(spec.name)
    return PurePath(getattr(main, "__file__", None) or module).stem


def as_written(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they stand in JSON: classes by their names, lists as lists."""
    told = dict(options)
    for key in ("retry_on", "no_retry_on"):
        if key in told:
            told[key] = _named(told[key])
    if "retry_policies" in told:
        told["retry_policies"] = [
            {**policy, "exceptions": _named(policy.get("exceptions", ()))} for policy in told["retry_policies"]
        ]
    for key in ("retry_exit_codes", "on_sla_miss", "produces"):
        if key in told:
            told[key] = list(told[key])
    if "retry_statuses" in told:
        told["retry_statuses"] = [str(status) for status in told["retry_statuses"]]
    return told


def by_source(function: Function) -> dict[str, Any]:
    """What makes a cached function another one, unless its author says so."""
    has = signature(function)
    told: dict[str, Any] = {"cache_window": has is not None and CONTEXT in has.parameters}
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # written at a prompt, or not in Python
        return told
    return told | {"cache_version": "src-" + hashlib.sha256(source.encode()).hexdigest()[:16]}


def _named(kinds: Iterable[type[BaseException] | str]) -> list[str]:
    return [kind if isinstance(kind, str) else name_of(kind, importable(kind.__module__)) for kind in kinds]


def day_text(day: date | str) -> str:
    """A day as it stands in JSON."""
    return day.isoformat() if isinstance(day, date) else day


def written_instant(at: datetime, name: str) -> str:
    """An instant as it stands in JSON. Raises Invalid about the option `name` without a time zone."""
    from orchestrator.dates import instant_text

    if at.tzinfo is None:
        raise Invalid(f"{name}: give the time zone of {at}", ((name, "has no time zone"),))
    return instant_text(at)


def check_known(options: Mapping[str, Any], kind: Any) -> None:
    """Type checkers know the options; this tells everyone else."""
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"unknown option {name!r}; there are {', '.join(sorted(kind.__optional_keys__))}")
