"""Where handlers run: away from the loop that answers, with a time limit, whatever they do.

    async def ─▶ one loop in a thread of its own, which all async handlers share, as they would in a server
    def       ─▶ a thread for each call, for it may block

A handler that takes too long is cancelled, or left behind when it blocks: a thread cannot be ended. When the shared
loop itself is blocked, or too many threads were left behind, `on_stuck` is called a little later, once what was decided
has been answered: the process is to end and be started anew.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.blueprint import Outcome
from orchestrator.error_line import one_line
from orchestrator.errors import Refused
from orchestrator.handler_calls import HandlerCall

_log = logging.getLogger(__name__)

#: seconds that a handler which is cancelled has to end
GRACE_S = 5.0
#: blocked threads that are borne
LEFT_BEHIND_MAX = 32
#: seconds between the last answer and the end
LINGER_S = 1.0


class HandlerRuns:
    """Runs handlers; made and used in one loop, which it does not run them in."""

    def __init__(self, timeout_s: float, on_stuck: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._on_stuck = on_stuck
        self._left_behind = 0
        self._home = asyncio.get_running_loop()
        self._stopping = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, name="handlers", daemon=True).start()

    async def run(self, call: HandlerCall) -> Outcome:
        """What the visit came to. Raises nothing."""
        return await (self._in_loop(call) if call.is_async else self._in_thread(call))

    def stop(self) -> None:
        """No async handler goes on."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self) -> None:
        while not self._stopping:
            try:
                self._loop.run_forever()
            except BaseException as error:  # a callback of theirs asked to exit: the others go on
                _log.warning("handlers: a callback raised", exc_info=error)
        self._loop.close()

    # ── async handlers ────────────────────────────────────────────────────────────────────────────

    async def _in_loop(self, call: HandlerCall) -> Outcome:
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._limited(call), self._loop))
        done, _ = await asyncio.wait([future], timeout=self._timeout_s + GRACE_S)
        if done:
            return future.result()
        self._stuck(f"handler {call.name!r} blocks the loop of all async handlers")
        return self._too_long(call)

    async def _limited(self, call: HandlerCall) -> Outcome:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                await _awaited(call.run())
            return call.outcome()
        except BaseException as error:  # also SystemExit, which would end the loop
            return self._too_long(call) if limit.expired() else _failed(call, error)

    # ── all others ────────────────────────────────────────────────────────────────────────────────

    async def _in_thread(self, call: HandlerCall) -> Outcome:
        future: asyncio.Future[Outcome] = self._home.create_future()
        threading.Thread(target=self._threaded, args=(call, future), name=f"handler {call.name}", daemon=True).start()
        done, _ = await asyncio.wait([future], timeout=self._timeout_s)
        if done:
            return future.result()
        self._leave_behind(call, future)
        return self._too_long(call)

    def _threaded(self, call: HandlerCall, future: asyncio.Future[Outcome]) -> None:
        try:
            returned = call.run()
            if inspect.isawaitable(returned):
                asyncio.run_coroutine_threadsafe(_awaited(returned), self._loop).result()
            outcome = call.outcome()
        except BaseException as error:
            outcome = _failed(call, error)
        try:
            self._home.call_soon_threadsafe(_settle, future, outcome)
        except RuntimeError:
            _log.info("handler %r returned after its loop had ended", call.name)

    def _leave_behind(self, call: HandlerCall, future: asyncio.Future[Outcome]) -> None:
        self._left_behind += 1
        future.add_done_callback(self._came_back)
        _log.warning("handler %r still runs after %g s; %d do", call.name, self._timeout_s, self._left_behind)
        if self._left_behind == LEFT_BEHIND_MAX:
            self._stuck(f"{self._left_behind} handlers are blocked")

    def _came_back(self, _: asyncio.Future[Outcome]) -> None:
        self._left_behind -= 1

    # ── both ──────────────────────────────────────────────────────────────────────────────────────

    def _too_long(self, call: HandlerCall) -> Outcome:
        error = TimeoutError(f"Handler {call.name!r} took longer than {self._timeout_s:g} s")
        return call.failure(error, str(error))

    def _stuck(self, why: str) -> None:
        _log.critical("%s: this process is to end", why)
        self._home.call_later(LINGER_S, self._on_stuck)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _failed(call: HandlerCall, error: BaseException) -> Outcome:
    _log.warning("handler %r raised", call.name, exc_info=error)
    return call.failure(error, one_line(error, Refused))


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
