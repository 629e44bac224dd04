"""Which environment variables Ray reads: in its servers' binary, in Serve's constants, in those of usage statistics."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from pathlib import Path

import ray

_MODULES = ("ray.serve._private.constants", "ray._common.usage.usage_constants")


def unread(names: Iterable[str]) -> list[str]:
    """Those that begin with `RAY_` and that nothing of Ray names."""
    return [name for name in names if name.startswith("RAY_") and not _read(name)]


def _read(name: str) -> bool:
    # settings of the servers are compiled in without the prefix
    return (
        f'"{name}"'.encode() in _python()
        or (name[4].islower() and name[4:].encode() in _server())
        or (not name.startswith("RAY_SERVE_") and name.encode() in _server())
    )


@functools.cache
def _python() -> bytes:
    return b"".join(Path(str(importlib.import_module(name).__file__)).read_bytes() for name in _MODULES)


@functools.cache
def _server() -> bytes:
    return (Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server").read_bytes()
