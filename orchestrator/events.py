"""The closed set of events: what can be read in a journal, and nothing else.

Every event of an entity is public and numbered: its version is the `id` of its SSE frame, 1, 2, 3…
without a gap. An event never carries its own version; its place in the stream gives it. Events are
msgspec structs: frozen like our other data, tagged with their wire name under `t`, written and read
by `codec.py` alone. Fields may be added with a default; a change of meaning raises SCHEMA and
gets an upcaster in `codec.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from orchestrator.definition import Window
from orchestrator.messages import NO_JSON, Cause, Value

#: version of the meaning of the events below, written beside each batch
SCHEMA = 1


class Event(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    """Anything that happened to an entity. `at` is when it was decided, UTC."""

    at: datetime


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What whoever asked for a run said about it; it means nothing to the run."""

    #: redis | k8s
    mode: str
    owner: str | None = None
    #: JSON object as text
    metadata: msgspec.Raw = NO_JSON


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """The plan that an instance works through, as it stood when the instance was asked for."""

    #: of the file, without `.md`
    name: str
    #: absolute
    path: str
    executor: str
    max_iterations: int
    #: status.json, with everything that other programs wrote there
    status: msgspec.Raw
    #: task id -> description as written in the plan
    texts: dict[str, str]
    #: tasks that are done or skipped already
    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    #: task id -> how often it was tried again before
    retried: dict[str, int] = {}


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run that a task starts and waits for (`calls.py`)."""

    run_id: str
    dag_id: str
    params: dict[str, Any] = {}
    window: Window | None = None
    #: DAGs of the runs that called each other on the way to it, the first one first
    chain: tuple[str, ...] = ()
    #: the backfill to which the first of those belongs; "" = none
    backfill: str = ""


class CalledBy(msgspec.Struct, frozen=True, omit_defaults=True):
    """The attempt of a task that started a run."""

    run_id: str
    task: str
    attempt: int
    #: as `Call` has them
    chain: tuple[str, ...]
    backfill: str = ""


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task waits for without a worker. It ends by itself at `until`, whatever comes or does not come."""

    #: time | signal | approval | run; "" = its params make no sense (`error` says why), and it fails at once
    kind: str
    until: datetime
    #: of a signal
    name: str = ""
    #: of an approval
    prompt: str = ""
    choices: tuple[str, ...] = ()
    #: scopes and names of those who may decide; empty = everybody who may command the run
    roles: tuple[str, ...] = ()
    #: votes for one choice that decide
    quorum: int = 1
    #: what becomes of it at `until`: done | fail | skip | value (`default`) | a choice of the approval
    at_end: str = "fail"
    #: JSON
    default: msgspec.Raw = NO_JSON
    error: str = ""
    #: of a run
    call: Call | None = None


class RunCreated(Event, frozen=True, tag="run_created"):
    """A run exists and waits for admission."""

    run_id: str
    tenant: str
    dag_id: str
    dag_version: int
    run_type: str
    window: Window | None = None
    params: dict[str, Any] = {}
    parent: str | None = None
    #: of runs of the runs surface
    origin: Origin | None = None
    #: of instances
    plan: Plan | None = None
    #: of a run that a task of another run started
    called_by: CalledBy | None = None
    #: of runs that start by themselves, but for schedules
    triggered_by: tuple[Cause, ...] = ()
    #: W3C trace context of the request that made it (`traces.py`); "" = it came with none
    traceparent: str = ""


class RunStarted(Event, frozen=True, tag="run_started"):
    """The run was admitted: its tasks may start. `attempt` counts the starts of the run."""

    attempt: int


class RunPaused(Event, frozen=True, tag="run_paused"):
    """No further task, or window of the backfill, starts until the run is resumed."""


class RunResumed(Event, frozen=True, tag="run_resumed"):
    """Tasks start again."""


class RunCancelling(Event, frozen=True, tag="run_cancelling"):
    """It was cancelled, and ends once something else has: the windows of a backfill, cancelled one by one, the present
    batch of an instance, the compensations and teardowns of a run.
    """


class RunCancelled(Event, frozen=True, tag="run_cancelled"):
    """Terminal: no task of it runs any more, or matters."""


class RunSucceeded(Event, frozen=True, tag="run_succeeded"):
    """Terminal: every task is done or skipped."""


class RunFailed(Event, frozen=True, tag="run_failed"):
    """Terminal: nothing is left to run and some task failed, or it goes no further for another `reason`: `idle` (nobody
    drives it), `blocked` (a plan in which nothing can go on), `max_iterations` (a plan that took too many batches).
    """

    error: str
    reason: str | None = None


class RunOverdue(Event, frozen=True, tag="run_overdue"):
    """The run exceeded its own limit: it ends as timed out once it has cleaned up; nothing else goes on."""

    error: str


class RunCompensating(Event, frozen=True, tag="run_compensating"):
    """It does not succeed, and nothing else can run: these compensations do, one after the other, before it ends."""

    tasks: tuple[str, ...]


