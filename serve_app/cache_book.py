"""What people do about results that are used again (docs/caching.md): they say that those from before do not count.

One record, whatever there is to forget: an instant, which whoever looks a task up compares with the beginning of the
attempt that returned the result. So an attempt that runs at this moment does not count either, and the same request
sent twice does no harm. What it makes useless is forgotten when it expires.
"""

from __future__ import annotations

from actors.clock import Clock
from actors.hosted import milliseconds
from orchestrator.caching import UNCACHED, uncached_key
from orchestrator.errors import NotFound
from orchestrator.ports import Journal
from orchestrator.views import Uncached
from serve_app.dag_book import DagBook
from serve_app.deadlines import DEADLINE_S, within


class CacheBook:
    """`ports.Caches` over the journal."""

    def __init__(self, journal: Journal, book: DagBook, clock: Clock) -> None:
        self._journal = journal
        self._book = book
        self._clock = clock

    @within(DEADLINE_S)
    async def uncache(self, tenant: str, dag_id: str, task: str | None) -> Uncached:
        """The DAG's tasks, or one of them, use no result of an attempt that has begun by now. Raises NotFound."""
        dag = await self._book.fresh(tenant, dag_id)
        if task is not None and all(spec.id != task for spec in dag.definition.tasks):
            raise NotFound("task", task)
        now = self._clock.now()
        record = str(milliseconds(now)).encode()
        await self._journal.put_records(UNCACHED, {uncached_key(tenant, dag_id, task or ""): record})
        return Uncached(dag_id, task, now)
