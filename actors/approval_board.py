"""The list of open approvals: a record beside each, so that they can be found without reading runs.

A record is a hint, written after the commit that opened or closed an approval, again whenever a run is read from the
journal. What was not written because the process died is so by who reads the run next; who lists approvals looks at
each run, and leaves out what is open no longer. Keys carry the attempt, so a late removal never removes a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from actors.hosted import HostedRun
from orchestrator import codec
from orchestrator.ports import Journal
from orchestrator.records import approval_key, approvals_of
from orchestrator.run_state import Run
from orchestrator.views import ApprovalView, VoteView
from orchestrator.waits import Open

T = TypeVar("T")


class Shell(Protocol):
    """Whose approvals these are."""

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The journal's answer, however long it is away."""

    def _spawn(self, work: Any) -> None:
        """Let it go on by itself."""


class ApprovalBoard:
    """Writes the records of one RunActor, one step at a time, under each key the newest."""

    def __init__(self, shell: Shell, journal: Journal) -> None:
        self._shell = shell
        self._journal = journal
        #: kind -> key -> record, or None to remove it
        self._wanted: dict[str, dict[str, bytes | None]] = {}
        self._writing = False

    def show(self, hosted: HostedRun) -> None:
        """Approvals of a run were opened, voted on or closed, and that is durable."""
        run = hosted.run
        for task in hosted.asked:
            position = run.position(task)
            open_ = run.standby.open.get(position) if run.standby is not None else None
            last = run.tasks[position].attempt
            self._want(run, task, last, open_)
        hosted.asked.clear()

    def show_all(self, hosted: HostedRun) -> None:
        """The run was read: whatever is open of it."""
        run = hosted.run
        for position, open_ in run.standby.open.items() if run.standby is not None else ():
            if open_.wait.kind == "approval":
                self._want(run, run.compiled.graph.names[position], open_.attempt, open_)

    def _want(self, run: Run, task: str, attempt: int, open_: Open | None) -> None:
        record = None if open_ is None else codec.encode_document(_view(run, task, open_))
        self._wanted.setdefault(approvals_of(run.tenant), {})[approval_key(run.run_id, task, attempt)] = record
        if not self._writing:
            self._writing = True
            self._shell._spawn(self._write())

    async def _write(self) -> None:
        while self._wanted:
            kind, records = self._wanted.popitem()
            await self._shell.insist(lambda kind=kind, records=records: self._journal.put_records(kind, records))  # type: ignore[misc]  # mypy infers no lambda with defaults
            await asyncio.sleep(0)
        self._writing = False


def _view(run: Run, task: str, open_: Open) -> ApprovalView:
    votes = tuple(VoteView(v.by, v.choice, v.comment, v.at) for v in open_.votes.values())
    wait = open_.wait
    return ApprovalView(
        run_id=run.run_id,
        dag_id=run.dag_id,
        task=task,
        attempt=open_.attempt,
        asked_at=run.tasks[run.position(task)].started_at or run.created_at,
        expires_at=wait.until,
        prompt=wait.prompt,
        choices=wait.choices,
        roles=wait.roles,
        quorum=wait.quorum,
        votes=votes,
    )
