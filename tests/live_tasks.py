"""User code that the live tests run on workers. Imported there as `live_tasks`, with nothing of the tests around it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
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


def cut_off(folder: str, times: int, every_s: float) -> None:
    """Breaks all connections that others have made to its own process, again and again; goes on itself."""
    with Path(folder, "cut").open("a") as lines:
        for _ in range(times):
            print(_break_connections(), file=lines, flush=True)
            time.sleep(every_s)


def _break_connections() -> int:
    """So many there were."""
    sockets = list[socket.socket]()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                sockets.append(socket.socket(fileno=os.dup(int(name))))
    inet = [each for each in sockets if each.family in (socket.AF_INET, socket.AF_INET6)]
    listening = {s.getsockname()[1] for s in inet if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)}
    broken = 0
    for each in inet:
        with contextlib.suppress(OSError):
            if each.getsockname()[1] in listening and each.getpeername():
                each.shutdown(socket.SHUT_RDWR)
                broken += 1
    for each in sockets:
        each.close()
    return broken


def speak(ctx: Any) -> dict[str, Any]:
    """Prints, checkpoints and reports progress."""
    print("hello from", ctx.task_id)
    ctx.checkpoint({"seen": 1})
    ctx.progress(0.5, "half")
    return {"attempt": ctx.attempt}


def tally(ctx: Any, folder: str, seconds: float) -> int:
    """Writes down who starts it, when and for which time; then works for a while."""
    line = f"{ctx.run_id} {ctx.task_id} {ctx.attempt} {os.getpid()} {time.time():.6f}\n"
    with Path(folder, "tally").open("a") as lines:
        lines.write(line)
    time.sleep(seconds)
    return os.getpid()
