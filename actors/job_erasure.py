"""Every job there ever was, to be erased: which tenants have had jobs is a record, since lists are per tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from actors.record_writer import RecordWriter
from orchestrator.job_birth import KIND as JOB_KIND
from orchestrator.ports import Journal
from orchestrator.rows import RunFilter

KIND = "job_tenant"
_PAGE = 1_000
#: the journal's answer, however long it is away
Insist = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class JobErasure:
    """Finds and erases the jobs of every tenant."""

    def __init__(self, journal: Journal, writer: RecordWriter) -> None:
        self._journal = journal
        self._writer = writer
        self._tenants: set[str] = set()

    async def load(self, insist: Insist) -> None:
        """Tenants that are known to have had jobs."""
        self._tenants |= set(await insist(lambda: self._journal.records(KIND)))

    def note(self, tenant: str) -> None:
        """The tenant has a job; to be written with the next `begin_flush`."""
        if tenant not in self._tenants:
            self._tenants.add(tenant)
            self._writer.note(tenant, b"{}")

    def begin_flush(self) -> None:
        """What was noted is durable soon."""
        self._writer.begin()

    async def erase(self, insist: Insist, held: Sequence[str]) -> list[str]:
        """They are gone from the journal; their ids. `held`: jobs that are in memory."""
        found = set(held)
        for tenant in sorted(self._tenants):
            wanted, cursor = RunFilter(tenant=tenant, kind=JOB_KIND), None
            while True:
                page = await insist(partial(self._journal.summaries, wanted, cursor, _PAGE))
                found |= {row.run_id for row in page.rows}
                cursor = page.next_cursor
                if cursor is None:
                    break
        ids = sorted(found)
        for start in range(0, len(ids), _PAGE):
            await insist(partial(self._journal.erase, ids[start : start + _PAGE]))
        return ids
