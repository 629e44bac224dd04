"""Instances as this replica has read them: one fold each, read on where it stands.

A log only grows, so what was read stays right; the least recently used folds are dropped and read again when needed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from orchestrator import codec
from orchestrator.instance_events import InstanceFold
from orchestrator.ports import Journal

KEPT = 64
#: event batches per read
BATCHES = 64


class InstanceBook:
    """Read-through memory of folds."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: OrderedDict[str, tuple[InstanceFold, asyncio.Lock]] = OrderedDict()

    async def read(self, run_id: str) -> InstanceFold:
        """The instance, up to date. The fold is shared: ask it before the next await."""
        fold, lock = self._kept.setdefault(run_id, (InstanceFold(run_id), asyncio.Lock()))
        self._kept.move_to_end(run_id)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        async with lock:
            while batches := await self._journal.events(run_id, fold.version, BATCHES):
                for batch in batches:
                    fold.tell(codec.decode_events(batch.events, batch.schema))
        return fold
