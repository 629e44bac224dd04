"""A Ray cluster whose autoscaler adds and ends nodes: Ray's fake provider, whose nodes are raylets on this machine.

    with autoscaled(second=True) as cluster:   a head without CPUs; nodes of `KINDS` come when they are asked for
        cluster.tiers()                        of the nodes that live beside the head

`ray.cluster_utils.AutoscalingCluster`, and the second autoscaler for a provider of the type `fake_multinode`, read a
file that Ray's wheel does not have (`fake_multi_node/example.yaml`), so the configuration is ours, and the provider is
given as an external one. It takes the GCS to be on port 6379 unless it is told the address. `ray up` and `ray stop` are
for whole machines: here everything is told apart by a folder of its own, and ended by process.

Ray has two autoscalers: the first is what `ray start --autoscaling-config` runs unless told otherwise, the second is
that of `ray up` and KubeRay.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.pools import Request
from tests.cluster.nodes import CONTROL, RAY
from tests.live import free_port, kill_all

#: label, and its value on each kind of node that may come; all have the resource `big`, and no CPU
TIER = "tier"
KINDS = ("firm", "spot")
#: seconds after which a node on which nothing runs is ended
IDLE_S = 6.0
_HEAD_KIND = "ray.head.default"
#: the provider numbers its nodes, and takes the head to be this one
_HEAD_ID = "f" * 51 + "00000"
#: what Ray's reader of configurations wants to find, and the provider has no use for
_COMMANDS = ("head_setup", "worker_setup", "setup", "initialization", "head_start_ray", "worker_start_ray")
_NONE: dict[str, Any] = {
    **{f"{when}_commands": [] for when in _COMMANDS},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "auth": {},
}
_SECOND = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
}
#: a driver: has room requested if it is told some, then tells the tier of each node that lives beside the head
_DRIVER = """
import json, sys, ray
from actors.ray_nodes import request_room
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
if room := json.loads(sys.argv[2]):
    request_room(tuple(room))
alive = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps([node["Labels"].get("tier", "") for node in alive if "big" in node["Resources"]]))
"""


@dataclass(frozen=True, slots=True)
class Autoscaled:
    """The cluster, and what a driver needs to join it."""

    address: str
    #: of its processes
    own: dict[str, str]
    #: of an orchestrator that joins
    environ: dict[str, str]

    def tiers(self) -> list[str]:
        """Of each node that lives beside the head."""
        return self._drive(None)

    def request(self, room: Request) -> None:
        """A driver has that room requested, as the supervisor does."""
        self._drive(room)

    def _drive(self, room: Request | None) -> list[str]:
        command = [sys.executable, "-c", _DRIVER, self.address, json.dumps(room)]
        done = subprocess.run(command, env=self.own, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found: list[str] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


@contextlib.contextmanager
def autoscaled(second: bool) -> Iterator[Autoscaled]:
    """The cluster for the length of a `with` block, with Ray's second autoscaler or its first."""
    folder = Path(tempfile.mkdtemp(prefix="orc-room-"))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "RAY_"))}
    joining = {"RAY_AUTH_MODE": "disabled"}
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "ORCHESTRATOR_HOME": str(folder)}
    environ = {**plain, **RAY, **fake, **joining}
    address = f"127.0.0.1:{free_port()}"
    (folder / "fake.json").write_text(json.dumps(_configuration(address, second)))
    try:
        _start(folder, address, {**environ, **(_SECOND if second else {})})
        yield Autoscaled(address, environ, joining)
    finally:
        kill_all(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _configuration(address: str, second: bool) -> dict[str, Any]:
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "gcs_address": address,
    }
    provider |= {"launch_multiple": True, "head_node_id": _HEAD_ID} if second else {}
    kinds = {
        tier: {"resources": {"CPU": 0, "big": 1}, "labels": {TIER: tier}, "node_config": {}, "max_workers": 2}
        for tier in KINDS
    }
    return {
        "cluster_name": "fake",
        "max_workers": 3,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": provider,
        "available_node_types": {_HEAD_KIND: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **kinds},
        "head_node_type": _HEAD_KIND,
        **_NONE,
    }


def _start(folder: Path, address: str, environ: dict[str, str]) -> None:
    host, port = address.split(":")
    labels = ",".join(f"{name}={value}" for name, value in CONTROL.items())
    what = ("start", "--head", f"--node-ip-address={host}", f"--port={port}", "--num-cpus=0", f"--labels={labels}")
    ports = ("--min-worker-port=20002", "--max-worker-port=29999")  # ours is among those that Ray would take
    more = (f"--temp-dir={folder / 'ray'}", "--include-dashboard=false", "--object-store-memory=80000000", *ports)
    scaling = f"--autoscaling-config={folder / 'fake.json'}"
    command = [str(Path(sys.executable).with_name("ray")), *what, *more, scaling]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