class RunTimedOut(Event, frozen=True, tag="run_timed_out"):
    """Terminal: the run exceeded its own limit (`run`), or was not admitted in time (`queued`)."""

    error: str
    reason: str = "run"


class RunRestarted(Event, frozen=True, tag="run_restarted"):
    """Reprocess of a terminal run: queued again, every task pending, under `dag_version`."""

    dag_version: int
    #: empty = somebody asked for it
    triggered_by: tuple[Cause, ...] = ()


class RunRevived(Event, frozen=True, tag="run_revived"):
    """A retry or skip of a task made a terminal run go on, without a new admission."""

    attempt: int


class TaskStarted(Event, frozen=True, tag="task_started"):
    """Attempt `attempt` was handed to a worker."""

    task: str
    attempt: int
    worker: str
    #: incarnation of the worker process
    incarnation: str = ""


class TaskExpanded(Event, frozen=True, tag="task_expanded"):
    """The map runs: `count` instances of it, `task[0]` and so on, are tasks of the run. `attempt` counts expansions."""

    task: str
    attempt: int
    count: int = 0
    #: the list is the one of the expansion before: instances keep what they came to, but for those that were reset
    kept: bool = False
    #: why it cannot be mapped over; it fails at once
    error: str | None = None


class TaskReturned(Event, frozen=True, tag="task_returned"):
    """The worker gave the attempt back without having started it; the task is pending again."""

    task: str
    attempt: int
    #: what dependencies returned, and is not there any more: artifacts (`lost_values.py`)
    missing: tuple[str, ...] = ()


class CachedFrom(msgspec.Struct, frozen=True):
    """Where a result comes from that was not computed here."""

    run_id: str
    task: str
    attempt: int
    #: when it was accepted there
    at: datetime


class TaskSucceeded(Event, frozen=True, tag="task_succeeded"):
    """The attempt's result was accepted; or that of an equal task is used, and the attempt takes place nowhere."""

    task: str
    attempt: int
    value: Value | None = None
    #: elements of a list whose value is not inline
    length: int | None = None
    #: None = it was computed
    cached: CachedFrom | None = None


class TaskRetrying(Event, frozen=True, tag="task_retrying"):
    """The attempt failed, timed out or was lost with its worker; the task starts again at `due`."""

    task: str
    attempt: int
    due: datetime
    error: str
    #: lost attempts do not use up retries
    lost: bool = False
    #: of an attempt that timed out: run | heartbeat
    reason: str | None = None


class TaskFailed(Event, frozen=True, tag="task_failed"):
    """Terminal for the task: no attempts left, or it was too late for one."""

    task: str
    attempt: int
    error: str
    timed_out: bool = False
    #: of one that timed out: run | heartbeat | queued | sla; journals before this was told say nothing: run
    reason: str | None = None


class TaskSkipped(Event, frozen=True, tag="task_skipped"):
    """Will not run. Skipped by hand, dependents proceed as if it were done; otherwise as their trigger rules say."""

    task: str
    reason: str | None = None
    #: "" = a person; `task` = its own code; `branch` = a branch did not choose it; `rule` = its trigger rule;
    #: `map` = the map that it is an instance of is skipped
    by: str = ""


class TaskMarked(Event, frozen=True, tag="task_marked"):
    """Done, as somebody else says: a task of a plan that was not carried out here."""

    task: str


class TaskUpstreamFailed(Event, frozen=True, tag="task_upstream_failed"):
    """Will not run: something it depends on failed."""

    task: str


class TaskCancelled(Event, frozen=True, tag="task_cancelled"):
    """Will not run, or its result will not count: the run was cancelled or timed out."""

    task: str


class TaskReset(Event, frozen=True, tag="task_reset"):
    """Pending again, by a retry of it or of something it depends on, or since what it returned is lost."""

    task: str
    #: the artifact that is lost; "" = none is
    lost: str = ""


class TaskWaiting(Event, frozen=True, tag="task_waiting"):
    """The task waits for time, a signal or people; it has no worker."""

    task: str
    attempt: int
    wait: Wait


class TaskSuspended(Event, frozen=True, tag="task_suspended"):
    """The attempt ended itself to sleep; the task starts again at `until`, on no retry's account."""

    task: str
    attempt: int
    until: datetime
    #: number of the sleep among those since the task's last checkpoint, from 1
    call: int


class SignalReceived(Event, frozen=True, tag="signal_received"):
    """Somebody sent the run a signal; it is kept until a task takes it."""

    name: str
    #: of the signals of this life of the run, from 1
    number: int
    #: JSON
    data: msgspec.Raw
    #: the sender's own; another signal with the same one is the same signal
    signal_id: str = ""


class SignalConsumed(Event, frozen=True, tag="signal_consumed"):
    """The signal is what the task waited for; nobody else gets it."""

    name: str
    number: int
    task: str
    attempt: int


