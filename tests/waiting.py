"""Waiting for what another process or thread does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path


async def until(it_is_so: Callable[[], object], seconds: float = 10) -> None:
    """Returns as soon as it is so. Raises AssertionError when that takes longer than `seconds`."""
    for _ in range(round(seconds / 0.02)):
        if it_is_so():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not so within {seconds} s")


def is_gone(pid: int) -> bool:
    """Is there no such process any more?"""
    return not Path(f"/proc/{pid}").exists()
