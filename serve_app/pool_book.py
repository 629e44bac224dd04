"""Pools of workers as people define and see them.

Definitions are records of the journal, written by the supervisor, which starts and ends workers: when it has answered,
the new definition is durable and holds. Those for tasks that ask for resources are written with the DAG; the supervisor
reads them when such a task waits.
"""

from __future__ import annotations

from orchestrator import actor_codec, codec
from orchestrator.cluster_views import PoolView
from orchestrator.definition import Definition
from orchestrator.errors import NotFound
from orchestrator.pools import POOLS, POOLS_MAX, PoolSpec, check, too_many
from orchestrator.ports import ControlPlane, Journal
from orchestrator.task_shapes import pools_of
from serve_app.deadlines import LONG_DEADLINE_S, within


async def define_pools(journal: Journal, definition: Definition) -> None:
    """The pools for what its tasks ask of the cluster are defined, unless somebody did.

    Raises Conflict when there are too many, and JournalUnavailable.
    """
    asked = pools_of(definition)
    if not asked:
        return
    known = await journal.records(POOLS)
    new = {name: codec.encode_pool(spec) for name, spec in asked.items() if name not in known}
    if new and len(known) + len(new) > POOLS_MAX:
        raise too_many(POOLS_MAX)
    if new:
        await journal.put_records(POOLS, new)


class PoolBook:
    """`ports.Pools` over the supervisor."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    @within(LONG_DEADLINE_S)
    async def pools(self) -> list[PoolView]:
        """Pools that are defined, or have workers, by name."""
        return actor_codec.decode_pool_views(await self._control.pools())

    async def pool(self, name: str) -> PoolView:
        """One of them. Raises NotFound."""
        found = next((view for view in await self.pools() if view.name == name), None)
        if found is None:
            raise NotFound("pool", name)
        return found

    @within(LONG_DEADLINE_S)
    async def set_pool(self, name: str, spec: PoolSpec) -> PoolView:
        """The pool is so from now on. Raises Invalid."""
        check(spec)
        return actor_codec.decode_pool_views(await self._control.set_pool(actor_codec.encode_pool_change(name, spec)))[
            0
        ]

    @within(LONG_DEADLINE_S)
    async def delete_pool(self, name: str) -> None:
        """It is not defined any more; its workers finish what they do. Raises NotFound."""
        await self._control.set_pool(actor_codec.encode_pool_change(name, None))
