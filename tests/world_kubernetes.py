"""A world in which the runs of two DAGs go to Kubernetes: the real actor there, and a cluster on virtual time.

What goes wrong besides: the `kubernetes` actor is killed, calls to the API fail before or after they took effect, news
of the watch get lost until the next list, Jobs vanish. Checked besides: a Job is created for attempts that are durable
as started, and not again once it was deleted; a success is that of a Job that completed; no attempt is lost with an
actor.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from random import Random
from typing import Any

import msgspec

from actors.kubernetes_actor import KubernetesActor
from actors.kubernetes_cluster import ClusterUnavailable
from actors.names import KUBERNETES
from orchestrator import events as e
from orchestrator.definition import WAITING_TYPES
from orchestrator.kubernetes_job import ATTEMPT_NOTE, RUN_LABEL, TASK_NOTE, Json, job_name
from orchestrator.live_run_views import LiveRunWanted
from tests.invariants import check_versions
from tests.virtual_time import VirtualLoop
from tests.worker_builders import FakeLogs
from tests.world import World
from tests.world_cast import Mischief
from tests.world_clients import TENANT
from tests.world_wire import Process, Weather

#: DAGs whose runs go to Kubernetes
DAGS = ("a", "b")


class VirtualCluster:
    """`Cluster` without HTTP: calls take no time, Jobs do."""

    def __init__(self, loop: VirtualLoop, rng: Random, mischief: Mischief, weather: Weather) -> None:
        self._loop = loop
        self._rng = rng
        self._mischief = mischief
        self._weather = weather
        self._context = copy_context()
        self.jobs_by_name: dict[str, Json] = {}
        self.deleted: set[str] = set()
        #: Jobs that were created after they had been deleted
        self.revenants: list[str] = []
        #: asked about each new Job: (run id, task, attempt)
        self.on_create: Callable[[str, str, int], None] = lambda *_: None
        #: who hears what happens
        self.listener: KubernetesActor | None = None

    # ── the API ──

    def create(self, job: Json) -> bool:
        """See actors/kubernetes_cluster.py."""
        self._hiccup()
        name, about = job["metadata"]["name"], job["metadata"]
        made = name not in self.jobs_by_name
        if made:
            self.revenants += [name] if name in self.deleted else []
            notes = about["annotations"]
            self.on_create(about["labels"][RUN_LABEL], notes[TASK_NOTE], int(notes[ATTEMPT_NOTE]))
            self.jobs_by_name[name] = copy.deepcopy(job)
            does = self._mischief.draw(self._rng)
            self._later(does.takes_s, self._finish, name, does.outcome)
            self._tell("ADDED", name)
        self._hiccup()
        return made

    def read(self, name: str) -> Json | None:
        """See actors/kubernetes_cluster.py."""
        self._hiccup()
        return copy.deepcopy(self.jobs_by_name.get(name))

    def delete(self, name: str) -> None:
        """See actors/kubernetes_cluster.py."""
        self._hiccup()
        self.deleted.add(name)
        self._remove(name)
        self._hiccup()

    def pod_of(self, _name: str) -> None:
        """There are no pods here."""
        self._hiccup()

    def _hiccup(self) -> None:
        chance = self._weather.journal
        if chance and self._rng.random() < chance:
            raise ClusterUnavailable("a hiccup")

    # ── what happens ──

    def _finish(self, name: str, outcome: str) -> None:
        job = self.jobs_by_name.get(name)
        if job is None:
            return
        if outcome == "kill":
            self._remove(name)
            return
        kind = "Complete" if outcome == "ok" else "Failed"
        job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "Boom"}]}
        self._tell("MODIFIED", name)

    def _remove(self, name: str) -> None:
        if name in self.jobs_by_name:
            self._tell("DELETED", name)
            del self.jobs_by_name[name]

    # ── the watch ──

    def listen(self, listener: KubernetesActor) -> None:
        """The watch of a new actor begins with a list."""
        self.listener = listener
        self._later(self._rng.uniform(0.0, 0.1), self._relist, listener)

    def _relist(self, listener: KubernetesActor) -> None:
        if listener is self.listener:
            listener.take_list(copy.deepcopy(list(self.jobs_by_name.values())), self._loop.time())

    def _tell(self, kind: str, name: str) -> None:
        listener = self.listener
        if listener is None:
            return
        if self._weather.lost and self._rng.random() < self._weather.lost:
            self._later(self._rng.uniform(0.1, 3.0), self._relist, listener)
            return
        job = copy.deepcopy(self.jobs_by_name[name])
        self._later(self._rng.uniform(0.0, 0.01), self._hear, listener, kind, job)

    def _hear(self, listener: KubernetesActor, kind: str, job: Json) -> None:
        if listener is self.listener:
            listener.take_change(kind, job)

    def _later(self, delay_s: float, what: Callable[..., None], *args: Any) -> None:
        self._loop.call_later(delay_s, what, *args, context=self._context)


class KubernetesWorld(World):
    """Plays one seed with a cluster."""

    def __init__(self, seed: int, steps: int = 12) -> None:
        super().__init__(seed, steps)
        self.settings = dataclasses.replace(self.settings, k8s_api_url="http://virtual", k8s_image="ours:1")
        self.cluster = VirtualCluster(self.loop, Random(seed), self.character.mischief, self.character.weather)
        self.cluster.on_create = self._check_created

    def _raise_curtain(self) -> None:
        super()._raise_curtain()
        self.start(KUBERNETES)

    def start(self, name: str) -> None:
        """As World, and the actor that the cluster talks to."""
        if name != KUBERNETES:
            super().start(name)
            return
        process = Process(self.loop, name)
        cluster: Any = self.cluster
        process.object = process.context.run(KubernetesActor, cluster, FakeLogs(), self.clock, self.settings)
        process.object.on_crash = lambda: self.crashed(process)
        self.cluster.listen(process.object)
        self.watcher.troubled_s = self.loop.time()
        self.wire.processes[name] = process

    async def _course(self) -> None:
        define = self.clients.define_dags

        async def define_dags() -> None:
            await define()
            for name in DAGS:
                known = self.clients.definitions[name]
                tasks = tuple(msgspec.structs.replace(task, inputs={}) for task in known.tasks)
                changed = msgspec.structs.replace(known, tasks=tasks)
                await self.clients.insist(partial(self.clients.define, changed))

        self.clients.define_dags = define_dags  # type: ignore[method-assign]  # a stand-in, in this one object
        self.clients._trigger = self._trigger_jobs  # type: ignore[method-assign]  # a stand-in, in this one object
        await super()._course()
        self._check_cluster()

    async def _trigger_jobs(self) -> None:
        """A run whose tasks are Jobs."""
        wanted = LiveRunWanted(mode="k8s", dag_id=self.rng.choice(DAGS))
        made = await self.clients._twice(lambda gateway, key: gateway.live_runs.create(TENANT, wanted, key))
        assert made.run_id in self.journal.runs, f"I13 {made.run_id} was accepted and is not there"

    async def _trouble(self, after_s: float) -> None:
        if self.rng.random() < 0.4:
            self.loop.call_later(after_s, self.kill, KUBERNETES)
        else:
            await super()._trouble(after_s)

    def _check_created(self, run_id: str, task: str, attempt: int) -> None:
        history = self.watcher.histories.get(run_id)
        if history is None or history.started.get(task, 0) < attempt:
            self.watcher.failures.append(f"I13 {run_id}/{task} attempt {attempt} is a Job before it is durable")

    def _check_cluster(self) -> None:
        unharmed = not self.character.kills
        assert not (unharmed and self.cluster.revenants), f"created after deletion: {self.cluster.revenants}"
        for run_id, history in self.watcher.histories.items():
            if run_id.startswith("run_") or self.journal.runs[run_id].dag_id not in DAGS:
                continue
            for task, attempt in history.accepted:
                if history.specs[task].type in WAITING_TYPES:
                    continue  # nobody carries it out
                name = job_name((run_id, task, attempt))
                if history.tasks[task] == "succeeded" and attempt == history.started[task]:
                    job = self.cluster.jobs_by_name[name]
                    assert job["status"]["conditions"][0]["type"] == "Complete", f"{run_id}/{task} did not complete"
                assert not unharmed or name not in self.cluster.deleted, f"{run_id}/{task} was accepted, and deleted"
            for event in check_versions(self.journal.runs[run_id].events):
                assert not (isinstance(event, e.TaskRetrying) and event.lost), f"{run_id}: {event}"