class VoteCast(Event, frozen=True, tag="vote_cast"):
    """Somebody voted on an approval; their vote before, if any, does not count any more."""

    task: str
    attempt: int
    choice: str
    by: str
    comment: str | None = None


class VoteRefused(Event, frozen=True, tag="vote_refused"):
    """A vote came too late: it has no effect. Told once for each attempt and voter."""

    task: str
    #: the one it was meant for
    attempt: int
    choice: str
    by: str


class ValuePublished(Event, frozen=True, tag="value_published"):
    """A running attempt published a value for who asks about the run; the last one of a name counts."""

    task: str
    attempt: int
    name: str
    #: JSON
    data: msgspec.Raw


class BatchFormed(Event, frozen=True, tag="batch_formed"):
    """These tasks of a plan are the next batch; no other one starts before they have ended."""

    tasks: tuple[str, ...]
    #: 1 for the first
    iteration: int


class ToolStarted(Event, frozen=True, tag="tool_started"):
    """A running attempt called a tool. `call` tells its calls apart."""

    task: str
    attempt: int
    call: int
    name: str
    #: JSON object
    input: msgspec.Raw = NO_JSON


class ToolCompleted(Event, frozen=True, tag="tool_completed"):
    """The tool answered."""

    task: str
    attempt: int
    call: int
    name: str
    took_ms: int
    success: bool


class TaskCheckpointed(Event, frozen=True, tag="task_checkpointed"):
    """The task's own checkpoint; a later attempt can read the last one."""

    task: str
    attempt: int
    data: msgspec.Raw


class TaskProgressed(Event, frozen=True, tag="task_progressed"):
    """The task told how far it is."""

    task: str
    attempt: int
    data: msgspec.Raw


class CheckpointPosted(Event, frozen=True, tag="checkpoint_posted"):
    """Whoever follows the run from outside posted a checkpoint, in whatever state the run was."""

    kind: str
    data: msgspec.Raw = NO_JSON


class SlaMissed(Event, frozen=True, tag="sla_missed"):
    """The run, or one of its tasks, was not over at its deadline. Changes no state; what follows has its own events."""

    deadline: datetime
    #: None = the run
    task: str | None = None


class HistoryRemoved(Event, frozen=True, tag="history_removed"):
    """The run had ended long ago: its events between the first one and this are no longer kept."""

    #: version of the last event removed, so that this one's is the next: it alone leaves a gap
    through: int
    #: instant of the last checkpoint removed (`checkpoints.py`)
    until: datetime
    #: core run state then, and how often the run had been started
    state: str
    attempts: int
    #: task -> last attempt: attempts never repeat, also when the run is restarted
    task_attempts: dict[str, int]


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many windows of a backfill are in which state; each window counts once."""

    total: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    #: kept as they were: they do not influence the backfill
    skipped: int = 0


class BackfillCreated(Event, frozen=True, tag="backfill_created"):
    """A backfill exists, with all the runs of its windows (in the order in which they start)."""

    run_id: str
    tenant: str
    dag_id: str
    dag_version: int
    #: None = its windows are partitions
    window: Window | None
    total: int
    skipped: int
    max_active_runs: int | None = None


class BackfillWidened(Event, frozen=True, tag="backfill_widened"):
    """More windows belong to a backfill that goes on; `total` and `skipped` count all of them."""

    #: from the first to the last of all; None = they are partitions
    window: Window | None
    added: int
    total: int
    skipped: int
    #: of the plan that this carried out
    plan_hash: str = ""


class BackfillCapped(Event, frozen=True, tag="backfill_capped"):
    """At most so many windows of a backfill run at a time from now on; None = the DAG's limit alone holds."""

    max_active_runs: int | None


class WindowChanged(Event, frozen=True, tag="window_changed"):
    """A window's run is in another state; `before` and `after` are core run states."""

    window: Window
    child: str
    before: str
    after: str
    #: of the whole backfill, after this change
    counts: Counts = Counts()


#: the union the codec decodes into
AnyEvent = (
    RunCreated
    | RunStarted
    | RunPaused
    | RunResumed
    | RunCancelling
    | RunCancelled
    | RunSucceeded
    | RunFailed
    | RunOverdue
    | RunCompensating
    | RunTimedOut
    | RunRestarted
    | RunRevived
    | TaskStarted
    | TaskExpanded
    | TaskReturned
    | TaskSucceeded
    | TaskRetrying
    | TaskFailed
    | TaskSkipped
    | TaskMarked
    | TaskUpstreamFailed
    | TaskCancelled
    | TaskReset
    | TaskWaiting
    | TaskSuspended
    | SignalReceived
    | SignalConsumed
    | VoteCast
    | VoteRefused
    | ValuePublished
    | BatchFormed
    | ToolStarted
    | ToolCompleted
    | TaskCheckpointed
    | TaskProgressed
    | CheckpointPosted
    | SlaMissed
    | HistoryRemoved
    | BackfillCreated
    | BackfillWidened
    | BackfillCapped
    | WindowChanged
)
