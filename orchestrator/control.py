"""What the scheduler, the RunActors and the gateway say to each other, as JSON bytes in one argument.

    scheduler ── Hosting(admissions, grants, yields) ──▶ RunActor
    RunActor  ── Standing(demand, released, lost)     ──▶ scheduler
    gateway   ── command.Command(cancel | retry | …)  ──▶ RunActor ── CommandReply ──▶ gateway

The scheduler tells the supervisor of pools in which tasks wait for slots (PoolLoad), for it has more workers started.
Beside those go `Claims` and `Binding`, between RunActors that have tasks with needs and the scheduler; whoever has none
never sends one.

Every message may come twice or not at all. `Standing.demand` is absolute, leases and admissions are numbered, and
admissions are checked against the journal, so a repetition changes nothing; what a lost message would
have told is told again by the next one, or found in the journal by whoever restarts.
"""

from __future__ import annotations

import msgspec

from orchestrator.messages import Need
from orchestrator.nearness import Near
from orchestrator.shares import Path


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """This run may start."""

    run_id: str
    #: host it without starting it (a backfill, or a run that was asleep)
    only_host: bool = False
    #: grows with every admission that a scheduler gives, over all its incarnations; 0 when it is none
    number: int = 0
    #: a version of the run since it was queued: an admission is for one life of the run, not for the next
    since: int = 0
    #: the backfill for which it is given; "" = none
    lane: str = ""


class Hosting(msgspec.Struct, frozen=True, array_like=True):
    """From the scheduler to one RunActor."""

    #: incarnation of the scheduler: admissions of a former one are refused by the journal
    epoch: int
    admissions: tuple[Admission, ...] = ()
    #: (worker, incarnation, lease)
    grants: tuple[tuple[str, str, int], ...] = ()
    #: (worker, lease)
    yields: tuple[tuple[str, int], ...] = ()
    #: pool and node of its tree of shares -> how far it is ahead, seen over all RunActors; empty = nobody competes;
    #: None = as told before
    leads: tuple[tuple[Path, float], ...] | None = None
    #: tenant -> weight, of those that have one; None = as told before
    weights: tuple[tuple[str, float], ...] | None = None
    #: of the leases granted, those that are not for tasks of backfills
    kept: tuple[int, ...] = ()
    #: (worker, Ray's id of its node) of the leases granted, to who told where tasks are at home
    nodes: tuple[tuple[str, str], ...] = ()
    #: (worker, incarnation) of workers that are there since the last message: any of them may be leased next
    workers: tuple[tuple[str, str], ...] = ()


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """From one RunActor to the scheduler: where it stands."""

    actor: str
    #: incarnation of the RunActor
    epoch: int
    #: leaf of the tree of shares -> ready tasks that wait for a slot
    demand: tuple[tuple[Path, int], ...] = ()
    #: (worker, lease)
    released: tuple[tuple[str, int], ...] = ()
    #: (worker, incarnation) that died while this actor used it
    lost: tuple[tuple[str, str], ...] = ()
    #: admissions (run, number) that the journal refused for now (paused in between, or a former scheduler's)
    refused: tuple[tuple[str, int], ...] = ()
    #: runs in memory
    hosted: int = 0
    #: every lease it holds, (worker, lease); only in answer to a new scheduler
    held: tuple[tuple[str, int], ...] | None = None
    #: pool and leaf -> seconds of slot time since the last Standing; only while leaves compete
    served: tuple[tuple[Path, float], ...] = ()
    #: of the leases held, those that are not for tasks of backfills
    kept: tuple[int, ...] = ()
    #: of what waits, where tasks are at home, by leaf; at most `nearness.LEAVES_MAX`
    near: tuple[tuple[Path, Near], ...] = ()


class Roster(msgspec.Struct, frozen=True, array_like=True):
    """From the supervisor to the scheduler: the actors that ought to exist."""

    run_actors: tuple[str, ...]
    #: (worker, pool)
    workers: tuple[tuple[str, str], ...]
    #: workers that are to get no more work
    draining: tuple[str, ...] = ()
    #: pools that have more workers when tasks wait: the supervisor is told at once when they begin to
    elastic: tuple[str, ...] = ()
    #: grows with each that differs; its upper bits are of the supervisor's incarnation (`actors/roster_order.py`)
    number: int = 0


class PoolLoad(msgspec.Struct, frozen=True, array_like=True):
    """One pool as the scheduler sees it now."""

    pool: str
    #: ready tasks that would start if there were slots
    waiting: int = 0
    #: seconds for which some have waited, without a break
    waiting_s: float = 0.0
    #: slots that are leased, and all that are ready, without those of workers that are to end
    busy: int = 0
    slots: int = 0


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """A worker slot for tasks with one need, with the permits for one of them at a time."""

    worker: str
    incarnation: str
    #: 0 = the holder took it over from its former incarnation, and starts nothing more on it
    lease: int
    need: Need
    #: tasks that may start on it; None = as many as come
    starts: int | None = None
    #: not for tasks of backfills
    kept: bool = False
    #: Ray's id of the node that the worker is on; "" = it is not told
    node: str = ""


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """From one RunActor to the scheduler, beside its Standing: what it wants and has of tasks that are not plain."""

    actor: str
    epoch: int
    #: grows with each that this incarnation sends; demand of an older one is old
    number: int
    #: need -> leaf of the tree of shares -> ready tasks that wait; nothing under a need: none does
    demand: tuple[tuple[Need, tuple[tuple[Path, int], ...]], ...] = ()
    #: nothing else waits
    whole: bool = False
    #: (worker, lease, tasks that were started on it of those that might); none more will
    begun: tuple[tuple[str, int, int], ...] = ()
    #: (worker, lease); nothing runs on it any more
    released: tuple[tuple[str, int], ...] = ()
    #: the same, but its worker does not answer
    lost: tuple[tuple[str, int], ...] = ()
    #: everything it has; None = not told now
    held: tuple[Bound, ...] | None = None
    #: seconds since it may last have started a task under a rate, told with `held`
    quiet_s: float = 0.0
    #: newest scheduler that it has heard of: what an older one grants does not count
    scheduler: int = 0
    #: of what waits, where tasks are at home: (need, leaf, nodes with tasks); at most `nearness.LEAVES_MAX`
    near: tuple[tuple[Need, Path, Near], ...] = ()


class Binding(msgspec.Struct, frozen=True, array_like=True):
    """From the scheduler to one RunActor, beside its Hosting."""

    #: incarnation of the scheduler, and of the RunActor that it is for; any other one ignores it
    epoch: int
    to_epoch: int
    grants: tuple[Bound, ...] = ()
    #: (worker, lease)
    yields: tuple[tuple[str, int], ...] = ()


class LimitUsage(msgspec.Struct, frozen=True, array_like=True):
    """A key as the scheduler sees it now."""

    key: str
    #: permits in use
    running: int
    #: ready tasks that wait for one
    waiting: int
