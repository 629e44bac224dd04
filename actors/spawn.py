"""The composition root: builds the shells with their collaborators and makes them Ray actors.

The only place that applies `ray.remote`. Each process class here is a thin skin: it takes ids and
settings, builds journal, peers and clock, and starts its shell from the constructor, since that is all
that a restart by Ray runs. Everything is detached and restarted for ever; retries are ours, and fenced.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import ray
from ray.exceptions import RayError

from actors import embedded, placement, process
from actors.archiver import Archiver
from actors.artifact_nodes import places_of_cluster
from actors.artifact_sweeper import ArtifactSweeper
from actors.attempt_log import RedisLogSink
from actors.batched import Batched
from actors.bundle_keeper import BundleKeeper
from actors.cache_sweeper import CacheSweeper
from actors.clock import Clock
from actors.directory import TELL_S, RayPeers, this_plane
from actors.kubernetes_actor import KubernetesActor
from actors.kubernetes_cluster import Cluster
from actors.names import (
    GATEWAY,
    HANDLERS,
    KUBERNETES,
    NAMESPACE,
    RUNNER,
    SCHEDULER,
    SUPERVISOR,
    instance_of,
    run_actor_name,
    worker_name,
)
from actors.node_values import RayNodes, own_node
from actors.orchestrator_actor import OrchestratorActor
from actors.plan_keeper import PlanKeeper
from actors.plan_store import PlanStore
from actors.plane_journal import PlaneJournal
from actors.plane_keeper import PlaneKeeper, claim_of, enter
from actors.pools import Request, shaped
from actors.ray_nodes import actors_on, draining_nodes, request_room
from actors.retention import Retention
from actors.run_actor import RunActor
from actors.scheduler_actor import SchedulerActor
from actors.settings import Settings
from actors.span_export import open_exporter
from actors.supervisor import Supervisor
from actors.tracer import Tracer
from actors.worker_process import CONTROL_THREADS, NOTE_S, WorkerProcess
from orchestrator import actor_codec
from orchestrator.errors import ActorUnreachable, Unavailable
from orchestrator.needs import DEFAULT_POOL
from orchestrator.pools import POOLS, PoolSpec

#: seconds the cast may take to be there
START_S = 60.0
#: seconds within which an actor that lives answers
ANSWER_S = 1.0
#: Kubernetes Jobs waited for at a time: one call each
EXCHANGES_MAX = 1_000_000
#: requests that the gateway has at a time
REQUESTS_MAX = 100_000

_CONTROL: dict[str, Any] = {
    "namespace": NAMESPACE,
    "lifetime": "detached",
    "num_cpus": 0,
    "max_restarts": -1,
    "max_task_retries": 0,
    "enable_task_events": False,
    "get_if_exists": True,
}


class _OwnerOfRuns(RunActor):
    """A RunActor, of whichever kind, as a Ray actor."""

    async def __init__(self, name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made = Settings.from_dict(settings)
        super().__init__(name, open_journal(made), RayPeers(), Clock(), made)
        self.start()

    def on_crash(self) -> None:
        process.end()

    def __repr__(self) -> str:
        return self.name


class RunActorProcess(_OwnerOfRuns):
    """Hosts runs."""


class OrchestratorProcess(_OwnerOfRuns, OrchestratorActor):
    """Hosts the run of one orchestrator instance."""


class SchedulerProcess(SchedulerActor):
    """The scheduler as a Ray actor."""

    async def __init__(self, name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made = Settings.from_dict(settings)
        super().__init__(open_journal(made), RayPeers(), Clock(), made)
        self.start()

    def on_crash(self) -> None:
        process.end()

    def __repr__(self) -> str:
        return SCHEDULER


class SupervisorProcess(Supervisor):
    """The supervisor as a Ray actor."""

    async def __init__(self, name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made = Settings.from_dict(settings)
        journal, peers = open_journal(made), RayPeers()
        super().__init__(RayStage(made), peers, journal, made)
        self._planes: PlaneKeeper | None = None
        if made.embedded:  # nobody else can have that journal
            self._begin(journal, peers, made)
            return
        self.stands_by = True
        end_cast = partial(asyncio.to_thread, end_all_but, SUPERVISOR)
        begin = partial(self._begin, journal, peers, made)
        self._planes = PlaneKeeper(journal, claim_of(made, this_plane()), begin, end_cast, process.end)
        self._planes.start()

    def _begin(self, journal: PlaneJournal, peers: RayPeers, made: Settings) -> None:
        """This control plane is in charge."""
        self.stands_by = False
        self.start()
        store = PlanStore(Path(made.plans_root))
        nodes = RayNodes(made.to_dict())
        self._keeper = PlanKeeper(journal, peers, store, Clock(), made, self.dismiss, node=own_node(), nodes=nodes)
        self._keeper.start()
        self._retention = Retention(journal, Clock(), made)
        self._retention.start()
        self._bundle_keeper = BundleKeeper(journal, Clock(), made)
        self._bundle_keeper.start()
        self._cache_sweeper = CacheSweeper(journal, Clock())
        self._cache_sweeper.start()
        self._tracer = Tracer(journal, open_exporter(made.otlp_endpoint)) if made.traced else None
        if self._tracer is not None:
            self._tracer.start()
        self._archiver = Archiver(journal, Clock(), made)
        self._archiver.start()
        self._artifact_sweeper = ArtifactSweeper(journal, Clock(), made, partial(places_of_cluster, made))
        self._artifact_sweeper.start()

    async def whose(self) -> str:
        """Fingerprint of the settings that say whose actors these are."""
        return self._settings.fingerprint

    async def wake_archiver(self, _blob: bytes) -> None:
        """Somebody wants runs to leave for the archive, or artifacts to go."""
        self.check_in_charge()
        self._archiver.wake()
        self._artifact_sweeper.wake()

    async def take_over(self, _blob: bytes) -> None:
        """Whoever is in charge is asked to hand over to this control plane."""
        if self._planes is not None:
            self._planes.take_over()

    def __repr__(self) -> str:
        return SUPERVISOR


class KubernetesProcess(KubernetesActor):
    """The actor that runs attempts as Kubernetes Jobs, as a Ray actor."""

    async def __init__(self, name: str, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        process.settle()
        made = Settings.from_dict(settings)
        super().__init__(Cluster(made), RedisLogSink(made.journal_url), Clock(), made)
        self.start()

    def on_crash(self) -> None:
        process.end()

    def __repr__(self) -> str:
        return KUBERNETES


class RayControlPlane:
    """`ports.ControlPlane` over Ray, for API replicas."""

    def __init__(self, settings: Settings) -> None:
        self._peers = RayPeers()
        self._run_actors = [run_actor_name(n) for n in range(settings.run_actors_max)]
        #: who was not called yet: while Ray's GCS is away that would have to wait
        self._unmet = {SUPERVISOR, *self._run_actors}
        self._meeting: asyncio.Task[None] | None = None
        #: was the gateway there before?
        self._gateway_met = False
        self._wards = {ward: Batched(partial(self._ask, ward)) for ward in ("jobs", "pipelines", "webhooks")}

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        """At the owner; a run that nobody owns goes to a RunActor chosen by its id."""
        chosen = owner or self._run_actors[crc32(run_id.encode()) % len(self._run_actors)]
        return await self._peers.ask(chosen, "command", command)

    async def workers(self) -> bytes:
        """JSON array of views.WorkerView."""
        return await self._peers.ask(SUPERVISOR, "workers", b"")

    async def scale_workers(self, pool: str, n: int) -> bytes:
        """The pool's workers, once it is to have `n`. Raises Invalid."""
        return await self._peers.ask(SUPERVISOR, "scale", actor_codec.encode_scale(pool, n))

    async def pools(self) -> bytes:
        """JSON array of views.PoolView."""
        return await self._peers.ask(SUPERVISOR, "pools", b"")

    async def set_pool(self, change: bytes) -> bytes:
        """The supervisor has it, and so has the journal; JSON array of the pool. Raises Invalid, NotFound."""
        return await self._peers.ask(SUPERVISOR, "set_pool", change)

    async def drain_worker(self, worker_id: str) -> bytes:
        """The worker, once it gets no more work. Raises NotFound."""
        return await self._peers.ask(SUPERVISOR, "drain", worker_id.encode())

    async def load(self) -> dict[str, int]:
        """What waits, as the scheduler sees it."""
        return actor_codec.decode_load(await self._peers.ask(SCHEDULER, "load", b""))

    async def weights_changed(self) -> None:
        """The scheduler has read the tenants' weights again."""
        await self._peers.ask(SCHEDULER, "take_weights", b"")

    async def explain(self, run_id: str) -> bytes:
        """What the run waits for, says the scheduler."""
        return await self._peers.ask(SCHEDULER, "explain", run_id.encode())

    async def set_limit(self, change: bytes) -> None:
        """The scheduler has it, and so has the journal."""
        await self._peers.ask(SCHEDULER, "set_limit", change)

    async def limit_usage(self) -> bytes:
        """JSON array of control.LimitUsage."""
        return await self._peers.ask(SCHEDULER, "limit_usage", b"")

    async def wake_archiver(self) -> None:
        """It looks for sweeps that are wanted."""
        await self._peers.tell(SUPERVISOR, "wake_archiver", b"")

    async def take_over(self) -> None:
        """The supervisor asks for the lease."""
        await self._peers.tell(SUPERVISOR, "take_over", b"")

    async def gateway(self, ward: str, request: bytes, patience_s: float = 5.0) -> bytes:
        """A request to a part of the gateway, and its answer; those with little patience go together."""
        if patience_s > TELL_S:
            return await self._wards[ward].alone(request, partial(self._ask, ward, patience_s=patience_s))
        return await self._wards[ward].ask(request)

    async def gateway_exists(self) -> bool:
        """Has anything needed it yet?"""
        self._gateway_met = self._gateway_met or await self._peers.exists(GATEWAY)
        return self._gateway_met

    async def _ask(self, ward: str, requests: bytes, patience_s: float = TELL_S) -> bytes:
        if not await self.gateway_exists():
            await self._peers.tell(SUPERVISOR, "open_gateway", b"")
        return await self._peers.ask(GATEWAY, ward, requests, patience_s)

    async def alive(self) -> bool:
        """Does Ray reach the scheduler?"""
        try:
            await self._peers.ask(SCHEDULER, "slot_states", b"")
        except ActorUnreachable:
            return False
        if self._unmet and (self._meeting is None or self._meeting.done()):
            self._meeting = asyncio.create_task(self._meet())
        return True

    async def _meet(self) -> None:
        """Call everybody once; whoever does not answer now is called after a later look at the scheduler."""
        for actor in sorted(self._unmet):
            if await self._peers.reaches(actor):
                self._unmet.discard(actor)

    async def answers(self, actor: str) -> bool:
        """Does the actor of an orchestrator instance answer within ANSWER_S?"""
        try:
            await asyncio.wait_for(self._peers.ask(actor, "whether_alive", b""), ANSWER_S)
        except (ActorUnreachable, TimeoutError):
            return False
        return True


