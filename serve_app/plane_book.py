"""Which control plane is in charge, as a replica of one of them tells it; rules: `orchestrator/planes.py`.

A plane that stands by is ready: what it accepts is durable, and the plane in charge of the same journal does it. What
only an actor can answer fails there, since it has none: `told_by` makes that failure say who is in charge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from actors.plane_journal import Planes
from orchestrator.errors import JournalUnavailable, NotInCharge, Unavailable
from orchestrator.planes import PlaneView, age_ms
from orchestrator.ports import ControlPlane

#: seconds for which an answer counts: what fails is asked again and again
_KNOWN_S = 1.0


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
        lease, now_ms = await self._planes.dated_lease()
        age = age_ms(lease, now_ms)
        return PlaneView(self._plane, lease.plane == self._plane, lease, None if age is None else age / 1000)

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


def told_by(control: ControlPlane, planes: PlaneBook) -> ControlPlane:
    """The same; where it raises Unavailable it raises NotInCharge while this plane stands by."""
    return cast(ControlPlane, _Telling(control, planes))


class _Telling:
    """Passes every method on. None of them has anything to do with it, so none is written down here."""

    def __init__(self, control: ControlPlane, planes: PlaneBook) -> None:
        self._control = control
        self._planes = planes
        self._known: PlaneView | None = None
        self._known_s = -_KNOWN_S

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        return partial(self._call, getattr(self._control, name))

    async def _call(self, method: Callable[..., Awaitable[object]], *args: object, **more: object) -> object:
        try:
            return await method(*args, **more)
        except JournalUnavailable:
            raise
        except Unavailable as unavailable:
            standby = await self._standby()
            if standby is None:
                raise
            raise NotInCharge(standby.lease.plane, standby.lease.url) from unavailable

    async def _standby(self) -> PlaneView | None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._known_s + _KNOWN_S:
            self._known, self._known_s = await self._planes.standby(), now_s
        return self._known
