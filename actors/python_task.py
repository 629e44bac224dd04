"""Type `python`: an importable function, called with its params and inputs. Sync or async."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from actors.attempt_context import AttemptContext
from actors.work import Work
from orchestrator import binding, context
from orchestrator.errors import PermanentFailure


def run_python(work: Work) -> object:
    """What the function returned. The working directory is put back; the environment is the process's own."""
    entrypoint = work.assignment.entrypoint
    if entrypoint is None:
        raise PermanentFailure("a python task needs an entrypoint")
    with _same_directory():
        function = work.shop.entrypoints.resolve(entrypoint)
        ctx = AttemptContext(work)
        args, kwargs = binding.arguments(function, work.own_params, work.inputs, work.run.params, work.told, ctx)
        with context.using(ctx):
            returned = work.attempt.interruptible(lambda: function(*args, **kwargs))
            return work.wait_for(_outcome(returned)) if inspect.isawaitable(returned) else returned


async def _outcome(awaitable: Awaitable[Any]) -> object:
    return await awaitable


@contextmanager
def _same_directory() -> Iterator[None]:
    before = os.open(".", os.O_RDONLY)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)
