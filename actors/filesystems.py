"""Folders behind URLs: whatever fsspec has a package for."""

from __future__ import annotations

import importlib
from typing import Any

from orchestrator.errors import Invalid


def filesystem(url: str) -> tuple[Any, str]:
    """(file system, path in it). Raises Invalid without fsspec, or without what this kind of URL needs."""
    try:
        core = importlib.import_module("fsspec.core")
        files, path = core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise Invalid(
            f"{url}: {error}; install ray-orchestrator[archive] and the store's own fsspec package"
        ) from error
    return files, str(path)
