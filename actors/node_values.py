"""Values that only another node has, over Ray; and which node this process is on.

A module of its own since every worker imports it, and nothing of the other actors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import BufferedWriter
from typing import Any

import ray
from ray.exceptions import RayError

from actors.artifact_places import paths_of
from actors.fetched_values import chunks
from actors.settings import Settings
from orchestrator.messages import Value

#: pieces of a value that are on their way between two nodes at a time
PIECES_MAX = 2


class RayNodes:
    """`fetched_values.Nodes` over Ray: a task on the other node reads the file, and Ray carries it in pieces."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def copy(self, value: Value, to: BufferedWriter) -> None:
        """The artifact is in the file. Raises FileNotFoundError when its node has not got it, or is gone."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(value.node, soft=False)
        task: Any = ray.remote(_pieces)
        options = {"num_cpus": 0, "max_retries": 0, "enable_task_events": False, "num_returns": "streaming"}
        pieces = task.options(scheduling_strategy=where, _generator_backpressure_num_objects=PIECES_MAX, **options)
        try:
            for piece in pieces.remote(self._settings, value.artifact):
                to.write(ray.get(piece))
        except RayError as failed:
            logging.getLogger(__name__).warning("%s cannot be had from node %s: %s", value.artifact, value.node, failed)
            raise FileNotFoundError(value.artifact) from failed


def _pieces(settings: dict[str, Any], name: str) -> Iterator[bytes]:
    """Runs on the node that has the artifact."""
    yield from chunks(paths_of(Settings.from_dict(settings), name))


def own_node() -> str:
    """Ray's id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())
