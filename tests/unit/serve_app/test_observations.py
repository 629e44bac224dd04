"""serve_app.observations: requests that were answered, on their way to the whole system's histogram."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from orchestrator.errors import JournalUnavailable
from serve_app.observations import Observations
from serve_app.ports import Observation


class Counting:
    """The gateway: away, or slow, until told otherwise."""

    def __init__(self) -> None:
        self.away = False
        self.slow: asyncio.Event | None = None
        self.routes: list[str] = []

    async def count(self, observations: Sequence[Observation]) -> None:
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            raise JournalUnavailable("nobody answers")
        self.routes += [each.route for each in observations]


def seen(route: str) -> Observation:
    return Observation("GET", route, 200, 0.1)


async def test_what_cannot_be_handed_over_is_kept_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.observations.KEPT", 3)
    counting = Counting()
    observations = Observations(counting.count)
    counting.away, counting.slow = True, asyncio.Event()
    for route in ("a", "b"):
        observations.add(seen(route))
    flushing = asyncio.create_task(observations.flush())
    await asyncio.sleep(0)
    for route in ("c", "d"):
        observations.add(seen(route))
    counting.slow.set()
    await flushing
    counting.away = False
    await observations.flush()
    assert counting.routes == ["b", "c", "d"]
