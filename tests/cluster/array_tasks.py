"""User code of the tests about large values, as `array_tasks` on workers, with nothing of the tests around it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy
import ray


def node_id() -> str:
    """Of this process."""
    return str(ray.get_runtime_context().get_node_id())


def make(megabytes: int, seconds: float = 0.0) -> numpy.ndarray:
    """An array of that size."""
    time.sleep(seconds)
    return numpy.ones(megabytes * 2**17)


def look(values: numpy.ndarray, seconds: float = 0.0, ctx: Any = None) -> dict[str, Any]:
    """Where it is looked at, and what it adds up to."""
    time.sleep(seconds)
    return {"node": node_id(), "sum": float(values.sum()), "writeable": bool(values.flags.writeable)}


def hold(values: numpy.ndarray, folder: str, name: str, seconds: float) -> float:
    """Reads every page, says so, and keeps the array until somebody writes `go`, at most so long."""
    total = float(values.sum())
    Path(folder, name).write_text(str(os.getpid()))
    deadline = time.monotonic() + seconds
    while not Path(folder, "go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return total
