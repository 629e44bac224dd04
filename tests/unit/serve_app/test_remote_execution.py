"""orchestrator.remote_tasks and serve_app.remote_execution: what functions of users become."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.remote_tasks import (
    Invalid,
    Outcome,
    PermanentFailure,
    RemoteContext,
    RemoteTask,
    TaskCancelled,
    remote_task,
    remote_tasks_in,
)
from serve_app.remote_execution import Execution

Json = dict[str, Any]


@pytest.fixture
async def threads() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def execution(**params: Any) -> Execution:
    return Execution({"job_id": "j", "task_id": "t", "params": params}, lambda *_: None)


def raising(error: BaseException) -> Callable[[Json], Any]:
    def function(_params: Json) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        ({"a": 1}, ("success", {"a": 1})),
        (None, ("success", {})),
        ("x", ("success", {"output": "x"})),
        ((1, 2), ("success", {"output": [1, 2]})),
        (Outcome("needs_review"), ("needs_review", {})),
        (Outcome("needs_review", {"a": 1}), ("needs_review", {"a": 1})),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_returned_becomes_data(
    returned: Any, result: tuple[str, Json], is_async: bool, threads: ThreadPoolExecutor
) -> None:
    async def waits(_params: Json) -> Any:
        return returned

    done = await execution().run(remote_task(waits if is_async else lambda _params: returned), threads)
    assert (done["status"], done["data"]) == result
    assert done["error"] is None


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermanentFailure("nope"), "PERMANENT_ERROR", "nope"),
        (Invalid("clip is missing"), "INVALID_INPUT_ERROR", "clip is missing"),
        (ValueError("boom"), "TRANSIENT_ERROR", "ValueError: boom"),
        (KeyError(), "TRANSIENT_ERROR", "KeyError: KeyError"),
        (SystemExit(3), "TRANSIENT_ERROR", "RuntimeError: the task called exit(3)"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_raised_becomes_a_failure(
    error: BaseException, code: str, message: str, is_async: bool, threads: ThreadPoolExecutor
) -> None:
    async def waits(_params: Json) -> Any:
        raise error

    done = await execution().run(remote_task(waits if is_async else raising(error)), threads)
    assert done == {
        "status": "failure",
        "data": None,
        "error": {"code": code, "message": message, "details": None},
    }


async def test_a_result_that_is_no_json_fails_for_good(threads: ThreadPoolExecutor) -> None:
    done = await execution().run(remote_task(lambda _params: {"a": object()}), threads)
    assert done["error"]["code"] == "PERMANENT_ERROR"
    assert done["error"]["message"].startswith("ValueError: the result is not JSON")


async def test_a_thread_sees_that_it_is_cancelled(threads: ThreadPoolExecutor) -> None:
    began = threading.Event()

    @remote_task
    def loop(_params: Json, ctx: RemoteContext) -> None:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.005)
        raise TaskCancelled

    running = execution()
    doing = asyncio.create_task(running.run(loop, threads))
    await asyncio.to_thread(began.wait, 5)
    running.cancel()
    assert (await doing)["status"] == "cancelled"


async def test_a_coroutine_is_cancelled_where_it_waits_even_before_it_began(threads: ThreadPoolExecutor) -> None:
    @remote_task
    async def waits(_params: Json) -> None:
        await asyncio.Event().wait()

    running = execution()
    doing = asyncio.create_task(running.run(waits, threads))
    await asyncio.sleep(0.01)
    running.cancel()
    assert (await doing)["status"] == "cancelled"
    early = execution()
    early.cancel()
    assert (await early.run(waits, threads))["status"] == "cancelled"


async def test_progress_comes_from_any_thread_to_the_loop(threads: ThreadPoolExecutor) -> None:
    told: list[tuple[str, float, str, bool]] = []
    here = threading.current_thread()
    running = Execution(
        {"job_id": "j", "task_id": "t"},
        lambda which, fraction, text: told.append((which.task_id, fraction, text, threading.current_thread() is here)),
    )
    await running.run(remote_task(lambda _params, ctx: ctx.progress(1, "half")), threads)
    await asyncio.sleep(0)
    assert told == [("t", 1.0, "half", True)]


async def test_cancelling_the_caller_is_no_result(threads: ThreadPoolExecutor) -> None:
    ended: list[str] = []

    @remote_task
    async def waits(_params: Json) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    doing = asyncio.create_task(execution().run(waits, threads))
    await asyncio.sleep(0.01)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await asyncio.sleep(0.01)
    assert ended == ["ended"]


def test_a_task_is_called_as_its_function_or_as_it_is_told() -> None:
    @remote_task
    def one(params: Json) -> Json:
        return params

    @remote_task(name="video_processing")
    def other(params: Json, ctx: RemoteContext) -> None: ...

    assert (one.name, one.wants_context, one({"a": 1})) == ("one", False, {"a": 1})
    assert (other.name, other.wants_context) == ("video_processing", True)
    found = remote_tasks_in([other, one, one, "else"])
    assert [each.name for each in found] == ["one", "video_processing"]


def test_two_functions_of_one_type_are_refused() -> None:
    with pytest.raises(Invalid, match="two functions do tasks of type a"):
        remote_tasks_in([RemoteTask("a", print, False), RemoteTask("a", len, False)])


def test_a_function_must_take_its_params() -> None:
    with pytest.raises(Invalid, match="must take its params"):
        remote_task(lambda: None)
