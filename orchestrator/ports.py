"""What the shells promise each other: the journal, and the way to the control actors.

The journal is the truth; everything in it changes by a handful of atomic steps. The structs below
are those steps and their answers. Instants are epoch milliseconds (`*_ms`), states are core words,
event batches are the JSON that `codec.encode_events` made.

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

import msgspec

from orchestrator.definition import Window
from orchestrator.events import SCHEMA
from orchestrator.messages import NO_JSON
from orchestrator.partitions import SET
from orchestrator.views import Idempotency

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
#: bounds of the run latency histogram, seconds
LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

#: fields of `metrics`; further ones that name another DAG or blueprint count under this name instead
METRICS_MAX, METRICS_OTHER = 30_000, "other"

#: what the window key of a run that an event started begins with; its id follows
EVENT = "!"

#: whose inbox tells what may start runs (`Succeeded`, `Produced`)
TRIGGERS = "triggers"
#: kind of the records of what DAGs have gathered (`awaited.Gathered`), by `dag_key`
GATHERED = "gathered"

#: streams one can `tail`, besides `inbox(actor)`
SCHED = "sched"
FEED = "feed"
#: kind of the records that hold tenants' weights (`codec.encode_share`), by tenant
TENANT_SHARES = "tenant_shares"


def inbox(actor: str) -> str:
    """The stream of an actor's durable inbox."""
    return f"in:{actor}"


def approvals_of(tenant: str) -> str:
    """Kind of the records of a tenant's open approvals (`views.ApprovalView`): hints, see actors/approval_board.py."""
    return f"approvals/{tenant}"


def approval_key(run_id: str, task: str, attempt: int) -> str:
    """Key of such a record."""
    return f"{run_id}/{task}/{attempt}"


def assets_of(tenant: str) -> str:
    """Kind of the records of a tenant's assets (`awaited.AssetLog`), by asset."""
    return f"assets/{tenant}"


def gathered_key(tenant: str, dag_id: str) -> str:
    """Key of the record of what a DAG has gathered."""
    return f"{tenant}|{dag_id}"


def place(cursor: str) -> tuple[int, int]:
    """A stream's cursor, to be compared with others of that stream."""
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence or 0)


