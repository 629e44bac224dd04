"""What the shells promise each other: the journal, and the way to the control actors.

The journal is the truth; everything in it changes by a handful of atomic steps (`steps.py`), what it holds is read as
rows (`rows.py`), and what follows from a step is told on streams (`streams.py`). Instants are epoch milliseconds
(`*_ms`), states are core words, event batches are the JSON that `codec.encode_events` made.

    commit          what one owner decided in one turn, over all the entities it hosts
    create_runs     runs that nobody owns yet, found again by window or by idempotency key
    create_backfill one backfill with all its windows, if the plan still holds
    put_dag, set_paused, fire, pop_timers

Ownership. A run's row names the actor that hosts it, or nobody. An append by X succeeds when the row
names X or nobody, and then names X, unless the append is `passive` or the run became terminal. An
append without events (count 0) only claims, or with `passive` only lets go. `take_epoch` starts a new
incarnation of an owner; whatever a former one still sends is refused as a whole.

Backfills. A child's change of state moves the counters of every backfill that watches it in the same
step, and is told to each watching backfill that is not terminal: to its owner's inbox as `WindowNews`,
or, when nobody owns it, to the scheduler as `Wake`. News carry the child's version: who takes a
backfill up claims it first, then reads `children`, and ignores news that are not newer than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.rows import Beat, ChildRow, DagRow, DueCron, EventBatch, History, OwnerRow, RunFilter, RunPage, RunRow
from orchestrator.steps import (
    BackfillResult,
    Commit,
    CommitResult,
    Creation,
    CreationResult,
    DagWritten,
    Fire,
    FireResult,
    Gather,
    GatherResult,
    NewBackfill,
    PutDag,
    StoredReply,
)
from orchestrator.streams import Entry

#: bounds of the run latency histogram, seconds
LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

#: fields of `metrics`; further ones that name another DAG or blueprint count under this name instead
METRICS_MAX, METRICS_OTHER = 30_000, "other"


class Journal(Protocol):
    """Every method raises JournalUnavailable when the journal does not answer in time (5 s)."""

    # owners
    async def take_epoch(self, owner: str) -> int:
        """A new incarnation of `owner`; its turns start at 1 again, its inbox cursor is kept."""
        ...

    async def owner(self, owner: str) -> OwnerRow:
        """Epoch, turn and cursor; zeros for an unknown one."""
        ...

    async def commit(self, commit: Commit) -> list[CommitResult]:
        """Durable. One attempt: after JournalUnavailable send the very same commit again. Raises Fenced."""
        ...

    async def owned(self, owner: str) -> list[str]:
        """Runs `owner` hosts, oldest first."""
        ...

    # creation
    async def create_runs(self, creations: Sequence[Creation]) -> list[CreationResult]:
        """One atomic step for all; each creation succeeds or fails on its own."""
        ...

    async def create_backfill(self, backfill: NewBackfill) -> BackfillResult:
        """One atomic step, whatever the number of windows."""
        ...

    async def fire(self, fire: Fire) -> FireResult:
        """Exactly once per (DAG, next fire)."""
        ...

    async def live_fires(self, tenant: str, dag_id: str) -> dict[str, str]:
        """Runs of the DAG's fires that have not ended -> core state; those that a backfill restarted are left out."""
        ...

    async def replaced(self) -> list[str]:
        """Runs that a later fire replaced, or whose caller waits no longer, and that have not ended, by id."""
        ...

    # what starts runs
    async def gather(self, gather: Gather) -> GatherResult:
        """One atomic step; its runs are counted in the metrics. Sent again after a lost answer it is `stale`: done."""
        ...

    async def followers(self, tenant: str, source: str) -> list[str]:
        """DAGs whose current version has it in `PutDag.follows`, by id."""
        ...

    async def makers(self, tenant: str, asset: str) -> list[str]:
        """DAGs whose current version has it in `PutDag.makes`, by id."""
        ...

    async def assets(self, tenant: str) -> list[str]:
        """Assets that the current version of some DAG names, by name."""
        ...

    # DAGs
    async def put_dag(self, dag: PutDag) -> DagWritten: ...
    async def set_paused(
        self, tenant: str, dag_id: str, paused: bool, now_ms: int, idem: StoredReply | None = None
    ) -> DagWritten: ...
    async def dag(self, tenant: str, dag_id: str) -> DagRow | None: ...
    async def dags(self, tenant: str, after: str, limit: int) -> list[DagRow]:
        """By dag_id, those greater than `after`."""
        ...

    async def definition(self, tenant: str, dag_id: str, version: int) -> bytes | None:
        """JSON of one version."""
        ...

    # runs
    async def summary(self, run_id: str) -> RunRow | None: ...
    async def summaries(self, wanted: RunFilter, cursor: str | None, limit: int) -> RunPage: ...
    async def state_counts(self, tenant: str, kind: str) -> dict[str, int]:
        """Core run state -> runs of definitions of that kind; "" = of DAGs; zeros left out."""
        ...

    async def tasks(self, run_id: str) -> dict[str, str]:
        """task -> letter; a task that is not there is pending."""
        ...

    async def look(self, run_id: str) -> tuple[RunRow, dict[str, str]] | None:
        """The row and `tasks`, read at one instant."""
        ...

    async def events(self, run_id: str, after: int, limit: int) -> list[EventBatch]:
        """Batches that hold events after version `after`; the first may begin earlier. At most `limit` batches."""
        ...

    async def load(self, run_ids: Sequence[str]) -> list[History]:
        """Rows with full histories, unknown ids left out."""
        ...

    async def by_window(self, tenant: str, dag_id: str, window_keys: Sequence[str]) -> dict[str, RunRow]:
        """Runs that stand for these windows."""
        ...

    async def backfill_by_window(self, tenant: str, dag_id: str, window_key: str) -> RunRow | None: ...
    async def children(self, backfill: str, limit: int | None = None) -> list[ChildRow]:
        """Windows in date order."""
        ...

    async def called(self, run_id: str) -> dict[str, RunRow]:
        """task -> the run that it called last, since the run was queued last."""
        ...

    async def child_counts(self, backfill: str) -> dict[str, int]:
        """Core child state (or skipped) -> windows."""
        ...

    async def child_tasks(self, backfill: str) -> dict[str, dict[str, int]]:
        """task -> letter -> windows that are not kept; pending ones are left out."""
        ...

    async def queued_and_active(self) -> list[RunRow]:
        """Every run that is not terminal, oldest first."""
        ...

    async def erase(self, run_ids: Sequence[str]) -> int:
        """Rows, events, tasks, logs and index entries of these runs are gone; how many there were.

        For runs that were held from the start, in any state, and for terminal ones without a window; others are left
        alone: the run of a window stands for it. Logs are kept by their writers for as long as those say; those that
        the events of the run name are gone.
        """
        ...

    async def ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[RunRow]:
        """Runs that ended before then and have all their history, the first first; no backfills, no held runs.

        The first `skip` of them are left out.
        """
        ...

    async def backfills_ended_before(self, instant_ms: int, limit: int, skip: int = 0) -> list[RunRow]:
        """Backfills that ended before then, the first first."""
        ...

    # what an archive keeps (actors/archiver.py)
    async def release(self, versions: Mapping[str, int]) -> set[str]:
        """Nothing is kept here of these runs, windows among it, as far as they are at that version; those that went.

        Only runs and backfills of DAGs that have ended; not one that a backfill which is here counts or keeps.
        """
        ...

    async def disband(self, limit: int) -> int:
        """Windows no longer name a backfill that was released, `limit` of them; how many such backfills there are."""
        ...

    async def restore(self, shelved: Sequence[tuple[History, Mapping[str, str]]]) -> int:
        """Runs with their `tasks` are here as they were; how many. One that is here, or whose window has another run
        by now, is left alone.
        """
        ...

    async def remove_history(self, run_id: str, version: int, event: bytes) -> bool:
        """The batch of one HistoryRemoved is the next event of the run, and of those before it only the first is kept.

        False: it is not at that version, or not terminal, or one of those that keep their history; nothing was done.
        """
        ...

    # records: small JSON documents beside the runs
    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        """Durable; a record of None is removed. One atomic step, which may be sent again."""
        ...

    async def record(self, kind: str, key: str) -> bytes | None: ...
    async def records(self, kind: str) -> dict[str, bytes]:
        """All records of a kind."""
        ...

    # lines: an ordered log of a held run, numbered 1, 2, 3…
    async def add_lines(self, run_id: str, lines: Sequence[bytes]) -> int:
        """Durable; how many lines there are then. The feed gets an item of the run, as it stands.

        0 when there is no such run: nothing is kept then. One attempt: after JournalUnavailable they may be there.
        """
        ...

    async def lines(self, run_id: str, after: int, limit: int) -> list[bytes]:
        """Lines after number `after`, at most `limit`."""
        ...

    # instances
    async def beat(self, run_id: str, pid: int, at_ms: int) -> None:
        """The instance's actor lives, as process `pid` (0 = unknown: what is known stays)."""
        ...

    async def beats(self) -> list[Beat]:
        """Of every instance that has not been forgotten, by id."""
        ...

    async def keep(self, run_id: str, version: int) -> None:
        """The plan's files tell everything up to `version` of the instance."""
        ...

    async def forget(self, run_id: str) -> None:
        """No sign of life of the instance is kept any more."""
        ...

    # streams
    async def position(self, stream: str) -> str:
        """Cursor behind the newest entry."""
        ...

    async def tail(self, stream: str, cursor: str, block_ms: int, limit: int = 1000) -> list[Entry]:
        """Entries after `cursor`; waits up to `block_ms` for the first (0 = not at all)."""
        ...

    async def trim(self, stream: str, cursor: str) -> None:
        """Forget entries up to and including `cursor`."""
        ...

    async def trim_news(self, age_ms: int) -> None:
        """Forget entries of `sched` and `feed` that are older than that, by the journal's own clock."""
        ...

    async def part(self) -> None:
        """Tells readers of the feed that this server is about to go away: `PARTING`."""
        ...

    # time
    async def pop_timers(self, scheduler_epoch: int, now_ms: int, limit: int = 1000) -> int:
        """Deliver due timers to owners' inboxes, or to sched as Wake; how many. Raises Fenced."""
        ...

    async def due_crons(self, now_ms: int, limit: int = 1000) -> list[DueCron]:
        """DAGs to fire, earliest first; paused ones are not listed."""
        ...

    async def next_due(self) -> int | None:
        """Earliest instant at which a timer or a schedule is due."""
        ...

    # rates
    async def ask_leave(self, key: str, most: int, window_ms: int) -> int:
        """Milliseconds until `key` may ask again; 0 = it may now, and that counts.

        At most `most` may in any span of `window_ms`, by the journal's own clock. One attempt, of a second.
        """
        ...

    # the rest
    async def stored_reply(self, key: str) -> StoredReply | None: ...
    async def store_reply(self, reply: StoredReply) -> None:
        """For an answer that no single step stands for; the first one under a key stays."""
        ...

    async def metrics(self) -> dict[str, int]:
        """Metric field -> sum of its increments; about METRICS_MAX at most, however many DAGs there are."""
        ...

    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        """Add to metrics; may be lost or doubled by a crash."""
        ...

    async def log(self, run_id: str, task: str, attempt: int) -> list[bytes] | None:
        """Chunks of one attempt's output; None when it wrote none."""
        ...

    async def ping(self) -> bool:
        """Whether it answers within a second."""
        ...

    async def close(self) -> None: ...


