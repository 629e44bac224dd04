"""The journal's atomic steps and their answers: all that is in it changes by one of these (`ports.Journal`).

A step carries the version, epoch or number on which it was decided, and is refused as a whole when that no longer
holds. Each may be sent again after a lost answer. Instants are epoch milliseconds (`*_ms`), `None` means unchanged,
event batches are the JSON that `codec.encode_events` made.
"""

from __future__ import annotations

import msgspec

from orchestrator.events import SCHEMA


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
