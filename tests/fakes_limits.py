"""Limits in memory, behind the port of the HTTP layer."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.cluster_views import LimitView, RunWaiting, WaitingView
from orchestrator.errors import NotFound
from orchestrator.limits import Limit


class FakeLimits:
    """`ports.Limits`."""

    def __init__(self, check: Callable[[], None], defined: dict[tuple[str, str], Limit]) -> None:
        #: raises when the system is to be broken
        self._check = check
        #: by tenant and name
        self.defined = defined

    async def limits(self, tenant: str) -> list[LimitView]:
        self._check()
        return [_view(name, limit) for (owner, name), limit in sorted(self.defined.items()) if owner == tenant]

    async def limit(self, tenant: str, name: str) -> LimitView:
        self._check()
        if (tenant, name) not in self.defined:
            raise NotFound("limit", name)
        return _view(name, self.defined[tenant, name])

    async def set_limit(self, tenant: str, name: str, limit: Limit) -> LimitView:
        self._check()
        self.defined[tenant, name] = limit
        return _view(name, limit)

    async def delete_limit(self, tenant: str, name: str) -> None:
        await self.limit(tenant, name)
        del self.defined[tenant, name]

    async def waiting(self, tenant: str, run_id: str) -> RunWaiting:
        self._check()
        if not run_id.startswith("run_"):
            raise NotFound("run", run_id)
        tasks = (WaitingView("extract", "gpu", ("pool gpu has no workers", "a worker slot of pool gpu")),)
        return RunWaiting(run_id, "slot", "manual", share=0.5, tasks=tasks)


def _view(name: str, limit: Limit) -> LimitView:
    return LimitView(name, max_running=limit.max_running, rate=limit.rate, running=1, waiting=2)