class StoredReply(msgspec.Struct, frozen=True):
    """An answer kept for 24 h under a caller's key; of the same fingerprint, or it is a conflict."""

    key: str
    fingerprint: str
    reply: bytes = b""


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn adds to one run or backfill. None means unchanged."""

    run_id: str
    #: version the decision was made on
    expected: int
    #: number of events in `events`
    count: int
    events: bytes = b""
    state: str | None = None
    attempts: int | None = None
    started_ms: int | None = None
    #: 0 clears
    finished_ms: int | None = None
    #: "" clears
    error: str | None = None
    dag_version: int | None = None
    #: (task, letter) that changed
    tasks: tuple[tuple[str, str], ...] = ()
    #: every task is pending again, before `tasks` is applied
    tasks_reset: bool = False
    #: the owner lets go of the run
    passive: bool = False
    #: durable timer `wake` of this run; 0 removes it
    wake_at_ms: int | None = None
    #: an admission: refused unless this is the scheduler's epoch and the DAG is not paused
    scheduler_epoch: int | None = None
    #: SLAs that were missed: of the run "", of a task its id
    sla_missed: tuple[str, ...] = ()
    #: of an admission, else ignored: the backfill for which it is given, which must not be paused either; "" = none
    lane: str = ""
    #: of a backfill: windows at a time; 0 = as many as the DAG allows
    max_active_runs: int | None = None
    #: when the key is already taken the append is not applied and the stored reply is answered
    idem: StoredReply | None = None
    #: version of the meaning of `events`; runs of some kinds have events, and a number, of their own
    schema: int = SCHEMA
    #: (task, run that it calls from now on, or "": it waits for that no longer), in the order in which it became so
    calls: tuple[tuple[str, str], ...] = ()


class Mail(msgspec.Struct, frozen=True):
    """JSON (see `codec.encode_mail`) for another actor's inbox, sent with a commit."""

    actor: str
    item: bytes
    #: not "": it goes out only if what the commit appends to this run is applied
    about: str = ""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one owner decided in one turn. Sent again after a lost answer, it is answered alike."""

    owner: str
    epoch: int
    #: grows with each commit of this epoch, from 1
    turn: int
    appends: tuple[Append, ...] = ()
    #: inbox position up to which this owner has acted
    cursor: str | None = None
    #: metric field -> increment
    counts: tuple[tuple[str, int], ...] = ()
    mail: tuple[Mail, ...] = ()


class CommitResult(msgspec.Struct, frozen=True):
    """What became of one append, in the order of `Commit.appends`."""

    run_id: str
    #: ok | stale (version or owner differs: read again) | refused (admission guard) | replayed (see `reply`) |
    #: conflict (idempotency key of another body) | missing (no such run)
    status: str
    #: version and owner of the run now
    version: int
    owner: str
    reply: bytes = b""


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be created, or answered or restarted when its window has one already.

    Sending it again with the same `run_id` is harmless.
    """

    run_id: str
    tenant: str
    dag_id: str
    #: must be the DAG's current version, else the answer is `changed`
    dag_version: int
    run_type: str
    created_ms: int
    #: batch of the one event RunCreated
    event: bytes
    #: Window.key(), or "" for a run that is never merged
    window_key: str = ""
    sla_ms: int | None = None
    #: durable timer `wake` of the run, also of one that is restarted
    wake_ms: int | None = None
    #: none | failed | completed: which terminal runs of the window are restarted
    reprocess: str = "none"
    #: batch of the one event RunRestarted; needed unless reprocess is none
    restart_event: bytes = b""
    #: DAG version the restarted run goes on with
    restart_version: int = 0
    #: not 0: a restart keeps the pinned version, which must still be this one, else `changed`
    pinned_version: int = 0
    #: refused while another run of its definition that was created so goes on; the answer is `busy`
    alone: bool = False
    #: not "": held by that owner from the start (`actors/holder.py`), who is told by `Born`; the scheduler never hears
    #: of it, `dag_version` is taken as it is, and it counts in no set of queued or active runs. It has no window, no
    #: append lets go of it before its end, and its id may be of any form: lists order held runs by `created_ms`
    owner: str = ""
    #: of a held run: the run because of which it exists
    parent: str = ""
    #: version of the meaning of `event`
    schema: int = SCHEMA
    #: not "": (run, task) that calls this run. It is created while that is so, else the answer is `unwanted`; it keeps
    #: its window to itself, and its end is told to the caller as a window's to a backfill
    caller: tuple[str, str] | None = None
    #: JSON of the causes, for its row; of one that is restarted too
    because: bytes = b""


class Quota(msgspec.Struct, frozen=True):
    """At most `most` creations under one key: counted with what they create, in the same step; answers kept are not.

    A count is kept for 40 days after its last creation: keys name a period of at most a month.
    """

    key: str
    most: int


class Creation(msgspec.Struct, frozen=True):
    """The runs of one request. They are created together with the idempotency record, or not at all."""

    runs: tuple[NewRun, ...]
    #: `reply` is kept beside the results, for what the caller needs to answer alike
    idem: StoredReply | None = None
    quota: Quota | None = None
    #: tenant and name of what happens once, however late it is told again: then nothing is created, and the answer is
    #: `told`, with the runs that were
    once: tuple[str, str] | None = None
    #: (tenant, dag_id, `DagRow.archived`) of DAGs whose archive was looked at; another number now is `changed`
    archived: tuple[tuple[str, str, int], ...] = ()


class CreatedRun(msgspec.Struct, frozen=True, array_like=True):
    """What stands for a NewRun now."""

    run_id: str
    state: str
    #: created | existing | restarted
    how: str


class CreationResult(msgspec.Struct, frozen=True):
    """Answer to one Creation."""

    #: ok | replayed | conflict (idempotency key of another body) | changed (some DAG's version: read it again) |
    #: busy (`runs` has the one that goes on) | exhausted (the quota) | unwanted (its caller waits no longer) |
    #: told (`runs` has those of the first time)
    status: str
    runs: tuple[CreatedRun, ...] = ()
    #: of a replay: the `reply` that was given with the original
    reply: bytes = b""


class NewWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a backfill and what the plan says about it."""

    window_key: str
    #: create: the new id; otherwise the run that stands for the window
    run_id: str
    #: create | restart | skip | adopt
    action: str
    #: create: batch of one RunCreated; restart: batch of one RunRestarted
    event: bytes = b""
    #: restart: the terminal state it is restarted from
    before: str = ""
    #: restart: version it goes on with
    dag_version: int = 0
    sla_ms: int | None = None
    #: create, restart: durable timer `wake` of the run
    wake_ms: int | None = None


class NewBackfill(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill and its windows in date order, or the restart of a terminal one, or more windows for one that goes on.

    Nothing is written unless every window's action is still what the journal itself would decide.
    """

    run_id: str
    tenant: str
    dag_id: str
    dag_version: int
    window_key: str
    created_ms: int
    #: batch of the one event BackfillCreated
    event: bytes
    windows: tuple[NewWindow, ...]
    reprocess: str = "none"
    plan_hash: str = ""
    #: an existing backfill is answered only if this very plan made it ("" = whatever made it)
    require_hash: str = ""
    max_active_runs: int | None = None
    backwards: bool = False
    #: restart: id and version of the terminal backfill; `run_id` is then not used
    restarts: str = ""
    restarts_version: int = 0
    #: restart: batch of RunRestarted and the WindowChanged that follow from it, and how many events that is
    restart_events: bytes = b""
    restart_count: int = 0
    #: not "": the backfill that `windows` make wider; `window_key` is then what it is over afterwards, under which it
    #: is found too, `event` its BackfillWidened, and `run_id`, `max_active_runs` and `backwards` are not used
    widens: str = ""
    #: what it was over when this was planned
    widens_key: str = ""
    #: so many of `windows` come before those that it has
    in_front: int = 0
    idem: StoredReply | None = None
    #: `DagRow.archived` when this was planned; another number now is `changed`
    archived: int = 0


class BackfillResult(msgspec.Struct, frozen=True):
    """Answer to a NewBackfill."""

    #: created | existing | restarted | widened | replayed | conflict (idempotency key) | changed (plan again) |
    #: hash (another plan made it) | taken (another backfill, `run_id`, has these windows) | over (it goes on no more)
    status: str
    run_id: str = ""
    state: str = ""
    #: core child state (or skipped) -> windows
    counts: dict[str, int] = {}
    reply: bytes = b""


class PutDag(msgspec.Struct, frozen=True, kw_only=True):
    """A definition to be stored as the next version, decided on `base_version`."""

    tenant: str
    dag_id: str
    definition: bytes
    content_hash: str
    owner: str
    now_ms: int
    #: version that was current when this was decided; 0 = there was none
    base_version: int
    #: next fire of the schedule; 0 = none; None = leave as it is
    next_fire_ms: int | None = None
    #: when that one happens; 0 = at its instant
    next_due_ms: int = 0
    max_dags: int = 10_000
    idem: StoredReply | None = None
    #: what starts runs of it, and the assets that its tasks update (`awaited.py`)
    follows: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


class DagWritten(msgspec.Struct, frozen=True):
    """Answer to `put_dag` and `set_paused`."""

    #: ok | replayed | conflict (idempotency key) | changed (base version) | full | missing |
    #: circle (it would start itself; `reply` has the way, DAGs apart by spaces)
    status: str
    version: int = 0
    paused: bool = False
    reply: bytes = b""


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


class DroppedFires(msgspec.Struct, frozen=True, array_like=True):
    """Fires that start no run."""

    #: missed | overlap
    reason: str
    count: int
    #: the latest of them
    last_ms: int


