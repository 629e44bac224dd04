"""How long a caller waits: every method of a gateway answers in time, or says that it could not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from orchestrator.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE_S = 5.0
#: how long a step over many windows may take
LONG_DEADLINE_S = 60.0


def within(seconds: float) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """The method answers in time or raises Unavailable."""

    def limited(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(method)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                async with asyncio.timeout(seconds):
                    return await method(*args, **kwargs)
            except TimeoutError as error:
                raise Unavailable(f"no answer within {seconds:g} s") from error

        return call

    return limited