class RayStage:
    """`supervisor.Stage` over Ray."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def present(self) -> set[str]:
        """Names of the actors of our namespace that live or are being restarted."""
        named: Any = ray.util.list_named_actors(all_namespaces=True)
        return {entry["name"] for entry in named if entry["namespace"] == NAMESPACE}

    def start(self, name: str, pool: str | None, spec: PoolSpec | None = None) -> None:
        """Make the actor of that name exist."""
        if pool is not None:
            _create_worker(name, pool, self._settings, spec or PoolSpec())
        elif name == SCHEDULER:
            _create(SchedulerProcess, name, self._settings)
        elif name == KUBERNETES:
            _create(KubernetesProcess, name, self._settings, concurrency=EXCHANGES_MAX)
        elif name in (GATEWAY, HANDLERS) or name.startswith(RUNNER):
            _create_outside(name, self._settings)
        elif instance_of(name):
            _create(OrchestratorProcess, name, self._settings)
        else:
            _create(RunActorProcess, name, self._settings)

    def end(self, name: str) -> None:
        """End the actor for good."""
        try:
            ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
        except ValueError:
            logging.getLogger(__name__).info("%s is not there any more", name)

    def revive_journal(self) -> None:
        """The embedded server answers again, at the same address."""
        embedded.ensure_running(self._settings.home)

    def leaving(self) -> set[str]:
        """Names of our actors on nodes that were told to drain."""
        return actors_on(draining_nodes())

    def request(self, room: Request) -> None:
        """Ray's autoscaler keeps room for these bundles."""
        request_room(room)


