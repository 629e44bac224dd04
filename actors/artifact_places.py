"""Where a process keeps and finds large values, as the settings and the environment of its node say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from actors import memory_values
from actors.artifacts import Artifacts, inside
from actors.fetched_values import FetchedValues, Nodes, Store
from actors.memory_values import MemoryValues
from actors.settings import Settings

#: what is added to the name of the artifact directory for that of values from elsewhere
FETCHED = "-fetched"


def root_of(settings: Settings) -> Path:
    """The artifact directory of this node: that of the server, unless the node's environment names another one."""
    return Path(os.environ.get("ORCHESTRATOR_ARTIFACTS_DIR") or settings.artifacts)


def artifacts_of(settings: Settings, node: str = "", nodes: Nodes | None = None) -> Artifacts:
    """Values as a process of the node with that id has them; `nodes` is its way to what others have."""
    root = root_of(settings)
    memory = None
    if memory_values.supported():
        ended = memory_values.ended_in(settings.journal_url) if node and settings.journal_url else None
        memory = MemoryValues(root, settings.memory_values_bytes, ended)
        memory.written()  # what a crash left
    store = Store(settings.artifacts_url) if settings.artifacts_url else None
    fetched = FetchedValues(root.with_name(root.name + FETCHED), settings.artifacts_cache_bytes, nodes, store)
    return Artifacts(root, node=node, memory=memory, fetched=fetched)


def paths_of(settings: Settings, name: str) -> Sequence[Path]:
    """Where the artifact of that name may be on this node."""
    root = root_of(settings)
    memory, fetched = memory_values.folder_of(root), root.with_name(root.name + FETCHED)
    folders = (root, memory, fetched) if memory_values.is_ours(memory) else (root, fetched)
    return [inside(folder, name) for folder in folders]
