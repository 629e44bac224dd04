"""What the journal holds, as it is read: rows of DAGs, runs, windows, owners and instances; batches of a run's events.

A row is what was committed last; states are core words, except a task's, which is one letter in the journal. Instants
are epoch milliseconds (`*_ms`). The steps that write them are in `steps.py`.
"""

from __future__ import annotations

import msgspec

from orchestrator.definition import Window
from orchestrator.partitions import SET

#: core run states that absorb
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out", "quarantined"})
#: core run states
STATES = ("queued", "running", "waiting", "paused", "cancelling", *sorted(TERMINAL))
#: core task state -> its letter in the journal
TASK_LETTERS = {
    "pending": "p",
    "running": "r",
    "retrying": "e",
    "suspended": "z",
    "waiting": "w",
    "succeeded": "d",
    "failed": "f",
    "cancelled": "c",
    "timed_out": "t",
    "skipped": "s",
    "upstream_failed": "u",
}
TASK_STATES = {letter: state for state, letter in TASK_LETTERS.items()}
#: missed SLAs that a row tells of
SLAS_SHOWN = 100

#: what the window key of a run that an event started begins with; its id follows
EVENT = "!"


class DagRow(msgspec.Struct, frozen=True):
    """A DAG as stored."""

    tenant: str
    dag_id: str
    version: int
    paused: bool
    content_hash: str
    created_ms: int
    updated_ms: int
    next_fire_ms: int | None
    #: when that one happens: jitter delays it
    next_due_ms: int | None
    #: last fire that was decided on
    fired_ms: int | None
    #: JSON of the current version
    definition: bytes
    #: core run state -> runs, backfills left out
    run_counts: dict[str, int]
    #: reason -> fires that started no run
    dropped: dict[str, int] = {}
    #: the latest of them, and why
    dropped_ms: int | None = None
    dropped_why: str = ""
    #: grows with each run of a window that leaves for an archive; 0 = none ever did
    archived: int = 0


class RunRow(msgspec.Struct, frozen=True):
    """A run or backfill as last committed."""

    run_id: str
    version: int
    owner: str
    state: str
    tenant: str
    dag_id: str
    dag_version: int
    run_type: str
    window_key: str
    parent: str
    attempts: int
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    sla_ms: int | None
    error: str
    #: backfills only
    max_active_runs: int | None
    backwards: bool
    plan_hash: str
    #: backfills that count this run among their windows
    watchers: tuple[str, ...]
    #: of a held run: its owner from the start, also after its end; "" = not held
    holder: str = ""
    #: version of its HistoryRemoved: of the events before it only the first is kept; 0 = all are
    removed: int = 0
    #: SLAs that were missed since it was queued last: of the run "", of a task its id; at most the first SLAS_SHOWN
    sla_missed: tuple[str, ...] = ()
    #: (run, task) that called it
    caller: tuple[str, str] | None = None
    #: JSON of the causes of a run that started by itself; "" = it did not
    because: str = ""

    @property
    def window(self) -> Window | None:
        """The window, when there is one; a backfill over partitions, or the run of an event, has none."""
        if not self.window_key:
            return None
        return None if self.window_key.startswith((SET, EVENT)) else Window.of_key(self.window_key)


class RunPage(msgspec.Struct, frozen=True):
    """Newest first. A page may be short, even empty, and still have a `next_cursor`."""

    rows: tuple[RunRow, ...]
    next_cursor: str | None


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs of a tenant; None = any."""

    tenant: str
    #: of definitions of that kind (`@…`); "" = of DAGs
    kind: str = ""
    dag_id: str | None = None
    state: str | None = None
    run_type: str | None = None
    parent: str | None = None


class EventBatch(msgspec.Struct, frozen=True):
    """One entry of an entity's stream: the events that were committed together."""

    last_version: int
    schema: int
    events: bytes


class History(msgspec.Struct, frozen=True):
    """A row and every event behind it, read at one instant."""

    row: RunRow
    batches: tuple[EventBatch, ...]


class ChildRow(msgspec.Struct, frozen=True):
    """One window of a backfill."""

    run_id: str
    window_key: str
    #: core state of the run
    state: str
    #: version of the run
    version: int
    #: kept as it was: counts as skipped
    kept: bool
    dag_version: int


class Beat(msgspec.Struct, frozen=True):
    """A sign of life of the actor that hosts one orchestrator instance."""

    run_id: str
    #: process id; 0 = it has not started yet
    pid: int
    at_ms: int
    #: version of the run up to which the plan's files tell what happened
    kept: int = 0


class DueCron(msgspec.Struct, frozen=True):
    """A DAG whose next fire is due."""

    tenant: str
    dag_id: str
    due_ms: int


class OwnerRow(msgspec.Struct, frozen=True):
    """What the journal knows of an owner."""

    epoch: int
    turn: int
    #: inbox position of its last commit; "0-0" before the first
    cursor: str
