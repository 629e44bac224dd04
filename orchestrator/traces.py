"""Traces: which trace a run belongs to, and the spans that its events amount to.

    request ─▶ run ─▶ task ─▶ attempt ─▶ tool call                 one trace, W3C Trace Context, version 00
               │              └▶ run that the task calls ─▶ …
               └ from RunCreated to its end                        a run that was restarted has a span for each life

A run that a request made is of the request's trace, one that a task called of its caller's; any other one, a schedule's
or a window's, has a trace of its own, whose id follows from the run's. A task that used a kept result has a span
without length, and no attempt. Ids of spans follow from what they stand for (run and life, task and its first attempt,
attempt), so a worker knows the span of its attempt while it runs, and spans that are told twice are the same spans.

Two designs were open. Spans begun and ended by the actors as things happen need a tracer on every task's way, and lose
what was open when a process is killed. Spans read from the journal once a life of the run has ended, as here, cost the
hot path nothing and survive every death; they are seen only then. Times are those of the events, so a clock that is
wrong by a second is so here, too. Source: https://www.w3.org/TR/trace-context/, issue 6.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator import events as e

#: version, trace, parent, flags; later versions may have more, which is left out when it is passed on
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a run. Ids are lower-case hexadecimal."""

    #: 32 digits
    trace_id: str
    #: span of the request, 16 digits; "" = the run is the root
    parent_id: str
    #: False: whoever began the trace does not want it to be kept
    sampled: bool

    def at(self, span_id: str) -> str:
        """The `traceparent` for what that span causes."""
        return f"00-{self.trace_id}-{span_id}-{'01' if self.sampled else '00'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that began and ended."""

    trace_id: str
    span_id: str
    #: "" = it is a root
    parent_id: str
    name: str
    start: datetime
    end: datetime
    #: why it failed; None = it did not
    error: str | None = None
    #: it answered a request from outside
    server: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def valid(traceparent: str | None) -> str:
    """`traceparent` in the form of version 00; "" when it is none, which is then as if none had been given."""
    found = _FORM.fullmatch(traceparent.strip()) if traceparent else None
    if found is None:
        return ""
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return ""
    return f"00-{trace_id}-{parent_id}-{'01' if int(flags, 16) & 1 else '00'}"


def parsed(traceparent: str) -> Trace | None:
    """What a `valid` one says; None = ""."""
    if not traceparent:
        return None
    _, trace_id, parent_id, flags = traceparent.split("-")
    return Trace(trace_id, parent_id, flags == "01")


def trace_of(run_id: str, traceparent: str) -> Trace:
    """The trace of a run that was created with that `traceparent`; "" = without one."""
    return parsed(traceparent) or Trace(_digits(32, "trace", run_id), "", True)


def span_of_attempt(run_id: str, task: str, attempt: int) -> str:
    """Its id."""
    return _digits(16, "attempt", run_id, task, attempt)


def told_to(run_id: str, task: str, attempt: int, traceparent: str, traced: bool) -> str:
    """The `traceparent` for what an attempt causes; "" = none. Where nothing is traced, the caller's own goes on."""
    return trace_of(run_id, traceparent).at(span_of_attempt(run_id, task, attempt)) if traced else traceparent


def spans(events: Sequence[e.Event], after: int) -> list[Span]:
    """Of the last life of a run that ended with an event later than version `after`; [] when none did.

    `events` are those of a run from its first one. A trace that is not to be kept has no spans.
    """
    created = events[0]
    assert isinstance(created, e.RunCreated), "a run's history begins with run_created"
    if not trace_of(created.run_id, created.traceparent).sampled:
        return []
    reading = _Reading(created)
    found: list[Span] = []
    for version, event in enumerate(events, 1):
        ended = reading.tell(event)
        if ended and version > after:
            found = ended
    return found


@dataclass(slots=True)
class _Open:
    """A span that has not ended."""

    span_id: str
    parent_id: str
    name: str
    start: datetime
    attributes: dict[str, Attribute]


