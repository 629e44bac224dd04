"""Definitions that this replica has read, so that a trigger costs no read of its own.

A current version may be outdated here: whatever is created with it, the journal checks, and answers
`changed`; then `forget` it and look again. A definition of a given version never changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from actors.hosted import milliseconds
from orchestrator import codec
from orchestrator.definition import Definition, content_hash
from orchestrator.errors import Broken, NotFound
from orchestrator.ports import Journal
from orchestrator.steps import DagWritten, PutDag

KEPT = 256
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CurrentDag:
    """A DAG's current version, as last read."""

    definition: Definition
    version: int
    #: as `DagRow.archived`
    archived: int = 0


class DagBook:
    """Read-through memory of definitions."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._current: _Recent[tuple[str, str], CurrentDag] = _Recent()
        self._versions: _Recent[tuple[str, str, int], Definition] = _Recent()

    async def current(self, tenant: str, dag_id: str) -> CurrentDag:
        """The version that was current when it was last read. Raises NotFound."""
        known = self._current.get((tenant, dag_id))
        return known or await self.fresh(tenant, dag_id)

    async def fresh(self, tenant: str, dag_id: str) -> CurrentDag:
        """The version that is current now. Raises NotFound."""
        row = await self._journal.dag(tenant, dag_id)
        if row is None:
            raise NotFound("DAG", dag_id)
        found = CurrentDag(codec.decode_definition(row.definition), row.version, row.archived)
        self._current.put((tenant, dag_id), found)
        return found

    def forget(self, tenant: str, dag_id: str) -> None:
        """Read it again next time."""
        self._current.drop((tenant, dag_id))

    async def store(self, tenant: str, definition: Definition, base_version: int, now: datetime) -> DagWritten:
        """A definition that starts by nothing but a request is current, if `base_version` was (0 = none)."""
        step = PutDag(
            tenant=tenant,
            dag_id=definition.dag_id,
            definition=codec.encode_definition(definition),
            content_hash=content_hash(definition),
            owner=definition.owner,
            now_ms=milliseconds(now),
            base_version=base_version,
        )
        written = await self._journal.put_dag(step)
        self.forget(tenant, definition.dag_id)
        return written

    async def version(self, tenant: str, dag_id: str, version: int) -> Definition:
        """The definition a run is pinned to."""
        key = (tenant, dag_id, version)
        known = self._versions.get(key)
        if known is None:
            blob = await self._journal.definition(tenant, dag_id, version)
            if blob is None:
                raise Broken(f"DAG {dag_id} has runs of version {version}, which does not exist")
            known = codec.decode_definition(blob)
            self._versions.put(key, known)
        return known


class _Recent(Generic[K, V]):
    """The values used last, a bounded number of them."""

    def __init__(self) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > KEPT:
            self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        self._values.pop(key, None)
