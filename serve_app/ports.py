"""What the HTTP layer needs from the rest of the system, as Protocols.

Every method of `Gateway` keeps its own deadline of 5 s and raises `orchestrator.errors` only. A tenant's
foreign objects are NotFound. `idem` carries the caller's idempotency key, if it sent one; an answer with
`replayed` set was stored under that key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from prometheus_client.core import Metric

from orchestrator.archive import Sweep
from orchestrator.bundle_record import BundleStored, BundleView
from orchestrator.cluster_views import LimitView, PoolView, RunWaiting, TenantShare, WorkerView
from orchestrator.command import Ballot
from orchestrator.definition import Definition
from orchestrator.errors import OrchestratorError
from orchestrator.idempotency import Idempotency
from orchestrator.instance_views import (
    Acknowledged,
    FindingView,
    InstanceStatus,
    InstanceView,
    InstanceWanted,
    PlanView,
)
from orchestrator.limits import Limit
from orchestrator.live_run_views import CheckpointView, LiveRunCreated, LiveRunView, LiveRunWanted
from orchestrator.planes import PlaneView
from orchestrator.pools import PoolSpec
from orchestrator.reclaim import ArtifactSweep
from orchestrator.rows import RunFilter
from orchestrator.starts import EventTold, Plan, Trigger, Triggered, Widening, Wider
from orchestrator.views import (
    ApprovalView,
    AssetView,
    DagDefined,
    DagView,
    Frame,
    LogChunk,
    MapView,
    Page,
    PublishedView,
    RunChanged,
    RunView,
    SignalSent,
    Uncached,
)

#: a version precondition: this very version, or "must exist", or none
Expect = int | Literal["any"] | None


class Observation(NamedTuple):
    """One answered HTTP request."""

    method: str
    #: the route's pattern, never a path with ids
    route: str
    status: int
    seconds: float


class Clock(Protocol):
    """The time, as the composition root gives it."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds since some instant of this machine."""

    def jitter(self) -> float:
        """A share in [0, 1)."""

    def token(self) -> str:
        """Text that nobody can guess, safe in headers."""


class Limits(Protocol):
    """Limits of tenants on tasks that run."""

    async def limits(self, tenant: str) -> list[LimitView]:
        """Limits that are defined, or in use without a definition, and DAGs with `max_active_tasks`; by name."""

    async def limit(self, tenant: str, name: str) -> LimitView:
        """One that is defined. Raises NotFound."""

    async def set_limit(self, tenant: str, name: str, limit: Limit) -> LimitView:
        """The limit is so from now on. Raises Invalid."""

    async def delete_limit(self, tenant: str, name: str) -> None:
        """There is no such limit any more. Raises NotFound."""

    async def waiting(self, tenant: str, run_id: str) -> RunWaiting:
        """What a run waits for: a place, a slot, and of each ready task, what for. Raises NotFound."""


class Pools(Protocol):
    """Pools of workers, which all tenants share."""

    async def pools(self) -> list[PoolView]:
        """Pools that are defined, or have workers, by name."""

    async def pool(self, name: str) -> PoolView:
        """One of them. Raises NotFound."""

    async def set_pool(self, name: str, spec: PoolSpec) -> PoolView:
        """The pool is so from now on. Raises Invalid."""

    async def delete_pool(self, name: str) -> None:
        """It is not defined any more; its workers finish what they do. Raises NotFound."""


class Caches(Protocol):
    """Results of tasks that are used again."""

    async def uncache(self, tenant: str, dag_id: str, task: str | None) -> Uncached:
        """The DAG's tasks, or one of them, use no result of an attempt that has begun by now. Raises NotFound."""


class Starters(Protocol):
    """What starts runs of several DAGs at once."""

    async def tell(
        self, tenant: str, name: str, event_id: str, payload: Mapping[str, Any], idem: Idempotency | None
    ) -> EventTold:
        """Every DAG that listens to events of that name has a run because of this one, once. Raises Conflict."""

    async def assets(self, tenant: str) -> list[AssetView]:
        """Assets that DAGs name, or that were updated, by name."""

    async def asset(self, tenant: str, name: str) -> AssetView:
        """One of them. Raises NotFound."""