class _Reading:
    """Follows a run; `tell` answers the spans of a life when it has ended."""

    def __init__(self, created: e.RunCreated) -> None:
        self._created = created
        self._trace = trace_of(created.run_id, created.traceparent)
        self._life = 0
        self._version = created.dag_version
        self._run: _Open | None = None
        self._tasks: dict[str, _Open] = {}
        self._attempts: dict[str, _Open] = {}
        self._tools: dict[tuple[str, int], _Open] = {}
        self._ended: list[Span] = []

    def tell(self, event: e.Event) -> list[Span]:
        """The next event. Not empty: a life of the run has ended with it."""
        match event:
            case e.RunCreated() | e.RunRestarted() | e.RunRevived():
                self._begin(event)
            case e.RunStarted() if self._run is not None:
                self._run.attributes["orchestrator.queued_s"] = (event.at - self._run.start).total_seconds()
            case e.TaskStarted() | e.TaskWaiting() | e.TaskExpanded():
                self._start(event)
            case e.TaskSucceeded(cached=e.CachedFrom() as source):
                self._use(event, source)
            case e.ToolStarted() if event.task in self._attempts:
                self._call(event)
            case e.ToolCompleted():
                self._close(
                    self._tools.pop((event.task, event.call), None), event.at, None if event.success else "failed"
                )
            case e.TaskRetrying() | e.TaskReturned() | e.TaskSuspended():
                self._end_attempt(event.task, event.at, _word(event), _error(event))
            case e.TaskSucceeded() | e.TaskFailed() | e.TaskSkipped() | e.TaskMarked() | e.TaskCancelled():
                self._end_task(event.task, event.at, _word(event), _error(event))
            case e.TaskUpstreamFailed() | e.TaskReset():
                self._end_task(event.task, event.at, _word(event), None)
            case e.RunSucceeded() | e.RunFailed() | e.RunCancelled() | e.RunTimedOut():
                return self._end(event)
            case _:
                pass  # it neither begins nor ends anything
        return []

    def _begin(self, event: e.RunCreated | e.RunRestarted | e.RunRevived) -> None:
        if isinstance(event, e.RunRestarted):
            self._version = event.dag_version
        if self._run is not None:
            return  # a retry while it goes on
        made, self._life = self._created, self._life + 1
        about: dict[str, Attribute] = {
            "orchestrator.run_id": made.run_id,
            "orchestrator.dag_id": made.dag_id,
            "orchestrator.dag_version": self._version,
            "orchestrator.tenant": made.tenant,
            "orchestrator.run_type": made.run_type,
            "orchestrator.life": self._life,
        }
        if made.window is not None:
            about["orchestrator.window"] = made.window.key()
        if parent := made.parent or (made.called_by.run_id if made.called_by is not None else None):
            about["orchestrator.parent_run_id"] = parent
        span_id = _digits(16, "run", made.run_id, self._life)
        self._run = _Open(span_id, self._trace.parent_id, f"run {made.dag_id}", event.at, about)

    def _start(self, event: e.TaskStarted | e.TaskWaiting | e.TaskExpanded) -> None:
        name, run_id = event.task, self._created.run_id
        task = self._task(name, event.attempt, event.at)
        if isinstance(event, e.TaskExpanded):
            task.attributes["orchestrator.instances"] = event.count
            return
        about: dict[str, Attribute] = {"orchestrator.run_id": run_id, "orchestrator.task": name}
        about["orchestrator.attempt"] = event.attempt
        if isinstance(event, e.TaskStarted):
            about["orchestrator.worker"] = event.worker
        else:
            about["orchestrator.wait"] = event.wait.kind
            if event.wait.call is not None:
                about["orchestrator.called_run_id"] = event.wait.call.run_id
        span_id = span_of_attempt(run_id, name, event.attempt)
        self._attempts[name] = _Open(span_id, task.span_id, f"attempt {name.partition('[')[0]}", event.at, about)

    def _task(self, name: str, attempt: int, at: datetime) -> _Open:
        """The span of a task, which has begun by now."""
        if name not in self._tasks:
            mapped, _, _ = name.partition("[")
            parent = (self._tasks.get(mapped) if mapped != name else None) or self._run
            span_id = _digits(16, "task", self._created.run_id, name, attempt)
            about: dict[str, Attribute] = {"orchestrator.run_id": self._created.run_id, "orchestrator.task": name}
            self._tasks[name] = _Open(span_id, parent.span_id if parent else "", f"task {mapped}", at, about)
        return self._tasks[name]

    def _use(self, event: e.TaskSucceeded, source: e.CachedFrom) -> None:
        """The result of an equal task is that of this one."""
        about = self._task(event.task, event.attempt, event.at).attributes
        about["orchestrator.cached"] = True
        about["orchestrator.cached_from"] = source.run_id
        self._end_task(event.task, event.at, _word(event), None)

    def _call(self, event: e.ToolStarted) -> None:
        attempt = self._attempts[event.task]
        span_id = _digits(16, "tool", self._created.run_id, event.task, event.attempt, event.call)
        about: dict[str, Attribute] = {"orchestrator.run_id": self._created.run_id, "orchestrator.task": event.task}
        self._tools[event.task, event.call] = _Open(span_id, attempt.span_id, f"tool {event.name}", event.at, about)

    def _end_attempt(self, task: str, at: datetime, outcome: str, error: str | None) -> None:
        for key in [key for key in self._tools if key[0] == task]:
            self._close(self._tools.pop(key), at, "its attempt ended")
        attempt = self._attempts.pop(task, None)
        if attempt is not None:
            attempt.attributes["orchestrator.outcome"] = outcome
        self._close(attempt, at, error)

    def _end_task(self, task: str, at: datetime, outcome: str, error: str | None) -> None:
        self._end_attempt(task, at, outcome, error)
        of = self._tasks.pop(task, None)
        if of is not None:
            of.attributes["orchestrator.state"] = outcome
        self._close(of, at, error)

    def _end(self, event: e.RunSucceeded | e.RunFailed | e.RunCancelled | e.RunTimedOut) -> list[Span]:
        for task in [*self._tasks]:
            self._end_task(task, event.at, "cancelled", None)
        run, self._run = self._run, None
        if run is not None:
            run.attributes["orchestrator.state"] = _word(event)
        self._close(run, event.at, _error(event))
        ended, self._ended = self._ended, []
        return ended

    def _close(self, open_: _Open | None, at: datetime, error: str | None) -> None:
        if open_ is None:
            return
        span = Span(
            trace_id=self._trace.trace_id,
            span_id=open_.span_id,
            parent_id=open_.parent_id,
            name=open_.name,
            start=open_.start,
            end=max(at, open_.start),
            error=error,
            attributes=open_.attributes,
        )
        self._ended.append(span)


def _word(event: e.Event) -> str:
    """`task_succeeded` → `succeeded`."""
    tag = str(type(event).__struct_config__.tag)
    return tag.partition("_")[2]


def _error(event: e.Event) -> str | None:
    return getattr(event, "error", None)


def _digits(count: int, *parts: object) -> str:
    """Hexadecimal digits that follow from `parts`, and are as good as never all zero."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:count]
