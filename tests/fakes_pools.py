"""Pools in memory, behind the port of the HTTP layer."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.cluster_views import PoolView
from orchestrator.errors import NotFound
from orchestrator.pools import PoolSpec, fixed


class FakePools:
    """`ports.Pools`."""

    def __init__(self, check: Callable[[], None], defined: dict[str, PoolSpec]) -> None:
        #: raises when the system is to be broken
        self._check = check
        self.defined = defined

    async def pools(self) -> list[PoolView]:
        self._check()
        default = PoolView("default", fixed(PoolSpec(), 1), defined=False, wanted=1, workers=1)
        return [default, *(PoolView(name, spec, wanted=spec.min) for name, spec in sorted(self.defined.items()))]

    async def pool(self, name: str) -> PoolView:
        found = {view.name: view for view in await self.pools()}
        if name not in found:
            raise NotFound("pool", name)
        return found[name]

    async def set_pool(self, name: str, spec: PoolSpec) -> PoolView:
        self._check()
        self.defined[name] = spec
        return PoolView(name, spec, wanted=spec.min)

    async def delete_pool(self, name: str) -> None:
        self._check()
        if self.defined.pop(name, None) is None:
            raise NotFound("pool", name)
