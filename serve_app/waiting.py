"""Signals into a run, votes on its approvals, and what a run answers to queries.

    signal, decide ──▶ the actor that owns the run       approvals, query, waits ──▶ journal alone

The list of approvals is made of records that the owners of runs keep (`actors/approval_board.py`), each checked
against its run as it stands: what is open no longer is left out, and its record removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from actors.clock import Clock
from orchestrator import codec
from orchestrator.command import Ballot, Command, CommandReply, Signalled
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.published import BUILT_IN
from orchestrator.records import approvals_of
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.standing import Standing, wait_json
from orchestrator.views import ApprovalView, PublishedView, RunChanged, SignalSent, WaitView
from serve_app.asking import ask, kept_reply, shown
from serve_app.dag_book import DagBook
from serve_app.deadlines import DEADLINE_S, within

#: approvals that a list shows
APPROVALS_MAX = 1000
#: runs that are looked at together
_AT_ONCE = 64
#: batches of events read together
_CHUNK = 256


class Waiting:
    """`serve_app.ports.Waiting` over a journal and a control plane."""

    def __init__(self, journal: Journal, control: ControlPlane, book: DagBook, clock: Clock) -> None:
        self._journal = journal
        self._control = control
        self._book = book
        self._clock = clock

    @within(DEADLINE_S)
    async def signal(
        self, tenant: str, run_id: str, name: str, data: msgspec.Raw, signal_id: str | None, idem: Idempotency | None
    ) -> SignalSent:
        """The run has the signal, durably. Raises NotFound, Conflict."""
        given = signal_id or self._clock.uuid()
        told = Signalled(name, data, given)
        reply = await self._obeyed(tenant, Command(kind="signal", run_id=run_id, signal=told, idem=idem))
        return SignalSent(run_id, reply.state, name, reply.signal_id or given, reply.replayed)

    @within(DEADLINE_S)
    async def decide(self, tenant: str, run_id: str, task: str, ballot: Ballot, idem: Idempotency | None) -> RunChanged:
        """The vote counts, durably. Raises NotFound, Conflict (it is late), Invalid, NotAllowed."""
        reply = await self._obeyed(tenant, Command(kind="vote", run_id=run_id, task=task, vote=ballot, idem=idem))
        return RunChanged(run_id, reply.state, reply.attempts, reply.task_state, reply.replayed)

    async def _obeyed(self, tenant: str, command: Command) -> CommandReply:
        row = shown(await self._journal.summary(command.run_id), tenant, command.run_id)
        if (kept := await kept_reply(self._journal, command.idem)) is not None:
            return kept
        if command.task is not None and command.task not in await self._names(row):
            raise NotFound("task", command.task)
        if row.run_type == "backfill":
            raise Conflict(f"run {row.run_id} is a backfill; its windows are runs of their own")
        return await ask(self._journal, self._control, row.owner, command)

    @within(DEADLINE_S)
    async def approvals(self, tenant: str, *, dag_id: str | None, run_id: str | None) -> list[ApprovalView]:
        """Open approvals, oldest first, at most APPROVALS_MAX."""
        kind = approvals_of(tenant)
        found = {
            key: codec.decode_document(record, ApprovalView)
            for key, record in (await self._journal.records(kind)).items()
        }
        wanted = {k: v for k, v in found.items() if dag_id in (None, v.dag_id) and run_id in (None, v.run_id)}
        newest: dict[tuple[str, str], str] = {}
        for key, view in wanted.items():
            other = newest.get((view.run_id, view.task))
            if other is None or found[other].attempt < view.attempt:
                newest[view.run_id, view.task] = key
        over = await self._over([wanted[key] for key in newest.values()])
        gone = [key for key, view in wanted.items() if key not in newest.values() or (view.run_id, view.task) in over]
        if gone:
            await self._journal.put_records(kind, dict.fromkeys(gone))
        open_ = [wanted[key] for place, key in newest.items() if place not in over]
        return sorted(open_, key=lambda view: (view.asked_at, view.run_id, view.task))[:APPROVALS_MAX]

    async def _over(self, views: Iterable[ApprovalView]) -> set[tuple[str, str]]:
        """(run, task) of those that do not wait any more."""
        by_run: dict[str, list[str]] = {}
        for view in views:
            by_run.setdefault(view.run_id, []).append(view.task)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look(run_id: str) -> dict[str, str]:
            async with gate:
                found = await self._journal.look(run_id)
            return {} if found is None or found[0].state in TERMINAL else found[1]

        letters = dict(zip(by_run, await asyncio.gather(*map(look, by_run)), strict=True))
        return {(run, task) for run, tasks in by_run.items() for task in tasks if letters[run].get(task) != "w"}

    @within(DEADLINE_S)
    async def query(self, tenant: str, run_id: str, name: str) -> PublishedView:
        """What the run answers to `name`. Raises NotFound."""
        row, standing = await self._standing(tenant, run_id)
        if name not in BUILT_IN:
            if name not in standing.published:
                raise NotFound("published value", name)
            return standing.published[name]
        return await self._known(row, standing, name)

    @within(DEADLINE_S)
    async def queries(self, tenant: str, run_id: str) -> list[PublishedView]:
        """Everything the run answers, by name."""
        row, standing = await self._standing(tenant, run_id)
        known = [await self._known(row, standing, name) for name in BUILT_IN]
        return sorted([*known, *standing.published.values()], key=lambda view: view.name)

    async def waits(self, run_id: str) -> dict[str, WaitView]:
        """task -> what it waits for without a worker, of a run that this caller may see."""
        return (await self._read(run_id)).waiting

    async def _known(self, row: RunRow, standing: Standing, name: str) -> PublishedView:
        told: object
        if name == "progress":
            told = standing.progress(await self._names(row))
        else:
            from orchestrator.narration import instant_text

            tasks = {task: wait_json(wait, instant_text) for task, wait in standing.waiting.items()}
            told = {"tasks": tasks, "signals_kept": standing.signals}
        return PublishedView(name, msgspec.Raw(msgspec.json.encode(told)))

    async def _standing(self, tenant: str, run_id: str) -> tuple[RunRow, Standing]:
        row = shown(await self._journal.summary(run_id), tenant, run_id)
        if row.run_type == "backfill":
            raise Invalid(f"run {run_id} is a backfill; ask its windows")
        return row, await self._read(run_id)

    async def _read(self, run_id: str) -> Standing:
        standing, seen = Standing(), 0
        while batches := await self._journal.events(run_id, seen, _CHUNK):
            for batch in batches:
                for event in codec.decode_events(batch.events, batch.schema):
                    standing.tell(event)
            seen = batches[-1].last_version
        return standing

    async def _names(self, row: RunRow) -> tuple[str, ...]:
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        return tuple(task.id for task in definition.tasks)
