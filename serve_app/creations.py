"""Group commit for creations: requests that arrive while one journal step is under way share the next."""

from __future__ import annotations

import asyncio
import contextvars

from orchestrator.errors import OrchestratorError
from orchestrator.ports import Journal
from orchestrator.steps import Creation, CreationResult

#: runs in one step: a bound on how long the journal is held
RUNS_MAX = 2000


class Creations:
    """Creates runs; each caller gets its own answer."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[tuple[Creation, asyncio.Future[CreationResult]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def create(self, creation: Creation) -> CreationResult:
        """Durable when this returns. Raises JournalUnavailable."""
        answer: asyncio.Future[CreationResult] = asyncio.get_running_loop().create_future()
        self._waiting.append((creation, answer))
        if self._writer is None:
            # Not in the caller's context: Ray cancels by context, and this writes for other callers too.
            self._writer = asyncio.create_task(self._write(), context=contextvars.Context())
        return await answer

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                try:
                    results = await self._journal.create_runs([creation for creation, _ in batch])
                except OrchestratorError as error:
                    _answer(batch, error)
                    continue
                for (_, answer), result in zip(batch, results, strict=True):
                    if not answer.done():
                        answer.set_result(result)
        finally:
            self._writer = None

    def _take(self) -> list[tuple[Creation, asyncio.Future[CreationResult]]]:
        runs = 0
        for n, (creation, _) in enumerate(self._waiting):
            if n and runs + len(creation.runs) > RUNS_MAX:
                batch, self._waiting = self._waiting[:n], self._waiting[n:]
                return batch
            runs += len(creation.runs)
        batch, self._waiting = self._waiting, []
        return batch


def _answer(batch: list[tuple[Creation, asyncio.Future[CreationResult]]], error: OrchestratorError) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
