"""Rate limits in memory: the twin of what the journal's server keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable


class SlidingWindows:
    """The requests of each key that passed. What is refused does not count."""

    def __init__(self) -> None:
        self._of: dict[Hashable, deque[float]] = {}

    def ask_leave(self, key: Hashable, most: int, window_s: float, now_s: float) -> float:
        """Seconds until `key` may ask again; 0 = this request passes, and counts."""
        asked = self._of.setdefault(key, deque())
        while asked and asked[0] <= now_s - window_s:
            asked.popleft()
        if len(asked) >= most:
            return asked[0] + window_s - now_s
        asked.append(now_s)
        return 0.0