class ControlPlane(Protocol):
    """How the gateway reaches actors. Every method raises ActorUnreachable after its deadline."""

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        """`actor_codec.encode_command` in, `actor_codec.decode_command_reply` out; "" = nobody owns the run yet."""
        ...

    async def workers(self) -> bytes:
        """JSON array of views.WorkerView."""
        ...

    async def scale_workers(self, pool: str, n: int) -> bytes:
        """JSON array of the workers then. Raises Invalid."""
        ...

    async def drain_worker(self, worker_id: str) -> bytes:
        """JSON array of the one worker. Raises NotFound."""
        ...

    async def pools(self) -> bytes:
        """JSON array of views.PoolView."""
        ...

    async def set_pool(self, change: bytes) -> bytes:
        """`actor_codec.encode_pool_change`: durable from now on. JSON array of the pool. Raises Invalid, NotFound."""
        ...

    async def alive(self) -> bool:
        """Whether the scheduler answers."""
        ...

    async def answers(self, actor: str) -> bool:
        """Whether the actor of that name answers within a second."""
        ...

    async def load(self) -> dict[str, int]:
        """What waits: queued_runs, active_runs, waiting_tasks, workers, oldest_s, `pool_waiting|<pool>`."""
        ...

    async def take_over(self) -> None:
        """This control plane asks for the lease (`planes.py`)."""
        ...

    async def weights_changed(self) -> None:
        """The scheduler has read the tenants' weights again."""
        ...

    async def explain(self, run_id: str) -> bytes:
        """What the run waits for, says the scheduler: a views.RunWaiting as JSON."""
        ...

    async def set_limit(self, change: bytes) -> None:
        """`actor_codec.encode_limit_change`: durable, and so from now on, once it answers."""
        ...

    async def limit_usage(self) -> bytes:
        """JSON array of control.LimitUsage."""
        ...

    async def wake_archiver(self) -> None:
        """It looks for sweeps that are wanted (`sweeps.py`)."""
        ...

    async def gateway(self, ward: str, request: bytes, patience_s: float = 5.0) -> bytes:
        """A request to the gateway's `jobs`, `pipelines` or `webhooks`, and its answer; it is started if need be."""
        ...

    async def gateway_exists(self) -> bool:
        """Whether it was started; nobody had work for it before."""
        ...
