"""Which control plane is in charge, as a replica of one of them tells it; rules: `orchestrator/planes.py`.

A plane that stands by is ready: what it accepts is durable, and the plane in charge of the same journal does it.
"""

from __future__ import annotations

from actors.plane_journal import Planes
from orchestrator.errors import JournalUnavailable
from orchestrator.planes import PlaneView
from orchestrator.ports import ControlPlane


class PlaneBook:
    """`ports.Planes`; without `planes` there can be no other."""

    def __init__(self, control: ControlPlane, planes: Planes | None = None, plane: str = "") -> None:
        self._control = control
        self._planes = planes
        self._plane = plane

    async def view(self) -> PlaneView:
        """This plane, and who is in charge. Raises JournalUnavailable."""
        if self._planes is None:
            return PlaneView(self._plane, in_charge=True)
        lease = await self._planes.lease()
        return PlaneView(self._plane, lease.plane == self._plane, lease)

    async def standby(self) -> PlaneView | None:
        """Not None when this plane stands by, as far as that can be known now."""
        if self._planes is None:
            return None
        try:
            view = await self.view()
        except JournalUnavailable:
            return None
        return None if view.in_charge else view

    async def take_over(self) -> PlaneView:
        """Whoever is in charge is asked to hand over, which takes seconds; how it stands now. Raises Unavailable."""
        view = await self.view()
        if not view.in_charge:
            await self._control.take_over()
        return view
