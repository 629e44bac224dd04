"""What a running task can ask and tell: its run, its window, its attempt, a checkpoint, how far it is.

A task function gets it as its parameter `ctx`, or from `current()` anywhere below. The executor makes
one per attempt and holds it with `using`; tests may pass any object with these attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Protocol

from orchestrator.definition import Window
from orchestrator.messages import Cause


class Log(Protocol):
    """The part of `logging.Logger` that tasks need. What is printed is kept too."""

    def debug(self, msg: object, *args: object) -> None:
        """Details."""

    def info(self, msg: object, *args: object) -> None:
        """What goes on."""

    def warning(self, msg: object, *args: object) -> None:
        """Something to look at."""

    def error(self, msg: object, *args: object) -> None:
        """Something went wrong."""


class TaskContext(Protocol):
    """One attempt of one task, from inside."""

    @property
    def run_id(self) -> str:
        """The run this task belongs to."""

    @property
    def dag_id(self) -> str:
        """The DAG of the run."""

    @property
    def window(self) -> Window | None:
        """What the run is about; None for a manual run without a window."""

    @property
    def partition(self) -> str | None:
        """The partition the run is about: its value, or `day=mon/region=eu` of a product; None when there is none."""

    @property
    def parts(self) -> Mapping[str, str]:
        """The named parts of a partition that is one of a product; empty otherwise."""

    @property
    def triggered_by(self) -> tuple[Cause, ...]:
        """Why the run started by itself: DAGs that succeeded, assets that were updated, an event. Empty otherwise."""

    @property
    def task_id(self) -> str:
        """The id of the task within its DAG."""

    @property
    def map_index(self) -> int | None:
        """Of an instance of a mapped task: which element of the list it is for, from 0. None for any other task."""

    @property
    def map_id(self) -> str | None:
        """Of an instance of a mapped task: the id of that task. None for any other task."""

    @property
    def attempt(self) -> int:
        """1 for the first start; grows with every start and never repeats within the run."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The params of the task, with those of the run."""

    @property
    def traceparent(self) -> str | None:
        """W3C trace context for what this attempt causes elsewhere; None = nothing is traced, and nobody gave one."""

    @property
    def cancelled(self) -> bool:
        """True once the attempt should end: it was cancelled, or has timed out."""

    @property
    def log(self) -> Log:
        """The log of this attempt."""

    def heartbeat(self) -> None:
        """A sign of life, for a task with `heartbeat_timeout_s`; so is everything else that is told here.

        Raises TaskCancelled when the attempt is over.
        """

    def checkpoint(self, data: Any) -> None:
        """`data` (JSON) is durable when this returns. Raises TaskCancelled when the attempt was replaced."""

    def last_checkpoint(self) -> Any:
        """What this or an earlier attempt gave to `checkpoint` last; None when nothing was."""

    def sleep(self, seconds: float) -> None:
        """The task goes on after `seconds`, up to a year, and holds no worker meanwhile; it survives every restart.

        The attempt ends here: the task is called again, with what it gave to `checkpoint` last, on no retry's account.
        The n-th call since that checkpoint returns at once when its time has come, and keeps its instant until then.
        """

    def sleep_until(self, instant: datetime) -> None:
        """The same until an instant, which has a zone. One that has passed is no sleep."""

    def publish(self, name: str, value: Any) -> None:
        """`value` (JSON) is what the run answers to who asks for `name`: the last one, durable when this returns.

        Raises TaskCancelled when the attempt was replaced.
        """

    def tool(self, name: str, /, **given: Any) -> AbstractContextManager[None]:
        """`with ctx.tool("search", query=q):` tells who follows the run that the task uses a tool, and how that went.

        Both ends are durable. Raises TaskCancelled when the attempt was replaced.
        """

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the task is, 0 to 1. May be dropped when told often."""


#: characters of a text in the summary of a tool's input
TEXT_MAX = 100


def summarised(given: Mapping[str, object]) -> dict[str, Any]:
    """The input of a tool call in short; plain JSON whatever is given, and a summary of a summary is the same."""
    return {name: _short(value) for name, value in given.items()}


def _short(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 2**53:  # neither infinite nor NaN
        return value
    if isinstance(value, Mapping):
        return "<dict>"
    if isinstance(value, list | tuple | set):
        return "<list>"
    text = str(value)
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."


_current: ContextVar[TaskContext] = ContextVar("orchestrator_task_context")


def current() -> TaskContext:
    """The context of the task that is running here. Raises RuntimeError outside one."""
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("no task is running here") from None


@contextmanager
def using(context: TaskContext) -> Iterator[TaskContext]:
    """`current()` is `context` inside, also in the coroutines started there."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
