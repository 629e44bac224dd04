"""Artifact directories that only other nodes see, over Ray, for sweeps (`artifact_sweeper.py`).

A directory that all nodes share is swept once, from here: a token is left in each of ours, and whoever finds it in its
own sees the same one. What a node has of its own is looked at by tasks on that node. A node that does not answer is
left for the next sweep. Nothing is asked of a cluster of one node.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors.artifact_folders import Folder, Place
from actors.artifact_sweeper import folders_of, places_of
from actors.clock import Clock
from actors.node_values import own_node
from actors.settings import Settings
from orchestrator.reclaim import Tally

T = TypeVar("T")

#: in a directory that is swept: who sweeps it
_TOKEN = ".swept-by"
#: seconds for which a task on another node may take
PATIENCE_S = 300.0

_log = logging.getLogger(__name__)


class FolderElsewhere:
    """A directory of another node."""

    def __init__(self, node: str, root: Path) -> None:
        self._node = node
        self._root = root

    def runs(self, before: float, after: str, limit: int) -> list[str]:
        """As Place."""
        return on_node(self._node, [], _runs, self._root, before, after, limit)

    def clear(self, held: Mapping[str, frozenset[str]], before: float, *, dry_run: bool) -> dict[str, Tally]:
        """As Place."""
        nothing = dict[str, Tally]()
        return on_node(self._node, nothing, _clear, self._root, dict(held), before, dry_run)

    def here(self) -> Tally:
        """As Place."""
        return on_node(self._node, Tally(), _here, self._root)


def places_of_cluster(settings: Settings) -> Sequence[Place]:
    """Those of this node and of the others, each once."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no types there
    others = [str(node["NodeID"]) for node in nodes if node["Alive"] and node["NodeID"] != own_node()]
    if not others:
        return places_of(settings)
    token = Clock().new_run_id()
    for folder in folders_of(settings):
        with contextlib.suppress(FileNotFoundError):
            (folder / _TOKEN).write_text(token)
    found = {node: on_node(node, list[Path](), _own, settings.to_dict(), token) for node in others}
    return [*places_of(settings), *(FolderElsewhere(node, root) for node, roots in found.items() for root in roots)]


def on_node(node: str, nothing: T, work: Callable[..., T], *given: Any) -> T:
    """What a task on that node comes to; `nothing` when the node does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(work)
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "enable_task_events": False}
    try:
        done: T = ray.get(task.options(scheduling_strategy=where, **options).remote(*given), timeout=PATIENCE_S)
    except (RayError, GetTimeoutError) as failed:
        _log.warning("artifacts on node %s are swept later: %s", node, failed)
        return nothing
    return done


# ── on the other node ─────────────────────────────────────────────────────────────────────────────


def _own(settings: dict[str, Any], token: str) -> list[Path]:
    """Directories that are there, and do not have the token."""
    return [folder for folder in folders_of(Settings.from_dict(settings)) if _token_in(folder) not in (None, token)]


def _token_in(folder: Path) -> str | None:
    """None = there is no such directory."""
    try:
        return (folder / _TOKEN).read_text()
    except FileNotFoundError:
        return "" if folder.is_dir() else None


def _runs(root: Path, before: float, after: str, limit: int) -> list[str]:
    return Folder(root).runs(before, after, limit)


def _clear(root: Path, held: dict[str, frozenset[str]], before: float, dry_run: bool) -> dict[str, Tally]:
    return Folder(root).clear(held, before, dry_run=dry_run)


def _here(root: Path) -> Tally:
    return Folder(root).here()
