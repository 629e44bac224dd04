"""One attempt as its task kind sees it, and the things of the worker it may use.

A kind is a function `Work -> return value`. It raises PermanentFailure when another attempt would not help, anything
else for an ordinary failure, and lets TaskCancelled or asyncio.CancelledError pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import msgspec

from actors.artifacts import Artifacts
from actors.attempt import LiveAttempt
from actors.attempt_log import AttemptLog
from actors.bundle_code import BundleCode
from actors.entrypoints import Entrypoints
from actors.guarded_http import GuardedHttp
from orchestrator import binding, traces
from orchestrator.errors import ActorUnreachable
from orchestrator.messages import Assignment, RunContext, Value

T = TypeVar("T")

#: how long what an attempt leaves behind on the event loop may take to end
_SWEEP_S = 1.0


class TaskFailed(Exception):
    """An ordinary failure; its message says it all."""


class NoteSink(Protocol):
    """The way to a run's owner."""

    def send(self, owner: str, note: bytes) -> bool:
        """Deliver a messages.Note; True once durable, False when its attempt was replaced. Raises Unavailable."""


class NoNotes:
    """There is no way to the owner."""

    def send(self, owner: str, note: bytes) -> bool:
        """As NoteSink."""
        raise ActorUnreachable(owner, "this worker has no way to reach it")


class ThreadLoop:
    """The event loop of the thread that runs tasks. It outlives attempts, so that connections can."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T], attempt: LiveAttempt) -> T:
        """The outcome of `work`; a cancel of `attempt` cancels it. Coroutines it leaves behind are ended."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        loop = self._loop
        task = loop.create_task(work)
        attempt.on_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            return loop.run_until_complete(task)
        finally:
            self._sweep(loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_SWEEP_S))
        loop.run_until_complete(loop.shutdown_asyncgens())


@dataclass(frozen=True)
class Shop:
    """What all attempts of a worker share."""

    artifacts: Artifacts
    entrypoints: Entrypoints
    notes: NoteSink
    http: GuardedHttp
    loop: ThreadLoop
    #: what this process runs the code of; None = of no bundle
    code: BundleCode | None = None


@dataclass
class Work:
    """One attempt that runs."""

    assignment: Assignment
    run: RunContext
    attempt: LiveAttempt
    log: AttemptLog
    shop: Shop

    @cached_property
    def params(self) -> dict[str, Any]:
        """The params as a task of this type gets them: merged, filled in, with inputs in their places."""
        return binding.bind(self.assignment.type, self.own_params, self.inputs, self.run.params, self.told)

    @cached_property
    def own_params(self) -> dict[str, Any]:
        """The task's own params, as its definition has them."""
        raw = self.assignment.params
        params = msgspec.json.decode(raw) if bytes(raw) else {}
        return params if isinstance(params, dict) else {}

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What dependencies returned, by path."""
        part, given = self.assignment.mapped, self.assignment.inputs
        if part is None:
            return self._read(given)
        if part.picks is None or part.index is None:
            return self._read(given, part.lists)
        picked = {part.picks: self.shop.artifacts.element(given[part.picks], part.index)}
        return self._read({path: value for path, value in given.items() if path not in picked}, part.lists) | picked

    def _read(self, given: Mapping[str, Value], lists: Mapping[str, Sequence[Value]] | None = None) -> dict[str, Any]:
        """Values by path, and lists of them. Raises MissingArtifact with all that are missing."""
        out: dict[str, Any] = dict(zip(given, self.shop.artifacts.read_all([*given.values()]), strict=True))
        for path, values in (lists or {}).items():
            out[path] = self.shop.artifacts.read_all(values)
        return out

    @cached_property
    def told(self) -> dict[str, str]:
        """What templates know of the run."""
        part = self.assignment.mapped
        run = self.run
        return binding.facts(run.run_id, run.dag_id, run.window, run.partition, part.index if part else None)

    @property
    def traceparent(self) -> str:
        """W3C trace context for what the attempt causes; "" = none."""
        task, run = self.assignment, self.run
        return traces.told_to(task.run_id, task.task, task.attempt, run.traceparent, run.traced)

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The outcome of `coroutine` on the thread's event loop; cancelled with the attempt."""
        return self.shop.loop.run(coroutine, self.attempt)
