"""What is done for a backfill that is owned: each of it once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from actors.backfill_windows import BackfillWindows
from actors.mail import Observed
from orchestrator.backfill import CancelAll
from orchestrator.rows import ChildRow
from tests.builders import AT
from tests.turn_builders import a_backfill
from tests.virtual_time import virtually

T = TypeVar("T")


class Shell:
    """Who owns it: its spawned work is done when asked for."""

    def __init__(self) -> None:
        self.work: list[Awaitable[None]] = []
        self.posted: list[Observed] = []
        self.cancelled: list[list[str]] = []
        self.windows = BackfillWindows(self, self, self, self.posted.append)  # type: ignore[arg-type]  # the parts that are asked

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await attempt()

    def _spawn(self, work: Any) -> None:
        self.work.append(work)

    async def children(self, run_id: str) -> tuple[ChildRow, ...]:
        assert run_id == "run_b"
        return (child("c1", "succeeded", 4), child("c2", "running", 2), child("c0", "succeeded", 9, kept=True))

    async def cancel(self, children: Iterable[str]) -> None:
        self.cancelled.append(list(children))

    async def done(self) -> None:
        while self.work:
            await self.work.pop(0)


def child(run_id: str, state: str, version: int, kept: bool = False) -> ChildRow:
    return ChildRow(run_id=run_id, state=state, version=version, window_key=run_id, kept=kept, dag_version=1)


def test_a_backfill_is_claimed_once_and_learns_what_its_own_windows_did_before() -> None:
    async def story() -> None:
        shell, backfill = Shell(), a_backfill()
        shell.windows.look(backfill)
        shell.windows.look(backfill)
        await shell.done()
        assert backfill.claimed
        windows = (("c1", "succeeded", 4), ("c2", "running", 2))
        assert shell.posted == [Observed("run_b", windows, whole=True)]
        assert not shell.cancelled

    virtually(story())


def test_windows_of_a_cancelled_backfill_are_cancelled_once() -> None:
    async def story() -> None:
        shell, backfill = Shell(), a_backfill()
        shell.windows.look(backfill)
        await shell.done()
        backfill.step(CancelAll(), AT)
        shell.windows.look(backfill)
        shell.windows.look(backfill)
        await shell.done()
        assert shell.cancelled == [["c1", "c2"]]

    virtually(story())


def test_a_backfill_that_is_read_while_it_is_being_cancelled_goes_on_with_that() -> None:
    async def story() -> None:
        shell, backfill = Shell(), a_backfill()
        backfill.step(CancelAll(), AT)
        shell.windows.look(backfill)
        await shell.done()
        assert shell.posted
        assert shell.cancelled == [["c1", "c2"]]

    virtually(story())
