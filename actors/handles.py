"""Ray's handles of actors by name, so that a call need not ask Ray's GCS first; those kept longest go when there are
many: runs and instances may have an actor each, and nobody tells when it ends."""

from __future__ import annotations

from typing import Any

#: a handle takes some kilobytes
HANDLES_MAX = 10_000


class Handles:
    """name -> handle, at most `most` of them."""

    def __init__(self, most: int = HANDLES_MAX) -> None:
        self._most = most
        self._kept: dict[str, Any] = {}

    def get(self, name: str) -> Any | None:
        """None = it has to be looked up."""
        return self._kept.get(name)

    def keep(self, name: str, handle: Any) -> Any:
        """It is who has the name; the handle."""
        if len(self._kept) >= self._most and name not in self._kept:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = handle
        return handle

    def drop(self, name: str) -> None:
        """Somebody else may have the name."""
        self._kept.pop(name, None)
