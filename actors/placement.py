"""Where actors are placed on a cluster that we joined; on one of our own nothing is asked, and everything is here.

    control   supervisor, scheduler, RunActors, gateway    a node labelled `orc.role=control`, else any    0 CPUs
    worker    user code, in attempts                       a node without it, else any; spread out         1 CPU
    hosted    handlers of blueprints, runners of CI jobs   as a worker                                     0 CPUs

Preferences, never pins: a node may die, and what was on it starts again on another one, if need be of the other kind.
Ray tries the selector first and `fallback_strategy` when no node that lives could ever serve it; an empty selector
there means any node. An actor stays where it is when a better node comes later.

Two designs were open for spreading workers. With no CPU and a node chosen by us (affinity, round robin), somebody would
have to count nodes again whenever one comes or goes, and the autoscaler would take a node for idle on which they work,
and end it. With one CPU each and Ray's SPREAD they are put apart, a node never gets more than it has CPUs for, beside
whatever else runs on the cluster, and the autoscaler sees who works and who waits for room. Hence the second. Its
price: after the loss of a node its workers wait where no CPU is free, and user code that starts Ray tasks of its own
needs CPUs that no worker holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.names import HANDLERS, RUNNER, WORKER
from actors.settings import Settings

#: label of a node, given with `ray start --labels orc.role=control`, and its value for control actors
ROLE = "orc.role"
CONTROL = "control"
#: resource that only the head has
_HEAD = "node:__internal_head__"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that lives. `cpus` are those that Ray may give away."""

    node_id: str
    #: address of its machine
    host: str
    cpus: int
    control: bool
    head: bool


def alive(told: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes that live, from what `ray.nodes()` tells."""
    return [_node(each) for each in told if each["Alive"]]


def _node(told: Mapping[str, Any]) -> Node:
    resources, labels = told["Resources"], told["Labels"]
    return Node(
        node_id=str(told["NodeID"]),
        host=str(told["NodeManagerAddress"]),
        cpus=int(resources.get("CPU", 0)),
        control=labels.get(ROLE) == CONTROL,
        head=_HEAD in resources,
    )


def worker_cpus(nodes: Sequence[Node]) -> int:
    """CPUs of the nodes that workers go to; of all nodes when there is no other. At least 1: that worker waits."""
    others = [node for node in nodes if not node.control] or nodes
    return max(1, sum(node.cpus for node in others))


def options(name: str, settings: Settings) -> dict[str, Any]:
    """Ray's options for the actor of that name, beside those that all of ours have; none on a cluster of our own."""
    if not settings.ray_address:
        return {}
    if name.startswith(WORKER):
        return {"num_cpus": 1, "scheduling_strategy": "SPREAD", **_preferring(f"!{CONTROL}")}
    if name == HANDLERS or name.startswith(RUNNER):
        return {"scheduling_strategy": "SPREAD", **_preferring(f"!{CONTROL}")}
    return _preferring(CONTROL)


def control_options(settings: Settings) -> dict[str, Any]:
    """The same for what serves HTTP, and has no name of ours."""
    return options("", settings)


def _preferring(role: str) -> dict[str, Any]:
    return {"label_selector": {ROLE: role}, "fallback_strategy": [{"label_selector": {}}]}
