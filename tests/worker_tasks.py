"""User code for the tests of workers, as an author might write it.

`EVENTS` lets a test and a task wait for each other.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import sys
import threading
import time
from typing import Any

from orchestrator.context import current
from orchestrator.errors import PermanentFailure, Skip


class Events:
    """Events by name. Two threads that ask for a new one at the same time get the same (a defaultdict gives two)."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}

    def __getitem__(self, name: str) -> threading.Event:
        return self._events.setdefault(name, threading.Event())

    def clear(self) -> None:
        self._events.clear()


EVENTS = Events()
CALLS: list[str] = []


def add(a: int, b: int = 2) -> int:
    return a + b


async def add_slowly(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


class Decorated:
    """What `@task` leaves at the module's attribute."""

    def function(self, a: int) -> int:
        return -a


negated = Decorated()


def count(name: str) -> None:
    CALLS.append(name)


def hold(name: str) -> str:
    """Runs until the test sets the event."""
    EVENTS[f"{name} started"].set()
    assert EVENTS[f"{name} may end"].wait(10)
    return name


def spin(name: str) -> None:
    """Never ends by itself, never blocks."""
    EVENTS[f"{name} started"].set()
    while True:
        time.sleep(0.001)


def swallow(name: str) -> str:
    """Ignores the first exception it gets."""
    try:
        spin(name)
    except Exception:
        return "swallowed"
    return "never"


def cooperate(name: str, ctx: Any) -> None:
    """Asks whether it should stop."""
    EVENTS[f"{name} started"].set()
    while not ctx.cancelled:
        pass


async def sleep_async(name: str) -> None:
    EVENTS[f"{name} started"].set()
    try:
        await asyncio.sleep(60)
    finally:
        EVENTS[f"{name} cleaned up"].set()


async def leave_behind(name: str) -> str:
    """Starts a coroutine and does not wait for it."""

    async def straggler() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            EVENTS[f"{name} straggler ended"].set()

    _LEFT.append(asyncio.create_task(straggler()))
    await asyncio.sleep(0)
    return "done"


_LEFT: list[asyncio.Task[None]] = []


def loop_id() -> int:
    async def identity() -> int:
        return id(asyncio.get_running_loop())

    return identity()  # type: ignore[return-value]  # the mistake


def raise_value_error(message: str = "bad\nvalue") -> None:
    raise ValueError(message)


def raise_permanent() -> None:
    raise PermanentFailure("no such customer")


def nothing_to_do(reason: str = "no new rows") -> None:
    raise Skip(reason) if reason else Skip


def leave(how: str) -> None:
    """Tries to end the process."""
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[how]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def raise_unprintable() -> None:
    raise Unprintable


def move(to: str) -> str:
    os.chdir(to)
    return os.getcwd()


def close_stdout() -> None:
    sys.stdout.close()
    sys.stdout = None  # type: ignore[assignment]  # as user code may


def talk(text: str = "hello") -> None:
    print(text)
    print("a problem", file=sys.stderr)
    logging.getLogger("shop").info("%d sold", 3)
    current().log.debug("details")
    sys.stdout.buffer.write(b"bytes\n")


def talk_in_thread() -> None:
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()


async def talk_async() -> None:
    await asyncio.to_thread(print, "from to_thread")


def talk_then_hold(name: str) -> None:
    print("early words")
    hold(name)


def flood(size: int) -> None:
    print("x" * size)


def describe(ctx: Any, a: int = 0) -> dict[str, Any]:
    return {
        "run_id": ctx.run_id,
        "dag_id": ctx.dag_id,
        "window": [ctx.window.start, ctx.window.end] if ctx.window else None,
        "task_id": ctx.task_id,
        "attempt": ctx.attempt,
        "params": dict(ctx.params),
        "same": current() is ctx,
    }


def give(kind: str) -> Any:
    return {
        "datetime": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "nan": {"x": float("nan")},
        "int keys": {1: "a"},
        "big": "x" * 70_000,
        "huge int": 2**70,
        "lambda": lambda x: x + 1,
        "generator": (i for i in ()),
        "surrogate": "\ud800",
        "tuple": (1, (2, "b")),
        "lists": [[1, 2], datetime.date(2026, 1, 2), [5, 6]],
    }[kind]


def grow(x: Any) -> Any:
    x.append("grown")
    return x


def mapped_as(ctx: Any) -> Any:
    return [ctx.task_id, ctx.map_id, ctx.map_index]


def take(x: Any) -> str:
    return f"{type(x).__name__}:{x!r}"[:100]


def apply(f: Any) -> Any:
    return f(1)


def save(ctx: Any) -> Any:
    before = ctx.last_checkpoint()
    ctx.checkpoint({"row": 7})
    return [before, ctx.last_checkpoint()]


def save_oddly(ctx: Any) -> None:
    ctx.checkpoint({"when": datetime.datetime.now(datetime.UTC)})


def report(ctx: Any) -> None:
    for step in range(100):
        ctx.progress(step / 100)
    ctx.progress(1, "done")


def use_tools(ctx: Any, fails: bool = False) -> str:
    with ctx.tool("search", query="x" * 200, where={"a": 1}, limit=3):
        found = "found"
    try:
        with ctx.tool("write", found=found):
            if fails:
                raise ValueError("no space")
    except ValueError:
        return "not written"
    return "written"


def naps(ctx: Any, naps: list[Any], catches: bool = False) -> None:
    """Sleeps for spans, until instants as text, and takes checkpoints."""
    try:
        for nap in naps:
            if nap == "checkpoint":
                ctx.checkpoint(1)
            elif isinstance(nap, str):
                ctx.sleep_until(datetime.datetime.fromisoformat(nap))
            else:
                ctx.sleep(nap)
    except Exception:
        if not catches:
            raise
    finally:
        EVENTS["cleaned up"].set()


async def naps_async(ctx: Any) -> None:
    ctx.sleep(60)


def publishes(ctx: Any, word: str, value: Any) -> None:
    ctx.publish(word, value)


def beat(name: str, ctx: Any) -> None:
    """Gives signs of life until it is let end, then none."""
    EVENTS[f"{name} started"].set()
    while not EVENTS[f"{name} may end"].is_set():
        ctx.heartbeat()
    while not ctx.cancelled:
        pass


class TooWarm(ValueError):
    pass


def raise_too_warm() -> None:
    raise TooWarm("41 degrees")


def traceparent() -> str | None:
    return current().traceparent


def array(elements: int) -> Any:
    import numpy

    return numpy.ones(elements)


def take_sum(x: Any) -> float:
    return float(x.sum())
