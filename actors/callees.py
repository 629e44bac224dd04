"""Starts the runs that tasks of hosted runs call, and finds out how those ended.

    a call is durable ──▶ the child exists (or: there is no such DAG) ──▶ it has ended ──▶ `Returned` to the mailbox
                              ▲                                               ▲
    the parent was read ──────┴───────────────────────────────────────────────┴── the journal tells that the child ended

One look does whatever is left to do about a call, and every reason for a look is the same look: what is done already is
found done, since the child's id is the parent's, and the journal creates a child only while it is called. A run with a
child that may not exist yet stays in memory (`busy`); later the journal wakes it, whoever has it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from actors.clock import Clock
from actors.definitions import Definitions
from actors.hosted import HostedRun, milliseconds
from actors.mail import Returned
from orchestrator import calls, codec, traces
from orchestrator import events as e
from orchestrator.deadlines import wake_ms
from orchestrator.definition import Definition
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.run_state import Run
from orchestrator.steps import Creation, NewRun

T = TypeVar("T")

#: seconds until a child whose DAG has just changed is tried again
AGAIN_S = 0.02


class Shell(Protocol):
    """Whose runs call."""

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The journal's answer, however long it is away."""

    def _spawn(self, work: Any) -> None:
        """Let it go on by itself."""


@dataclass(frozen=True, slots=True)
class _Calling:
    """One attempt that calls."""

    tenant: str
    run_id: str
    task: str
    attempt: int
    #: for the run that is called
    traceparent: str


class Callees:
    """Of one RunActor."""

    def __init__(
        self, shell: Shell, journal: Journal, clock: Clock, post: Callable[[Returned], None], traced: bool
    ) -> None:
        self._shell = shell
        self._journal = journal
        self._clock = clock
        self._post = post
        self._traced = traced
        self._definitions = Definitions(journal)
        #: those that are being looked at; True = there is news since
        self._looking: dict[_Calling, bool] = {}
        self._busy: dict[str, int] = {}

    def busy(self, run_id: str) -> bool:
        """Is something under way about a child of the run?"""
        return run_id in self._busy

    def opened(self, hosted: HostedRun) -> None:
        """Calls of the run have become durable."""
        hosted.calling = False
        self.look(hosted.run)

    def look(self, run: Run) -> None:
        """Do what is left to do about every open call of the run."""
        for position, open_ in run.standby.open.items() if run.standby is not None else ():
            if open_.wait.call is not None:
                key = self._calling(run, run.compiled.graph.names[position], open_.attempt)
                if key in self._looking:
                    self._looking[key] = True
                    continue
                self._looking[key] = False
                self._busy[run.run_id] = self._busy.get(run.run_id, 0) + 1
                self._shell._spawn(self._look(key, open_.wait.call))

    def _calling(self, run: Run, task: str, attempt: int) -> _Calling:
        told = traces.told_to(run.run_id, task, attempt, run.traceparent, self._traced)
        return _Calling(run.tenant, run.run_id, task, attempt, told)

    async def _look(self, key: _Calling, call: e.Call) -> None:
        again = True
        while again:
            self._looking[key] = False
            returned = await self._outcome(key, call)
            again = self._looking[key] and returned is None
        del self._looking[key]
        self._busy[key.run_id] -= 1
        if not self._busy[key.run_id]:
            del self._busy[key.run_id]
        if returned is not None:
            self._post(Returned(key.run_id, returned))

    async def _outcome(self, key: _Calling, call: e.Call) -> calls.Return | None:
        """How the call ended; None = it goes on, or nobody waits for it any more."""
        row = await self._shell.insist(lambda: self._journal.summary(call.run_id))
        if row is None:
            return await self._start(key, call)
        if row.state not in TERMINAL:
            return None
        if row.state != "succeeded":
            told = f": {row.error}" if row.error else ""
            return calls.Return(key.task, key.attempt, error=f"RunFailed: run {call.run_id} is {row.state}{told}")
        return await self._result(key, row)

    async def _result(self, key: _Calling, row: RunRow) -> calls.Return:
        histories = await self._shell.insist(lambda: self._journal.load([row.run_id]))
        batches = histories[0].batches if histories else ()
        events = [event for batch in batches for event in codec.decode_events(batch.events, batch.schema)]
        where = (row.tenant, row.dag_id, (row.dag_version,))
        lookup = await self._shell.insist(lambda: self._definitions.of(*where))
        return calls.Return(key.task, key.attempt, calls.result_of(lookup(row.dag_version).definition, events))

    async def _start(self, key: _Calling, call: e.Call) -> calls.Return | None:
        while True:
            dag = await self._shell.insist(lambda: self._journal.dag(key.tenant, call.dag_id))
            if dag is None:
                return calls.Return(key.task, key.attempt, error=f"NotFound: there is no DAG {call.dag_id}")
            new = self._new_run(key, call, dag.version, codec.decode_definition(dag.definition))
            creation = Creation((new,))
            [result] = await self._shell.insist(lambda creation=creation: self._journal.create_runs([creation]))  # type: ignore[misc]  # mypy infers no lambda with defaults
            if result.status != "changed":
                return None  # whoever waits no longer needs no answer
            await asyncio.sleep(AGAIN_S)

    def _new_run(self, key: _Calling, call: e.Call, version: int, definition: Definition) -> NewRun:
        now = self._clock.now()
        created = e.RunCreated(
            at=now,
            run_id=call.run_id,
            tenant=key.tenant,
            dag_id=call.dag_id,
            dag_version=version,
            run_type="manual",
            window=call.window,
            params=call.params,
            called_by=e.CalledBy(key.run_id, key.task, key.attempt, call.chain, call.backfill),
            traceparent=key.traceparent,
        )
        return NewRun(
            run_id=call.run_id,
            tenant=key.tenant,
            dag_id=call.dag_id,
            dag_version=version,
            run_type="manual",
            created_ms=milliseconds(now),
            event=codec.encode_events([created]),
            window_key=call.window.key() if call.window else "",
            sla_ms=milliseconds(now) + definition.sla_s * 1000 if definition.sla_s else None,
            wake_ms=wake_ms(definition, milliseconds(now)),
            caller=(key.run_id, key.task),
        )
