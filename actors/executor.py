"""Runs one attempt and says how it ended. Whatever user code does short of ending the process becomes a Report.

`core.noop` and `core.echo` of plain params are answered without looking further: they measure the system, not
themselves.
"""

from __future__ import annotations

import time
import traceback
from typing import Protocol

import msgspec

from actors.artifacts import INLINE_MAX, INSTANCE_INLINE_MAX, Artifacts, MissingArtifact
from actors.attempt import LiveAttempt
from actors.attempt_log import AttemptLog, LogSink, Shipper, capturing
from actors.bundle_code import BundleCode
from actors.durable_sleep import Suspended
from actors.entrypoints import Entrypoints
from actors.guarded_http import GuardedHttp
from actors.task_kinds import KINDS
from actors.work import NoteSink, Shop, TaskFailed, ThreadLoop, Work
from orchestrator.error_line import one_line
from orchestrator.errors import PermanentFailure, Skip
from orchestrator.failures import names_of
from orchestrator.messages import Assignment, Report, RunContext, Value

#: packages whose frames lead to user code
_OURS = ("actors", "asyncio")
#: types of task that run code of their bundle
BUNDLED = frozenset({"python", "bash"})
_EMPTY = Value(msgspec.Raw(b"{}"), None, 2)


class Bundles(Protocol):
    """Who runs attempts whose code is in a bundle."""

    def run(self, task: Assignment, run: RunContext, attempt: LiveAttempt) -> Report:
        """How the attempt ended. Raises PermanentFailure or TaskFailed when it could not begin."""


class Executor:
    """Everything an attempt needs, kept from one to the next. Without `bundles` their code is importable here.

    `code` is the bundle that this process is of.
    """

    def __init__(
        self,
        *,
        artifacts: Artifacts,
        entrypoints: Entrypoints,
        logs: LogSink,
        notes: NoteSink,
        http_allow: str,
        bundles: Bundles | None = None,
        code: BundleCode | None = None,
    ) -> None:
        self._shipper = Shipper(logs)
        self._bundles = bundles
        self._shop = Shop(artifacts, entrypoints, notes, GuardedHttp(http_allow), ThreadLoop(), code)

    def run(self, task: Assignment, run: RunContext | None, attempt: LiveAttempt) -> Report:
        """How the attempt ended. Raises nothing."""
        value = _at_once(task, run)
        if value is None:
            if self._bundles is not None and run is not None and run.bundle and task.type in BUNDLED:
                return self._run_bundled(self._bundles, task, run, attempt)
            return self._run_fully(task, run, attempt)
        if (reason := attempt.end()) is not None:
            return Report(task.run_id, task.task, task.attempt, reason, error=_why(reason, task))
        return Report(task.run_id, task.task, task.attempt, "ok", value)

    def _run_fully(self, task: Assignment, run: RunContext | None, attempt: LiveAttempt) -> Report:
        started_s = time.perf_counter()
        log = AttemptLog(task.run_id, task.task, task.attempt, self._shipper, run.traceparent if run else "")
        value, length, error = Value(), None, None
        try:
            with capturing(log):
                value, length = self._outcome(task, run, attempt, log)
        except BaseException as caught:
            error = caught
        reason = attempt.end()
        took_s = time.perf_counter() - started_s
        read_bytes, fetched_bytes = self._shop.artifacts.take_counts()
        log.close()
        if reason is not None:
            return Report(task.run_id, task.task, task.attempt, reason, error=_why(reason, task), took_s=took_s)
        if isinstance(error, Skip):
            why = one_line(error, Skip)
            return Report(task.run_id, task.task, task.attempt, "skipped", error=why, took_s=took_s)
        if isinstance(error, Suspended):
            at = (task.run_id, task.task, task.attempt)
            return Report(*at, "suspended", error.value(), error=one_line(error, Suspended), took_s=took_s)
        if isinstance(error, MissingArtifact):
            at = (task.run_id, task.task, task.attempt)
            return Report(*at, "missing", error=one_line(error, TaskFailed), took_s=took_s, missing=error.names)
        if error is not None:
            permanent = isinstance(error, PermanentFailure)
            return Report(
                task.run_id,
                task.task,
                task.attempt,
                "error",
                error=one_line(error, TaskFailed),
                permanent=permanent,
                took_s=took_s,
                raised=names_of(error, getattr(error, "marks", ())),
            )
        return Report(
            task.run_id,
            task.task,
            task.attempt,
            "ok",
            value,
            took_s=took_s,
            length=length,
            read_bytes=read_bytes,
            fetched_bytes=fetched_bytes,
        )

    def _run_bundled(self, bundles: Bundles, task: Assignment, run: RunContext, attempt: LiveAttempt) -> Report:
        started_s = time.perf_counter()
        at = (task.run_id, task.task, task.attempt)
        try:
            report = bundles.run(task, run, attempt)
        except (PermanentFailure, TaskFailed) as error:
            took_s = time.perf_counter() - started_s
            log = AttemptLog(*at, self._shipper, run.traceparent)
            log.write(f"{error}\n")
            log.close()
            why, permanent = one_line(error, TaskFailed), isinstance(error, PermanentFailure)
            raised = names_of(error)
            report = Report(*at, "error", error=why, permanent=permanent, took_s=took_s, raised=raised)
        # a cancel that was accepted here may have come too late there
        if (reason := attempt.end()) is not None and report.outcome != reason:
            return Report(*at, reason, error=_why(reason, task), took_s=report.took_s)
        return report

    def _outcome(
        self, task: Assignment, run: RunContext | None, attempt: LiveAttempt, log: AttemptLog
    ) -> tuple[Value, int | None]:
        """What it returned; of a list that is not inline its length."""
        kind = KINDS.get(task.type)
        if kind is None:
            raise PermanentFailure(f"no worker here runs tasks of type {task.type!r}")
        if run is None:
            raise RuntimeError(f"the batch did not say what run {task.run_id} is")
        attempt.check()
        try:
            returned = kind(Work(task, run, attempt, log, self._shop))
            inline_max = INLINE_MAX if task.mapped is None or task.mapped.index is None else INSTANCE_INLINE_MAX
            at = (task.run_id, task.task, task.attempt)
            value = self._shop.artifacts.keep(*at, returned, inline_max, in_memory=task.in_memory)
            is_list = value.artifact is not None and isinstance(returned, list | tuple)
            return value, len(returned) if is_list else None  # type: ignore[arg-type]  # a list has a length
        except BaseException as error:
            if task.type == "python" and attempt.reason is None and not isinstance(error, Skip | Suspended):
                log.write(_trace(error))
            raise


def _at_once(task: Assignment, run: RunContext | None) -> Value | None:
    """The value of a task that needs no work; None when it does."""
    if task.type == "core.noop":
        return _EMPTY
    if task.type != "core.echo" or run is None or run.params or task.inputs or task.mapped:
        return None
    params = bytes(task.params)
    if len(params) > INLINE_MAX or b"{{" in params or b'"$' in params:
        return None
    return Value(msgspec.Raw(params), None, len(params)) if params else _EMPTY


def _why(reason: str, task: Assignment) -> str:
    if reason == "stalled":
        return f"HeartbeatTimeout: no sign of life for {task.heartbeat_timeout_s or 0:g} s"
    return f"timed out after {task.timeout_s:g} s" if reason == "timed_out" else reason


def _trace(error: BaseException) -> str:
    """The traceback from the first frame of user code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame = frame.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frame))
    except Exception:
        return one_line(error, TaskFailed) + "\n"