class Archive(Protocol):
    """Runs that ended long ago and left the journal."""

    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        """As `Gateway.runs`, of those that are in the archive, as they were when they left."""

    async def sweep(self, older_than: timedelta, to: str | None, idem: Idempotency | None) -> Sweep:
        """What ended longer ago leaves, durably wanted; asked again under the same key, how far that is.

        Raises Invalid about `to`, and Conflict when the key was another request's.
        """

    async def sweeps(self) -> list[Sweep]:
        """Those that go on, and those that ended last; the latest first."""


class Artifacts(Protocol):
    """Large values of runs: the operator's to remove."""

    async def sweep(self, older_than: timedelta, dry_run: bool, idem: Idempotency | None) -> ArtifactSweep:
        """Those of runs that ended longer ago go, durably wanted; asked again under the same key, how far that is."""

    async def sweeps(self) -> list[ArtifactSweep]:
        """Those that go on, and those that ended last; the latest first."""


class Bundles(Protocol):
    """Code that DAGs are deployed in. To a tenant exists what it sent."""

    async def put(self, tenant: str, bundle: str, packed: bytes) -> BundleStored:
        """It is kept under the id of its content. Raises Invalid, and Conflict when there is no room."""

    async def deploy(self, tenant: str, bundle: str, idem: Idempotency | None) -> list[DagDefined]:
        """Its DAGs are the current ones. Raises Invalid with all that is wrong in it, NotFound. May take minutes."""

    async def bundles(self, tenant: str) -> list[BundleView]:
        """All that are kept, those last touched first."""

    async def delete(self, tenant: str, bundle: str) -> None:
        """It is not kept any more. Raises NotFound, and Conflict when a current version or a run needs it."""

    async def prune(self, tenant: str, grace: timedelta) -> Sequence[str]:
        """Those that nobody needs and nobody touched for that long are gone; their ids."""


class Planes(Protocol):
    """Which control plane is in charge of the journal."""

    async def view(self) -> PlaneView:
        """This one, and who is in charge."""

    async def standby(self) -> PlaneView | None:
        """Not None when this one stands by, as far as that can be known now."""

    async def take_over(self) -> PlaneView:
        """Whoever is in charge is asked to hand over to this one; how it stands now."""