def open_journal(settings: Settings) -> PlaneJournal:
    """The journal as actors of this Ray cluster see it."""
    return PlaneJournal(settings.journal_url, this_plane())


def _create(kind: type, name: str, settings: Settings, concurrency: int = 10_000) -> Any:
    options = _CONTROL | placement.options(name, settings)
    made: Any = ray.remote(kind).options(name=name, max_concurrency=concurrency, **options)
    return made.remote(name, settings.to_dict())


def _create_outside(name: str, settings: Settings) -> Any:
    from actors import gateway_processes as kinds

    if name == GATEWAY:
        return _create(kinds.GatewayProcess, name, settings, concurrency=REQUESTS_MAX)
    return _create(kinds.HandlersProcess if name == HANDLERS else kinds.RunnerProcess, name, settings)


@functools.cache
def _worker_class() -> Any:
    """One for all workers: Ray would pickle and publish each anew."""
    return ray.remote(concurrency_groups={"control": CONTROL_THREADS})(WorkerProcess)  # type: ignore[call-overload]  # Ray's own types do not know this keyword


def _create_worker(name: str, pool: str, settings: Settings, spec: PoolSpec) -> Any:
    options = _CONTROL | shaped(placement.options(name, settings), spec)
    return _worker_class().options(name=name, **options).remote(name, pool, settings.to_dict())


