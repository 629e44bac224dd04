"""Room that is requested of Ray's autoscaler comes as a node, and goes when it is released: its fake provider's nodes.

`ray.cluster_utils.AutoscalingCluster` reads a file that Ray's wheel does not have, so the configuration is ours. `ray
up` and `ray stop` are for whole machines: here everything is told apart by a folder of its own, and ended by process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.load import until
from tests.cluster.nodes import RAY
from tests.live import free_port, kill_all

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CONFIG = {
    "cluster_name": "fake",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "big": {"resources": {"CPU": 1, "big": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    "auth": {},
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
}
#: a driver: has room requested, or released, and tells which nodes live
DRIVER = """
import json, sys, ray
from actors.ray_nodes import request_room
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
if len(sys.argv) > 2:
    request_room(tuple(json.loads(sys.argv[2])))
print(json.dumps([node["Resources"].get("big", 0) for node in ray.nodes() if node["Alive"]]))
"""


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """Of the processes of a cluster that are gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="orc-room-"))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "RAY_"))}
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    try:
        yield {**plain, **RAY, **fake, "ORCHESTRATOR_HOME": str(home), "HOME": str(home)}
    finally:
        kill_all(home)


def test_a_node_comes_when_room_is_requested_and_goes_when_it_is_released(environ: dict[str, str]) -> None:
    home = Path(environ["ORCHESTRATOR_HOME"])
    (home / "fake.yaml").write_text(json.dumps(CONFIG))
    port = free_port()
    start = ("start", "--head", f"--port={port}", "--num-cpus=0", f"--autoscaling-config={home / 'fake.yaml'}")
    ports = ("--min-worker-port=20002", "--max-worker-port=29999")  # ours is among those that Ray would take
    more = (f"--temp-dir={home / 'ray'}", "--include-dashboard=false", "--object-store-memory=80000000", *ports)
    command = [str(Path(sys.executable).with_name("ray")), *start, *more]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    address = f"127.0.0.1:{port}"
    assert nodes(address, environ) == [0]
    nodes(address, environ, ([{"big": 1}], [{}]))
    until(lambda: sorted(nodes(address, environ)) == [0, 1], 60, 2.0)
    nodes(address, environ, ([], []))
    until(lambda: nodes(address, environ) == [0], 60, 2.0)


def nodes(address: str, environ: dict[str, str], room: object = None) -> list[float]:
    """How much of the resource each node has that lives."""
    arguments = [] if room is None else [json.dumps(room)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, address, *arguments], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
