"""What Ray's control store says of nodes, and what its autoscaler is told: blocking calls, made from threads.

A node *drains* when somebody announced that it will go: `ray drain-node`, the autoscaler, KubeRay, or the notice of a
cloud that takes a spot instance back. Ray starts no more actors there, and ends the node once nothing holds any of its
resources. At the deadline Ray (2.60) ends nothing: that is when the cloud does. Ray Serve and Ray Data read these
notices from the same place.
"""

from __future__ import annotations

from typing import Any

import ray

from actors.names import NAMESPACE
from actors.pools import Request


def draining_nodes() -> dict[str, int]:
    """Id of each node that drains -> its deadline in ms since 1970; 0 = none."""
    state: Any = ray._private.state.state
    found: dict[str, int] = state.get_draining_nodes()
    return found


def actors_on(nodes: dict[str, int]) -> set[str]:
    """Names of our actors on these nodes. Asked of Ray only when there are such nodes."""
    if not nodes:
        return set()
    from ray.core.generated import gcs_pb2

    # `ray._private.state.actors()` tells no namespace, and the public state API needs the dashboard
    accessor: Any = ray._private.state.state._connect_and_get_accessor()
    records: Any = gcs_pb2  # its classes are made when it is imported
    alive = [records.ActorTableData.FromString(blob) for blob in accessor.get_actor_table(None, "ALIVE")]
    return {a.name for a in alive if a.ray_namespace == NAMESPACE and a.address.node_id.hex() in nodes}


def request_room(room: Request) -> None:
    """Ray's autoscaler keeps room for these bundles, instead of those that were requested before."""
    from ray.autoscaler.sdk import request_resources

    bundles, labels = room
    request_resources(bundles=list(bundles), bundle_label_selectors=list(labels))
