"""Keeps Ray's own control service (GCS) of a cluster of our own, when it is asked to survive its death.

    ORCHESTRATOR_GCS_STORAGE=rocksdb: GCS writes what it knows to <home>/gcs, and is started again when it dies

Ray itself does not start it again. Without this its death is the end of the Ray cluster within a minute, and of
`orchestrator up` with it; what was accepted is in the journal, and the next `up` goes on. With it actors, workers and
tasks go on as if nothing had happened; only what has to be started meanwhile waits. It is off by default: RocksDB in
Ray is young (alpha since 2.57), and writes to disk with every actor that starts.

Never the journal's server: GCS ends itself when its Redis is slow, and the journal's is while it rewrites its file.

The node that `ray.init` made is reached through a private name of Ray's: nothing public starts a GCS again.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from typing import Any

from actors.settings import Settings
from orchestrator.errors import Invalid

#: seconds before a GCS that dies at once is started again
PAUSE_S = 1.0


def environment(settings: Settings) -> dict[str, str]:
    """What Ray must find in the environment when it starts. Raises Invalid where the cluster is not ours."""
    if settings.gcs_storage == "memory":
        return {}
    if settings.ray_address:
        what = "ORCHESTRATOR_GCS_STORAGE is for a cluster of our own"
        raise Invalid(f"{what}; where the head of {settings.ray_address} starts, set RAY_gcs_storage")
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(settings.path("gcs"))}


def prepare(settings: Settings) -> None:
    """The folder of GCS is empty: what a former cluster left is about actors that are gone."""
    if settings.gcs_storage != "memory":
        shutil.rmtree(settings.path("gcs"), ignore_errors=True)
        settings.path("gcs").mkdir(mode=0o700)


class GcsKeeper:
    """Starts the GCS of `node` again whenever it ends, until it is told to `stop`."""

    def __init__(self, node: Any, say: Callable[[str], None]) -> None:
        self._node = node
        self._say = say
        self._stopping = threading.Event()
        threading.Thread(target=self._keep, name="gcs-keeper", daemon=True).start()

    def stop(self) -> None:
        """From now on it may end."""
        self._stopping.set()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            for server in self._node.all_processes.get("gcs_server", ()):
                status = server.process.wait()
                if self._stopping.is_set():
                    return
                self._say(f"Ray's GCS ended with status {status}: starting it again")
            try:
                self._node.kill_gcs_server(check_alive=False)
                self._node.start_gcs_server()
            except Exception as error:  # Ray raises plain ones; a cluster whose GCS is not started ends
                self._say(f"Ray's GCS does not start: {error}")
            self._stopping.wait(PAUSE_S)


def keep(settings: Settings, say: Callable[[str], None]) -> Callable[[], None]:
    """GCS of the cluster that `ray.init` just made is kept; call the answer before that cluster is to end."""
    if settings.gcs_storage == "memory":
        return lambda: None
    from ray._private import worker

    return GcsKeeper(worker._global_node, say).stop
