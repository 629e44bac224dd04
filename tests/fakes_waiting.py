"""Signals, approvals and queries in memory, behind the port of the HTTP layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orchestrator.command import Ballot
from orchestrator.errors import Conflict, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.rows import TERMINAL
from orchestrator.views import ApprovalView, PublishedView, RunChanged, RunView, SignalSent

if TYPE_CHECKING:
    from tests.fakes_gateway import FakeGateway


class FakeWaiting:
    """`serve_app.ports.Waiting`, in memory: every task is an approval, decided by its first vote."""

    def __init__(self, gateway: FakeGateway) -> None:
        self._gateway = gateway
        #: (run id, name, data)
        self.signals: list[tuple[str, str, bytes]] = []
        self.ballots: list[Ballot] = []
        self.open: list[ApprovalView] = []
        self.published: dict[str, PublishedView] = {}

    async def signal(
        self, tenant: str, run_id: str, name: str, data: msgspec.Raw, signal_id: str | None, idem: Idempotency | None
    ) -> SignalSent:
        run = self._live(await self._gateway.run(tenant, run_id))
        self.signals.append((run_id, name, bytes(data)))
        return SignalSent(run_id, run.state, name, signal_id or "made-up")

    async def decide(self, tenant: str, run_id: str, task: str, ballot: Ballot, idem: Idempotency | None) -> RunChanged:
        run = self._live(await self._gateway.run(tenant, run_id))
        if task not in run.tasks:
            raise NotFound("task", task)
        self.ballots.append(ballot)
        return RunChanged(run_id, run.state, run.attempts, "succeeded")

    async def approvals(self, tenant: str, *, dag_id: str | None, run_id: str | None) -> list[ApprovalView]:
        if self._gateway.broken is not None:
            raise self._gateway.broken
        return [each for each in self.open if dag_id in (None, each.dag_id) and run_id in (None, each.run_id)]

    async def query(self, tenant: str, run_id: str, name: str) -> PublishedView:
        await self._gateway.run(tenant, run_id)
        if name not in self.published:
            raise NotFound("published value", name)
        return self.published[name]

    async def queries(self, tenant: str, run_id: str) -> list[PublishedView]:
        await self._gateway.run(tenant, run_id)
        return list(self.published.values())

    def _live(self, run: RunView) -> RunView:
        if run.state in TERMINAL:
            raise Conflict(f"run {run.run_id} is already {run.state}")
        return run