class Fire(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a schedule: every fire that is due, decided on the DAG's `next_fire_ms`."""

    tenant: str
    dag_id: str
    scheduler_epoch: int
    expected_ms: int
    #: 0 = the schedule never fires again
    next_ms: int
    #: when that one happens; 0 = at its instant
    next_due_ms: int = 0
    #: the latest fire that this decides on; 0 = `expected_ms`
    last_ms: int = 0
    #: oldest first
    runs: tuple[NewRun, ...] = ()
    dropped: tuple[DroppedFires, ...] = ()
    #: runs of earlier fires that are to be cancelled; those that have ended meanwhile are left alone
    replaces: tuple[str, ...] = ()
    #: metric field -> increment
    counts: tuple[tuple[str, int], ...] = ()


class FireResult(msgspec.Struct, frozen=True):
    """Answer to a Fire."""

    #: ok | stale (next fire differs) | paused | changed (DAG version) | fenced
    status: str
    #: what stands for `Fire.runs`; how: created | existing
    runs: tuple[CreatedRun, ...] = ()


class Gather(msgspec.Struct, frozen=True, kw_only=True):
    """What was told is written down, and what it starts begins, in one step: each fact is consumed once.

    It is decided on the record as it was read, and on the DAG's version and pause.
    """

    scheduler_epoch: int
    kind: str
    key: str
    #: the record as it was; b"" = there was none
    expected: bytes
    record: bytes
    tenant: str = ""
    #: "" = of no DAG: nothing starts
    dag_id: str = ""
    dag_version: int = 0
    paused: bool = False
    runs: tuple[NewRun, ...] = ()
    #: `DagRow.archived` when their windows were looked for in the archive; another number now is `changed`, if they
    #: have windows
    archived: int = 0


class GatherResult(msgspec.Struct, frozen=True):
    """Answer to a Gather."""

    #: ok | stale (the record) | changed (the DAG) | busy (runs of these windows go on: leave them) | fenced
    status: str
    runs: tuple[CreatedRun, ...] = ()
    #: window keys
    busy: tuple[str, ...] = ()


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


class Entry(msgspec.Struct, frozen=True):
    """One entry of a tailed stream; `codec` decodes `item` by stream."""

    cursor: str
    item: bytes


class OwnerRow(msgspec.Struct, frozen=True):
    """What the journal knows of an owner."""

    epoch: int
    turn: int
    #: inbox position of its last commit; "0-0" before the first
    cursor: str


class RunsCreated(msgspec.Struct, frozen=True, tag_field="k", tag="created"):
    """sched: runs of one DAG that are queued now, in the order in which they should start."""

    tenant: str
    dag_id: str
    dag_version: int
    run_type: str
    parent: str
    run_ids: tuple[str, ...]
    created_ms: int
    #: of the backfill itself, or of the backfill these are windows of
    max_active_runs: int | None = None
    #: queued again, not new
    restarted: bool = False
    #: of restarted runs: the version with which each was queued, as `run_ids`
    versions: tuple[int, ...] = ()


class RunMoved(msgspec.Struct, frozen=True, tag_field="k", tag="moved"):
    """sched: a run became terminal, went on after that, left the queue without admission, or lost its owner."""

    run_id: str
    tenant: str
    dag_id: str
    run_type: str
    parent: str
    before: str
    after: str
    #: "" = passive now
    owner: str


class BackfillShaped(msgspec.Struct, frozen=True, tag_field="k", tag="shaped"):
    """sched: a backfill that goes on was paused, resumed or capped; this is how it stands now."""

    run_id: str
    tenant: str
    dag_id: str
    paused: bool
    max_active_runs: int | None = None


class DagChanged(msgspec.Struct, frozen=True, tag_field="k", tag="dag"):
    """sched: a DAG has a new version, was paused or resumed."""

    tenant: str
    dag_id: str
    version: int
    paused: bool


class Wake(msgspec.Struct, frozen=True, tag_field="k", tag="wake"):
    """sched: a run nobody owns has something to do: `window` news, or a timer (`wake`, `sla`); or nobody waits any more
    for the run (`orphan`), which is among the `replaced` until it has ended.
    """

    run_id: str
    reason: str


class WindowNews(msgspec.Struct, frozen=True, tag_field="k", tag="window"):
    """inbox: a window's run of the backfill `run_id` is in another state, or what a task of the run called ended."""

    run_id: str
    child: str
    window_key: str
    before: str
    after: str
    #: version of the child after the change
    version: int


class Widened(msgspec.Struct, frozen=True, tag_field="k", tag="widened"):
    """inbox: more windows belong to the backfill: who has it in memory reads it again."""

    run_id: str
    #: of the backfill, then
    version: int


class TimerFired(msgspec.Struct, frozen=True, tag_field="k", tag="timer"):
    """inbox: a durable timer of the run is due."""

    run_id: str
    #: wake | sla
    kind: str
    due_ms: int


class Letter(msgspec.Struct, frozen=True, tag_field="k", tag="mail"):
    """inbox: mail of another actor."""

    sender: str
    data: msgspec.Raw


class Born(msgspec.Struct, frozen=True, tag_field="k", tag="born"):
    """inbox: a run that this owner holds from the start exists, at version 1."""

    run_id: str
    schema: int
    #: batch of its first event
    events: str

    def batch(self) -> EventBatch:
        """The same, as the run's stream has it."""
        return EventBatch(1, self.schema, self.events.encode())


class Succeeded(msgspec.Struct, frozen=True, tag_field="k", tag="succeeded"):
    """inbox of TRIGGERS: a run of a DAG that others follow succeeded; not a backfill, but its windows."""

    tenant: str
    dag_id: str
    run_id: str
    window_key: str
    attempt: int
    at_ms: int


class Produced(msgspec.Struct, frozen=True, tag_field="k", tag="produced"):
    """inbox of TRIGGERS: a task that updates assets succeeded."""

    tenant: str
    dag_id: str
    run_id: str
    task: str
    attempt: int
    assets: tuple[str, ...]
    at_ms: int


SchedItem = RunsCreated | RunMoved | BackfillShaped | DagChanged | Wake
InboxItem = WindowNews | Widened | TimerFired | Letter | Born | Succeeded | Produced
#: one commit of the feed: (entity id, last version, state)
FeedItem = tuple[str, int, str]
#: feed item of no entity: this server is about to go away
PARTING: FeedItem = ("", 0, "parting")


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


class Posted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checkpoint that a run's caller posts."""

    kind: str
    data: msgspec.Raw = NO_JSON


class Signalled(msgspec.Struct, frozen=True):
    """A signal for a run."""

    name: str
    #: JSON
    data: msgspec.Raw
    #: a second one with the same id is the same signal
    signal_id: str


class Ballot(msgspec.Struct, frozen=True):
    """A vote on an approval."""

    choice: str
    by: str
    #: what `by` is, as in `Wait.roles`: scopes and names
    roles: tuple[str, ...]
    comment: str | None = None
    #: the attempt that it is meant for; None = whichever is open
    attempt: int | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants of a run or of one of its tasks."""

    #: cancel | pause | resume | retry_task | skip_task | retry_run | post | signal | vote; of plans also shut_down,
    #: mark_task; of backfills cancel | pause | resume | cap
    kind: str
    run_id: str
    task: str | None = None
    #: skip_task, mark_task: why
    reason: str | None = None
    #: mark_task: completed | skipped | pending
    word: str | None = None
    #: post: the checkpoint
    checkpoint: Posted | None = None
    signal: Signalled | None = None
    vote: Ballot | None = None
    #: cap: windows at a time; None = as many as the DAG allows
    max_active_runs: int | None = None
    idem: Idempotency | None = None


class CommandReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a Command. `refused` is the word of an error class, or None when it was done."""

    state: str = ""
    attempts: int = 0
    task_state: str | None = None
    #: of a signal
    signal_id: str = ""
    #: state and version of the run before
    before: str = ""
    version: int = 0
    replayed: bool = False
    #: conflict | not_found | invalid | not_allowed | unavailable | moved (it is somebody else's: nothing was done)
    refused: str | None = None
    message: str = ""


class ControlPlane(Protocol):
    """How the gateway reaches actors. Every method raises ActorUnreachable after its deadline."""

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        """`codec.encode_command` in, `codec.decode_command_reply` out; "" = nobody owns the run yet."""
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
        """`codec.encode_pool_change`: durable, and so from now on. JSON array of the pool. Raises Invalid, NotFound."""
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
        """`codec.encode_limit_change`: durable, and so from now on, once it answers."""
        ...

    async def limit_usage(self) -> bytes:
        """JSON array of control.LimitUsage."""
        ...

    async def wake_archiver(self) -> None:
        """It looks for sweeps that are wanted (`archive.RECORDS`)."""
        ...

    async def gateway(self, ward: str, request: bytes, patience_s: float = 5.0) -> bytes:
        """A request to the gateway's `jobs`, `pipelines` or `webhooks`, and its answer; it is started if need be."""
        ...

    async def gateway_exists(self) -> bool:
        """Whether it was started; nobody had work for it before."""
        ...
