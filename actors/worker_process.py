"""A worker as a Ray actor. It is a module of its own since every worker imports it, and nothing of the other actors.

`spawn.py` makes it a Ray actor. Beside it, that module would cost each worker seven megabytes and a sixth of a second.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors import process
from actors.handles import Handles
from actors.names import NAMESPACE
from actors.node_values import RayNodes, own_node
from actors.worker_actor import CONTROL_METHODS, WorkerActor
from orchestrator.errors import ActorUnreachable

#: seconds one attempt to deliver a note may take
NOTE_S = 5.0
#: owners of runs that a worker keeps the way to
OWNERS_MAX = 100
#: threads of a worker that answer while user code runs
CONTROL_THREADS = 2


class WorkerProcess(WorkerActor):
    """A worker as a Ray actor: one thread for user code, a few for questions meanwhile."""

    def __init__(self, name: str, pool: str, settings: dict[str, Any]) -> None:
        process.settle()
        cluster = {"RAY_ADDRESS": str(ray.get_runtime_context().gcs_address)}
        nodes = RayNodes(settings)
        super().__init__(name, settings, notes=RayNotes(), node_id=own_node(), nodes=nodes, bundle_environ=cluster)
        self._where = f"{name} ({pool})"

    def __repr__(self) -> str:
        return self._where


for _method in CONTROL_METHODS:
    setattr(WorkerProcess, _method, ray.method(concurrency_group="control")(getattr(WorkerActor, _method)))


class RayNotes:
    """`work.NoteSink` over Ray: a worker's thread tells the owner of a run, and waits until it is durable.

    Handles are kept until a call through one fails: a look-up asks Ray's GCS, and waits for it while it is away.
    """

    def __init__(self) -> None:
        self._handles = Handles(OWNERS_MAX)

    def send(self, owner: str, note: bytes) -> bool:
        """True when the note is durable, False when the attempt was replaced. Raises ActorUnreachable."""
        try:
            handle = self._handles.get(owner)
            if handle is None:
                handle = self._handles.keep(owner, ray.get_actor(owner, NAMESPACE))
            accepted: Any = ray.get(handle.note.remote(note), timeout=NOTE_S)
        except GetTimeoutError as late:
            raise ActorUnreachable(owner, type(late).__name__) from late
        except (RayError, ValueError) as failed:
            self._handles.drop(owner)
            raise ActorUnreachable(owner, type(failed).__name__) from failed
        return bool(accepted)
