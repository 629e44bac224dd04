"""Clusters as the files describe them, on this machine: the commands for machines of one's own, and what KubeRay does.

The head and one worker start with the very commands of `examples/clusters/local.yaml`, on free ports. Left out is what
is not for a machine that others use: `ray stop`, which ends every Ray here, and the autoscaler, which calls by SSH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests import live
from tests.conformance.servers import Server as JournalServer
from tests.conformance.servers import valkey_binary
from tests.dags_api import Api

ROOT = Path(__file__).parents[2]
LOCAL: dict[str, Any] = yaml.safe_load((ROOT / "examples/clusters/local.yaml").read_text(encoding="utf-8"))
MANIFEST = list(yaml.safe_load_all((ROOT / "deploy/kuberay/rayservice.yaml").read_text(encoding="utf-8")))[1]
TOKEN = "t" * 40
STATUS = "set -a; . ~/ray.env; serve status --address http://127.0.0.1:8265"
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass(frozen=True)
class Cluster:
    """A head, a worker and a journal."""

    home: Path
    environ: dict[str, str]
    #: port in the files -> port here
    ports: dict[int, int]

    def shell(self, script: str, timeout_s: float = 120) -> str:
        """Output of `script`, run as `ray up` would on that machine; it must end well."""
        for there, here in self.ports.items():
            script = re.sub(rf"\b{there}\b", str(here), script)
        out = self.home / "shell.out"
        with out.open("w") as sink:  # a file: a server that goes on may keep a pipe open
            done = subprocess.run(
                ["bash", "-c", script], env=self.environ, cwd=self.home, stdout=sink, stderr=sink, timeout=timeout_s
            )
        assert done.returncode == 0, f"{script}\n{out.read_text()}"
        return out.read_text()

    def api(self) -> Api:
        return Api(f"http://127.0.0.1:{self.ports[8000]}", TOKEN)

    def is_ready_within(self, seconds: float) -> None:
        """`GET /ready` answers 200."""
        deadline = time.monotonic() + seconds
        while (told := self._ready()) != "200":
            assert time.monotonic() < deadline, f"{told}\n{self.shell(STATUS)}"
            time.sleep(0.5)

    def _ready(self) -> str:
        try:
            answer = httpx.get(f"{self.api().url}/ready", timeout=5)
        except httpx.TransportError as error:
            return repr(error)
        return "200" if answer.status_code == 200 else answer.text

    def runs_a_dag(self) -> None:
        """A task of somebody's runs on a worker and ends well."""
        api = self.api()
        api.define("hello", {"id": "say", "entrypoint": "live_tasks:speak"})
        run = api.trigger("hello")
        assert api.wait(run["run_id"], timeout_s=60)["state"] == "success"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="orc-", dir="/tmp"))
    journal = JournalServer(valkey_binary())
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("r" * 64)
    (home / "orchestrator" / "dags").mkdir(parents=True)
    shutil.copy(live.TASKS, home / "orchestrator" / "dags")
    secrets = {
        "REDIS_URL": journal.url,
        "ORCHESTRATOR_SECRET_KEY": "k" * 43,
        "ORCHESTRATOR_ADMIN_TOKEN": TOKEN,
        "ORCHESTRATOR_ENTRYPOINT_ALLOW": live.TASKS.stem,
    }
    (home / "orchestrator.env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "RAY_"))}
    environ = {
        **plain,
        **secrets,  # on Kubernetes they are in the environment of Ray's processes
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{plain['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ORCHESTRATOR_HOME": str(home / "orchestrator"),
        "RAY_TMPDIR": str(home),
        "RAY_HEAD_IP": "127.0.0.1",
    }
    found = Cluster(home, environ, {port: live.free_port() for port in (6380, 8000, 8265, 52365)})
    try:
        (environment,) = [each for each in LOCAL["setup_commands"] if "ray.env" in each]
        found.shell(environment)
        found.shell(_start("head_start_ray_commands") + " --dashboard-port=8265 --dashboard-agent-listen-port=52365")
        found.shell(_start("worker_start_ray_commands") + f" --dashboard-agent-listen-port={live.free_port()}")
        yield found
    finally:
        _end(home)
        journal.kill()
        shutil.rmtree(journal.folder, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


def _start(kind: str) -> str:
    """Of those commands, the one that starts Ray."""
    (line,) = [each for each in LOCAL[kind] if "ray start" in each]
    line = re.sub(r"--autoscaling-config=\S+", "", line)
    for option in ("object-manager-port", "metrics-export-port"):
        line = re.sub(rf"--{option}=\d+", f"--{option}={live.free_port()}", line)
    return f"{line.strip()} --min-worker-port=0 --max-worker-port=0"


def _end(home: Path) -> None:
    """No process of this cluster is left."""
    live.kill_all(home / "orchestrator")


def test_the_commands_for_machines_of_ones_own_start_a_server_that_joins_both_nodes(cluster: Cluster) -> None:
    down, _, _, up = LOCAL["head_start_ray_commands"]
    cluster.shell(down)
    cluster.shell(up.replace("--workers 8", "--workers 2 --port 8000"))
    try:
        cluster.runs_a_dag()
        nodes = cluster.shell("set -a; . ~/ray.env; ray list nodes --format json --detail --address 127.0.0.1:6380")
        labels = [node["labels"].get("orc.role") for node in yaml.safe_load(nodes[nodes.index("[") :])]
        assert sorted(labels) == ["control", "worker"]
        assert Api(cluster.api().url, None).get("/dags").status_code == 401, "nobody is anonymous"
    finally:
        cluster.shell(down)


def test_serve_builds_the_application_of_the_manifest_and_the_probes_find_it_ready(cluster: Cluster) -> None:
    config = cluster.home / "serve.yaml"
    # two nodes on one machine cannot both listen on the port
    told = MANIFEST["spec"]["serveConfigV2"].replace("EveryNode", "HeadOnly")
    config.write_text(re.sub(r"\b8000\b", str(cluster.ports[8000]), told))
    cluster.shell(f"set -a; . ~/ray.env; serve deploy {config} --address http://127.0.0.1:8265")
    cluster.is_ready_within(90)
    cluster.runs_a_dag()
    for group in (MANIFEST["spec"]["rayClusterConfig"]["headGroupSpec"], _worker_group()):
        (pod,) = group["template"]["spec"]["containers"]
        for kind in ("readinessProbe", "livenessProbe"):
            cluster.shell(pod[kind]["exec"]["command"][-1])


def _worker_group() -> dict[str, Any]:
    found: dict[str, Any] = MANIFEST["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return found
