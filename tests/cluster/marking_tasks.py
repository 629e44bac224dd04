"""User code of the cluster's tests: leaves a mark of every execution. Imported by workers as `marking_tasks`."""

from __future__ import annotations

import os
import time
from typing import Any

import ray


def mark(ctx: Any, folder: str, seconds: float) -> int:
    """A line `run task attempt node pid` in `folder`/marks, then as many seconds of work."""
    node = ray.get_runtime_context().get_node_id()
    line = f"{ctx.run_id} {ctx.task_id} {ctx.attempt} {node} {os.getpid()}\n"
    file = os.open(os.path.join(folder, "marks"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
    time.sleep(seconds)
    return os.getpid()


def note_often(ctx: Any, folder: str, seconds: float) -> None:
    """A checkpoint every tenth of a second; a line `begun_s took_s` for each in `folder`/checkpoints."""
    end_s, number = time.monotonic() + seconds, 0
    with open(os.path.join(folder, "checkpoints"), "a", buffering=1) as file:
        while (begun_s := time.monotonic()) < end_s:
            number += 1
            ctx.checkpoint(number)
            file.write(f"{begun_s} {time.monotonic() - begun_s}\n")
            time.sleep(0.1)
