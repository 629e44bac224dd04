"""Where a run stands, for who asks: what its tasks wait for, what they published, how far they are.

    history ──▶ Standing.tell(event) ──▶ waiting · published · progress · signals

A fold of the events alone, so that any replica answers without an actor. Of a life that a restart ended nothing is
told any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from orchestrator import events as e
from orchestrator.views import PublishedView, VoteView, WaitView

_OVER: Mapping[type[e.Event], str] = {
    e.TaskSucceeded: "succeeded",
    e.TaskFailed: "failed",
    e.TaskSkipped: "skipped",
    e.TaskUpstreamFailed: "upstream_failed",
    e.TaskCancelled: "cancelled",
    e.TaskMarked: "succeeded",
}
_LIVE: Mapping[type[e.Event], str] = {
    e.TaskStarted: "running",
    e.TaskWaiting: "waiting",
    e.TaskSuspended: "suspended",
    e.TaskRetrying: "retrying",
}


class Standing:
    """Follows one run from its first event."""

    __slots__ = ("_told", "published", "signals", "tasks", "waiting")

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        #: task -> core state, of tasks that have had an event
        self.tasks: dict[str, str] = {}
        #: task -> what it waits for
        self.waiting: dict[str, WaitView] = {}
        #: name -> what was published last
        self.published: dict[str, PublishedView] = {}
        #: name -> signals that no task has taken
        self.signals: dict[str, int] = {}
        #: task -> what it told of its progress last
        self._told: dict[str, Any] = {}

    def tell(self, event: e.Event) -> None:
        """The next event has happened."""
        match event:
            case e.RunRestarted():
                self._forget()
            case e.ValuePublished():
                told = PublishedView(event.name, event.data, event.at, event.task, event.attempt)
                self.published[event.name] = told
            case e.TaskProgressed():
                self._told[event.task] = msgspec.json.decode(event.data)
            case e.SignalReceived():
                self.signals[event.name] = self.signals.get(event.name, 0) + 1
            case e.SignalConsumed():
                self.signals[event.name] -= 1
                if not self.signals[event.name]:
                    del self.signals[event.name]
            case e.VoteCast():
                self._vote(event)
            case _ if (task := getattr(event, "task", None)) is not None:
                self._task(event, task)

    def _vote(self, event: e.VoteCast) -> None:
        wait = self.waiting[event.task]
        votes = tuple(vote for vote in wait.votes if vote.by != event.by)
        cast = VoteView(event.by, event.choice, event.comment, event.at)
        self.waiting[event.task] = msgspec.structs.replace(wait, votes=(*votes, cast))

    def _task(self, event: e.Event, task: str) -> None:
        kind = type(event)
        if kind in (e.TaskReset, e.TaskReturned):
            self.tasks[task] = "pending"
        elif (state := _OVER.get(kind) or _LIVE.get(kind)) is not None:
            self.tasks[task] = state
        else:
            return
        self.waiting.pop(task, None)
        if isinstance(event, e.TaskWaiting):
            self.waiting[task] = _wait_view(event)
        elif isinstance(event, e.TaskSuspended):
            self.waiting[task] = WaitView("sleep", event.attempt, event.at, event.until)

    def progress(self, names: tuple[str, ...]) -> dict[str, Any]:
        """How far the run of these tasks is: those that have ended, of all; and what tasks say of themselves."""
        over = frozenset(_OVER.values())
        done = sum(self.tasks.get(name) in over for name in names)
        share = done / len(names) if names else 1.0
        running = {task: told for task, told in self._told.items() if self.tasks.get(task) not in over}
        return {"done": done, "total": len(names), "fraction": round(share, 4), "tasks": running}


def _wait_view(event: e.TaskWaiting) -> WaitView:
    wait = event.wait
    return WaitView(
        wait.kind or "nothing",
        event.attempt,
        event.at,
        wait.until,
        name=wait.name,
        prompt=wait.prompt,
        choices=wait.choices,
        roles=wait.roles,
        quorum=wait.quorum,
    )


def wait_json(wait: WaitView, instant: Any) -> dict[str, Any]:
    """For people: `instant` words instants."""
    told: dict[str, Any] = {"kind": wait.kind, "attempt": wait.attempt, "since": instant(wait.since)}
    told["until"] = instant(wait.until)
    if wait.kind == "signal":
        told["name"] = wait.name
    if wait.kind == "approval":
        told |= {"prompt": wait.prompt, "choices": list(wait.choices), "roles": list(wait.roles)}
        told |= {"quorum": wait.quorum, "votes": [vote_json(vote, instant) for vote in wait.votes]}
    return told


def vote_json(vote: VoteView, instant: Any) -> dict[str, Any]:
    """The same of a vote."""
    at: datetime = vote.at
    return {"by": vote.by, "choice": vote.choice, "comment": vote.comment, "at": instant(at)}
