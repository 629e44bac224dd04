"""What work is done with, as people look at it: workers, pools, limits, tenants' shares, and who waits for them."""

from __future__ import annotations

import msgspec

from orchestrator.limits import Rate
from orchestrator.pools import PoolSpec


class WorkerView(msgspec.Struct, frozen=True):
    """One worker slot."""

    worker_id: str
    pool: str
    #: starting | idle | busy | draining | lost
    state: str
    #: host name
    node: str = ""
    pid: int = 0
    #: of Ray's node
    node_id: str = ""


class PoolView(msgspec.Struct, frozen=True):
    """A pool of workers: what is defined, and what is so now."""

    name: str
    spec: PoolSpec
    #: False: nobody has defined it; of the pool `default` the settings say then
    defined: bool = True
    #: workers that it should have
    wanted: int = 0
    #: that it has, without those that are to end; of these those that are not ready yet, and that have work
    workers: int = 0
    starting: int = 0
    busy: int = 0
    #: that end once they have no work
    draining: int = 0
    #: ready tasks that wait for a slot, and for how long some have
    waiting: int = 0
    waiting_s: float = 0.0


class LimitView(msgspec.Struct, frozen=True):
    """What is allowed under one name, and what is so now."""

    name: str
    #: limit | dag: all tasks of a DAG with `max_active_tasks`
    kind: str = "limit"
    #: False: tasks name it, and nobody has defined it, so they are only counted
    defined: bool = True
    max_running: int | None = None
    rate: Rate | None = None
    #: permits in use; of a pattern nothing: each key of it is counted by itself
    running: int = 0
    #: ready tasks that wait
    waiting: int = 0


class WaitingView(msgspec.Struct, frozen=True):
    """A ready task that has not started, and what it waits for."""

    task: str
    pool: str
    reasons: tuple[str, ...]


class TenantShare(msgspec.Struct, frozen=True):
    """A tenant's weight in the shares of worker slots."""

    tenant: str
    weight: float


class RunWaiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run waits for, as the scheduler sees it now; `tasks` as the limits do."""

    run_id: str
    #: place (among its DAG's active runs) | slot (of a worker) | None: for neither
    waiting_for: str | None = None
    #: scheduled | manual | backfill
    run_class: str | None = None
    #: runs that start before it in its lane; places its DAG has taken, and has
    ahead: int | None = None
    active_runs: int | None = None
    max_active_runs: int | None = None
    paused: bool = False
    #: what its DAG gets of all slots while everybody who wants some now goes on to
    share: float | None = None
    #: ready tasks that have not started, each with its reasons
    tasks: tuple[WaitingView, ...] = ()
