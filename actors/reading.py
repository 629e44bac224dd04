"""From a history in the journal to a run or backfill in memory."""

from __future__ import annotations

from collections.abc import Iterable

from actors.definitions import Definitions
from actors.hosted import Hosted, HostedBackfill, HostedRun
from orchestrator import backfill as backfills
from orchestrator import codec
from orchestrator import events as e
from orchestrator import run as runs
from orchestrator.backfill import Backfill
from orchestrator.definition import Window
from orchestrator.ports import Journal
from orchestrator.rows import History


class Reader:
    """Folds histories; keeps the definitions that it needs for that."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._definitions = Definitions(journal)

    async def revive(self, history: History) -> Hosted:
        """The run or backfill that a history tells of; its owner in the journal, if any, is the reader. Raises
        JournalUnavailable.
        """
        events = [event for batch in history.batches for event in codec.decode_events(batch.events, batch.schema)]
        first = events[0]
        if isinstance(first, e.BackfillCreated):
            return await self._revive_backfill(first, history.row.dag_version, events[1:], history.row.max_active_runs)
        lookup = await self._definitions.of(history.row.tenant, history.row.dag_id, runs.dag_versions(events))
        return HostedRun(runs.fold(events, lookup), history.row.sla_ms, claimed=history.row.owner != "")

    async def _revive_backfill(
        self, created: e.BackfillCreated, version: int, events: Iterable[e.Event], cap: int | None
    ) -> HostedBackfill:
        lookup = await self._definitions.of(created.tenant, created.dag_id, (version,))
        children = await self._journal.children(created.run_id)
        kept = frozenset(child.run_id for child in children if child.kept)
        backfill = Backfill(created, ((c.run_id, Window.of_key(c.window_key)) for c in children), kept)
        for event in events:
            backfills.apply(backfill, event)
        backfill.max_active_runs = cap  # old journals have restarts that changed it without an event
        seen = {child.run_id: child.version for child in children if backfill.states.get(child.run_id) == child.state}
        return HostedBackfill(backfill, seen, lookup(version).definition.callback_url)
