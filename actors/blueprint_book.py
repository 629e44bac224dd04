"""Versions of blueprints in the journal: published once per start, read by whoever holds or serves jobs.

    records `blueprint`           name -> Published: the version that new jobs get
    records `blueprint_version`   name@version -> its document, for ever: jobs are pinned to the one they began with

A content hash that differs from the published one raises the version by one. Documents go first, so that a version that
somebody can begin with can always be read. A declared blueprint is carried out as its version says. One in Python is
not: its document tells which states there were and where they led, but the handlers that run are those deployed now.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import outside_codec
from orchestrator.blueprint import Blueprint, Published
from orchestrator.errors import Broken
from orchestrator.ports import Journal

CURRENT = "blueprint"
VERSIONS = "blueprint_version"


class BlueprintBook:
    """Blueprints in the journal. Versions never change, so what was read once is kept."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: dict[tuple[str, int], Blueprint] = {}

    async def publish(self, blueprints: Sequence[Blueprint]) -> dict[str, int]:
        """These are the deployed ones; name -> version. Durable. Raises JournalUnavailable."""
        before = await self._read()
        now = {one.name: _published(one, before.get(one.name)) for one in blueprints}
        gone = {name: Published(old.version, False, old.blueprint) for name, old in before.items() if name not in now}
        documents = {
            _key(name, one.version): outside_codec.encode_blueprint(one.blueprint) for name, one in now.items()
        }
        await self._journal.put_records(VERSIONS, documents)
        entries = {name: outside_codec.encode_published(one) for name, one in (gone | now).items()}
        await self._journal.put_records(CURRENT, entries)
        return {name: one.version for name, one in now.items()}

    async def deployed(self) -> dict[str, Published]:
        """What jobs can begin with, by name. Raises JournalUnavailable."""
        return {name: one for name, one in (await self._read()).items() if one.deployed}

    async def version(self, name: str, version: int) -> Blueprint:
        """The document of a version that was published. Raises JournalUnavailable; Broken when there is none."""
        kept = self._kept.get((name, version))
        if kept is not None:
            return kept
        record = await self._journal.record(VERSIONS, _key(name, version))
        if record is None:
            raise Broken(f"blueprint {name} version {version} is not in the journal")
        return self._kept.setdefault((name, version), outside_codec.decode_blueprint(record))

    async def _read(self) -> dict[str, Published]:
        records = await self._journal.records(CURRENT)
        return {name: outside_codec.decode_published(record) for name, record in records.items()}


def _published(blueprint: Blueprint, before: Published | None) -> Published:
    if before is None:
        return Published(1, True, blueprint)
    same = before.blueprint.content_hash == blueprint.content_hash
    return Published(before.version if same else before.version + 1, True, blueprint)


def _key(name: str, version: int) -> str:
    return f"{name}@{version}"
