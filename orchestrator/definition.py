"""A DAG as the core sees it: validated, normalised, immutable, identified by its content.

`spec.py` makes one from JSON or YAML, `authoring.py` from decorated Python. These are msgspec
structs rather than dataclasses: same immutability, and the codec reads and writes them without a
second description. Spans carry their unit in the name.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

Catchup = Literal["none", "last", "all"]
Overlap = Literal["allow", "skip", "buffer_one", "cancel_previous"]
Isolation = Literal["shared", "dedicated"]
RunType = Literal["manual", "backfill", "scheduled"]
AfterRule = Literal["all", "any"]
#: when a task starts, given how those it waits for have ended (`trigger.py`)
TriggerRule = Literal[
    "all_success",
    "all_failed",
    "all_done",
    "one_success",
    "one_failed",
    "none_failed",
    "none_failed_min_one_success",
    "always",
]

#: what becomes of a large return value (`actors/artifacts.py`): it is written to a disk or a store, or kept in memory
Durability = Literal["stored", "memory"]

#: what a missed SLA leads to, beside its event (`deadlines.py`)
SlaAction = Literal["mark", "event", "webhook", "cancel"]
MARK: tuple[SlaAction, ...] = ("mark",)


#: what the id of a definition begins with that is nobody's DAG: `@kind` or `@kind/name`
HIDDEN = "@"

#: types that every worker of the cluster runs; a task of another type waits for somebody who advertises it
IN_CLUSTER_TYPES = frozenset({"core.noop", "core.echo", "core.sleep", "core.fail", "python", "bash", "http"}) | {
    # how executors carry out tasks of plans; nobody can write them into a definition (`kinds.CORE`)
    "core.text",
    "core.command",
}


#: types that wait for the world, without a worker (`waits.py`)
WAITING_TYPES = frozenset({"core.wait", "core.signal", "core.approval", "core.dag"})


class Container(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task runs in where each attempt is a Kubernetes Job."""

    #: None = the server's default image
    image: str | None = None
    #: empty = the image's own
    command: tuple[str, ...] = ()