def start(settings: Settings) -> None:
    """The cast exists and answers: all of it, or the supervisor of a control plane that stands by.

    Raises Unavailable when it does not within START_S.
    """
    RayStage(settings).end(HANDLERS)  # one that outlived its server has the code of then
    if not asyncio.run(enter(settings, this_plane())):
        _await([_create(SupervisorProcess, SUPERVISOR, settings)])
        return
    handles = [_create(SupervisorProcess, SUPERVISOR, settings), _create(SchedulerProcess, SCHEDULER, settings)]
    handles += [_create_outside(GATEWAY, settings)] if settings.works_outside else []
    handles += [_create(RunActorProcess, run_actor_name(n), settings) for n in range(settings.run_actors_max)]
    names = [worker_name(DEFAULT_POOL, n) for n in range(asyncio.run(_workers_at_first(settings)))]
    workers = [_create_worker(name, DEFAULT_POOL, settings, PoolSpec()) for name in names]
    # on a cluster a worker may have to wait for room
    _await(handles if settings.ray_address else handles + workers)


def _await(handles: list[Any]) -> None:
    pings = [handle.ping.remote() for handle in handles]
    answered, missing = ray.wait(pings, num_returns=len(pings), timeout=START_S)
    if missing:
        raise Unavailable(f"{len(missing)} of {len(pings)} control actors did not start within {START_S:.0f} s")
    ray.get(answered)


async def _workers_at_first(settings: Settings) -> int:
    """As the settings say, unless the pool was defined: then it is the supervisor's to start its workers."""
    journal = open_journal(settings)
    try:
        return 0 if await journal.record(POOLS, DEFAULT_POOL) else settings.worker_count
    finally:
        await journal.close()


def whose() -> str | None:
    """Fingerprint of the orchestrator that has its actors on the cluster; None = there is none that could tell."""
    try:
        supervisor: Any = ray.get_actor(SUPERVISOR, NAMESPACE)
        fingerprint: Any = ray.get(supervisor.whose.remote(), timeout=NOTE_S)
    except (RayError, ValueError):
        return None
    return str(fingerprint)


def stop() -> None:
    """Every actor of ours is gone: the supervisor first, so that nobody starts them again."""
    end_all_but("")


def end_all_but(kept: str) -> None:
    """Every actor of ours but one is gone."""
    named: Any = ray.util.list_named_actors(all_namespaces=True)
    names = sorted((e["name"] for e in named if e["namespace"] == NAMESPACE), key=lambda n: n != SUPERVISOR)
    for name in (each for each in names if each != kept):
        try:
            ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
        except (ValueError, RayError):
            continue
