"""Compiled DAG versions, read from the journal once and shared by all runs of a version.

Versions never change, so what is cached stays right; the least recently used ones are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from orchestrator import codec
from orchestrator.compiled import Compiled
from orchestrator.errors import Broken
from orchestrator.ports import Journal

#: tasks of the versions that are kept, together
KEPT_TASKS = 200_000


class Definitions:
    """Versions by (tenant, DAG, version)."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: OrderedDict[tuple[str, str, int], Compiled] = OrderedDict()
        self._tasks = 0

    async def of(self, tenant: str, dag_id: str, versions: Iterable[int]) -> Callable[[int], Compiled]:
        """A look-up of these versions. Raises JournalUnavailable; Broken when a version is not there."""
        found = {version: await self._one(tenant, dag_id, version) for version in versions}
        return found.__getitem__

    async def _one(self, tenant: str, dag_id: str, version: int) -> Compiled:
        key = (tenant, dag_id, version)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        blob = await self._journal.definition(tenant, dag_id, version)
        if blob is None:
            raise Broken(f"definition {dag_id} version {version} of tenant {tenant} is not in the journal")
        compiled = Compiled(codec.decode_definition(blob), version)
        self._kept[key] = compiled
        self._tasks += len(compiled.specs)
        while self._tasks > KEPT_TASKS and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._tasks -= len(dropped.specs)
        return compiled
