"""Tasks of remote workers: functions that do the tasks which blueprints dispatch, on any machine.

    from orchestrator.remote_tasks import remote_task

    @remote_task
    def video_processing(params, ctx):
        ctx.progress(0.5, "half")
        return {"output": params["clip"].upper()}

    orchestrator worker --url URL --token T module

A function takes the task's params and, if it has a second parameter, a `RemoteContext`; it may be `async`. What it
returns becomes the task's result:

    a dict               success, with that data           raises PermanentFailure   failure, PERMANENT_ERROR: no retry
    None                 success, {}                        raises Invalid            failure, INVALID_INPUT_ERROR
    Outcome(word, data)  the blueprint's own status         raises TaskCancelled      cancelled
    anything else        success, {"output": it}            anything else raised      failure, TRANSIENT_ERROR: again

Source: jobs contract, sections 1 and 4.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from orchestrator.errors import Invalid, PermanentFailure, TaskCancelled

__all__ = [
    "Invalid",
    "Outcome",
    "PermanentFailure",
    "RemoteContext",
    "RemoteTask",
    "TaskCancelled",
    "remote_task",
    "remote_tasks_in",
]


class RemoteContext(Protocol):
    """One task that runs, from inside. Any thread may use it."""

    @property
    def job_id(self) -> str:
        """The job that waits for the task."""

    @property
    def task_id(self) -> str:
        """The attempt: a retry has another one."""

    @property
    def cancelled(self) -> bool:
        """Is the result not wanted any more? An `async` function is also cancelled; others look here."""

    def progress(self, fraction: float, message: str = "") -> None:
        """How far the task is, 0 to 1, for whoever watches the job."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result with a status of the blueprint's own, such as `needs_review`."""

    status: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """A function that does tasks of type `name`; calling it calls the function."""

    name: str
    function: Callable[..., Any]
    #: it takes a RemoteContext
    wants_context: bool

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The function itself, for tests."""
        return self.function(*args, **named)


@overload
def remote_task(function: Callable[..., Any], /) -> RemoteTask: ...
@overload
def remote_task(*, name: str) -> Callable[[Callable[..., Any]], RemoteTask]: ...
def remote_task(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Makes a function the one that does tasks of its own name, or of type `name`. Raises Invalid."""

    def made(function: Callable[..., Any]) -> RemoteTask:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        taken = [each for each in inspect.signature(function).parameters.values() if each.kind in kinds]
        if not 1 <= len(taken) <= 2:
            raise Invalid(f"remote task {function.__name__} must take its params, and may take a context")
        return RemoteTask(name or function.__name__, function, len(taken) == 2)

    return made if function is None else made(function)


def remote_tasks_in(values: Iterable[object]) -> list[RemoteTask]:
    """The remote tasks among them, by task type. Raises Invalid for two of one type."""
    found: dict[str, RemoteTask] = {}
    for value in values:
        if not isinstance(value, RemoteTask) or found.get(value.name) is value:
            continue
        if value.name in found:
            raise Invalid(f"two functions do tasks of type {value.name}")
        found[value.name] = value
    return [found[name] for name in sorted(found)]
