"""`orchestrator.context.TaskContext`, as a worker provides it.

A note goes to the actor that owns the run and is durable when that actor says so. Sending is shielded: a cancel
that comes meanwhile is raised when the note has been dealt with, never in the middle of a call to Ray.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from actors.artifacts import INLINE_MAX, inline_json
from actors.durable_sleep import Sleeps
from actors.work import Work
from orchestrator import actor_codec, partitions
from orchestrator.context import summarised
from orchestrator.definition import Window
from orchestrator.errors import Unavailable
from orchestrator.messages import Cause, Note, Published, ToolAnswer, ToolCall
from orchestrator.published import BUILT_IN, NAME

#: a checkpoint that is not durable after this long is an error
CHECKPOINT_S = 30.0
RETRY_PAUSE_S = 0.5
#: progress told more often is dropped, except the end
PROGRESS_EVERY_S = 0.25

_log = logging.getLogger("task")
_log.setLevel(logging.DEBUG)


class AttemptContext:
    """One attempt, from inside."""

    def __init__(self, work: Work) -> None:
        self._work = work
        earlier = work.assignment.last_checkpoint
        self._last = None if earlier is None else msgspec.json.encode(earlier)
        self._told_progress_s = float("-inf")
        self._calls = 0
        self._sleeps = Sleeps(work)

    @property
    def run_id(self) -> str:
        return self._work.assignment.run_id

    @property
    def dag_id(self) -> str:
        return self._work.run.dag_id

    @property
    def window(self) -> Window | None:
        run = self._work.run
        if run.partition:
            return Window(partition=run.partition)
        return Window(*run.window) if run.window else None

    @property
    def partition(self) -> str | None:
        return partitions.plain(self._work.run.partition) or None

    @property
    def parts(self) -> dict[str, str]:
        return partitions.parts_of(self._work.run.partition)

    @property
    def triggered_by(self) -> tuple[Cause, ...]:
        return self._work.run.triggered_by

    @property
    def task_id(self) -> str:
        return self._work.assignment.task

    @property
    def map_index(self) -> int | None:
        part = self._work.assignment.mapped
        return part.index if part else None

    @property
    def map_id(self) -> str | None:
        part = self._work.assignment.mapped
        return part.map or None if part else None

    @property
    def attempt(self) -> int:
        return self._work.assignment.attempt

    @property
    def params(self) -> dict[str, Any]:
        return self._work.params

    @property
    def traceparent(self) -> str | None:
        return self._work.traceparent or None

    @property
    def cancelled(self) -> bool:
        return self._work.attempt.reason is not None

    @property
    def log(self) -> logging.Logger:
        return _log

    def heartbeat(self) -> None:
        """A sign of life; costs next to nothing. Raises TaskCancelled when the attempt is over."""
        self._work.attempt.alive()
        self._work.attempt.check()

    def checkpoint(self, data: Any) -> None:
        """`data` is durable when this returns.

        Raises TypeError when it is not plain JSON of at most 64 KiB, TaskCancelled when the attempt is over, and
        Unavailable when it could not be made durable within CHECKPOINT_S.
        """
        raw = _plain(data, "a checkpoint")
        self.heartbeat()
        with self._work.attempt.shielded():
            self._send_until(time.monotonic() + CHECKPOINT_S, "checkpoint", raw)
        self._work.attempt.alive()
        self._last = raw
        self._sleeps.forget()

    def sleep(self, seconds: float) -> None:
        """The task goes on after `seconds`, without a worker meanwhile: see `durable_sleep.py`."""
        self._sleeps.sleep(seconds)

    def sleep_until(self, instant: datetime) -> None:
        """The same until an instant."""
        self._sleeps.sleep_until(instant)

    def publish(self, name: str, value: Any) -> None:
        """`value` is what the run answers to the query `name`, durably. Raises as `checkpoint` does, and ValueError."""
        if not NAME.fullmatch(name) or name in BUILT_IN:
            raise ValueError(f"{name!r} is no name of a published value: {NAME.pattern}, none of {sorted(BUILT_IN)}")
        raw = _plain(value, "a published value")
        self._work.attempt.check()
        with self._work.attempt.shielded():
            told = msgspec.json.encode(Published(name, msgspec.Raw(raw)))
            self._send_until(time.monotonic() + CHECKPOINT_S, "publish", told)

    def last_checkpoint(self) -> Any:
        """What this or an earlier attempt gave to `checkpoint` last."""
        return None if self._last is None else msgspec.json.decode(self._last)

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the task is; dropped when told too often or when nobody answers. Raises TaskCancelled."""
        self.heartbeat()
        now_s = time.monotonic()
        if fraction < 1 and now_s - self._told_progress_s < PROGRESS_EVERY_S:
            return
        self._told_progress_s = now_s
        data = inline_json({"fraction": float(fraction), "message": str(message)})
        if data is None:
            raise ValueError("progress takes a finite number and a short message")
        with self._work.attempt.shielded():
            try:
                self._send("progress", data)
            except Unavailable as error:
                logging.getLogger(__name__).info("progress of task %s was dropped: %s", self.task_id, error)

    @contextmanager
    def tool(self, name: str, /, **given: Any) -> Iterator[None]:
        """A tool call, told durably when it begins and when it ends. Raises as `checkpoint` does."""
        self._calls += 1
        call = self._calls
        self.heartbeat()
        self._tell_call("tool_started", ToolCall(call, name, msgspec.Raw(msgspec.json.encode(summarised(given)))))
        started_s, success = time.monotonic(), False
        try:
            yield
            success = True
        finally:
            if not self.cancelled:
                took_ms = int((time.monotonic() - started_s) * 1000)
                self._tell_call("tool_completed", ToolAnswer(call, name, took_ms, success))

    def _tell_call(self, kind: str, told: ToolCall | ToolAnswer) -> None:
        with self._work.attempt.shielded():
            self._send_until(time.monotonic() + CHECKPOINT_S, kind, msgspec.json.encode(told))

    def _send_until(self, deadline_s: float, kind: str, data: bytes) -> None:
        while True:
            try:
                return self._send(kind, data)
            except Unavailable:
                if self.cancelled or time.monotonic() + RETRY_PAUSE_S >= deadline_s:
                    raise
                time.sleep(RETRY_PAUSE_S)

    def _send(self, kind: str, data: bytes) -> None:
        note = Note(self.run_id, self.task_id, self.attempt, kind, msgspec.Raw(data))
        if not self._work.shop.notes.send(self._work.run.owner, actor_codec.encode_note(note)):
            self._work.attempt.cancel("cancelled")  # the attempt was replaced; `shielded` raises


def _plain(data: Any, what: str) -> bytes:
    raw = inline_json(data)
    if raw is None:
        raise TypeError(
            f"{what} must be plain JSON (dict with text keys, list, text, finite number, bool, "
            f"None) of at most {INLINE_MAX} bytes; this {type(data).__qualname__} is not"
        )
    return raw
