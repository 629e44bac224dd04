"""actors.plane_keeper: what no history of claims has (`tests/property/test_planes.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from actors import plane_keeper
from actors.plane_keeper import PlaneKeeper
from orchestrator.errors import Broken
from orchestrator.planes import Claim, Lease

HERE, ELSEWHERE = Lease("here", 1), Lease("elsewhere", 2)


class Answers:
    """The lease, as told one answer after another; None = the journal refuses the step."""

    def __init__(self, *answers: Lease | None) -> None:
        self._answers: Iterator[Lease | None] = iter(answers)

    async def claim_lease(self, asked: Claim) -> Lease:
        answer = next(self._answers)
        if answer is None:
            raise Broken("the journal refused a step: ERR max number of clients reached")
        return answer

    async def release_lease(self, plane: str) -> Lease:
        raise Broken("the journal refused a step: ERR max number of clients reached")

    async def lease(self) -> Lease:
        return HERE


async def life(*answers: Lease | None) -> list[str]:
    """What a plane that is told so of the lease does, until it leaves."""
    told: list[str] = []

    async def end_cast() -> None:
        told.append("ended")

    begun, left = (lambda word=word: told.append(word) for word in ("begun", "left"))
    async with asyncio.timeout(5):
        await PlaneKeeper(Answers(*answers), Claim("here"), begun, end_cast, left).run()
    return told


async def test_a_journal_that_refuses_steps_keeps_nobody_from_standing_by_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plane_keeper, "RENEW_S", 0.001)
    monkeypatch.setattr(plane_keeper, "LOOK_S", 0.001)
    assert await life(None, HERE, None, ELSEWHERE) == ["begun", "ended", "left"]


async def test_a_plane_that_has_the_lease_again_after_another_one_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was paused meanwhile: what it knows of pools, and its epochs, are of a former term."""
    monkeypatch.setattr(plane_keeper, "RENEW_S", 0.001)
    assert await life(HERE, HERE, Lease("here", 3)) == ["begun", "ended", "left"]


async def test_a_plane_that_cannot_begin_ends_its_process_and_does_not_hold_the_lease_idly() -> None:
    left = asyncio.Event()

    def begin() -> None:
        raise OSError("the folder of plans is away")

    async def end_cast() -> None:
        raise AssertionError("there is none")

    PlaneKeeper(Answers(HERE), Claim("here"), begin, end_cast, left.set).start()
    async with asyncio.timeout(5):
        await left.wait()
