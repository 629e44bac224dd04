"""The blueprints that jobs in memory are pinned to, at hand without waiting: they are read before they are needed.

What was published is never changed (`blueprint_book.py`), so what was read once is kept.
"""

from __future__ import annotations

from actors.blueprint_book import CURRENT, BlueprintBook
from orchestrator import outside_codec
from orchestrator.blueprint import Blueprint
from orchestrator.errors import Broken
from orchestrator.ports import Journal


class PinnedBlueprints:
    """Versions by name and number."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._book = BlueprintBook(journal)
        self._known: dict[tuple[str, int], Blueprint | None] = {}

    def version(self, name: str, version: int) -> Blueprint | None:
        """One that was read; None = it is not in the journal."""
        return self._known.get((name, version))

    async def read(self, name: str, version: int) -> None:
        """It can be asked for from now on. Raises JournalUnavailable."""
        if self._known.get((name, version)) is None:
            try:
                self._known[name, version] = await self._book.version(name, version)
            except Broken:
                self._known[name, version] = None

    async def deployed(self, name: str) -> tuple[Blueprint, int] | None:
        """The version that new jobs get; None when no such blueprint is deployed. Raises JournalUnavailable."""
        record = await self._journal.record(CURRENT, name)
        published = outside_codec.decode_published(record) if record is not None else None
        if published is None or not published.deployed:
            return None
        return published.blueprint, published.version
