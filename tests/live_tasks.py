"""User code that the live tests run on workers. Imported there as `live_tasks`, with nothing of the tests around it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def fail_on(day: str, bad: str) -> str:
    """Fails in the window `bad` and nowhere else."""
    if day == bad:
        raise ValueError(f"no data for {day}")
    return day


def fail_once(ctx: Any) -> str:
    """Fails on its first attempt, succeeds on its second."""
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return "well"


def die_once(folder: str, name: str) -> str:
    """Kills its own process the first time, returns the second time."""
    mark = Path(folder, name)
    first = not mark.exists()
    with mark.open("a") as lines:
        lines.write(f"{time.time_ns()}\n")
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def speak(ctx: Any) -> dict[str, Any]:
    """Prints, checkpoints and reports progress."""
    print("hello from", ctx.task_id)
    ctx.checkpoint({"seen": 1})
    ctx.progress(0.5, "half")
    return {"attempt": ctx.attempt}
