"""A Ray cluster of several nodes on this machine, in a process of its own: `python ray_nodes.py`, for `nodes.py`.

Standard input has one JSON object a line, each answered by one line:

    {"add": {"num_cpus": 2, "labels": {...}}}  ->  {"node_id", "raylet": <pid>, "address", "gcs": <pid> or null}
    {"start_gcs": true}                        ->  the same of the head, whose GCS was killed and runs again

The first node is the head. The cluster ends with standard input. What is killed behind this process's back stays so.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Obeys until its input ends."""
    cluster = Cluster(shutdown_at_exit=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "add" in asked:
            node = cluster.add_node(**asked["add"])
        else:
            node = cluster.head_node
            node.kill_gcs_server(check_alive=False)
            node.start_gcs_server()
        started = node.all_processes
        gcs = started.get("gcs_server")
        told = {
            "node_id": node.node_id,
            "raylet": started["raylet"][0].process.pid,
            "gcs": gcs[0].process.pid if gcs else None,
            "address": cluster.address,
        }
        print(json.dumps(told), flush=True)
    for node in cluster.list_all_nodes():
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


if __name__ == "__main__":
    main()