class Gateway(Protocol):
    """Commands in, views and streams out."""

    @property
    def planes(self) -> Planes:
        """Which control plane is in charge."""

    @property
    def cache(self) -> Caches:
        """Results of tasks that are used again."""

    @property
    def archive(self) -> Archive:
        """Runs that left the journal."""

    @property
    def artifacts(self) -> Artifacts:
        """Large values of runs."""

    @property
    def bundles(self) -> Bundles:
        """Code that DAGs are deployed in."""

    @property
    def waiting(self) -> Waiting:
        """Signals, approvals, queries."""

    @property
    def limit_book(self) -> Limits:
        """Limits on tasks that run."""

    @property
    def pool_book(self) -> Pools:
        """Pools of workers."""

    @property
    def starters(self) -> Starters:
        """Events and assets."""

    async def define_dag(
        self, tenant: str, definition: Definition, *, keep_tasks: bool, expect: Expect, idem: Idempotency | None
    ) -> DagDefined:
        """Store a definition; with `keep_tasks` an existing DAG keeps its tasks."""

    async def dag(self, tenant: str, dag_id: str) -> DagView:
        """The current version of one DAG."""

    async def dags(
        self, tenant: str, *, paused: bool | None, owner: str | None, cursor: str | None, limit: int
    ) -> Page[DagView]:
        """DAGs by id. A cursor is an id: what follows is greater."""

    async def pause_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        """Nothing of the DAG starts any more."""

    async def resume_dag(self, tenant: str, dag_id: str, reason: str | None, idem: Idempotency | None) -> DagDefined:
        """Runs of the DAG start again."""

    async def trigger(self, tenant: str, trigger: Trigger, idem: Idempotency | None) -> Triggered:
        """A manual run or a backfill exists, durably."""

    async def trigger_many(
        self, tenant: str, triggers: list[Trigger], idem: Idempotency | None
    ) -> tuple[list[Triggered | OrchestratorError], bool]:
        """Many manual runs in one durable step; the flag says that the answer was stored before."""

    async def plan(self, tenant: str, trigger: Trigger) -> Plan:
        """What the trigger would do; nothing is stored."""

    async def run(self, tenant: str, run_id: str) -> RunView:
        """One run with its tasks and windows."""

    async def wait(self, tenant: str, run_id: str, seconds: float) -> None:
        """Returns when the run has ended, or after `seconds`."""

    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        """Runs, newest first. A cursor is the id of a run: what follows is older.

        A page may be short, even empty, and still have a cursor.
        """

    async def cancel_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """The run ends as cancelled."""

    async def pause_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """No further task of the run starts."""

    async def resume_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """Tasks of the run start again."""

    async def cap_run(
        self, tenant: str, run_id: str, max_active_runs: int | None, idem: Idempotency | None
    ) -> RunChanged:
        """So many windows of the backfill run at a time; None = as many as the DAG allows."""

    async def widen_run(self, tenant: str, run_id: str, widening: Widening, idem: Idempotency | None) -> Wider:
        """The backfill has these windows too, durably."""

    async def plan_widening(self, tenant: str, run_id: str, widening: Widening) -> Plan:
        """What `widen_run` would do; nothing is stored."""

    async def retry_run(self, tenant: str, run_id: str, idem: Idempotency | None) -> RunChanged:
        """Every failed task of the run is pending again."""

    async def retry_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        """The task is pending again."""

    async def skip_task(self, tenant: str, run_id: str, task: str, idem: Idempotency | None) -> RunChanged:
        """Dependents proceed as if the task were done."""

    async def map_instances(
        self, tenant: str, run_id: str, task: str, *, states: tuple[str, ...] | None, cursor: str | None, limit: int
    ) -> MapView:
        """A mapped task and its instances by index; `states` are core words, None = any. A cursor is an index."""

    async def open_events(self, tenant: str, run_id: str, after: int | None) -> AsyncIterator[Sequence[Frame]] | None:
        """Events after `after` (None = all), then live, in the chunks in which they come.

        None when nothing will ever follow. Raises HistoryGone when events after `after` are no longer kept.
        """

    async def logs(self, tenant: str, run_id: str, task: str, attempt: int | None) -> list[LogChunk]:
        """Captured output, oldest attempt first."""

    async def workers(self) -> list[WorkerView]:
        """Every worker slot."""

    async def scale_workers(self, pool: str, n: int) -> list[WorkerView]:
        """The pool's slots, on their way to `n`."""

    async def drain_worker(self, worker_id: str) -> WorkerView:
        """The worker finishes what it has and gets nothing more."""

    async def shares(self) -> list[TenantShare]:
        """Weights of tenants that were given one, by tenant; all others weigh 1."""

    async def set_share(self, tenant: str, weight: float) -> TenantShare:
        """The tenant weighs that much, durably."""

    async def health(self) -> Mapping[str, object]:
        """What answers: `journal`, `ray`, …"""

    async def ready(self) -> str | None:
        """Why no work can be accepted, or None."""

    async def metrics(self) -> Iterable[Metric]:
        """Metric families of the whole system."""

    async def count_http(self, observations: Sequence[Observation]) -> None:
        """Add this replica's requests to the whole system's histogram."""


class Waiting(Protocol):
    """Signals into runs, votes on their approvals, what runs answer; under the same rules as `Gateway`."""

    async def signal(
        self, tenant: str, run_id: str, name: str, data: msgspec.Raw, signal_id: str | None, idem: Idempotency | None
    ) -> SignalSent:
        """The run has the signal, durably; one with the `signal_id` of an earlier one is that one. Raises Conflict."""

    async def decide(self, tenant: str, run_id: str, task: str, ballot: Ballot, idem: Idempotency | None) -> RunChanged:
        """The vote counts, durably. Raises Conflict when it is late, Invalid (the choice), NotAllowed."""

    async def approvals(self, tenant: str, *, dag_id: str | None, run_id: str | None) -> list[ApprovalView]:
        """Open approvals, oldest first."""

    async def query(self, tenant: str, run_id: str, name: str) -> PublishedView:
        """What the run answers to `name`."""

    async def queries(self, tenant: str, run_id: str) -> list[PublishedView]:
        """Everything the run answers, by name."""


