"""One task of a remote worker while it runs: its function, what the function can ask and tell, and what came of it.

`async` functions run in the event loop, others in a thread. A cancel ends an `async` one at its next `await`; a thread
has to look at `ctx.cancelled`. Source: `orchestrator/remote_tasks.py`; jobs contract, section 1, "Result".
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import msgspec

from orchestrator.remote_tasks import Invalid, Outcome, PermanentFailure, RemoteTask, TaskCancelled

#: characters of an error's message
MESSAGE_MAX = 4000

Json = dict[str, Any]


class Execution:
    """One task that runs; also its `RemoteContext`."""

    def __init__(self, task: Json, progressed: Callable[[Execution, float, str], None]) -> None:
        self.job_id: str = task["job_id"]
        self.task_id: str = task["task_id"]
        self._params = task.get("params") or {}
        self._progressed = progressed
        self._loop = asyncio.get_running_loop()
        self._cancelled = False
        self._coroutine: asyncio.Task[Any] | None = None

    @property
    def cancelled(self) -> bool:
        """As RemoteContext."""
        return self._cancelled

    def progress(self, fraction: float, message: str = "") -> None:
        """As RemoteContext."""
        self._loop.call_soon_threadsafe(self._progressed, self, float(fraction), str(message))

    def cancel(self) -> None:
        """The result is not wanted any more."""
        self._cancelled = True
        if self._coroutine is not None:
            self._coroutine.cancel()

    async def run(self, task: RemoteTask, threads: Executor) -> Json:
        """`status`, `data` and `error` as the server takes them. A cancel of the caller itself passes."""
        arguments = (self._params, self) if task.wants_context else (self._params,)
        try:
            return _success(await self._call(task.function, arguments, threads))
        except TaskCancelled:
            return _result("cancelled")
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            return _result("cancelled")
        except PermanentFailure as error:
            return failure("PERMANENT_ERROR", error)
        except Invalid as error:
            return failure("INVALID_INPUT_ERROR", error)
        except Exception as error:
            return failure("TRANSIENT_ERROR", error)

    async def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], threads: Executor) -> Any:
        if inspect.iscoroutinefunction(function):
            self._coroutine = asyncio.ensure_future(_awaited(function, arguments))
            if self._cancelled:
                self._coroutine.cancel()
            try:
                return await self._coroutine
            finally:
                self._coroutine.cancel()
        return await self._loop.run_in_executor(threads, _called, function, arguments)


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except SystemExit as error:  # would end the event loop
        raise _exited(error) from error


async def _awaited(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return await function(*arguments)
    except SystemExit as error:
        raise _exited(error) from error


def _exited(error: SystemExit) -> RuntimeError:
    return RuntimeError(f"the task called exit({error.code})")


def _success(returned: Any) -> Json:
    outcome = returned if isinstance(returned, Outcome) else Outcome("success", _data(returned))
    try:
        data = msgspec.json.decode(msgspec.json.encode(dict(outcome.data)))
    except (TypeError, ValueError) as error:
        return failure("PERMANENT_ERROR", ValueError(f"the result is not JSON: {error}"))
    return _result(outcome.status, data)


def _data(returned: Any) -> Json:
    if returned is None:
        return {}
    return returned if isinstance(returned, dict) else {"output": returned}


def failure(code: str, error: BaseException) -> Json:
    """The result of a task that failed with `error`."""
    told = str(error) or type(error).__name__
    named = told if isinstance(error, PermanentFailure | Invalid) else f"{type(error).__name__}: {told}"
    return _result("failure", None, {"code": code, "message": named[:MESSAGE_MAX], "details": None})


def _result(status: str, data: Json | None = None, error: Json | None = None) -> Json:
    return {"status": status, "data": data, "error": error}
