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


#: what the id of a definition begins with that is nobody's DAG: `@kind` or `@kind/name`
HIDDEN = "@"

#: types that every worker of the cluster runs; a task of another type waits for somebody who advertises it
IN_CLUSTER_TYPES = frozenset({"core.noop", "core.echo", "core.sleep", "core.fail", "python", "bash", "http"}) | {
    # how executors carry out tasks of plans; nobody can write them into a definition (`kinds.CORE`)
    "core.text",
    "core.command",
}


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


class Calendar(msgspec.Struct, frozen=True, omit_defaults=True):
    """On which dates a schedule fires, beside its cron expression; see `calendars.py`. Dates are `YYYY-MM-DD`."""

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    #: `mon` … `sun`; None = all
    weekdays: tuple[str, ...] | None = None


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


class Window(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}, array_like=False):
    """What a run is about: dates (both inclusive) or RFC 3339 instants (`to` exclusive), as text."""

    start: str
    end: str

    def key(self) -> str:
        """Identity of the window within its DAG."""
        return f"{self.start}/{self.end}"


_encode = msgspec.json.Encoder(order="deterministic").encode


def content_hash(definition: Definition) -> str:
    """SHA-256 over the canonical JSON of `definition`; equal definitions hash equally."""
    return hashlib.sha256(_encode(definition)).hexdigest()
