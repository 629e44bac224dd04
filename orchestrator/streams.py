"""The journal's streams and what is told on them: what follows from a step, in the order in which it became so.

    sched       to the scheduler: what is queued, moved, changed or has to wake
    inbox(a)    to the actor `a`, which acts on each item once: its commits carry the cursor
    feed        to everybody who follows runs: which entity is at which version now

`codec` reads an entry's `item` by its stream. Instants are epoch milliseconds (`*_ms`), states core words.
"""

from __future__ import annotations

import msgspec

from orchestrator.rows import EventBatch

#: whose inbox tells what may start runs (`Succeeded`, `Produced`)
TRIGGERS = "triggers"

#: streams one can `tail`, besides `inbox(actor)`
SCHED = "sched"
FEED = "feed"


def inbox(actor: str) -> str:
    """The stream of an actor's durable inbox."""
    return f"in:{actor}"


def place(cursor: str) -> tuple[int, int]:
    """A stream's cursor, to be compared with others of that stream."""
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence or 0)


class Entry(msgspec.Struct, frozen=True):
    """One entry of a tailed stream; `codec` decodes `item` by stream."""

    cursor: str
    item: bytes


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
