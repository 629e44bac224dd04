"""Pools of workers as people define and see them.

Definitions are records of the journal, written by the supervisor, which starts and ends workers: when it has answered,
the new definition is durable and holds.
"""

from __future__ import annotations

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.pools import PoolSpec, check
from orchestrator.ports import ControlPlane
from orchestrator.views import PoolView
from serve_app.deadlines import LONG_DEADLINE_S, within


class PoolBook:
    """`ports.Pools` over the supervisor."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    @within(LONG_DEADLINE_S)
    async def pools(self) -> list[PoolView]:
        """Pools that are defined, or have workers, by name."""
        return codec.decode_pool_views(await self._control.pools())

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
        return codec.decode_pool_views(await self._control.set_pool(codec.encode_pool_change(name, spec)))[0]

    @within(LONG_DEADLINE_S)
    async def delete_pool(self, name: str) -> None:
        """It is not defined any more; its workers finish what they do. Raises NotFound."""
        await self._control.set_pool(codec.encode_pool_change(name, None))