class Conduct(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an orchestrator instance works through a plan: batch after batch."""

    batch_size: int = 5
    #: batches until it gives up; 0 = unlimited
    max_iterations: int = 50
    #: groups of tasks that never overlap and keep their order
    sequences: tuple[tuple[str, ...], ...] = ()


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of failures of some classes: how often and after how long they are tried again (`retry.py`)."""

    #: names as in `failures.py`; one of them is enough
    exceptions: tuple[str, ...]
    #: None = as the task says
    retries: int | None = None
    retry_delay_s: float | None = None


class LimitUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task takes of a limit while it runs; the name may have placeholders (`needs.py`)."""

    name: str
    slots: int = 1


class TaskResources(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker has to have for a task."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    #: custom resources of the cluster
    custom: dict[str, float] = msgspec.field(default_factory=dict)
    #: that its node must have
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One node of the graph."""

    id: str
    #: `core.*`, `python`, `bash`, `http`, or a type that some worker advertises
    type: str = "core.noop"
    depends_on: tuple[str, ...] = ()
    #: `module:function`, for type `python` only
    entrypoint: str | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    #: parameter name -> id of the dependency whose return value fills it
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    retries: int = 0
    #: doubles per failed attempt, up to `retry_cap_s`
    retry_delay_s: float = 5.0
    retry_cap_s: float = 300.0
    timeout_s: float = 3600.0
    #: from when its run was queued; None = it has no deadline
    sla_s: int | None = None
    priority: int = 0
    pool: str = "default"
    container: Container | None = None
    #: dependencies whose final failure counts as done for this task
    tolerates: tuple[str, ...] = ()
    trigger_rule: TriggerRule = "all_success"
    #: its value names the dependents that go on
    branch: bool = False
    #: setups whose work it undoes, once everything between has ended; its rule is then that of a teardown
    teardown_of: tuple[str, ...] = ()
    #: of a teardown: its failure fails the run
    on_failure_fail_run: bool = False
    #: of a mapped task: path of one parameter -> what it runs for each element of (`mapped.py`): the id of a task that
    #: returns a list, a list, or `{"$param": name}`
    expand: dict[str, Any] = msgspec.field(default_factory=dict)
    #: of a mapped task: how many of its instances run at a time; None = as many as there are slots
    max_active: int | None = None
    #: of a mapped task: how many instances may fail, as a number or as `5%`
    tolerated_failures: int | str = 0
    on_sla_miss: tuple[SlaAction, ...] = MARK
    #: it fails when it could start and no worker takes it for so long; None = it waits
    queue_timeout_s: float | None = None
    #: an attempt that gives no sign of life for so long is ended; None = none is asked for
    heartbeat_timeout_s: float | None = None
    #: names as in `failures.py`: only failures of these are tried again (empty = of all), and those of these never
    retry_on: tuple[str, ...] = ()
    no_retry_on: tuple[str, ...] = ()
    #: the first that fits counts
    retry_policies: tuple[RetryPolicy, ...] = ()
    #: of a `bash` task: only these are tried again; empty = all
    retry_exit_codes: tuple[int, ...] = ()
    #: of an `http` task: `503`, `5xx`; only these are tried again; empty = those that may go away
    retry_statuses: tuple[str, ...] = ()
    #: the task that it undoes when the run does not succeed; it has no other rule then (`compensation.py`)
    compensates: str | None = None
    #: it runs only while it has a permit of each
    limits: tuple[LimitUse, ...] = ()
    #: what it is a part of for people, and what its branches name tasks in (`grouping.py`); "" = nothing
    group: str = ""
    #: its result stands for that of an equal task for so long; None = for none (`caching.py`)
    cache_ttl_s: float | None = None
    #: with whom it is shared, which may have templates; None = with runs of the DAG
    cache_key: str | None = None
    #: of what the task does
    cache_version: str | None = None
    #: tasks of other windows, partitions and instances are not equal
    cache_window: bool = False
    #: assets that are updated when it succeeds (`awaited.py`)
    produces: tuple[str, ...] = ()
    #: `memory`: a large value that is lost is computed again (`lost_values.py`)
    durability: Durability = "stored"
    #: what it asks of the cluster; its `pool` is then made from that (`task_shapes.py`)
    resources: TaskResources | None = None


class Calendar(msgspec.Struct, frozen=True, omit_defaults=True):
    """On which dates a schedule fires, beside its cron expression; see `calendars.py`. Dates are `YYYY-MM-DD`."""

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    #: `mon` … `sun`; None = all
    weekdays: tuple[str, ...] | None = None


class Dimension(msgspec.Struct, frozen=True, array_like=True):
    """One of the lists whose product are the partitions of a DAG."""

    #: "" = the only one: partitions are its values
    name: str
    values: tuple[str, ...]


class Definition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of a DAG. Its version number is given by the journal, not by the author."""

    dag_id: str
    owner: str
    schedule: str | None = None
    timezone: str = "UTC"
    tasks: tuple[TaskSpec, ...] = ()
    catchup: Catchup = "none"
    overlap: Overlap = "allow"
    max_active_runs: int = 16
    sla_s: int | None = None
    #: whole-run limit from start; None = no limit
    run_timeout_s: float | None = None
    callback_url: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    isolation: Isolation = "shared"
    #: of a plan that an orchestrator instance works through; None = a DAG
    conduct: Conduct | None = None
    #: it has no tasks of its own: its caller drives it by checkpoints, and it fails after so long without one
    #: (0 = never); None = it ends with its tasks
    driven_ttl_s: float | None = None
    #: dates of the schedule's zone on which it fires; None = all
    calendar: Calendar | None = None
    #: the schedule fires neither before the one nor after the other; instants as `dates.instant_text` writes them
    start_at: str | None = None
    end_at: str | None = None
    #: a fire is late by a share of this, always the same for the same fire, and never by as much as until the next one
    jitter_s: float = 0.0
    #: its part of what its class shares among DAGs (`shares.py`)
    weight: int = 1
    on_sla_miss: tuple[SlaAction, ...] = MARK
    #: a run that is not admitted for so long ends as timed out; None = it waits
    queue_timeout_s: float | None = None
    #: what a backfill without dates is over, and what one with partitions may name; () = none are declared
    partitions: tuple[Dimension, ...] = ()
    #: tasks of all its runs together that run at a time; None = no limit
    max_active_tasks: int | None = None
    #: DAGs whose success starts a run of it, of each or of one of them; or assets that all have to be updated
    #: (`awaited.py`)
    after: tuple[str, ...] = ()
    after_rule: AfterRule = "all"
    consumes: tuple[str, ...] = ()
    #: name of events that start a run of it
    on_event: str | None = None
    #: where the code of its `python` tasks is (`bundle.py`); None = on the workers' import path. Belonging to the
    #: version, it makes other code another version, and a run that pins one pins the other
    bundle: str | None = None


#: what the key of a partition begins with; that of a piece of time begins with a digit
_PARTITION = "="


class Window(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}, omit_defaults=True):
    """What a run is about: dates (both inclusive), RFC 3339 instants (`to` exclusive), or a partition, as text.

    One struct rather than a union: the journal knows windows by their key alone, and the events of old journals,
    which know only `from` and `to`, read as they are.
    """

    start: str = ""
    end: str = ""
    #: as `partitions.text_of` writes it; "" = a piece of time
    partition: str = ""

    def key(self) -> str:
        """Identity of the window within its DAG."""
        return _PARTITION + self.partition if self.partition else f"{self.start}/{self.end}"

    @classmethod
    def of_key(cls, key: str) -> Window:
        """The window with that key."""
        if key.startswith(_PARTITION):
            return cls(partition=key[len(_PARTITION) :])
        start, _, end = key.partition("/")
        return cls(start, end)


_encode = msgspec.json.Encoder(order="deterministic").encode


def content_hash(definition: Definition) -> str:
    """SHA-256 over the canonical JSON of `definition`; equal definitions hash equally."""
    return hashlib.sha256(_encode(definition)).hexdigest()
