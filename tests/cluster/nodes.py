"""Several Ray nodes on one machine, for tests, and an orchestrator that joins them.

    with ray_cluster(head, left, right) as cluster:          Node(num_cpus, labels) each; the first is the head
        with serving(cluster) as server: ...                 `orchestrator up --address`
        cluster.nodes["left"].kill()                          SIGKILL: its raylet and every process below it

Processes of the cluster are told apart by the `ORCHESTRATOR_HOME` of their raylet: a folder of the cluster's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests import live
from tests.live import Process, Server

TASKS = Path(__file__).with_name("marking_tasks.py")
#: environment of the cluster's processes: small, and with a token, as clusters should have
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",
    "RAY_num_workers_soft_limit": "1",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_AUTH_MODE": "token",
    # on a machine with other work Serve would end a proxy that has not started yet, and `up` with it
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
}
CONTROL = {"orc.role": "control"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a node is to be like."""

    name: str
    num_cpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    #: of its processes, beside that of the whole cluster
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A node that was started."""

    node_id: str
    raylet: int
    #: of the head; None elsewhere
    gcs: int | None

    def processes(self, title: str = "") -> list[Process]:
        """Its raylet and all below it whose title contains `title`."""
        return [process for process in live.below({self.raylet}) if title in process.title]

    def signal(self, number: int) -> None:
        """All of it gets that signal."""
        for process in self.processes():
            os.kill(process.pid, number)

    def kill(self) -> None:
        """Nothing of it is left, and nothing of it had a chance to say so."""
        for process in sorted(self.processes(), key=lambda each: each.pid != self.raylet):
            process.kill()


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes by name, and what a driver needs to join them."""

    address: str
    #: of a driver
    environ: dict[str, str]
    nodes: dict[str, Node]
    _start: Callable[[Shape], dict[str, Any]]
    _start_gcs: Callable[[], dict[str, Any]]

    def start(self, shape: Shape) -> Node:
        """A node of that shape, also in the place of one that was lost."""
        told = self._start(shape)
        self.nodes[shape.name] = Node(told["node_id"], told["raylet"], told["gcs"])
        return self.nodes[shape.name]

    def start_gcs(self) -> None:
        """The head's GCS, which was killed, runs again."""
        [head] = [name for name, node in self.nodes.items() if node.gcs]
        told = self._start_gcs()
        self.nodes[head] = Node(told["node_id"], told["raylet"], told["gcs"])

    def processes(self, *titles: str) -> list[Process]:
        """Those of all nodes whose title has one of `titles`."""
        everywhere = live.below({node.raylet for node in self.nodes.values()})
        return [process for process in everywhere if any(title in process.title for title in titles)]

    def node_of(self, process: Process) -> str:
        """The name of the node that it is on."""
        return next(n for n, node in self.nodes.items() if process.pid in {p.pid for p in node.processes()})


@contextlib.contextmanager
def ray_cluster(*shapes: Shape, **more: str) -> Iterator[Cluster]:
    """The cluster for the length of a `with` block; `more` goes to the environment of its processes."""
    folder = Path(tempfile.mkdtemp(prefix="orc-nodes-"))
    token = folder / "ray.token"
    token.write_text(secrets.token_hex(32))
    joining = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "RAY_"))}
    environ = {**plain, **RAY, **joining, "ORCHESTRATOR_HOME": str(folder), **more}
    command = [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))]
    with (folder / "nodes.err").open("w") as errors:
        process = subprocess.Popen(
            command, env=environ, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        add = partial(_add, process, folder)
        head, *others = shapes
        told = add(head)
        nodes = {head.name: Node(told["node_id"], told["raylet"], told["gcs"])}
        cluster = Cluster(told["address"], joining, nodes, add, lambda: _ask(process, folder, {"start_gcs": True}))
        for shape in others:
            cluster.start(shape)
        yield cluster
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            process.communicate(timeout=30)
        live.kill_all(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _add(process: subprocess.Popen[str], folder: Path, shape: Shape) -> dict[str, Any]:
    wanted = {"num_cpus": shape.num_cpus, "labels": shape.labels, "object_store_memory": 80 * 2**20}
    wanted |= {"env_vars": shape.environ} if shape.environ else {}
    return _ask(process, folder, {"add": wanted})


def _ask(process: subprocess.Popen[str], folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, f"no answer to {asked}: {(folder / 'nodes.err').read_text()[-3000:]}"
    told: dict[str, Any] = json.loads(line)
    return told


class Joined(Protocol):
    """A cluster that an orchestrator can join."""

    @property
    def address(self) -> str: ...
    @property
    def environ(self) -> dict[str, str]: ...


@contextlib.contextmanager
def serving(cluster: Joined, options: Sequence[str] = ()) -> Iterator[Server]:
    """An orchestrator on that cluster for the length of a `with` block."""
    joined = ("--address", cluster.address, *options)
    with live.serving(joined, environ=cluster.environ, code=(TASKS,), timeout_s=180) as server:
        yield server
