"""Folders behind URLs: whatever fsspec has a package for."""

from __future__ import annotations

import importlib
from typing import Any

from orchestrator.errors import Invalid, Unavailable


def filesystem(url: str) -> tuple[Any, str]:
    """(file system, path in it). Raises Invalid without fsspec, or without what this kind of URL needs.

    Raises Unavailable for a store that has to be reached for that, and is not.
    """
    try:
        core = importlib.import_module("fsspec.core")
        files, path = core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise Invalid(
            f"{url}: {error}; install ray-orchestrator[archive] and the store's own fsspec package"
        ) from error
    except OSError as error:
        raise Unavailable(f"{url}: {error}") from error
    except Exception as error:  # each kind of store has errors of its own
        raise Invalid(f"{url}: {type(error).__name__}: {error}") from error
    return files, str(path)