class LiveRuns(Protocol):
    """Runs of the runs surface, under the same rules as `Gateway`."""

    async def ask_leave(self, caller: str, most: int, window_s: float) -> int:
        """Whole seconds until `caller` may ask again; 0 = this request may pass, and counts.

        Of all replicas together, at most `most` requests pass in any span of `window_s`.
        """

    async def create(self, tenant: str, wanted: LiveRunWanted, idem: Idempotency | None) -> LiveRunCreated:
        """A run exists, durably. Raises NotFound for an unknown DAG, Conflict for a reused key."""

    async def run(self, tenant: str, run_id: str) -> LiveRunView:
        """One run of that surface."""

    async def checkpoints(
        self, tenant: str, run_id: str, after: datetime | None, limit: int | None
    ) -> list[CheckpointView]:
        """Checkpoints strictly later than `after`, oldest first; `limit` None = all."""

    async def post_checkpoint(self, tenant: str, run_id: str, kind: str, data: msgspec.Raw) -> CheckpointView:
        """The caller's checkpoint is in the run's log; empty `data` = none was given. Allowed in every state."""

    async def cancel(self, tenant: str, run_id: str) -> RunChanged:
        """The run ends as cancelled. Raises AlreadyEnded, with the state it has."""

    async def open_events(
        self, tenant: str, run_id: str, after: datetime | None, replay: int
    ) -> AsyncIterator[Sequence[Frame]]:
        """Checkpoints later than `after`, or the last `replay` ones when it is None; then live, for ever.

        Frames: `checkpoint` (data id, runId, ts, type, data?), `status` (data runId, status as a core run state; live
        only) and `keep_alive` (no data), at most 15 s after the last frame. Each checkpoint once, in order. `ts` is a
        datetime, or text of 24 characters; `data` best stays the msgspec.Raw it is. Raises HistoryGone when checkpoints
        later than `after` are no longer kept.
        """


class Instances(Protocol):
    """Orchestrator instances and the plans they work through, under the same rules as `Gateway`."""

    async def start(self, tenant: str, wanted: InstanceWanted) -> InstanceView:
        """An instance works on the plan.

        Raises NotFound (plan), Conflict (one does already), Invalid (executor, cycle).
        """

    async def instances(self, tenant: str) -> list[InstanceView]:
        """Instances that live, or ended a short while ago; oldest first."""

    async def instance(self, tenant: str, instance_id: str) -> InstanceView:
        """One of them."""

    async def status(self, tenant: str, instance_id: str) -> InstanceStatus:
        """How far it is."""

    async def pause(self, tenant: str, instance_id: str) -> Acknowledged:
        """It starts no further task. Raises InstanceDead when it has ended or does not answer."""

    async def resume(self, tenant: str, instance_id: str) -> Acknowledged:
        """It starts tasks again. Raises InstanceDead."""

    async def shut_down(self, tenant: str, instance_id: str, force: bool) -> Acknowledged:
        """It ends after the current batch, or with `force` now. Raises InstanceDead."""

    async def skip_task(self, tenant: str, instance_id: str, task_id: str, reason: str | None) -> Acknowledged:
        """The task counts as done; also on an instance that has ended."""

    async def retry_task(self, tenant: str, instance_id: str, task_id: str) -> Acknowledged:
        """A failed or skipped task is pending again. Raises NotFound about the task."""

    async def open_events(
        self, tenant: str, instance_id: str, since: int | None
    ) -> tuple[InstanceStatus, int, AsyncIterator[Sequence[Frame]]]:
        """A snapshot, the seq it stands at, and the frames after `since`, or after the snapshot.

        Frames carry `seq` and data {timestamp, data}: status_updated, task_changed, phase_changed, tool_started,
        tool_completed, orchestrator_state; they end after the state `stopped`. `keep_alive` frames (no seq, no data) in
        silence. A `since` that is greater than the latest seq is ignored.
        """

    async def plans(self, tenant: str) -> list[PlanView]:
        """Plan files by name."""

    async def plan_status(self, tenant: str, name: str) -> InstanceStatus:
        """What status.json says of a plan. Raises NotFound of kind `plan` or `status`."""

    async def findings(self, tenant: str, name: str) -> list[FindingView]:
        """Findings of a plan by task id. Raises NotFound of kind `plan`."""

    async def finding(self, tenant: str, name: str, task_id: str) -> str:
        """The text of one finding. Raises NotFound of kind `plan` or `finding`."""
