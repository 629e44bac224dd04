"""Events and assets in memory, behind the port of the HTTP layer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from orchestrator.definition import Definition
from orchestrator.errors import NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.messages import Cause
from orchestrator.starts import EventTold, Trigger, Triggered
from orchestrator.views import AssetView, UpdateView


class FakeStarters:
    """`ports.Starters`."""

    def __init__(
        self,
        check: Callable[[], None],
        trigger: Callable[[str, Trigger], Triggered],
        once: Callable[[Idempotency | None, Callable[[], EventTold]], Awaitable[EventTold]],
        definitions: Callable[[str], list[Definition]],
        at: datetime,
    ) -> None:
        #: raises when the system is to be broken
        self._check = check
        self._trigger = trigger
        self._once = once
        self._definitions = definitions
        self._at = at
        self._told: dict[tuple[str, str, str], EventTold] = {}

    async def tell(
        self, tenant: str, name: str, event_id: str, payload: Mapping[str, Any], idem: Idempotency | None
    ) -> EventTold:
        def tell() -> EventTold:
            if (tenant, name, event_id) in self._told:
                return msgspec.structs.replace(self._told[tenant, name, event_id], duplicate=True)
            listening = [each.dag_id for each in self._definitions(tenant) if each.on_event == name]
            causes = (Cause("event", name, event_id=event_id),)
            runs = [
                self._trigger(tenant, Trigger(dag_id=each, params=dict(payload), causes=causes)) for each in listening
            ]
            told = self._told[tenant, name, event_id] = EventTold(name, event_id, tuple(runs))
            return told

        return await self._once(idem, tell)

    async def assets(self, tenant: str) -> list[AssetView]:
        self._check()
        every = self._definitions(tenant)
        named = {name for dag in every for name in (*dag.consumes, *(a for task in dag.tasks for a in task.produces))}
        return [self._view(tenant, name) for name in sorted(named)]

    async def asset(self, tenant: str, name: str) -> AssetView:
        found = [each for each in await self.assets(tenant) if each.asset == name]
        if not found:
            raise NotFound("asset", name)
        return found[0]

    def _view(self, tenant: str, name: str) -> AssetView:
        every = self._definitions(tenant)
        makers = tuple(dag.dag_id for dag in every if any(name in task.produces for task in dag.tasks))
        last = tuple(UpdateView(Cause("asset", name, "run_1", "load", 1), maker, self._at) for maker in makers)
        return AssetView(name, makers, tuple(dag.dag_id for dag in every if name in dag.consumes), len(last), last)
