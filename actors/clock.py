"""The one place that asks the time and mints ids, tokens and chance.

Wall time decides what is written (fires, deadlines, ids); monotonic time decides how long to wait,
so a clock that is set back neither repeats an id nor prolongs a timeout. Tests hand in a twin.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
import uuid
from datetime import UTC, datetime

from orchestrator.ids import RunId, instance_id, run_id

#: sequence numbers within one millisecond of an id
_SEQUENCES = 1 << 16


class Clock:
    """Real time, real chance. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._sequence = 0

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some instant of this machine; never goes back."""
        return time.monotonic()

    def new_run_id(self) -> RunId:
        """An id above every id this clock has minted, even when wall time was set back in between."""
        return run_id(*self._next(), secrets.randbits(64))

    def new_instance_id(self) -> RunId:
        """The same for an orchestrator instance."""
        return instance_id(*self._next(), secrets.randbits(64))

    def random_bytes(self, size: int) -> bytes:
        """`size` bytes that nobody can guess."""
        return secrets.token_bytes(size)

    def _next(self) -> tuple[int, int]:
        with self._lock:
            millisecond = self._wall_ms()
            if millisecond > self._millisecond:
                self._millisecond, self._sequence = millisecond, 0
            else:
                self._sequence += 1
                if self._sequence == _SEQUENCES:
                    self._millisecond, self._sequence = self._millisecond + 1, 0
            return self._millisecond, self._sequence

    def jitter(self) -> float:
        """A share in [0, 1)."""
        return random.random()

    def uuid(self) -> str:
        """A random UUID (version 4), lower case: nobody can guess it."""
        return str(uuid.uuid4())

    def token(self) -> str:
        """A secret of 256 bits, safe in URLs and headers."""
        return secrets.token_urlsafe(32)

    def _wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
