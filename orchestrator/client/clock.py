"""Time and chance as a client sees them; tests hand in a twin.

The server's processes ask `actors.clock`. A client runs in somebody else's program and imports nothing of that.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time


class Clock:
    """Real time, real chance. Safe to share between threads."""

    def monotonic(self) -> float:
        """Seconds since some instant; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Blocks for so long."""
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """The same, without blocking the event loop."""
        await asyncio.sleep(seconds)

    def between(self, least: float, most: float) -> float:
        """A number of this range, by chance."""
        return random.uniform(least, most)

    def token(self) -> str:
        """Text that nobody has used, safe in headers."""
        return secrets.token_urlsafe(18)
