"""Tenants' weights, as records of the journal.

A weight is durable first; the scheduler is told then, and reads the records now and then in case it was not reached.
"""

from __future__ import annotations

from orchestrator import codec
from orchestrator.cluster_views import TenantShare
from orchestrator.errors import Unavailable
from orchestrator.ports import ControlPlane, Journal
from orchestrator.records import TENANT_SHARES


class TenantShares:
    """Reads and sets weights."""

    def __init__(self, journal: Journal, control: ControlPlane) -> None:
        self._journal = journal
        self._control = control

    async def all(self) -> list[TenantShare]:
        """Of tenants that were given one, by name; all others weigh 1."""
        records = await self._journal.records(TENANT_SHARES)
        return [TenantShare(tenant, codec.decode_share(record)) for tenant, record in sorted(records.items())]

    async def put(self, tenant: str, weight: float) -> TenantShare:
        """The tenant weighs that much, durably. 1 is what it weighed before it was given any."""
        await self._journal.put_records(TENANT_SHARES, {tenant: None if weight == 1 else codec.encode_share(weight)})
        try:
            await self._control.weights_changed()
        except Unavailable:  # it reads them when it is back
            pass
        return TenantShare(tenant, weight)
